"""Functions and classes in a user's own file, and what a user's own code raises, in one line."""

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import hpc_train
from hpc_train.errors import UserError
from hpc_train.training.own_model import build_args, written

_PACKAGE = str(Path(hpc_train.__file__).parent)


def absolute(reference: str) -> str:
    """`FILE.py:NAME` with the absolute path of the file, so that it is found again from any folder."""
    place, colon, name = reference.rpartition(":")
    return f"{Path(place).absolute()}{colon}{name}" if place.endswith(".py") else reference


def is_reference(text: str) -> bool:
    """Whether a text names something in a file or module, and nothing of Keras."""
    return ":" in text


def check(reference: str, option: str = "") -> None:
    """UserError, before anything is imported, where `reference` names no function or no file."""
    place, _, name = reference.rpartition(":")
    if not place or not name.isidentifier():
        example = f"{reference}:build" if reference.endswith(".py") else "mine.py:build"
        raise UserError(f"{option or 'the model'}: {reference!r} names no function in a file; write {example}")
    if place.endswith(".py") and not Path(place).is_file():
        raise UserError(f"{place}: there is no such file; give the path of the script, then a colon and a function")


def load(reference: str):
    """What `FILE.py:NAME` or `package.module:NAME` names; a file runs once.

    Raises:
        UserError: there is no such file, module or name in it, or it fails when it runs.
    """
    check(reference)
    place, _, name = reference.rpartition(":")
    module = run_once(place)
    if not hasattr(module, name):
        there = [key for key, value in vars(module).items() if _is_own(value, module) and not key.startswith("_")]
        near = difflib.get_close_matches(name, there, 1)
        known = f"did you mean {near[0]}?" if near else f"it has {', '.join(there) or 'no function'}"
        raise UserError(f"{place}: has no {name!r}; {known}")
    return getattr(module, name)


def parameters(reference: str) -> tuple[list[str], bool] | None:
    """The names that a function takes as --build-args, by the text of its file: nothing is imported or run.

    Args:
        reference: see `load`.

    Returns:
        The names of its arguments, without that of the catalogue, and whether it takes any other (**kwargs). None where
        the file does not tell: it cannot be read, or the name is no plain function of its own.
    """
    signature = written.signature(reference)
    return (build_args.by_name(signature), build_args.takes_any(signature)) if signature else None


def build(reference: str, catalogue, arguments: Mapping[str, Any] | None = None):
    """The Keras model that a user's function returns; it is called with the catalogue, if it takes an argument.

    Args:
        reference: see `load`.
        catalogue: of the training data.
        arguments: for the function, by name.

    Raises:
        UserError: as `load`, or where the function does not take the arguments, fails, or returns something else.
    """
    import keras

    function = load(reference)
    if not callable(function):
        raise UserError(f"{reference} is {type(function).__name__}, not a function that returns a Keras model")
    given = arguments or {}
    places = _arguments(function, catalogue, given, reference)
    with explained(reference):
        model = function(*places, **given)
    if not isinstance(model, keras.Model):
        what = "nothing" if model is None else f"{type(model).__module__}.{type(model).__qualname__}"
        raise UserError(f"{reference} returns {what}, not a Keras 3 model; end it with `return model`")
    return model


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Make one line of what a user's own code raises in the `with` block: what, where, and the line itself.

    What this package or a library raises by itself passes through.
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        if not (_frames(error) or isinstance(error, (SyntaxError, ImportError))):
            raise
        raise UserError(f"{what}: {in_a_line(error)}") from error


def in_a_line(error: BaseException) -> str:
    """An exception with the innermost line of the user's own files that led to it."""
    from hpc_train.parallel.unbuilt import in_a_line as said

    frames = _frames(error)
    text = said(error)[:400].rstrip(". ")
    if isinstance(error, SyntaxError) and error.filename:
        return f"{text} ({error.filename}, line {error.lineno})"
    if not frames:
        return text
    last = frames[-1]
    return f"{text} ({last.filename}, line {last.lineno}, in {last.name}: `{last.line}`)"


def _frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The places in the user's own files that led to an exception, the innermost last."""
    return [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]


@lru_cache
def run_once(place: str) -> ModuleType:
    """The module of a user's file, or of a package, which registers its classes with Keras; it runs once.

    Args:
        place: FILE.py, or the name of a module.

    Raises:
        UserError: it fails when it runs.
    """
    with explained(place):
        if not place.endswith(".py"):
            return importlib.import_module(place)
        path = Path(place).absolute()
        # As when the file is run by itself: what lies beside it can be imported.
        sys.path.insert(0, str(path.parent))
        # Keras finds classes of a saved model by their module; a file may be named like a module that exists.
        name = re.sub(r"\W", "_", path.stem)
        name = f"own_{name}" if name in sys.modules or name in sys.stdlib_module_names else name
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec
        assert spec.loader
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _arguments(function, catalogue, given: Mapping[str, Any], reference: str) -> tuple:
    """What a function is called with besides `given`: the catalogue, if it takes it."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return ()
    return build_args.bind(signature, catalogue, given, reference)


def _is_own(value, module: ModuleType) -> bool:
    return callable(value) and getattr(value, "__module__", None) == module.__name__


def _is_users(file: str) -> bool:
    return Path(file).is_file() and not file.startswith((_PACKAGE, sys.base_prefix)) and "site-packages" not in file
