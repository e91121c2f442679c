"""How the steps of a plan are read: several small ones together, some ahead, in memory of a known size."""

import os
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reading.blocks import KEPT
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.reader import Reader

# Small batches are read together; where `tf.data` separates them, it copies them. Larger ones are read one by one.
_SMALL_BATCH = 2**20
_GROUP_BYTES = 8 * 2**20
_MOST_STEPS = 64
# Default memory for read-ahead in each rank, and its least and most groups.
_AHEAD_BYTES = 512 * 2**20
_LEAST_GROUPS, _MOST_GROUPS = 2, 4
_LEAST_THREADS, _MOST_THREADS = 4, 16


class ReadAhead:
    """Reads one rank's steps ahead.

    Args:
        reader: reads the samples.
        batch_size: samples of a step.
        threads: threads that read and decode; by default one for each core that the process may use, within 4 and 16.
        read_ahead: batches in memory or being read; by default as many as fit in 512 MiB, within bounds.

    Attributes:
        together: steps that are read at once, as a group.
        groups: groups that are read ahead.
    """

    def __init__(self, reader: Reader, batch_size: int, threads: int | None = None, read_ahead: int | None = None):
        self.reader, self.batch_size = reader, batch_size
        cores = len(os.sched_getaffinity(0))
        self.threads = threads or max(_LEAST_THREADS, min(_MOST_THREADS, cores))
        batch_bytes = batch_size * reader.sample_bytes
        # At least two groups, so that one is read while the other is used.
        most = read_ahead // 2 if read_ahead else _MOST_STEPS
        small = batch_bytes <= _SMALL_BATCH
        self.together = max(1, min(_MOST_STEPS, _GROUP_BYTES // batch_bytes, most)) if small else 1
        self.group_bytes = self.together * batch_bytes
        if read_ahead:
            self.groups = -(-read_ahead // self.together)
        else:
            self.groups = max(_LEAST_GROUPS, min(_MOST_GROUPS, _AHEAD_BYTES // self.group_bytes))

    def training(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> Loader:
        """A loader of `steps` steps that begin `position` samples into `epoch` and continue into the next epochs."""
        block = plan.order.block if plan.order.block > 1 else None
        horizon = -(-plan.order.window // (plan.batch_size * self.together)) if block else 0
        groups = self._planned(plan, rank, epoch, position, steps)
        return Loader(self.reader, groups, self.threads, self.groups, block, horizon)

    def validation(self, plan: ValidationPlan, rank: int) -> Loader:
        """A loader of one pass over this rank's share."""
        batches = (plan.indices(step, rank) for step in range(plan.steps))
        alike = groupby(enumerate(batches), lambda item: (item[0] // self.together, len(item[1])))
        groups = (np.stack([batch for _, batch in some]) for _, some in alike)
        return Loader(self.reader, groups, self.threads, self.groups)

    def memory(self, order=None) -> int:
        """Most bytes of samples that a loader holds: the groups ahead, one in use, one whose memory is returned.

        Args:
            order: that of the training plan. Shuffling by blocks also holds the blocks of two windows and of the
                groups.
        """
        held = (self.groups + 2) * self.group_bytes
        if order is not None and order.block > 1:
            planned = self.groups * self.together * self.batch_size
            # A block at each end of a window, and the memory that `Blocks` keeps for the next ones.
            held += (2 * order.window + planned + (2 + KEPT) * order.block) * self.reader.sample_bytes
        return held

    def _planned(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> Iterator[np.ndarray]:
        while steps:
            here = min(plan.steps(position), steps)
            for step in range(0, here, self.together):
                yield plan.batches(epoch, step, min(self.together, here - step), rank, position)
            epoch, position, steps = epoch + 1, 0, steps - here
