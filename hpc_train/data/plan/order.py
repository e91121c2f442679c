"""The shuffled order of an epoch: which sample is at which place. Pure functions of integers, no files.

`FullOrder` is one permutation of all samples, for storage with fast random access.

`BlockOrder` is for storage that needs few long reads. The epoch permutes blocks of consecutive samples and puts them
end to end in a ring. The ring is cut at a random sample, so that an epoch leaves out any sample at its end with the
same chance. The samples are then divided into lanes, one for each rank, and every lane is mixed in windows. A global
batch takes the next `stride` samples of each lane in turn. So a prefix of the order is what all ranks have consumed
together, and yet every rank reads its own blocks and uses them up within two or three windows.

Lanes and stride belong to the order: a run records them (`as_dict`) when it begins, and keeps them when it goes on
with another number of ranks. The order is then the same and only its locality changes. A number of ranks that divides
the lanes, with the first batch size or the same global batch, keeps every block on one rank, and each rank holds the
windows of several lanes. Other numbers share lanes, and read a block once for each rank that shares it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import ClassVar

import numpy as np

from hpc_train.data.plan.permutation import derive, inverse, permute
from hpc_train.errors import UserError

# A read of 4 MiB keeps a parallel file system's stripes busy; a window of 16 of them still fits beside a model.
READ_BYTES = 4 * 2**20
BLOCKS_IN_WINDOW = 16
# Numbers of the derived seeds: one for the blocks, one for the cut, then one for each window.
_BLOCKS, _CUT, _WINDOWS = 0, 1, 2


@dataclass(frozen=True)
class Order(ABC):
    """A one-to-one map from places in [0, samples) to samples, another in each epoch.

    Args:
        samples: number of samples.
        seed: seed of the permutations.
        block: consecutive samples that one read fetches; the data set's last block may be short.
    """

    shuffle: ClassVar[str]
    samples: int
    seed: int
    block: int

    @abstractmethod
    def indices(self, places, epoch: int) -> np.ndarray:
        """Data-set indices, int64 of the shape of `places`, of the samples at these places of the epoch."""

    @abstractmethod
    def places(self, indices, epoch: int) -> np.ndarray:
        """Places in the epoch, int64 of the shape of `indices`, of these samples: the inverse of `indices`."""

    def blocks(self, places, epoch: int) -> np.ndarray:
        """The distinct blocks, int64 in rising order, that hold the samples at these places.

        Block k holds the samples from k * block up to (k + 1) * block or the end of the data set.
        """
        return np.unique(self.indices(places, epoch) // self.block)

    def as_dict(self) -> dict:
        """The parameters that define the order, for the run's record; `from_dict` reads them back."""
        names = [known.name for known in fields(self) if known.init]
        return {"shuffle": self.shuffle, **{name: getattr(self, name) for name in names}}


@dataclass(frozen=True)
class FullOrder(Order):
    """One permutation of all samples."""

    shuffle: ClassVar[str] = "full"
    block: int = field(default=1, init=False, repr=False)

    def indices(self, places, epoch):
        return permute(places, self.samples, self.seed, epoch)

    def places(self, indices, epoch):
        return inverse(indices, self.samples, self.seed, epoch)


@dataclass(frozen=True)
class BlockOrder(Order):
    """Permuted blocks, dealt to lanes and mixed in windows.

    With the ranks and the batch size with which the run began, all ranks together read at most
    ceil(samples / block) + lanes blocks.

    Args:
        window: most samples that are mixed together; a lane is cut into windows whose sizes differ by at most one. A
            rank holds the blocks of its window, or of two windows where a batch crosses from one to the next.
        lanes: number of ranks when the run began.
        stride: batch size when the run began.

    Raises:
        UserError: when a number is out of range.
    """

    shuffle: ClassVar[str] = "blocks"
    window: int
    lanes: int
    stride: int

    def __post_init__(self):
        names = {"samples": "training samples", "block": "samples in a block", "lanes": "ranks", "stride": "batch size"}
        for key, name in names.items():
            if getattr(self, key) < 1:
                raise UserError(f"shuffling by blocks: {name}: {getattr(self, key)}; it must be at least 1")
        if self.window < self.block:
            raise UserError(
                f"shuffling by blocks: a window of {self.window} samples cannot mix blocks of {self.block}; "
                f"use a window of at least {self.block}, or smaller blocks"
            )

    @classmethod
    def fit(cls, samples, seed, size, batch_size, block=None, window=None, sample_bytes=None):
        """The order of a run that begins on `size` ranks.

        Args:
            size: number of ranks.
            batch_size: samples that a rank takes in a step.
            block: by default the samples in a read of 4 MiB, or fewer where a rank's share is smaller than a window.
            window: by default 16 blocks; one sample where a block is one, as permuting those mixes all samples.
            sample_bytes: bytes of a sample as stored; needed without `block`.

        Raises:
            UserError: when a number is out of range.
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
        """Samples of one lane. Those that do not fill a stride of every lane stay at the order's end, not dealt."""
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
        """Positions in the stream after `move` within the windows of the parts of `length` that begin at `start`."""
        moved = start + local
        if not local.size:
            return moved
        short, longer = divmod(length, -(-length // self.window))
        edge = longer * (short + 1)  # the first `longer` windows have one sample more than the others
        for chosen, first, size in ((local < edge, 0, short + 1), (local >= edge, edge, short)):
            if size > 1 and chosen.any():
                inside = (local[chosen] - first) % size
                opening = moved[chosen] - inside
                # The position of its first sample identifies a window: no two windows share a seed.
                seeds = derive(self.seed, _WINDOWS + opening)
                moved[chosen] = opening + move(inside, size, seeds, epoch)
        return moved

    def _block_by_block(self, move, positions, epoch):
        """`positions` after `move` among the full blocks; a short block stays last, and the cut moves it anywhere."""
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


def from_dict(record: dict) -> Order:
    """The order whose `as_dict` this is; UserError for anything else."""
    kinds: dict[str, type[Order]] = {kind.shuffle: kind for kind in (FullOrder, BlockOrder)}
    parameters = dict(record)
    try:
        return kinds[parameters.pop("shuffle")](**{name: int(value) for name, value in parameters.items()})
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f"{record} does not name an order of samples; restore the run's record, or start a new run"
        ) from None
