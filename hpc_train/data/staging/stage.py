"""Staging: read a data set once from the shared file system and send it over MPI to node-local storage.

Ranks with the same host name share a node. The environment variable HPC_TRAIN_NODE, where it is set, names a rank's
node instead: for sites where several "nodes" share a host.

Files are copied as bytes, without HDF5. This suite's readers open files with HDF5's locking off; other programs that
read the copies may need HDF5_USE_FILE_LOCKING=FALSE where the file system has no locks.
"""

import os
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.console import say
from hpc_train.data.staging.broadcast import transfer
from hpc_train.data.staging.complete import check_complete
from hpc_train.data.staging.copying import UNREADABLE, Copier
from hpc_train.data.staging.destination import check_place, check_unmixed, clear, names_to_keep, prepare
from hpc_train.data.staging.manifest import Manifest, Source
from hpc_train.data.staging.nodes import Nodes, Share, deal, find_nodes
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import agree
from hpc_train.units import size

_PROGRESS_SECONDS = 5
_SHOWN = 5


@dataclass(frozen=True)
class Staged:
    """What `stage` did."""

    directory: Path
    files: list[str]
    """Paths of the copies that this node now holds, in the order of the source's files."""
    bytes: int
    """Copied by this call, to all nodes together."""
    seconds: float
    reused: int
    """Copies that were there already, on all nodes together."""
    read: int
    """Source files that this rank read."""


def stage(
    files: Sequence[str],
    root: str,
    destination: Path,
    comm,
    part: bool = False,
    verify: bool = False,
    retries: int = 3,
    report: Callable[[str], None] = say,
    copier: Copier | None = None,
) -> Staged:
    """Copy files to `destination` on every node. Collective.

    One rank of one node reads each file, in pieces of 16 MiB, and broadcasts it to one rank of each node that lacks a
    file. A copy gets its name when its bytes, read back, have the source's checksum. Complete copies of an earlier job,
    which the destination's manifest lists, are kept: those that were written or moved since are read first, and kept if
    they still have that checksum. Its copies that are no longer in the data are removed. Nobody but this user may write
    in the destination. A rank holds about 6 pieces.

    Args:
        files: paths of the source; those of rank 0 are used.
        root: their common folder; a copy is at destination/<path below root>. That of rank 0 is used.
        destination: a folder on this rank's node; it is made if it does not exist.
        comm: the ranks: mpi4py's, or `parallel.mpi.Alone`.
        part: each node holds its share of the files, balanced by bytes, and nothing is sent.
        verify: read the copies that are there, and copy those again whose checksum is wrong.
        retries: how often a failed or damaged copy is repeated.
        report: prints a line; called on rank 0.
        copier: how storage is accessed.

    Raises:
        UserError: a source is missing, changes, cannot be read or has bytes in a file that is not staged; a
            destination is another user's, cannot be written, is too small or holds data files that no job staged; or
            a copy still fails after all retries. Errors found before or after the copying are raised on all ranks. A
            storage error during the copying is raised on one rank, which must then end the others
            (`parallel.mpi.job`).
    """
    began = time.perf_counter()
    manifest = Manifest(Path(os.path.abspath(destination)))
    job = _Job(files, root, manifest, part, comm, copier or Copier(), _silent if comm.rank else report)
    job.clear()
    lacking = job.find_lacking(verify)
    copied, reused = job.count(lacking)
    read = job.copy(lacking, retries)
    job.check_unmixed()
    seconds = time.perf_counter() - began
    job.summarise(copied, reused, seconds)
    held = [str(manifest.directory / source.name) for source, held in zip(job.sources, job.mine, strict=True) if held]
    return Staged(manifest.directory, held, copied, seconds, reused, read)


