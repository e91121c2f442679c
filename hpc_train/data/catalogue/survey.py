"""Look into the files of a split once: ranks share the work, and the results are kept on disk."""

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import platformdirs

from hpc_train.console import say
from hpc_train.data.catalogue.file_info import Common, FileInfo
from hpc_train.data.catalogue.inspection import inspect_file
from hpc_train.data.catalogue.layout import SHARDS, Layout
from hpc_train.data.catalogue.part import Kind
from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.files.seal import Damaged, seal, sealed_text
from hpc_train.files.whole import NotWritten, atomic_path

# From version 4 on it is sealed.
_VERSION = 4
# The fields of `Common` that are always stored, and what the others are in most files.
_ALWAYS = Common._fields.index("geometry")
_SELDOM = tuple(Common._field_defaults[name] for name in Common._fields[_ALWAYS:])
# Of a layout; left out where they are empty, as in version 1.
_RARE = ("input_names", "target_names", "weights", "lengths")
# Fewer files open so fast that a cache is not worth it.
LEAST_CACHED = 64
# Seconds until the first line about progress, and between two.
_FIRST_REPORT, _REPORT_SECONDS = 2, 10
# Seconds between two times at which what was found is kept.
_KEEP_SECONDS = 5
# Size in bytes, mtime in ns, what the file holds.
_Entry = tuple[int, int, FileInfo]


