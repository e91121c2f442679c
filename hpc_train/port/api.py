"""The public names of the Keras and TensorFlow that are installed, read from their files without importing them."""

import ast
import functools
import importlib.util
from pathlib import Path

from hpc_train.errors import UserError

# They can be imported, and every name in them raises an error.
_EMPTY = {"keras.optimizers.legacy"}


@functools.cache
def names(module: str, through_tensorflow: bool = False) -> dict[str, str] | None:
    """The public names of a module of Keras.

    Args:
        module: such as `keras.layers`.
        through_tensorflow: as `tf.keras` has them, which keeps some old names.

    Returns:
        What each name stands for, by name: a submodule, or where it is defined; None if there is no such module.

    Raises:
        UserError: Keras 3 is not installed.
    """
    if module in _EMPTY:
        return None
    home = _keras() / "_tf_keras" / "keras" if through_tensorflow else _keras()
    return _exports(home.joinpath(*module.split(".")[1:]) / "__init__.py")


def has(name: str, through_tensorflow: bool = False) -> bool:
    """Whether Keras has a public name, such as `keras.layers.Dense`; what follows a class or function is not checked.

    Args:
        name: with all its modules.
        through_tensorflow: see `names`.
    """
    module, *rest = name.split(".")
    for part in rest:
        known = names(module, through_tensorflow)
        if known is None:
            return False
        if part.startswith("__") or part == "src":
            return True
        if part not in known:
            return False
        module = f"{module}.{part}"
        if names(module, through_tensorflow) is None and module not in _EMPTY:
            return True
    return names(module, through_tensorflow) is not None


def same(module: str, name: str, through_tensorflow: bool) -> str | None:
    """Another name, in the same module, of what `tf.keras` and `keras` call differently.

    Args:
        module: such as `keras.losses`.
        name: one that this module does not have, such as `mse`.
        through_tensorflow: which of the two the name was looked for in.
    """
    meant = (names(module, not through_tensorflow) or {}).get(name)
    mine = names(module, through_tensorflow) or {}
    others = [other for other, source in mine.items() if meant and source == meant]
    return min(others, key=lambda other: other.islower() != name.islower(), default=None)


def tensorflow_has(name: str) -> bool:
    """Whether TensorFlow 2 has a public name, such as `tensorflow.data.Dataset`; True where none is installed."""
    home = _folder("tensorflow")
    if home is None or not (home / "_api" / "v2" / "v2.py").exists():
        return True
    known = _exports(home / "_api" / "v2" / "v2.py") or {}
    folder = home / "_api" / "v2"
    for part in name.split(".")[1:]:
        if part not in known and part not in _LAZY and not part.startswith("_"):
            return False
        folder = folder / part
        if not folder.is_dir():
            return True
        known = _exports(folder / "__init__.py") or {}
    return True


# Names of `tensorflow` that are set when it is imported.
_LAZY = {"keras", "losses", "metrics", "optimizers", "initializers", "python", "compiler", "core", "tools", "summary"}


@functools.cache
def _exports(path: Path) -> dict[str, str] | None:
    if not path.exists():
        return None
    found = {}
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom):
            found |= {name.asname or name.name: f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.asname or name.name.split(".")[0]: name.name for name in node.names}
        elif isinstance(node, ast.Assign):
            found |= {target.id: "" for target in node.targets if isinstance(target, ast.Name)}
    return found


@functools.cache
def _keras() -> Path:
    home = _folder("keras")
    if home is None or not (home / "_tf_keras").is_dir():
        raise UserError("port reads the names of Keras 3, which is not installed here: pip install 'keras>=3.12'")
    return home


def _folder(package: str) -> Path | None:
    found = importlib.util.find_spec(package)
    return Path(found.origin).parent if found and found.origin else None
