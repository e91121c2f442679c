"""Import TensorFlow without its two lines about oneDNN, which every rank prints at any log level."""

import importlib.machinery
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_train.errors import UserError
from hpc_train.parallel import failure
from hpc_train.parallel.agreement import keras_settings
from hpc_train.parallel.launcher import detect
from hpc_train.requirements import not_installed

_NOISE = (b"All log messages before absl::InitializeLog()", b"oneDNN custom operations are on")


@contextmanager
def quiet_import() -> Iterator[None]:
    """Hold back standard error while TensorFlow loads; then print all lines but those about oneDNN."""
    sys.stderr.flush()
    real = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            for line in held:
                if not any(noise in line for noise in _NOISE):
                    os.write(2, line)


def quieten() -> None:
    """Let TensorFlow load quietly, and Keras say its backend in one line, whoever imports them before `init`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if not any(isinstance(finder, _Loads) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Loads())


class _Loads:
    """Finds TensorFlow and Keras where Python does, and wraps how they load."""

    def find_spec(self, name, path=None, target=None):
        if (wrap := {"tensorflow": quiet_import, "keras": _explained}.get(name)) is None:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        load, around = spec.loader.exec_module, wrap

        def wrapped(module):
            with around():
                load(module)

        spec.loader.exec_module = wrapped  # type: ignore[method-assign]
        return spec


@contextmanager
def _explained() -> Iterator[None]:
    """Make one line of what Keras raises where its backend is not installed, or is not TensorFlow."""
    try:
        yield
    except Exception as error:
        backend = keras_settings.wanted_backend()
        line = keras_settings.wrong_backend(backend) if backend != "tensorflow" else None
        if line is None and isinstance(error, ModuleNotFoundError):
            line = not_installed(error)
        if line is None:
            raise
        failure.install_early(detect().rank)
        raise _NotImported(line) from error


class _NotImported(UserError, ImportError):
    """A program may go on without Keras where it catches the error of its import."""
