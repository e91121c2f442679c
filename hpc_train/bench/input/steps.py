"""The steps of a run, as the trainers read them, all in one process."""

from collections.abc import Iterator

import numpy as np

from hpc_train.data.plan import TrainPlan
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.read_ahead import ReadAhead
from hpc_train.data.reading.reader import Reader


class Steps:
    """The steps of `plan`, which has one rank, read by `reader`."""

    def __init__(self, reader: Reader, plan: TrainPlan):
        self.reader, self.plan = reader, plan

    def reading(self, read_ahead: int | None, threads: int | None = None) -> ReadAhead:
        """How the steps are read ahead."""
        return ReadAhead(self.reader, self.plan.batch_size, threads, read_ahead)

    def loader(self, epoch: int, steps: int, threads: int, read_ahead: int | None) -> Loader:
        """A loader of `steps` steps from the start of `epoch` on."""
        return self.reading(read_ahead, threads).training(self.plan, 0, epoch, 0, steps)

    def batches(self, epoch: int, steps: int) -> Iterator[np.ndarray]:
        """Indices (b,) of one step after the other, from the start of `epoch` on, and on into the next epochs."""
        for step in range(steps):
            later, within = divmod(step, self.plan.steps())
            yield self.plan.indices(epoch + later, within, 0)
