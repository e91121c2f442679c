"""Slow storage for measurements and tests: each read waits, and all reads share a bandwidth."""

import io
import os
import threading
import time
from contextlib import contextmanager

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.raw_file import File


class SlowStorage:
    """Opens files of which every read is a request with a latency.

    Requests wait for their latency at the same time, as with a remote file system. `requests` counts them, `in_flight`
    is their number at this moment, and `most` the largest number so far.

    Args:
        latency: seconds that a request waits for its first byte.
        bandwidth: bytes/s that all requests of this process share; None for no limit.
    """

    def __init__(self, latency: float, bandwidth: float | None = None):
        self.latency, self.bandwidth = latency, bandwidth
        self.in_flight = self.most = self.requests = 0
        self._free = 0.0  # when the wire will have delivered all that was requested
        self._lock = threading.Lock()

    def open(self, path: str) -> "SlowFile":
        """Open a file for `Reader(open_file=...)`."""
        return SlowFile(path, self)

    def open_hdf5(self, path: str):
        """An h5py.File of which every read is such a request, those of the library's own metadata included."""
        return open_hdf5(_FileObject(self.open(path)))

    @contextmanager
    def request(self, size: int):
        """A context that begins after the time that a read of `size` bytes takes."""
        with self._lock:
            self.requests += 1
            self.in_flight += 1
            self.most = max(self.most, self.in_flight)
        try:
            time.sleep(self.latency)
            if self.bandwidth:
                with self._lock:
                    self._free = max(self._free, time.perf_counter()) + size / self.bandwidth
                    wait = self._free - time.perf_counter()
                time.sleep(max(0, wait))
            yield
        finally:
            with self._lock:
                self.in_flight -= 1


class SlowFile(File):
    """A file on `SlowStorage`. It cannot be mapped, so every byte needs a request."""

    def __init__(self, path: str, storage: SlowStorage):
        super().__init__(path)
        self._storage = storage

    def read_into(self, offset: int, buffer) -> None:
        with self._storage.request(memoryview(buffer).nbytes):
            super().read_into(offset, buffer)

    def map(self) -> None:
        return None


class _FileObject(io.RawIOBase):
    """A Python file, as h5py needs it, over positioned reads."""

    def __init__(self, file: SlowFile):
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer) -> int:
        part = memoryview(buffer).cast("B")[: max(0, self._file.size - self._at)]
        self._file.read_into(self._at, part)
        self._at += len(part)
        return len(part)

    def close(self) -> None:
        self._file.close()
        super().close()
