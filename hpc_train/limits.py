"""What a small file may claim: packed bytes are unpacked up to a limit that its own size sets."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable
from typing import IO, cast

from hpc_train.errors import UserError
from hpc_train.units import MIB, size

_OPENERS: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


def most_bytes(stored: int) -> int:
    """The most bytes that a file with this many may stand for: a hundredfold, and 256 MiB at least."""
    return max(256 * MIB, 100 * stored)


def open_packed(path) -> IO[bytes]:
    """Open a file for reading; what gzip, bzip2 or xz packed, as its first bytes say, is unpacked.

    Reading raises a UserError beyond `most_bytes` of the file's size, and what these formats raise for damage: OSError,
    EOFError, zlib.error, lzma.LZMAError.
    """
    file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    start = file.peek(6)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    if opener is None:
        return file
    stored = os.fstat(file.fileno()).st_size
    limited = _Limited(opener(file, "rb"), file, stored, f"{path}: {size(stored)} of packed bytes")
    return cast(IO[bytes], io.BufferedReader(limited, MIB))


class _Limited(io.RawIOBase):
    def __init__(self, unpacked, file, stored: int, name: str):
        self._unpacked, self._file, self._left, self._name = unpacked, file, most_bytes(stored), name
        self._most = self._left

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self._unpacked.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise UserError(
                f"{self._name} unpack to more than {size(self._most)}, hardly data; if they are, unpack the file first"
            )
        return count

    def close(self) -> None:
        if not self.closed:
            self._unpacked.close()
            self._file.close()
        super().close()
