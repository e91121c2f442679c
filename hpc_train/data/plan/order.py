"""The shuffled order of an epoch: which sample stands at which place. Pure functions of integers, no files.

`FullOrder` is one permutation of all samples: right where the storage serves random access.

`BlockOrder` is for storage that wants few long reads. The epoch permutes blocks of consecutive samples and lays
them end to end; this ring of blocks is cut at a random sample, so that what an epoch leaves out at its end is any
sample alike. The stretch of blocks is then divided into lanes, one a rank, and every lane is mixed in windows. A
global batch takes the next `stride` samples of each lane in turn, so that a prefix of the order is what all ranks
have consumed together, and yet every rank reads its own blocks and uses them up within two or three windows.

Lanes and stride belong to the order: a run records them (`as_dict`) when it begins, and goes on with them whatever
its ranks are then. On other ranks the order is the same and only its locality changes: a number of ranks that
divides the lanes, with the batch size of the beginning or with the same global batch, keeps every block on one rank,
each rank holding the windows of several lanes; others share lanes, and read a block once for each rank that shares it.
"""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np

from hpc_train.data.plan.permutation import derive, inverse, permute
from hpc_train.errors import UserError

# A read of 4 MiB keeps a parallel file system's stripes busy; a window of 16 of them still fits beside a model.
READ_BYTES = 4 * 2**20
BLOCKS_IN_WINDOW = 16
# Numbers of the derived seeds: one for the blocks, one for the cut, then one a window.
_BLOCKS, _CUT, _WINDOWS = 0, 1, 2


