"""Keras's settings that decide which network a script builds: they come from a file that a script does not show."""

import json
import os
from pathlib import Path

from hpc_train.errors import UserError

DEFAULTS = {"floatx": "float32", "image_data_format": "channels_last", "epsilon": 1e-7}


def settings_file() -> Path:
    """The file from which Keras reads its settings; it need not exist."""
    home = Path(os.environ["KERAS_HOME"]) if "KERAS_HOME" in os.environ else Path.home() / ".keras"
    return home / "keras.json"


def in_file() -> dict:
    """What the settings file says; nothing where it is missing or damaged, as in Keras."""
    try:
        found = json.loads(settings_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def wanted_backend() -> str:
    """The backend that Keras will take when it is imported."""
    return os.environ.get("KERAS_BACKEND") or str(in_file().get("backend", "tensorflow"))


def wrong_backend(backend: str) -> str:
    """The line about a backend other than TensorFlow: who chose it, and what to do."""
    where = "" if "KERAS_BACKEND" in os.environ else f" by {settings_file()}"
    return f"Keras runs on {backend}{where}; Horovod needs KERAS_BACKEND=tensorflow"


def current(keras) -> dict:
    """The settings in force."""
    return {name: getattr(keras.config, name)() for name in DEFAULTS}


def set_defaults(keras) -> str:
    """Give the settings Keras's own defaults; returns a note about those that a file had changed, or ""."""
    changed = {name: value for name, value in current(keras).items() if value != DEFAULTS[name]}
    for name in changed:
        getattr(keras.config, f"set_{name}")(DEFAULTS[name])
    return _told(changed, "; this program takes Keras's defaults instead") if changed else ""


def note(keras) -> str:
    """A line about settings that a file has changed, or ""."""
    found = in_file()
    changed = {k: v for k, v in current(keras).items() if v != DEFAULTS[k] and found.get(k) == v}
    return _told(changed, ": the model is built with it") if changed else ""


def check_alike(everybody: list[dict]) -> None:
    """Check that all ranks have the same settings.

    Args:
        everybody: of every rank; empty where all are known to have the same.

    Raises:
        UserError: naming a setting that differs.
    """
    for name in everybody[0] if everybody else ():
        values = sorted({str(settings[name]) for settings in everybody})
        if len(values) > 1:
            raise UserError(
                f"Keras's {name} is {' on some ranks and '.join(values)} on others: the ranks would build different "
                f"networks; make {settings_file()} the same on every node, or set {name} in the script"
            ).agreed()


def _told(settings: dict, rest: str) -> str:
    return f"note: {settings_file()} sets {', '.join(f'{name} {value}' for name, value in settings.items())}{rest}"
