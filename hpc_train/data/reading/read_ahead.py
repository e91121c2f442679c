"""How the steps of a plan are read: several small ones together, some of them ahead, in memory of a stated size."""

import os
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reading.blocks import KEPT
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.reader import Reader

# Small batches are read together, which `tf.data` pays with a copy when it takes them apart; larger ones go alone.
_SMALL_BATCH = 2**20
_GROUP_BYTES = 8 * 2**20
_MOST_STEPS = 64
# What read-ahead may take of a rank's memory where nobody says, and its least and most groups.
_AHEAD_BYTES = 512 * 2**20
_LEAST_GROUPS, _MOST_GROUPS = 2, 4
_LEAST_THREADS, _MOST_THREADS = 4, 16


class ReadAhead:
    """Reads one rank's steps ahead.

    reader: gives the samples; batch_size: of a step; threads: that read and decode, by default as many as the process
    may use of its cores, and at least 4; read_ahead: batches that are in memory or on their way, by default what
    512 MiB hold, within bounds.

    together: steps that are read at once; groups: of so many steps that are ahead.
    """

    def __init__(self, reader: Reader, batch_size: int, threads: int | None = None, read_ahead: int | None = None):
        self.reader, self.batch_size = reader, batch_size
        cores = len(os.sched_getaffinity(0))
        self.threads = threads or max(_LEAST_THREADS, min(_MOST_THREADS, cores))
        batch_bytes = batch_size * reader.sample_bytes
        # Two groups at least, so that one is read while the other is used.
        most = read_ahead // 2 if read_ahead else _MOST_STEPS
        small = batch_bytes <= _SMALL_BATCH
        self.together = max(1, min(_MOST_STEPS, _GROUP_BYTES // batch_bytes, most)) if small else 1
        self.group_bytes = self.together * batch_bytes
        if read_ahead:
            self.groups = -(-read_ahead // self.together)
        else:
            self.groups = max(_LEAST_GROUPS, min(_MOST_GROUPS, _AHEAD_BYTES // self.group_bytes))

    def training(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> Loader:
        """`steps` steps from `position` samples into `epoch` on, going on into the epochs after it."""
        block = plan.order.block if plan.order.block > 1 else None
        horizon = -(-plan.order.window // (plan.batch_size * self.together)) if block else 0
        groups = self._planned(plan, rank, epoch, position, steps)
        return Loader(self.reader, groups, self.threads, self.groups, block, horizon)

    def validation(self, plan: ValidationPlan, rank: int) -> Loader:
        """One pass over this rank's share."""
        batches = (plan.indices(step, rank) for step in range(plan.steps))
        alike = groupby(enumerate(batches), lambda item: (item[0] // self.together, len(item[1])))
        groups = (np.stack([batch for _, batch in some]) for _, some in alike)
        return Loader(self.reader, groups, self.threads, self.groups)

    def memory(self, order=None) -> int:
        """Bytes of samples that a loader holds at most: the groups ahead, one in use, one whose memory comes back.

        order: of the training plan: shuffling by blocks holds those of two windows as well, and those of the groups.
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
