"""The list of verified copies in a staging folder, one JSON line each, so that a later job does not copy them again."""

import contextlib
import fcntl
import itertools
import json
import os
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hpc_train.data.staging.ownership import claim
from hpc_train.errors import UserError

_FOLDER = ".hpc-train-stage"


@dataclass(frozen=True)
class Source:
    """A file to stage, with its size and time when staging began."""

    name: str
    """Path below the root and below the destination."""
    path: str
    size: int
    mtime_ns: int


def checksum(descriptor: int) -> bytes:
    """XXH3 (128 bits) of an open file as storage holds it: the page cache is dropped first where that is possible."""
    import xxhash

    with contextlib.suppress(OSError):
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    total, offset, buffer = xxhash.xxh3_128(), 0, bytearray(2**20)
    while count := os.preadv(descriptor, [buffer], offset):
        total.update(memoryview(buffer)[:count])
        offset += count
    return total.digest()


def _state(copy: os.stat_result) -> list[int]:
    """What a write, or another file in its place, changes: nobody can set the time of the last change (ctime)."""
    return [copy.st_ino, copy.st_ctime_ns]


class Manifest:
    """Records and temporary copies of a destination, in a hidden folder inside it.

    Several ranks, and several jobs, may use it at the same time: names of temporary copies are unique, and a record
    is appended in one write.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self._folder = directory / _FOLDER
        self._records = self._folder / "manifest.jsonl"

    def prepare(self) -> None:
        """Make the folders and remove temporary copies whose writers have ended.

        Raises:
            UserError: others may write there, or have written there.
            OSError: that fails.
        """
        if not claim(self.directory):
            # Whoever could write may still hold these files open: all are copied again.
            self._records.unlink(missing_ok=True)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        for path in self._folder.glob("*.part"):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                # The writer holds this lock until it ends.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        path, descriptor = self.temporary()
        os.close(descriptor)
        path.unlink()

    def temporary(self) -> tuple[Path, int]:
        """Make an empty file below the destination for one writer; return its path and descriptor (read, write)."""
        path = self._folder / f"{uuid.uuid4().hex}.part"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        return path, descriptor

    def accept(self, temporary: Path, source: Source, digest: str) -> None:
        """Give a verified copy its name and record it."""
        path = self.directory / source.name
        for folder in reversed(path.relative_to(self.directory).parents[:-1]):
            (self.directory / folder).mkdir(mode=0o700, exist_ok=True)
        temporary.replace(path)
        record = {
            "file": source.name,
            "source": source.path,
            "size": source.size,
            "mtime_ns": source.mtime_ns,
            "xxh3_128": digest,
        }
        self.confirm(record)

    def confirm(self, record: dict) -> None:
        """Record how a verified copy is now: it is believed as long as it stays so."""
        copy = os.lstat(self.directory / record["file"])
        self._append(record | {"copy_mtime_ns": copy.st_mtime_ns, "copy": _state(copy)})

    def untouched(self, record: dict) -> bool:
        """Whether nobody has written or moved a copy since it was verified: then it need not be read again."""
        try:
            return record.get("copy") == _state(os.lstat(self.directory / record["file"]))
        except OSError:
            return False

    def strangers(self, kept: Collection[str]) -> tuple[list[str], list[str]]:
        """Names that are not in `kept`, sorted: recorded copies, and data files that others put there."""
        from hpc_train.data.catalogue.layout import list_files

        records = {name: record for name, record in self.records().items() if name not in kept}
        copies = {name for name, record in records.items() if self._unchanged(name, record)}
        try:
            found = {os.path.relpath(path, self.directory) for path in list_files(self.directory)}
        except UserError:
            # The folder holds no data files at all.
            found = set()
        return sorted(copies), sorted(found - copies - set(kept))

    def remove(self, names: Collection[str]) -> None:
        """Remove copies, their records, and folders that are then empty; OSError where that fails."""
        for name in names:
            path = self.directory / name
            path.unlink(missing_ok=True)
            self._append({"file": name, "removed": True})
            for folder in itertools.takewhile(lambda folder: folder != self.directory, path.parents):
                # An empty folder named like a split would count as that split. A folder that still holds files stays.
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def records(self) -> dict[str, dict]:
        """The latest record of each file, by its path below the destination."""
        records = {}
        with contextlib.suppress(FileNotFoundError), open(self._records, "rb") as lines:
            for line in lines:
                with contextlib.suppress(ValueError, KeyError, TypeError):
                    record = json.loads(line)
                    records[record["file"]] = record
        return {name: record for name, record in records.items() if not record.get("removed")}

    def whole(self, source: Source, record: dict | None) -> bool:
        """Whether the copy is there and was made from the source as it is now, judged by sizes and times only."""
        now = {"source": source.path, "size": source.size, "mtime_ns": source.mtime_ns}
        if not record or any(record.get(key) != value for key, value in now.items()):
            return False
        return self._unchanged(source.name, record)

    def sound(self, source: Source, record: dict) -> bool:
        """Whether the copy's bytes have the recorded checksum; reads all of them."""
        try:
            descriptor = os.open(self.directory / source.name, os.O_RDONLY | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            return checksum(descriptor).hex() == record.get("xxh3_128")
        except OSError:
            return False
        finally:
            os.close(descriptor)

    def _unchanged(self, name: str, record: dict) -> bool:
        """Whether the copy is there and still has its recorded size and time."""
        try:
            copy = os.lstat(self.directory / name)
        except OSError:
            return False
        return (copy.st_size, copy.st_mtime_ns) == (record.get("size"), record.get("copy_mtime_ns"))

    def _append(self, record: dict) -> None:
        descriptor = os.open(self._records, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        try:
            # The line break comes first: a job may have been killed in the middle of the previous line.
            os.write(descriptor, b"\n" + json.dumps(record).encode())
        finally:
            os.close(descriptor)
