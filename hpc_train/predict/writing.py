"""Output files that appear when they are complete, and errors of writing in one line."""

import errno
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path, not_written
from hpc_train.units import MIB

REMEDY = "give another file with --output"


@contextmanager
def written(path: Path, make: Callable[[Path], object]) -> Iterator:
    """The open file that `make` returns for a temporary name; it is closed, and then appears at `path`.

    Raises:
        UserError: it cannot be made or closed.
    """
    with atomic_path(path, REMEDY) as temporary:
        with one_line(path):
            file = make(temporary)
        try:
            yield file
        except BaseException:
            # If closing fails too, report only the first error.
            with suppress(OSError, RuntimeError):
                file.close()
            raise
        with one_line(path):
            file.close()


@contextmanager
def one_line(path: Path) -> Iterator[None]:
    """Turns the errors that libraries raise when a disk is full into a UserError."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # NetCDF's own errors have no number.
        full = errno.ENOSPC if shutil.disk_usage(path.parent).free < MIB else 0
        if code := getattr(error, "errno", 0) or full:
            raise not_written(path, code, REMEDY, getattr(error, "needed", 0)) from error
        raise UserError(f"cannot write {path}: {error}; free space, or {REMEDY}") from error
