"""Arrays of an npz file, each looked at before it takes memory."""

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.files.limits import most_bytes

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Npz:
    """An open npz file.

    Args:
        path: of the file.
        file: of `numpy.load`.

    Attributes:
        files: names of its arrays.
    """

    def __init__(self, path: Path, file: np.lib.npyio.NpzFile):
        self.files, self._file = file.files, file
        self._left = most_bytes(os.path.getsize(path))

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of this name; ValueError if it cannot be what its header says."""
        members = self._file.zip.namelist()
        info = self._file.zip.getinfo(f"{name}.npy" if f"{name}.npy" in members else name)
        if info.compress_type not in _METHODS:
            raise ValueError(f"{name}: packed by another method than numpy's")
        self._left -= info.file_size
        if self._left < 0:
            raise ValueError(f"{name}: the few packed bytes claim {info.file_size}")
        with self._file.zip.open(info) as member:
            version = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if version[0] == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(member)
            needed = prod(shape) * dtype.itemsize
            # Objects have no fixed size; NumPy refuses them.
            if not dtype.hasobject and member.tell() + needed != info.file_size:
                raise ValueError(
                    f"{name}: {shape} {dtype} takes {needed} bytes, but it has {info.file_size} with header"
                )
        return self._file[name]


@contextmanager
def reading_npz(path, option="--input") -> Iterator[Npz]:
    """A context with the open npz file; errors of reading it become a UserError, which names the option for it."""
    remedy = "give an npz file of plain arrays, as numpy.savez writes it"
    try:
        with open(path, "rb") as start:
            if start.read(6) == np.lib.format.MAGIC_PREFIX:
                raise ValueError("a single array")
        with np.load(path, allow_pickle=False) as file:
            yield Npz(path, file)
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; give the npz file with {option}") from error
    except UserError:
        raise
    # Zip and NumPy's parser of headers raise many kinds of errors for damaged files.
    except Exception as error:
        raise UserError(f"{path}: not a readable npz file ({reason(error)}); {remedy}") from error
