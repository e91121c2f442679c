"""What a small file may claim: packed bytes are unpacked up to a limit that the file's own size sets."""

import bz2
import gzip
import io
import lzma
import os
from collections.abc import Callable, Iterator
from typing import IO, Any, cast

from hpc_train.errors import UserError
from hpc_train.units import MIB, size

_OPENERS: dict[bytes, Callable] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
_LONGEST_LINE = 16 * MIB


def most_bytes(stored: int) -> int:
    """The most bytes that a file with this many may stand for: a hundredfold, and 256 MiB at least."""
    return max(256 * MIB, 100 * stored)


def most_text(stored: int) -> int:
    """The most bytes of a table's text that a packed file with this many may stand for; text takes longer to read."""
    return max(32 * MIB, 50 * stored)


def open_packed(path, most: Callable[[int], int] = most_bytes) -> IO[bytes]:
    """Open a file for reading; what gzip, bzip2 or xz packed, as its first bytes say, is unpacked.

    Reading raises what these formats raise for damage: OSError, EOFError, zlib.error, lzma.LZMAError.

    Args:
        path: of the file.
        most: as of `limited`.
    """
    file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    start = file.peek(6)
    opener = next((opener for magic, opener in _OPENERS.items() if start.startswith(magic)), None)
    return limited(opener(file, "rb"), path, most, file) if opener else file


def limited(unpacked: Any, path, most: Callable[[int], int], *files) -> IO[bytes]:
    """The same stream, which raises a UserError once it has given more than `most(bytes of the file)`.

    Args:
        unpacked: the stream of what the file holds; it is closed with the result.
        path: of the file.
        most: from bytes of the file to bytes that it may hold.
        files: what else is closed.
    """
    return cast(IO[bytes], io.BufferedReader(_Limited(unpacked, path, most, files), MIB))


def lines(text: IO[str], path) -> Iterator[str]:
    """The lines of an open text, for a reader of CSV; a UserError for one of 16 Mi characters."""
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise UserError(f"{path}: has a line longer than {size(_LONGEST_LINE)}, so it is no table; give another")
        yield line


class _Limited(io.RawIOBase):
    def __init__(self, unpacked, path, most, files):
        self._closed_with, self._unpacked, self._path = (unpacked, *files), unpacked, path
        self._stored = os.path.getsize(path)
        self._most = self._left = most(self._stored)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        count = self._unpacked.readinto(buffer)
        self._left -= count
        if self._left < 0:
            raise UserError(
                f"{self._path}: {size(self._stored)} unpack to more than {size(self._most)}, which is hardly data; if "
                "it is, unpack the file first"
            )
        return count

    def close(self) -> None:
        if not self.closed:
            for file in self._closed_with:
                file.close()
        super().close()
