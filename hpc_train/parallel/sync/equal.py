"""Checks while training that the ranks are still one model."""

import keras

from hpc_train.parallel.replicas import check_replicas
from hpc_train.parallel.sync.local_state import average_local_state
from hpc_train.parallel.variables import everything, is_seed, replicated


class EqualReplicas(keras.callbacks.Callback):
    """Check every `every` steps that weights and optimizer state are equal on all ranks, and all state at the end.

    Raises:
        UserError: on every rank, naming the variables that differ.
    """

    def __init__(self, every: int = 500):
        super().__init__()
        self.every = every
        self.steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        if self.every and self.steps and self.steps % self.every == 0:
            check_replicas(replicated(self.model), self._when())
        self.steps += 1

    def on_train_end(self, logs=None):
        # The next `fit` begins with rank 0's state on every rank.
        average_local_state(self.model)
        check_replicas([v for v in everything(self.model) if not is_seed(v)], f"{self._when()}, the last")

    def _when(self) -> str:
        return f"after step {int(self.model.optimizer.iterations)}"