def survey(
    files: list[str], layout: Layout, split: str | None, comm, within: str | None = None
) -> tuple[list[FileInfo], np.ndarray]:
    """What every file holds, and its size; collective.

    Rank r takes files r, r + size, ...: it asks the file system for size and time, and opens only the files whose size
    and time are not in the cache, or that have bytes in other files. The cache is in the folder of the data, or in the
    user's cache folder where that cannot be written. What a survey that is interrupted has found is kept there too.

    Args:
        files: their paths.
        layout: of the data.
        split: name of the split.
        comm: the ranks.
        within: as in `inspect_file`.

    Returns:
        What the files hold, and their sizes in bytes, int64 (files,); the same on every rank.

    Raises:
        UserError: for the first file that is not as it should be.
    """
    cache = _Cache(files, layout, split)
    known = comm.bcast(cache.read() if comm.rank == 0 and len(files) >= LEAST_CACHED else {})
    gathered = comm.allgather(_survey_share(files, cache, known, (layout, split, within), comm))
    failures = [failure for _, failure, _ in gathered if failure]
    if failures:
        raise UserError(min(failures)[1]).agreed()
    entries = [gathered[number % comm.size][0][number // comm.size] for number in range(len(files))]
    changed = any(opened for _, _, opened in gathered) or len(known) != len(files)
    if comm.rank == 0 and len(files) >= LEAST_CACHED and (changed or cache.in_parts()):
        cache.write(entries)
    return [info for _, _, info in entries], np.array([size for size, _, _ in entries], np.int64)


def _survey_share(files: list[str], cache: "_Cache", known: dict[str, _Entry], how, comm):
    """(entries of this rank's files, (number, message) of the first bad file or None, number of opened files)."""
    mine: list[_Entry] = []
    fresh: dict[str, _Entry] = {}
    opened, began = 0, time.monotonic()
    show, keep = began + _FIRST_REPORT, began + _KEEP_SECONDS
    try:
        for number in range(comm.rank, len(files), comm.size):
            path = files[number]
            try:
                status = os.stat(path)
                name = cache.key(path)
                found = known.get(name)
                if found is None or found[:2] != (status.st_size, status.st_mtime_ns):
                    found = fresh[name] = status.st_size, status.st_mtime_ns, inspect_file(path, *how)
                    opened += 1
            except OSError as error:
                message = f"{path}: cannot be read ({reason(error)}); check the path and its permissions"
                return mine, (number, message), opened
            except UserError as error:
                return mine, (number, str(error)), opened
            mine.append(found)
            now = time.monotonic()
            if comm.rank == 0 and now > show:
                show = now + _REPORT_SECONDS
                say(f"looking into the files of {cache.folder}: {number + 1} of {len(files)}")
            if now > keep:
                cache.keep(comm.rank, fresh)
                fresh, keep = {}, now + _KEEP_SECONDS
        return mine, None, opened
    finally:
        if len(mine) < len(range(comm.rank, len(files), comm.size)):
            cache.keep(comm.rank, fresh)


class _Cache:
    """The cache for one split's files and layout: one JSON file, {file: [size, mtime_ns, FileInfo]}."""

    def __init__(self, files: list[str], layout: Layout, split: str | None):
        self.files = files
        folders = {os.path.dirname(path) for path in files}
        self.folder = os.path.commonpath(folders) or "."
        # Names without the folder, so that the data may be moved or mounted elsewhere.
        self.flat = len(folders) == 1
        self._targets = bool(layout.targets)
        # Without what few layouts have, as before there was any of it.
        held = {name: value for name, value in asdict(layout).items() if value or name not in _RARE}
        self.layout = json.loads(json.dumps(held))
        # Shards of several splits share a folder.
        key = hashlib.sha256(json.dumps([self.layout, split], sort_keys=True).encode()).hexdigest()[:8]
        self.name = f".hpc-train-catalogue-{key}.json"
        place = hashlib.sha256(os.path.realpath(self.folder).encode()).hexdigest()[:16]
        self.elsewhere = Path(platformdirs.user_cache_dir("hpc-train"), "catalogues", place)

    def key(self, path: str) -> str:
        """The name of a file in the cache."""
        return os.path.basename(path) if self.flat else path

    def read(self) -> dict[str, _Entry]:
        """The cached entries by file, also those of a survey that was interrupted; empty where there are none."""
        found: dict[str, _Entry] = {}
        for folder in (Path(self.folder), self.elsewhere):
            for path in (folder / self.name, *self._parts(folder)):
                with suppress(OSError, Damaged, ValueError, TypeError, KeyError, IndexError):
                    found |= self._parsed(*sealed_text(path))
            if found:
                break
        return found

    def in_parts(self) -> bool:
        """Whether something is there of a survey that was interrupted."""
        return any(self._parts(folder) for folder in (Path(self.folder), self.elsewhere))

    def _parts(self, folder: Path) -> list[Path]:
        return sorted(folder.glob(f"{self.name}.rank-*"))

    def _parsed(self, text: str, sealed: bool) -> dict[str, _Entry]:
        held = json.loads(text)
        # Versions 1 and 2 did not look at the attributes, which shards do not have.
        unsealed = (1, 2, 3) if self.layout["name"] == SHARDS.name else (3,)
        if held["version"] not in ((_VERSION,) if sealed else unsealed) or held["layout"] != self.layout:
            return {}
        common = self._earlier if held["version"] == 1 else _common
        commons = [common(*map(_tuples, values)) for values in held["commons"]]
        return {
            name: (size, mtime, FileInfo(samples, first, low, high, tuple(at), commons[kind], *map(tuple, more)))
            for name, (size, mtime, samples, first, low, high, at, kind, *more) in held["files"].items()
        }

    def _earlier(self, shape, dtype, target_shape, target_dtype, packing, *rest) -> Common:
        """What version 1 held, of one input and at most one target."""
        targets = (Kind(target_shape, target_dtype),) if self._targets else ()
        return Common((Kind(shape, dtype, packing), *targets), *rest)

    def write(self, entries: list[_Entry]) -> None:
        """Store the entries, in the order of the files; where that fails, there is no cache."""
        self._store(self.name, dict(zip(map(self.key, self.files), entries, strict=True)))
        for folder in (Path(self.folder), self.elsewhere):
            for path in self._parts(folder):
                with suppress(OSError):
                    path.unlink()

    def keep(self, rank: int, entries: dict[str, _Entry]) -> None:
        """Store what a rank has found since it last did so, for a survey that is interrupted."""
        if entries and len(self.files) >= LEAST_CACHED:
            self._store(f"{self.name}.rank-{rank}-{time.time_ns()}", entries)

    def _store(self, file: str, entries: dict[str, _Entry]) -> None:
        commons = {info.common: None for _, _, info in entries.values()}
        number = {common: place for place, common in enumerate(commons)}
        held = {
            "version": _VERSION,
            "layout": self.layout,
            # Without what few shards record, as before there was any of it.
            "commons": [common[:_ALWAYS] if common[_ALWAYS:] == _SELDOM else common for common in commons],
            "files": {
                name: [size, mtime, *info[:4], info.at, number[info.common], info.longest]
                for name, (size, mtime, info) in entries.items()
                # Other files may change while this one does not.
                if not info.sources
            },
        }
        for folder in (Path(self.folder), self.elsewhere):
            with suppress(OSError, NotWritten):
                if folder == self.elsewhere:
                    folder.mkdir(parents=True, exist_ok=True)
                with atomic_path(folder / file) as temporary:
                    temporary.write_text(json.dumps(held))
                    seal(temporary)
                return


def _common(kinds, *rest) -> Common:
    return Common(tuple(Kind(*kind) for kind in kinds), *rest)


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
