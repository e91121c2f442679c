"""Checkpoints: one HDF5 file with every variable and the progress of the training."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np

from hpc_train.console import say
from hpc_train.data.hdf5.access import open_hdf5, reason
from hpc_train.errors import UserError
from hpc_train.files.seal import Damaged, check_seal, seal
from hpc_train.files.whole import atomic_path, writing
from hpc_train.parallel.variables import everything, named

# Without the seal of version 2, which may be missing from version 1 only.
_UNSEALED, _VERSION = 1, 2


@dataclass
class Progress:
    """How far a training is; no value depends on the number of ranks.

    Args:
        epoch: completed epochs.
        position: samples of the current epoch that all ranks together have consumed.
        step: steps made since the start of the run.
        callbacks: what callbacks remember from epoch to epoch (best value, patience), by name.
        metrics: metric states of the current epoch, summed over the ranks.
    """

    epoch: int = 0
    position: int = 0
    step: int = 0
    callbacks: dict = field(default_factory=dict)
    metrics: list = field(default_factory=list)


def save(folder: Path, model, progress: Progress, keep: int = 2) -> Path:
    """Write a checkpoint, whole or not at all, and delete all but the newest `keep`. One rank calls it.

    Random layers' states are those of rank 0; other ranks derive theirs when they resume.
    """
    path = folder / f"step-{progress.step:010d}.h5"
    with atomic_path(path) as temporary:
        with open_hdf5(temporary, "w") as file:
            file.attrs["version"] = _VERSION
            file.attrs["progress"] = json.dumps({**asdict(progress), "metrics": []})
            for i, state in enumerate(progress.metrics):
                file[f"metrics/{i:06d}"] = state
            for i, (name, variable) in enumerate(named(everything(model))):
                value = np.asarray(variable)
                stored = file.create_dataset(f"variables/{i:06d}", data=_bits(value))
                stored.attrs["name"], stored.attrs["dtype"] = name, str(value.dtype)
        seal(temporary)
    for old in _checkpoints(folder)[:-keep]:
        with writing(old):
            old.unlink(missing_ok=True)
    return path


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that is whole; None where there are none. One rank calls it.

    Damaged ones that are newer are set aside under another name, with a line.

    Raises:
        UserError: there are checkpoints and none is whole, or one cannot be read.
    """
    path, damaged = last_whole(folder)
    if damaged and not path:
        name, why = damaged[0]
        raise UserError(
            f"{folder}: no checkpoint is whole ({name.name}: {why}); put one back, or start a new run in another "
            "folder (--run)"
        )
    for other, why in damaged:
        aside = other.with_name(f"damaged-{other.name}")
        other.replace(aside)
        say(f"the checkpoint {other} is damaged ({why}); it is now {aside.name}")
    return path


def last_whole(folder: Path) -> tuple[Path | None, list[tuple[Path, str]]]:
    """(the newest checkpoint that is whole or None, the newer ones with what is wrong with them).

    Raises:
        UserError: one cannot be read.
    """
    damaged: list[tuple[Path, str]] = []
    for path in reversed(_checkpoints(folder)):
        if not (why := _damage(path)):
            return path, damaged
        damaged.append((path, why))
    return None, damaged


def step_of(path: Path | None) -> int:
    """The number of steps before a checkpoint; 0 without one."""
    return int(path.stem.removeprefix("step-")) if path else 0


def load(path: Path, model) -> Progress:
    """Load a checkpoint, which is whole, into `model` and its optimizer, both built. One rank calls it.

    Raises:
        UserError: the file is of another model.
    """
    with h5py.File(path, "r", locking=False) as file:
        progress = _progress(file)
        variables, stored = named(everything(model)), file["variables"]
        if len(variables) != len(stored):
            raise UserError(
                f"{path} holds {len(stored)} variables, but the model and its optimizer have {len(variables)}; "
                "resume with the options of the first start (--model, --optimizer, --lag, --ema, --precision, ...)"
            )
        for i, (name, variable) in enumerate(variables):
            _restore(path, stored[f"{i:06d}"], name, variable)
    return progress


def _damage(path: Path) -> str | None:
    """What is wrong with a checkpoint; None where it is whole.

    Raises:
        UserError: it is of a newer version, or the storage fails.
    """
    try:
        sealed = check_seal(path)
        with h5py.File(path, "r", locking=False) as file:
            version = int(file.attrs["version"])
            if sealed and version > _VERSION:
                raise UserError(f"{path} is a checkpoint of a newer hpc-train; resume with that one")
            if not sealed and version != _UNSEALED:
                return "it was cut, or changed by another program"
            if not sealed:
                # Of an earlier version: whether HDF5 can read it is all that can be known.
                _progress(file)
                for stored in file["variables"].values():
                    np.dtype(_numpy_dtype(stored.attrs["dtype"]))
                    stored[()]
    except UserError:
        raise
    except Damaged as error:
        return str(error)
    # h5py raises many kinds of errors for damaged metadata.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        # The operating system's errors say nothing about the file's bytes.
        if getattr(error, "errno", None):
            raise UserError(f"{path}: cannot be read ({reason(error)}); try again, or check its permissions") from error
        return " ".join(str(error).split())
    return None


def _progress(file: h5py.File) -> Progress:
    progress = Progress(**json.loads(file.attrs["progress"]))
    progress.metrics = [file[f"metrics/{i:06d}"][()] for i in range(len(file.get("metrics", ())))]
    return progress


def _restore(path: Path, stored, name: str, variable) -> None:
    if stored.attrs["name"] != name or stored.shape != tuple(variable.shape):
        raise UserError(
            f"{path} holds {stored.attrs['name']} {stored.shape} where the model has {name} {tuple(variable.shape)}; "
            "resume with the options of the first start"
        )
    variable.assign(stored[()].view(np.dtype(_numpy_dtype(stored.attrs["dtype"]))))


def _bits(value: np.ndarray) -> np.ndarray:
    # HDF5 has no bfloat16; its bits travel as integers.
    return value.view("uint16") if str(value.dtype) == "bfloat16" else value


def _numpy_dtype(name: str):
    if name == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return name


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*.h5") if re.fullmatch(r"step-\d{10}\.h5", path.name))
