"""Files in pieces from a source, through MPI, to verified copies: the part of staging that moves bytes.

A *lane* is a communicator of one rank a node. Its ranks walk the same schedule of pieces; the owner of a piece's file
broadcasts it, so MPI's own algorithm for long messages carries it, and every node's network link takes each byte in
once. Owners read ahead in a thread while others broadcast; another thread writes, a third one verifies.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from hpc_train.data.staging.copying import TRAILER, Copier, Piece, Reading, Writing
from hpc_train.data.staging.manifest import Manifest, Source

PIECE = 16 * 2**20
# Files of a lane that are under way at the same time; as many are open on every rank.
_ACTIVE = 16
# Pieces that a rank reads ahead, and pieces that wait to be written.
_AHEAD, _UNWRITTEN = 2, 2


def schedule(sizes: Sequence[int], width: int) -> Iterator[Piece]:
    """Pieces of files of `sizes` bytes in the order of their travel: `width` files take turns, a piece each."""
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
        manifest: of the destination; it gets a record of every verified copy.
        copier: how storage is touched.
        progress: called with the length of every piece.

    Returns:
        Copies on this node that failed and may be tried again: name of the file and reason; and how many source files
        this rank read.

    Raises:
        UserError: storage refuses, in a way that will not go away by itself. Raised on this rank alone.
    """
    pieces = list(schedule([source.size for source in sources], min(_ACTIVE, lane.size)))
    own = iter([piece for piece in pieces if owners[piece.number] == lane.rank])
    buffers: list[bytearray] = []
    reading, writing = Reading(sources, copier), Writing(sources, manifest, copier)
    reads: deque[Future] = deque()
    writes: deque[tuple[Future | None, bytearray]] = deque()
    with writing, ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:

        def buffer() -> bytearray:
            return buffers.pop() if buffers else bytearray(PIECE + TRAILER)

        def read_ahead(count: int) -> None:
            for piece in itertools.islice(own, count):
                reads.append(reader.submit(reading.read, piece, buffer()))

        def settle(keep: int) -> None:
            while len(writes) > keep:
                written, data = writes.popleft()
                if written:
                    written.result()
                buffers.append(data)

        read_ahead(_AHEAD)
        for piece in pieces:
            owner = owners[piece.number]
            data = reads.popleft().result() if owner == lane.rank else buffer()
            if lane.size > 1:
                lane.Bcast(memoryview(data)[: piece.message], root=owner)
            written = writer.submit(writing.write, piece, data) if wanted[piece.number] else None
            writes.append((written, data))
            settle(_UNWRITTEN)
            if owner == lane.rank:
                read_ahead(1)
            progress(piece.length)
        settle(0)
        writing.settle(0)
    failed = writing.failed | {number: reason for number, reason in reading.failed.items() if wanted[number]}
    return {sources[number].name: reason for number, reason in failed.items()}, reading.opened
