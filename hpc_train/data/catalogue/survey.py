"""Looking into the files of a split once: the work is shared over ranks, and what was found is kept on disk."""

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
from hpc_train.data.catalogue.file_info import Common, FileInfo, inspect_file
from hpc_train.data.catalogue.layout import Layout
from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.files import atomic_path

_VERSION = 1
# Fewer files are opened faster than anyone notices.
LEAST_CACHED = 64
_REPORT_SECONDS = 10


def survey(files: list[str], layout: Layout, split: str | None, comm) -> tuple[list[FileInfo], np.ndarray]:
    """What every file holds, and its size in bytes, int64 (files,); collective, the same on every rank.

    Rank r looks after files r, r + size, ...: it asks the file system for size and time, and opens those only whose
    size and time the cache does not know. The cache lies in the folder of the data, or in the user's cache folder
    where that cannot be written. Raises UserError for the first file that is not as it should be.
    """
    cache = _Cache(files, layout, split)
    known = comm.bcast(cache.read() if comm.rank == 0 and len(files) >= LEAST_CACHED else {})
    mine, failed, opened = [], None, 0
    shown = time.monotonic()
    for number in range(comm.rank, len(files), comm.size):
        path = files[number]
        try:
            status = os.stat(path)
            found = known.get(os.path.basename(path) if cache.flat else path)
            if found is None or found[:2] != (status.st_size, status.st_mtime_ns):
                found = (status.st_size, status.st_mtime_ns, inspect_file(path, layout, split))
                opened += 1
        except OSError as error:
            failed = number, f"{path}: cannot be read ({reason(error)}); check the path and its permissions"
            break
        except UserError as error:
            failed = number, str(error)
            break
        mine.append(found)
        if comm.rank == 0 and time.monotonic() - shown > _REPORT_SECONDS:
            shown = time.monotonic()
            say(f"looking into the files of {cache.folder}: {number + 1} of {len(files)}")
    gathered = comm.allgather((mine, failed, opened))
    failures = [failure for _, failure, _ in gathered if failure]
    if failures:
        raise UserError(min(failures)[1]).agreed()
    entries = [gathered[number % comm.size][0][number // comm.size] for number in range(len(files))]
    changed = any(opened for _, _, opened in gathered) or len(known) != len(files)
    if comm.rank == 0 and len(files) >= LEAST_CACHED and changed:
        cache.write(entries)
    return [info for _, _, info in entries], np.array([size for size, _, _ in entries], np.int64)


class _Cache:
    """The cache of one split's files and layout: one JSON file, {file: [size, mtime_ns, FileInfo]}."""

    def __init__(self, files: list[str], layout: Layout, split: str | None):
        self.files = files
        folders = {os.path.dirname(path) for path in files}
        self.folder = os.path.commonpath(folders) or "."
        # Names without the folder, so that a data set may be moved or mounted elsewhere.
        self.flat = len(folders) == 1
        self.layout = json.loads(json.dumps(asdict(layout)))
        # Shards of several splits share a folder.
        key = hashlib.sha256(json.dumps([self.layout, split], sort_keys=True).encode()).hexdigest()[:8]
        self.name = f".hpc-train-catalogue-{key}.json"
        place = hashlib.sha256(os.path.realpath(self.folder).encode()).hexdigest()[:16]
        self.elsewhere = Path(platformdirs.user_cache_dir("hpc-train"), "catalogues", place)

    def read(self) -> dict[str, tuple[int, int, FileInfo]]:
        """What is known of the files; empty where there is no cache, or none that can be used."""
        for folder in (Path(self.folder), self.elsewhere):
            with suppress(OSError, ValueError, TypeError, KeyError, IndexError):
                held = json.loads((folder / self.name).read_text())
                if held["version"] == _VERSION and held["layout"] == self.layout:
                    commons = [Common(*map(_tuples, common)) for common in held["commons"]]
                    return {
                        name: (size, mtime, FileInfo(*numbers, tuple(at), commons[common]))
                        for name, (size, mtime, *numbers, at, common) in held["files"].items()
                    }
        return {}

    def write(self, entries: list[tuple[int, int, FileInfo]]) -> None:
        commons = {info.common: None for _, _, info in entries}
        number = {common: place for place, common in enumerate(commons)}
        names = map(os.path.basename, self.files) if self.flat else self.files
        held = {
            "version": _VERSION,
            "layout": self.layout,
            "commons": list(commons),
            "files": {
                name: [size, mtime, *info[:4], info.at, number[info.common]]
                for name, (size, mtime, info) in zip(names, entries, strict=True)
            },
        }
        for folder in (Path(self.folder), self.elsewhere):
            with suppress(OSError):
                if folder == self.elsewhere:
                    folder.mkdir(parents=True, exist_ok=True)
                with atomic_path(folder / self.name) as temporary:
                    temporary.write_text(json.dumps(held))
                return


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
