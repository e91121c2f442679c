"""Both ends of staging a file: read its source in pieces, write a copy in pieces, and verify the copy."""

import errno
import os
import shutil
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hpc_train.data.staging.manifest import Manifest, Source, checksum
from hpc_train.errors import UserError

# The last piece of a file is followed by one byte, which is 1 if the source was read without error, and the checksum.
TRAILER = 1 + 16
# The reason that ranks record for a source that another rank failed to read.
UNREADABLE = "the source could not be read"
# Files that may wait to be verified.
_UNVERIFIED = 4
# Errors that may go away by themselves; every other error of the operating system ends the job at once.
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EREMOTEIO, errno.ECONNRESET, errno.EAGAIN}


@dataclass(frozen=True)
class Piece:
    """Bytes [offset, offset + length) of a lane's file `number`."""

    number: int
    offset: int
    length: int
    last: bool

    @property
    def message(self) -> int:
        """Number of bytes to broadcast."""
        return self.length + TRAILER * self.last


class Copier:
    """How staging accesses storage; a subclass may count, delay or damage."""

    def open(self, path: str):
        """Open a source for unbuffered reading."""
        return open(path, "rb", buffering=0)

    def write(self, descriptor: int, data: memoryview, offset: int) -> None:
        """Write all of `data` at `offset` of a copy."""
        while data:
            written = os.pwrite(descriptor, data, offset)
            data, offset = data[written:], offset + written

    def free(self, folder: Path) -> int:
        """Free bytes below `folder`."""
        return shutil.disk_usage(folder).free


class Reading:
    """Reads the files of a lane that this rank owns; used by one thread."""

    def __init__(self, sources: Sequence[Source], copier: Copier):
        self.sources, self.copier = sources, copier
        self.files: dict[int, tuple] = {}
        self.failed: dict[int, str] = {}
        self.opened = 0

    def read(self, piece: Piece, data: bytearray) -> bytearray:
        """Fill `data` with a piece of its source, and after the last piece with the trailer."""
        number, view = piece.number, memoryview(data)
        try:
            if number not in self.failed:
                self._fill(piece, view[: piece.length])
        except OSError as error:
            if error.errno not in _PASSING:
                raise _refused("cannot read", self.sources[number].path, error) from error
            self.failed[number] = error.strerror
        if piece.last:
            file, total = self.files.pop(number, (None, None))
            good = number not in self.failed
            view[piece.length : piece.message] = bytes([good]) + (total.digest() if good else bytes(16))
            if file:
                file.close()
        return data

    def _fill(self, piece: Piece, view: memoryview) -> None:
        import xxhash

        source = self.sources[piece.number]
        if piece.offset == 0:
            self.opened += 1
            self.files[piece.number] = self.copier.open(source.path), xxhash.xxh3_128()
        file, total = self.files[piece.number]
        filled = 0
        while filled < piece.length:
            count = file.readinto(view[filled:])
            if not count:
                self.failed[piece.number] = f"the source ended after {piece.offset + filled} of {source.size} bytes"
                return
            filled += count
        total.update(view)
        if piece.last:
            now = os.stat(source.path)
            if (now.st_size, now.st_mtime_ns) != (source.size, source.mtime_ns):
                self.failed[piece.number] = "the source changed while it was read"


class Writing:
    """Writes this node's copies of a lane's files; used by one thread, and verifies in another."""

    def __init__(self, sources: Sequence[Source], manifest: Manifest, copier: Copier):
        self.sources, self.manifest, self.copier = sources, manifest, copier
        self.files: dict[int, tuple[Path, int]] = {}
        self.failed: dict[int, str] = {}
        self.verifier = ThreadPoolExecutor(1)
        self.verifications: deque[Future] = deque()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.verifier.shutdown(cancel_futures=True)
        for path, descriptor in self.files.values():
            os.close(descriptor)
            path.unlink(missing_ok=True)

    def write(self, piece: Piece, data: bytearray) -> None:
        """Write a piece to the file's temporary copy; after the last piece, start to verify the copy."""
        number = piece.number
        try:
            if piece.offset == 0:
                self.files[number] = self.manifest.temporary()
            if number not in self.failed:
                self.copier.write(self.files[number][1], memoryview(data)[: piece.length], piece.offset)
        except OSError as error:
            self._give_up(number, error)
        if piece.last:
            trailer = bytes(data[piece.length : piece.message])
            self.verifications.append(self.verifier.submit(self._finish, number, trailer))
            self.settle(_UNVERIFIED)

    def settle(self, keep: int) -> None:
        """Wait until at most `keep` files are unverified."""
        while len(self.verifications) > keep:
            self.verifications.popleft().result()

    def _finish(self, number: int, trailer: bytes) -> None:
        source = self.sources[number]
        path, descriptor = self.files.pop(number, (None, None))
        try:
            if number in self.failed:
                return
            if not trailer[0]:
                self.failed[number] = UNREADABLE
                return
            os.fsync(descriptor)
            if checksum(descriptor) != trailer[1:]:
                self.failed[number] = "the copy's checksum differs from the source's"
                return
            os.utime(descriptor, ns=(source.mtime_ns, source.mtime_ns))
            self.manifest.accept(path, source, trailer[1:].hex())
        except OSError as error:
            self._give_up(number, error)
        finally:
            if path:
                os.close(descriptor)
                path.unlink(missing_ok=True)

    def _give_up(self, number: int, error: OSError) -> None:
        if error.errno not in _PASSING:
            raise _refused("cannot write", self.manifest.directory / self.sources[number].name, error) from error
        self.failed[number] = error.strerror


def _refused(what: str, path, error: OSError) -> UserError:
    return UserError(f"{what} {path}: {error.strerror}")
