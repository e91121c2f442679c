"""Storage that takes its time: each read waits, and all reads share a bandwidth. For measurements and tests."""

import io
import os
import threading
import time
from contextlib import contextmanager

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.raw_file import File


class SlowStorage:
    """Opens files whose every read is a request that takes `latency` seconds before its first byte.

    bandwidth: bytes/s that all requests of this process share, or None for no bound. Requests wait for their latency
    at the same time, as with a remote file system. `in_flight`: requests at this moment; `most`: the most there were.
    """

    def __init__(self, latency: float, bandwidth: float | None = None):
        self.latency, self.bandwidth = latency, bandwidth
        self.in_flight = self.most = self.requests = 0
        self._free = 0.0  # the moment at which the wire has delivered all that was asked of it
        self._lock = threading.Lock()

    def open(self, path: str) -> "SlowFile":
        """For `Reader(open_file=...)`."""
        return SlowFile(path, self)

    def open_hdf5(self, path: str):
        """An h5py.File whose reads, those of the library's own metadata included, are such requests."""
        return open_hdf5(_FileObject(self.open(path)))

    @contextmanager
    def request(self, size: int):
        """Wait as long as a read of `size` bytes would."""
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
    """A file on `SlowStorage`; it cannot be mapped, so that no byte comes without a request."""

    def __init__(self, path: str, storage: SlowStorage):
        super().__init__(path)
        self._storage = storage

    def read_into(self, offset: int, buffer) -> None:
        with self._storage.request(memoryview(buffer).nbytes):
            super().read_into(offset, buffer)

    def map(self) -> None:
        return None


class _FileObject(io.RawIOBase):
    """What h5py asks of a Python file, over positioned reads."""

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
