"""Positioned reads of a file: bytes at an offset, straight into memory that the caller owns."""

import mmap
import os
from contextlib import suppress


class File:
    """One open file, for any number of threads. Each read is one request to the file system.

    path: as given; size: bytes when it was opened. Raises OSError when it cannot be opened.
    """

    def __init__(self, path: str):
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (lives as long as this object)
        self.size = self.size_now()
        self._map: mmap.mmap | None = None

    def read_into(self, offset: int, buffer) -> None:
        """Fill `buffer` (writable, C-contiguous) with the bytes from `offset`; OSError where the file ends before."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            # Gives up the interpreter lock; may return less than asked for, after a signal or at 2 GiB.
            got = os.preadv(self._file.fileno(), [view[done:]], offset + done)
            if got == 0:
                raise OSError(f"the file ends at byte {offset + done}, but its data at {offset + len(view)}")
            done += got

    def map(self) -> mmap.mmap | None:
        """The file in memory, read only; None for storage that cannot be mapped."""
        # Two threads that meet here make two maps, and one is dropped.
        with suppress(OSError):
            self._map = self._map or mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def size_now(self) -> int:
        """Bytes in the file at this moment."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        self._file.close()
