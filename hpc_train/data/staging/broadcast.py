"""The part of staging that moves bytes: files travel in pieces from a source, through MPI, to verified copies.

A *lane* is a communicator of one rank a node. Its ranks go through the same schedule of pieces. The owner of a piece's
file broadcasts the piece, so MPI's own algorithm for long messages carries it, and each byte enters every node's
network link once. Owners read ahead in a thread while others broadcast; another thread writes, a third one verifies.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from hpc_train.data.staging.copying import TRAILER, Copier, Piece, Reading, Writing
from hpc_train.data.staging.manifest import Manifest, Source

PIECE = 16 * 2**20
# Files of a lane that are copied at the same time; every rank has this many open.
_ACTIVE = 16
# Pieces that a rank reads ahead, and pieces that wait to be written.
_AHEAD, _UNWRITTEN = 2, 2


def schedule(sizes: Sequence[int], width: int) -> Iterator[Piece]:
    """Pieces of files of `sizes` bytes in the order of their broadcast: `width` files take turns, one piece each."""
    waiting = iter(range(len(sizes)))
    active = deque((number, 0) for number in itertools.islice(waiting, width))
    while active:
        number, offset = active.popleft()
        length = min(PIECE, sizes[number] - offset)
        last = offset + length == sizes[number]
        yield Piece(number, offset, length, last)
        if not last:
            active.append((number, offset + length))
        else:
            active.extend((following, 0) for following in itertools.islice(waiting, 1))


def transfer(
    sources: Sequence[Source],
    owners: Sequence[int],
    wanted: Sequence[bool],
    lane,
    manifest: Manifest,
    copier: Copier,
    progress: Callable[[int], None],
) -> tuple[dict[str, str], int]:
    """Copy a lane's files to every node of the lane that wants them. Collective over the lane.

    Args:
        sources: the lane's files, the same on each of its ranks.
        owners: for each file, the rank of the lane that reads it.
        wanted: for each file, whether this node has no good copy yet.
        lane: communicator of one rank a node.
        manifest: of the destination; every verified copy is recorded in it.
        copier: how storage is accessed.
        progress: called with the length of every piece.

    Returns:
        The copies on this node that failed and may be tried again, {name of the file: reason}; and the number of
        source files that this rank read.

    Raises:
        UserError: storage fails with an error that will not go away by itself. Raised on this rank alone.
    """
    pieces = list(schedule([source.size for source in sources], min(_ACTIVE, lane.size)))
    own = [piece for piece in pieces if owners[piece.number] == lane.rank]
    reading, writing = Reading(sources, copier), Writing(sources, manifest, copier)
    with writing, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        queues = _Queues(own, partial(reader.submit, reading.read), partial(writer.submit, writing.write))
        queues.read_ahead(_AHEAD)
        for piece in pieces:
            owner = owners[piece.number]
            data = queues.next_read() if owner == lane.rank else queues.buffer()
            if lane.size > 1:
                lane.Bcast(memoryview(data)[: piece.message], root=owner)
            queues.finish(piece, data, wanted[piece.number])
            if owner == lane.rank:
                queues.read_ahead(1)
            progress(piece.length)
        queues.settle(0)
        writing.settle(0)
    failed = writing.failed | {number: reason for number, reason in reading.failed.items() if wanted[number]}
    return {sources[number].name: reason for number, reason in failed.items()}, reading.opened


class _Queues:
    """Pieces that are being read and written in other threads, and the buffers that they take turns in."""

    def __init__(self, own: list[Piece], read: Callable[..., Future], write: Callable[..., Future]):
        self.own, self.read, self.write = iter(own), read, write
        self.buffers: list[bytearray] = []
        self.reads: deque[Future] = deque()
        self.writes: deque[tuple[Future | None, bytearray]] = deque()

    def buffer(self) -> bytearray:
        return self.buffers.pop() if self.buffers else bytearray(PIECE + TRAILER)

    def read_ahead(self, count: int) -> None:
        """Start to read the next `count` of this rank's own pieces."""
        for piece in itertools.islice(self.own, count):
            self.reads.append(self.read(piece, self.buffer()))

    def next_read(self) -> bytearray:
        return self.reads.popleft().result()

    def finish(self, piece: Piece, data: bytearray, wanted: bool) -> None:
        """Start to write a piece if it is wanted; its buffer is used again afterwards."""
        self.writes.append((self.write(piece, data) if wanted else None, data))
        self.settle(_UNWRITTEN)

    def settle(self, keep: int) -> None:
        """Wait until at most `keep` pieces are unwritten."""
        while len(self.writes) > keep:
            written, data = self.writes.popleft()
            if written:
                written.result()
            self.buffers.append(data)
