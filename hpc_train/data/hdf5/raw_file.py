"""Positioned reads of a file: bytes at an offset, directly into memory that the caller owns."""

import mmap
import os
import weakref
from contextlib import suppress


class File:
    """One open file, for any number of threads. Each read is one request to the file system.

    It is closed when the last thread lets go of it, if nobody does before.

    Attributes:
        path: as given.
        size: bytes in the file when it was opened.

    Raises:
        OSError: when it cannot be opened.
    """

    def __init__(self, path: str):
        self.path = path
        self._file = open(path, "rb", buffering=0)  # noqa: SIM115 (lives as long as this object)
        weakref.finalize(self, self._file.close).atexit = False  # without it Python warns of a file left open
        self.size = self.size_now()
        self._map: mmap.mmap | None = None

    def read_into(self, offset: int, buffer) -> None:
        """Fill `buffer` (writable, C-contiguous) with the bytes from `offset`; OSError where the file ends earlier."""
        view = memoryview(buffer).cast("B")
        done = 0
        while done < len(view):
            # Releases the interpreter lock; may return less than requested, after a signal or at 2 GiB.
            got = os.preadv(self._file.fileno(), [view[done:]], offset + done)
            if got == 0:
                raise OSError(f"the file ends at byte {offset + done}, but its data end at byte {offset + len(view)}")
            done += got

    def map(self) -> mmap.mmap | None:
        """A read-only map of the file in memory; None for storage that cannot be mapped."""
        # Two threads that come here at once make two maps, and one is dropped.
        with suppress(OSError):
            self._map = self._map or mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._map

    def size_now(self) -> int:
        """Bytes in the file at this moment."""
        return os.fstat(self._file.fileno()).st_size

    def close(self) -> None:
        """Close the file; maps of it stay valid."""
        self._file.close()
