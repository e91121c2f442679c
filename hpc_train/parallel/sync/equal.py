"""Checks while training that the ranks are still one model."""

import sys

import horovod.tensorflow as hvd
import keras

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.parallel.collectives import broadcast_values
from hpc_train.parallel.replicas import check_replicas
from hpc_train.parallel.sync.local_state import average_local_state
from hpc_train.parallel.variables import everything, is_seed, marks, optimizers, replicated


class EqualReplicas(keras.callbacks.Callback):
    """Check after the first step, and every `every` steps, that weights and optimizer state are equal on all ranks.

    At the end all state is checked. Where only whole numbers and truth values differ there, such as a count of what
    each rank has seen, rank 0's are kept and named: what was trained is not lost.

    Raises:
        UserError: on every rank, naming the variables that differ.
    """

    def __init__(self, every: int = 500):
        super().__init__()
        self.every = every
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.every and (self.steps == 1 or (self.steps and self.steps % self.every == 0)):
            check_replicas(replicated(self.model), self._when())
        self.steps += 1

    def on_train_end(self, logs=None):
        # The next `fit` begins with rank 0's state on every rank.
        average_local_state(self.model)
        counts = marks(self.model)
        self._settle(counts)
        known = {id(variable) for variable in counts}
        rest = [v for v in everything(self.model) if not is_seed(v) and id(v) not in known]
        check_replicas(rest, f"{self._when()}, the last")

    def _settle(self, counts: list) -> None:
        try:
            check_replicas(counts, f"{self._when()}, the last")
        except UserError as error:
            if hvd.rank() == 0:
                say(f"note: {error}; the values of rank 0 are kept", sys.stderr)
            broadcast_values(counts)

    def _when(self) -> str:
        steps = (int(optimizer.iterations) for optimizer in optimizers(self.model))
        # A model with a training step of its own need not use the optimizer of `compile`.
        return f"after step {max(steps, default=0)}"
