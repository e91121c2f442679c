"""Staging: a data set from the shared file system to node-local storage, read there once, sent on over MPI.

Ranks with the same host name share a node. The environment variable HPC_TRAIN_NODE, where it is set, names a rank's
node instead: for sites where several "nodes" share a host.

Files are copied as bytes and HDF5 is not involved. This suite's readers open files with HDF5's locking off; other
programs that read the copies may need HDF5_USE_FILE_LOCKING=FALSE where the file system has no locks.
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
from hpc_train.data.staging.copying import UNREADABLE, Copier
from hpc_train.data.staging.destination import check_place, check_unmixed, clear, names_to_keep, prepare
from hpc_train.data.staging.manifest import Manifest, Source
from hpc_train.data.staging.nodes import Nodes, Share, deal, find_nodes
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import agree

_PROGRESS_SECONDS = 5
_SHOWN = 5


@dataclass(frozen=True)
class Staged:
    """What `stage` did."""

    directory: Path
    files: list[str]
    """Paths of the copies that this node now holds, in the order of the source's files."""
    bytes: int
    """Brought now, to all nodes together."""
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
    """Bring files to `destination` on every node. Collective.

    Each file is read from the source by one rank of one node, in pieces of 16 MiB, and broadcast among one rank of
    each node that lacks anything. A copy gets its name when its bytes, read back, have the source's checksum. What an
    earlier job left whole is kept: the destination's manifest tells; its copies that are no longer of the data are
    removed. A rank holds about 6 pieces.

    Args:
        files: paths of the source; rank 0's count.
        root: their common folder; a copy is at destination/<path below root>. Rank 0's counts.
        destination: a folder of this rank's node; made if need be.
        comm: the ranks: mpi4py's, or `parallel.mpi.Alone`.
        part: each node holds its share of the files, balanced by bytes, and nothing is sent.
        verify: read what is already there, and bring it again where its checksum is not the recorded one.
        retries: how often a failed or damaged copy is made again.
        report: prints a line; called on rank 0.
        copier: how storage is touched.

    Raises:
        UserError: a source is missing, changes or cannot be read; a destination cannot be written, is too small or
            holds data files that no job staged; or a copy still fails after all retries. What is found before bytes
            move, or after, is raised on all ranks; an error of storage in between on one rank, which must then end the
            others (`parallel.mpi.job`).
    """
    began = time.perf_counter()
    copier, manifest = copier or Copier(), Manifest(Path(os.path.abspath(destination)))
    report = _silent if comm.rank else report
    files, root = comm.bcast((list(files), str(root)))
    nodes = find_nodes(comm)
    sources = _survey(files, root, comm)
    mine = np.ones(len(sources), bool)
    if part:
        mine = deal([source.size for source in sources], len(nodes.ranks)) == nodes.mine
    with agree(comm):
        check_place(root, manifest.directory)
        removed = 0
        if nodes.local == 0:
            prepare(manifest, nodes)
            removed = clear(names_to_keep(sources, mine, manifest), root, manifest, nodes)
    removed = sum(comm.allgather(removed))
    if removed:
        report(f"removed {removed} files that are no longer of the data")
    lacking, damaged = _inspect(sources, mine, manifest, nodes, comm, verify)
    _list(report, "damaged, staged again", comm.gather([(nodes.name, name, "") for name in damaged]))
    with agree(comm):
        if nodes.local == 0:
            _check_space(_bytes(sources, lacking), manifest, nodes, copier)
    account = (_bytes(sources, lacking), int(mine.sum() - lacking.sum())) if nodes.local == 0 else (0, 0)
    brought, reused = (sum(column) for column in zip(*comm.allgather(account), strict=True))

    read = 0
    for attempt in range(retries + 1):
        share = Share(sources, lacking, part, nodes, comm)
        progress = _Progress(report, sum(source.size for source in share.sources))
        try:
            failed, opened = transfer(share.sources, share.owners, share.wanted, share.lane, manifest, copier, progress)
        except UserError as error:
            raise UserError(f"node {nodes.name}: {error}; mend it and stage again: what is whole is kept") from error
        share.lane.Free()
        read += opened
        everywhere = comm.allgather([(nodes.name, name, reason) for name, reason in failed.items()])
        failures = [failure for rank in everywhere for failure in rank]
        if not failures:
            break
        if attempt == retries:
            node, name, reason = min(failures, key=lambda failure: failure[2] == UNREADABLE)
            raise UserError(
                f"{name} did not reach node {node} in {attempt + 1} attempts: {reason}; look for a failing disk or a "
                "program that writes to the source, then stage again: what is whole is kept"
            ).agreed()
        _list(report, f"retry {attempt + 1} of {retries}", everywhere)
        missing = {name for node, name, _ in failures if node == nodes.name}
        lacking = np.array([source.name in missing for source in sources], bool)
        sources = _survey(files, root, comm)

    with agree(comm):
        if nodes.local == 0:
            check_unmixed(names_to_keep(sources, mine, manifest), manifest, nodes)
    seconds, count = time.perf_counter() - began, len(nodes.ranks)
    report(
        f"staged {len(sources)} files to {manifest.directory} on {count} node{'s' * (count > 1)}"
        f"{', a part each' * part}: "
        f"{_size(brought)} in {seconds:.1f} s, {brought / seconds / 1e9:.2f} GB/s in all, "
        f"{brought / seconds / count / 1e9:.2f} GB/s a node; {reused} copies were already there"
    )
    held = [str(manifest.directory / source.name) for source, held in zip(sources, mine, strict=True) if held]
    return Staged(manifest.directory, held, brought, seconds, reused, read)


