"""HDF5 files that are written on storage that may fail: HDF5 itself never sees the failure."""

import io
import os

import h5py


class GuardedFile(h5py.File):
    """An h5py.File that is written through Python, and raises the first error of the storage when it is closed.

    HDF5 cannot close a file that it cannot write: it keeps what is left in memory, tries again when the program ends,
    and crashes. Here it is told that all went well.

    Args:
        path: of the file.
        mode: "w" or "r+".
        options: of h5py.File.
    """

    def __init__(self, path, mode: str, **options):
        self._storage = _Storage(path, mode)
        try:
            super().__init__(self._storage, mode, **options)
        except BaseException:
            self._storage.close()
            raise

    def check(self) -> None:
        """Raise the storage's error at once, OSError, if there was one."""
        if self._storage.error:
            raise self._storage.error

    def close(self) -> None:
        """Close the file.

        Raises:
            OSError: the first error since the file was opened; `needed` of it is the size of the whole file in bytes.
        """
        try:
            if self.id.valid:
                super().close()
        finally:
            self._storage.close()
            error, self._storage.error = self._storage.error, None
            if error:
                error.needed = self._storage.size
                raise error

    def __exit__(self, *_) -> None:
        self.close()


class _Storage(io.RawIOBase):
    """A file as h5py's driver for Python files wants it; after its first error it only counts."""

    def __init__(self, path, mode: str):
        flags = os.O_RDWR | (os.O_CREAT | os.O_TRUNC if mode == "w" else 0)
        self._name, self._file, self._at = os.fspath(path), os.open(path, flags, 0o666), 0
        self.size, self.error = os.fstat(self._file).st_size, None

    def seek(self, offset, whence=os.SEEK_SET):
        self._at = offset + (self.size if whence == os.SEEK_END else 0)
        return self._at

    def tell(self):
        return self._at

    def write(self, data):
        view, offset = memoryview(data), self._at
        self._at += len(view)
        self.size = max(self.size, self._at)
        try:
            while view and not self.error:
                done = os.pwrite(self._file, view, offset)
                view, offset = view[done:], offset + done
        except OSError as error:
            self._fail(error)
        return len(data)

    def readinto(self, buffer):
        view, offset = memoryview(buffer), self._at
        try:
            while view and (done := os.preadv(self._file, [view], offset)):
                view, offset = view[done:], offset + done
        except OSError as error:
            self._fail(error)
        # HDF5 takes what was never written for zeros.
        view[:] = bytes(len(view))
        return len(buffer)

    def truncate(self, size=None):
        self.size = self._at if size is None else size
        try:
            if not self.error:
                os.ftruncate(self._file, self.size)
        except OSError as error:
            self._fail(error)
        return self.size

    def close(self):
        if self._file >= 0:
            descriptor, self._file = self._file, -1
            try:
                os.close(descriptor)
            except OSError as error:
                self._fail(error)
        super().close()

    def readable(self):
        return True

    def writable(self):
        return True

    def seekable(self):
        return True

    def _fail(self, error: OSError) -> None:
        self.error = self.error or OSError(error.errno, error.strerror, self._name)