@dataclass(frozen=True)
class Order(ABC):
    """What both orders have: they map places in [0, samples) to samples one to one, anew in each epoch."""

    samples: int
    seed: int

    @abstractmethod
    def indices(self, places, epoch):
        """Data-set indices, int64 of the shape of `places`, of the samples at these places of the epoch."""

    @abstractmethod
    def places(self, indices, epoch):
        """Places in the epoch, int64 of the shape of `indices`, of these samples: the inverse of `indices`."""

    def blocks(self, places, epoch):
        """The distinct blocks, ascending int64, that hold the samples at these places.

        Block k holds the samples from k * block up to (k + 1) * block or the end of the data set.
        """
        return np.unique(self.indices(places, epoch) // self.block)

    def as_dict(self):
        """The parameters that fix the order, for the run's record; `from_dict` reads them back."""
        return {"shuffle": self.shuffle, **asdict(self)}


@dataclass(frozen=True)
class FullOrder(Order):
    """One permutation of all samples."""

    shuffle: ClassVar[str] = "full"
    block: ClassVar[int] = 1

    def indices(self, places, epoch):
        return permute(places, self.samples, self.seed, epoch)

    def places(self, indices, epoch):
        return inverse(indices, self.samples, self.seed, epoch)


@dataclass(frozen=True)
class BlockOrder(Order):
    """Permuted blocks, dealt to lanes and mixed in windows.

    block: consecutive samples that one read fetches (the data set's last block may be short); window: the most
    samples that are mixed together (a lane is cut in windows whose sizes differ by at most one): a rank holds the
    blocks of its window, or of two where a batch lies across; lanes: ranks, and stride: batch size, when the run
    began. Raises UserError when a number is out of range.

    Ranks and batch size being those, all ranks together touch at most ceil(samples / block) + lanes blocks.
    """

    shuffle: ClassVar[str] = "blocks"
    block: int
    window: int
    lanes: int
    stride: int

    def __post_init__(self):
        names = {"samples": "training samples", "block": "samples in a block", "lanes": "ranks", "stride": "batch size"}
        for field, name in names.items():
            if getattr(self, field) < 1:
                raise UserError(f"shuffling by blocks: {name}: {getattr(self, field)}; it must be at least 1")
        if self.window < self.block:
            raise UserError(
                f"shuffling by blocks: a window of {self.window} samples cannot mix blocks of {self.block}; "
                f"use a window of at least {self.block}, or smaller blocks"
            )

    @classmethod
    def fit(cls, samples, seed, size, batch_size, block=None, window=None, sample_bytes=None):
        """The order of a run that begins on `size` ranks with `batch_size` samples a rank and step.

        Without `block`: as many samples of `sample_bytes` bytes (as they are stored) as make a read of 4 MiB, and
        fewer where a rank's share would be less than a window. Without `window`: 16 blocks; blocks of one sample need
        none, since their permutation is already that of all samples. Raises UserError as the class does.
        """
        if block is None:
            if not sample_bytes:
                raise ValueError("give the samples of a block, or the bytes of a sample")
            block = max(1, min(READ_BYTES // sample_bytes, samples // (max(size, 1) * BLOCKS_IN_WINDOW)))
        if window is None:
            window = BLOCKS_IN_WINDOW * block if block > 1 else block
        return cls(samples, seed, block, window, lanes=size, stride=batch_size)

    @property
    def share(self):
        """Samples of one lane. What does not fill a stride of every lane stands, undealt, at the order's end."""
        return self.samples // (self.lanes * self.stride) * self.stride

    def indices(self, places, epoch):
        shape = np.shape(places)
        places = self._checked(places)
        stream = np.empty_like(places)
        dealt = places < self.share * self.lanes
        turn, inside = np.divmod(places[dealt], self.stride)
        turn, lane = np.divmod(turn, self.lanes)
        stream[dealt] = self._mix(permute, lane * self.share, turn * self.stride + inside, self.share, epoch)
        stream[~dealt] = self._mix_tail(permute, places[~dealt], epoch)
        indices = self._block_by_block(permute, (stream + self._cut(epoch)) % self.samples, epoch)
        return indices.reshape(shape)

    def places(self, indices, epoch):
        stream = self._block_by_block(inverse, self._checked(indices), epoch)
        stream = (stream - self._cut(epoch)) % self.samples
        places = np.empty_like(stream)
        dealt = stream < self.share * self.lanes
        lane = stream[dealt] // max(self.share, 1)
        start = lane * self.share
        local = self._mix(inverse, start, stream[dealt] - start, self.share, epoch) - start
        turn, inside = np.divmod(local, self.stride)
        places[dealt] = (turn * self.lanes + lane) * self.stride + inside
        places[~dealt] = self._mix_tail(inverse, stream[~dealt], epoch)
        return places.reshape(np.shape(indices))

    def _mix_tail(self, move, places, epoch):
        start = self.share * self.lanes
        return self._mix(move, np.full_like(places, start), places - start, self.samples - start, epoch)

    def _mix(self, move, start, local, length, epoch):
        """Positions in the stream after `move` inside windows of the stretches of `length` that begin at `start`."""
        moved = start + local
        if not local.size:
            return moved
        short, longer = divmod(length, -(-length // self.window))
        edge = longer * (short + 1)  # the first `longer` windows hold one sample more than the others
        for chosen, first, size in ((local < edge, 0, short + 1), (local >= edge, edge, short)):
            if size > 1 and chosen.any():
                inside = (local[chosen] - first) % size
                opening = moved[chosen] - inside
                # The position of its first sample names a window: no two windows share a seed.
                seeds = derive(self.seed, _WINDOWS + opening)
                moved[chosen] = opening + move(inside, size, seeds, epoch)
        return moved

    def _block_by_block(self, move, positions, epoch):
        """`positions` after `move` among the whole blocks; a short block stays last: the cut moves it anywhere."""
        whole = self.samples // self.block
        slot, inside = np.divmod(positions, self.block)
        movable = slot < whole
        slot[movable] = move(slot[movable], max(whole, 1), derive(self.seed, _BLOCKS), epoch)
        return slot * self.block + inside

    def _cut(self, epoch):
        return int(derive(derive(self.seed, _CUT), epoch)) % self.samples

    def _checked(self, numbers):
        numbers = np.asarray(numbers).astype(np.int64).ravel()
        if numbers.size and not (numbers.min() >= 0 and numbers.max() < self.samples):
            raise ValueError(f"places and indices must lie in [0, {self.samples})")
        return numbers


def from_dict(record):
    """The order whose `as_dict` this is. Raises UserError when it is none."""
    kinds = {kind.shuffle: kind for kind in (FullOrder, BlockOrder)}
    fields = dict(record)
    try:
        return kinds[fields.pop("shuffle")](**{name: int(value) for name, value in fields.items()})
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{record} does not name an order of samples; restore the run's record, or begin anew"
        ) from None