class _Job:
    """The steps of `stage`; each is collective."""

    def __init__(self, files, root, manifest: Manifest, part: bool, comm, copier: Copier, report):
        self.manifest, self.part, self.comm, self.copier, self.report = manifest, part, comm, copier, report
        self.files, self.root = comm.bcast((list(files), str(root)))
        self.nodes = find_nodes(comm)
        self.sources = _survey(self.files, self.root, comm)
        self.mine = np.ones(len(self.sources), bool)
        """Whether this node is to hold each of the sources."""
        if part:
            sizes = [source.size for source in self.sources]
            self.mine = deal(sizes, len(self.nodes.ranks)) == self.nodes.mine

    def clear(self) -> None:
        """Make the destination and remove copies that are no longer in the data."""
        removed = 0
        with agree(self.comm):
            check_place(self.root, self.manifest.directory)
            if self.nodes.local == 0:
                prepare(self.manifest, self.nodes)
                removed = clear(self._names_to_keep(), self.root, self.manifest, self.nodes)
        removed = sum(self.comm.allgather(removed))
        if removed:
            self.report(f"removed {removed} files that are no longer in the data")

    def find_lacking(self, verify: bool) -> np.ndarray:
        """Whether this node lacks each of the sources, (sources,) bool; UserError where a disk is too full for them."""
        lacking, damaged = self._inspect(verify)
        _list(self.report, "damaged, staged again", self.comm.gather([(self.nodes.name, name, "") for name in damaged]))
        with agree(self.comm):
            # One rank looks into each file.
            mine = range(self.comm.rank, len(self.sources), self.comm.size)
            check_complete([self.sources[i].path for i in mine if lacking[i]], self.files)
            if self.nodes.local == 0:
                _check_space(_bytes(self.sources, lacking), self.manifest, self.nodes, self.copier)
        return lacking

    def _inspect(self, verify: bool) -> tuple[np.ndarray, list[str]]:
        """(whether this node lacks each source, damaged copies that this rank found); a node's ranks share the work."""
        neighbours = self.comm.Split(self.nodes.mine, self.comm.rank)
        records = self.manifest.records()
        lacking, damaged = [], []
        for i in np.flatnonzero(self.mine)[neighbours.rank :: neighbours.size]:
            source, record = self.sources[i], records.get(self.sources[i].name)
            if not self.manifest.whole(source, record):
                lacking.append(i)
            elif verify or not self.manifest.untouched(record):
                if not self.manifest.sound(source, record):
                    lacking.append(i)
                    damaged.append(source.name)
                elif not self.manifest.untouched(record):
                    self.manifest.confirm(record)
        result = np.zeros(len(self.sources), bool)
        result[[i for rank in neighbours.allgather(lacking) for i in rank]] = True
        neighbours.Free()
        return result, damaged

    def count(self, lacking: np.ndarray) -> tuple[int, int]:
        """(bytes to copy, copies that are there already), on all nodes together."""
        own = (_bytes(self.sources, lacking), int(self.mine.sum() - lacking.sum())) if self.nodes.local == 0 else (0, 0)
        copied, reused = (sum(column) for column in zip(*self.comm.allgather(own), strict=True))
        return copied, reused

    def copy(self, lacking: np.ndarray, retries: int) -> int:
        """Copy what the nodes lack, and repeat what failed; the number of source files that this rank read."""
        read = 0
        for attempt in range(retries + 1):
            failed, opened = self._attempt(lacking)
            read += opened
            node = self.nodes.name
            everywhere = self.comm.allgather([(node, name, reason) for name, reason in failed.items()])
            failures = [failure for rank in everywhere for failure in rank]
            if not failures:
                break
            if attempt == retries:
                raise _given_up(failures, attempt + 1)
            _list(self.report, f"retry {attempt + 1} of {retries}", everywhere)
            missing = {name for where, name, _ in failures if where == node}
            lacking = np.array([source.name in missing for source in self.sources], bool)
            self.sources = _survey(self.files, self.root, self.comm)
        return read

    def _attempt(self, lacking: np.ndarray) -> tuple[dict[str, str], int]:
        """What `transfer` returns."""
        share = Share(self.sources, lacking, self.part, self.nodes, self.comm)
        progress = _Progress(self.report, sum(source.size for source in share.sources))
        lane, to = share.lane, self.manifest
        try:
            result = transfer(share.sources, share.owners, share.wanted, lane, to, self.copier, progress)
        except UserError as error:
            where = f"node {self.nodes.name}"
            raise UserError(f"{where}: {error}; fix it and stage again: complete copies are kept") from error
        lane.Free()
        return result

    def check_unmixed(self) -> None:
        """UserError where another job put other data into the destination during this one."""
        with agree(self.comm):
            if self.nodes.local == 0:
                check_unmixed(self._names_to_keep(), self.manifest, self.nodes)

    def summarise(self, copied: int, reused: int, seconds: float) -> None:
        """Print the last line."""
        count = len(self.nodes.ranks)
        self.report(
            f"staged {len(self.sources)} files to {self.manifest.directory} on {count} node{'s' * (count > 1)}"
            f"{', a part each' * self.part}: "
            f"{size(copied)} in {seconds:.1f} s, {size(copied / seconds)}/s in total, "
            f"{size(copied / seconds / count)}/s a node; {reused} copies were already there"
        )

    def _names_to_keep(self) -> set[str]:
        return names_to_keep(self.sources, self.mine, self.manifest)


