"""Which sample goes to which rank at which step: integers only, pure functions, no files."""

from dataclasses import dataclass

import numpy as np

from hpc_train.data.plan.order import FullOrder, Order
from hpc_train.errors import UserError


@dataclass(frozen=True)
class TrainPlan:
    """The shuffled order of a training epoch, and each rank's share of it.

    The order depends only on (seed, epoch), and on the recorded parameters of `order` where it has any. A position
    is the number of samples of the epoch already consumed, so a run can continue in the middle of an epoch with another
    number of ranks or another batch size. Samples left after the last full global batch are not used in that epoch;
    which these are differs from epoch to epoch.

    Args:
        samples: training samples in the data set.
        batch_size: samples that a rank takes in a step.
        size: number of ranks.
        seed: seed of the order.
        order: an order of the same samples and seed; by default `FullOrder`, a permutation of all samples.

    Raises:
        UserError: when the samples do not fill one global batch, or the order is of other samples.
    """

    samples: int
    batch_size: int
    size: int
    seed: int
    order: Order = None  # type: ignore[assignment]  # __post_init__ fills it in

    def __post_init__(self):
        _check_shape(self.batch_size, self.size)
        if self.order is None:
            object.__setattr__(self, "order", FullOrder(self.samples, self.seed))
        if (self.order.samples, self.order.seed) != (self.samples, self.seed):
            raise UserError(
                f"the recorded order is of {self.order.samples} samples with seed {self.order.seed}, but the run has "
                f"{self.samples} with seed {self.seed}; continue with the same data and seed, or start a new run"
            )
        if self.samples < self.global_batch:
            fits = self.samples // self.size
            remedy = f"use at most {max(self.samples, 1)} ranks"
            if fits:
                remedy = f"let each rank take at most {fits} in a step (--batch-size x --accumulate)"
            raise UserError(
                f"{self.samples} training samples are fewer than one global batch of {self.global_batch} "
                f"({self.batch_size} x {self.size} ranks); {remedy}"
            )

    @property
    def global_batch(self):
        """Samples that all ranks together consume in one step."""
        return self.batch_size * self.size

    def steps(self, position=0):
        """Steps that every rank makes from `position` to the end of the epoch."""
        self._check_position(position)
        return (self.samples - position) // self.global_batch

    def indices(self, epoch, step, rank, position=0) -> np.ndarray:
        """Data-set indices, int64 (batch_size,), of `rank` at the `step`-th step after `position`."""
        return self.batches(epoch, step, 1, rank, position)[0]

    def batches(self, epoch, step, count, rank, position=0) -> np.ndarray:
        """Data-set indices, int64 (count, batch_size), of `rank` in `count` steps from the `step`-th on.

        A call costs hundreds of microseconds for any size up to some thousand samples, so small batches are planned
        many at a time.
        """
        return self.order.indices(self.places(step, count, rank, position), epoch)

    def places(self, step, count, rank, position=0) -> np.ndarray:
        """Places in the epoch's order, int64 (count, batch_size), that `batches` looks up."""
        if not (0 <= step < self.steps(position) and 1 <= count <= self.steps(position) - step):
            last = f" to {step + count - 1}" if count != 1 else ""
            raise ValueError(f"step {step}{last} is not in [0, {self.steps(position)})")
        _check_rank(rank, self.size)
        start = position + step * self.global_batch + rank * self.batch_size
        starts = start + self.global_batch * np.arange(count, dtype=np.int64)
        return starts[:, np.newaxis] + np.arange(self.batch_size, dtype=np.int64)

    def _check_position(self, position):
        if not 0 <= position <= self.samples:
            raise ValueError(f"position {position} is not in [0, {self.samples}]")


@dataclass(frozen=True)
class ValidationPlan:
    """Contiguous shares of the samples, one for each rank, that differ by at most one sample.

    Every rank makes the same number of steps. A rank's real batches come first, and the last of them may be short.
    A rank without samples left gets padding: one row whose valid count is 0.

    Args:
        samples: samples in the data set.
        batch_size: samples that a rank takes in a step.
        size: number of ranks.

    Raises:
        UserError: when there is no sample.
    """

    samples: int
    batch_size: int
    size: int

    def __post_init__(self):
        _check_shape(self.batch_size, self.size)
        if self.samples < 1:
            raise UserError("there are no samples to validate on; give a data set with at least one")

    @property
    def steps(self):
        """Steps that every rank makes: those of the largest share."""
        return _ceil_div(_ceil_div(self.samples, self.size), self.batch_size)

    def real_steps(self, rank):
        """Steps of `rank` that hold at least one real row."""
        start, stop = self._share(rank)
        return _ceil_div(stop - start, self.batch_size)

    def valid(self, step, rank):
        """Number of real rows in the batch: 0 in a padding step."""
        start, stop = self._batch(step, rank)
        return stop - start

    def indices(self, step, rank):
        """Data-set indices, int64: the `valid` real rows of the batch, or one row in a padding step."""
        start, stop = self._batch(step, rank)
        if start == stop:
            # A row of the rank's own share if it has one, so that padding opens no other file.
            start = self._share(rank)[0]
            stop = start + 1
        return np.arange(start, stop, dtype=np.int64)

    def _share(self, rank):
        _check_rank(rank, self.size)
        return rank * self.samples // self.size, (rank + 1) * self.samples // self.size

    def _batch(self, step, rank):
        if not 0 <= step < self.steps:
            raise ValueError(f"step {step} is not in [0, {self.steps})")
        start, stop = self._share(rank)
        start = min(start + step * self.batch_size, stop)
        return start, min(start + self.batch_size, stop)


def _check_shape(batch_size, size):
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}; it must be at least 1")
    if size < 1:
        raise ValueError(f"the number of ranks is {size}; it must be at least 1")


def _check_rank(rank, size):
    if not 0 <= rank < size:
        raise ValueError(f"rank {rank} is not in [0, {size})")


def _ceil_div(a, b):
    return -(-a // b)