class _Progress:
    """A line every few seconds; rank 0's share stands for all, since shares are balanced by bytes."""

    def __init__(self, report: Callable[[str], None], total: int):
        self.report, self.total, self.done = report, total, 0
        self.began = self.told = time.perf_counter()

    def __call__(self, length: int) -> None:
        self.done += length
        now = time.perf_counter()
        if self.done and now - self.told >= _PROGRESS_SECONDS:
            self.told = now
            left = (now - self.began) * (self.total - self.done) / self.done
            self.report(f"staging: {self.done / self.total:.0%}, {left:.0f} s left")


def _survey(files: list[str], root: str, comm) -> list[Source]:
    """Size and time of every file, each asked for by one rank."""
    own = []
    with agree(comm):
        for file in files[comm.rank :: comm.size]:
            name = os.path.relpath(file, root)
            if name.split(os.sep)[0] == os.pardir:
                raise UserError(f"{file} is not below {root}: give files with a common folder")
            try:
                status = os.stat(file)
            except OSError as error:
                raise UserError(f"cannot read the source {file}: {error.strerror}") from error
            if not stat.S_ISREG(status.st_mode):
                raise UserError(f"cannot stage {file}: it is not a regular file")
            own.append(Source(name, os.path.abspath(file), status.st_size, status.st_mtime_ns))
    sources = {source.name: source for rank in comm.allgather(own) for source in rank}
    return [sources[name] for name in sorted(sources)]


def _inspect(sources, mine, manifest: Manifest, nodes: Nodes, comm, verify: bool) -> tuple[np.ndarray, list[str]]:
    """Which of its files this node lacks, and those of them that this rank found damaged; its ranks share the work."""
    neighbours = comm.Split(nodes.mine, comm.rank)
    records = manifest.records()
    lacking, damaged = [], []
    for i in np.flatnonzero(mine)[neighbours.rank :: neighbours.size]:
        source, record = sources[i], records.get(sources[i].name)
        if not manifest.whole(source, record):
            lacking.append(i)
        elif verify and not manifest.sound(source, record):
            lacking.append(i)
            damaged.append(source.name)
    result = np.zeros(len(sources), bool)
    result[[i for rank in neighbours.allgather(lacking) for i in rank]] = True
    neighbours.Free()
    return result, damaged


def margin(needed: int) -> int:
    """Bytes that stay free beside copies of `needed` bytes: for manifest, folders, other users of the disk."""
    return max(64 * 2**20, needed // 100)


def _check_space(needed: int, manifest: Manifest, nodes: Nodes, copier: Copier) -> None:
    if not needed:
        return
    free = copier.free(manifest.directory)
    if needed + margin(needed) > free:
        raise UserError(
            f"node {nodes.name} is too full: staging needs {_size(needed + margin(needed))} in {manifest.directory}, "
            f"{_size(free)} are free; make room, name another folder, or stage a part to each node"
        )


def _bytes(sources: list[Source], options: np.ndarray) -> int:
    return sum(sources[i].size for i in np.flatnonzero(options))


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def _list(report: Callable[[str], None], what: str, ranks: list | None) -> None:
    failures = [failure for rank in ranks or () for failure in rank]
    for node, name, reason in failures[:_SHOWN]:
        report(f"{what}: {name} on node {node}{reason and ': '}{reason}")
    if len(failures) > _SHOWN:
        report(f"{what}: {len(failures) - _SHOWN} more files")


def _silent(text: str) -> None:
    """Ranks other than the first say nothing."""