class _Progress:
    """Prints a line every few seconds for rank 0's share, which stands for all: shares are balanced by bytes."""

    def __init__(self, report: Callable[[str], None], total: int):
        self.report, self.total, self.done = report, total, 0
        self.began = self.printed = time.perf_counter()

    def __call__(self, length: int) -> None:
        self.done += length
        now = time.perf_counter()
        if self.done and now - self.printed >= _PROGRESS_SECONDS:
            self.printed = now
            left = (now - self.began) * (self.total - self.done) / self.done
            self.report(f"staging: {self.done / self.total:.0%}, {left:.0f} s left")


def _survey(files: list[str], root: str, comm) -> list[Source]:
    """Size and time of every file; each rank looks at some of them."""
    own = []
    with agree(comm):
        for file in files[comm.rank :: comm.size]:
            name = os.path.relpath(file, root)
            if name.split(os.sep)[0] == os.pardir:
                raise UserError(f"{file} is outside {root}; give files with a common folder")
            try:
                status = os.stat(file)
            except OSError as error:
                raise UserError(f"cannot read the source {file}: {error.strerror}") from error
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"cannot stage {file}: it is not a regular file")
            own.append(Source(name, os.path.abspath(file), status.st_size, status.st_mtime_ns))
    sources = {source.name: source for rank in comm.allgather(own) for source in rank}
    return [sources[name] for name in sorted(sources)]


def margin(needed: int) -> int:
    """Bytes to leave free beside copies of `needed` bytes: for the manifest, folders and other users of the disk."""
    return max(64 * 2**20, needed // 100)


def _check_space(needed: int, manifest: Manifest, nodes: Nodes, copier: Copier) -> None:
    if not needed:
        return
    free = copier.free(manifest.directory)
    if needed + margin(needed) > free:
        raise UserError(
            f"node {nodes.name} is too full: staging needs {size(needed + margin(needed))} in {manifest.directory}, "
            f"{size(free)} are free; make room, choose another folder, or stage a part to each node"
        )


def _bytes(sources: list[Source], lacking: np.ndarray) -> int:
    return sum(sources[i].size for i in np.flatnonzero(lacking))


def _given_up(failures: list, attempts: int) -> UserError:
    node, name, reason = min(failures, key=lambda failure: failure[2] == UNREADABLE)
    return UserError(
        f"{name} did not reach node {node} in {attempts} attempts: {reason}; look for a failing disk or a program that "
        "writes to the source, then stage again: complete copies are kept"
    ).agreed()


def _list(report: Callable[[str], None], what: str, ranks: list | None) -> None:
    failures = [failure for rank in ranks or () for failure in rank]
    for node, name, reason in failures[:_SHOWN]:
        report(f"{what}: {name} on node {node}{reason and ': '}{reason}")
    if len(failures) > _SHOWN:
        report(f"{what}: {len(failures) - _SHOWN} more files")


def _silent(text: str) -> None:
    """Ranks other than rank 0 print nothing."""
