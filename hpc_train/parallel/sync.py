"""Callbacks that keep the ranks of a Keras `fit` one model."""

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.collectives import broadcast_values, sum_arrays
from hpc_train.parallel.metrics import ExactMetrics
from hpc_train.parallel.optimizer import DistributedOptimizer
from hpc_train.parallel.replicas import check_layout, check_replicas
from hpc_train.parallel.unbuilt import leave, when_built
from hpc_train.parallel.variables import (
    everything,
    is_seed,
    named_optimizers,
    optimizers,
    replicated,
    seeds,
    statistics,
)

# Odd, so that every rank has a different offset modulo 2^32.
_SEED_STRIDE = 0x9E3779B1


def callbacks(check_every: int = 500, validation_steps: int | None = None) -> list[keras.callbacks.Callback]:
    """The callbacks that every distributed `fit` needs, in order; put them before your own.

    Args:
        check_every: steps between two checks that replicas are equal; 0 checks at the end only.
        validation_steps: see `ExactMetrics`.
    """
    return [ExactMetrics(validation_steps), Broadcast(), AverageStatistics(), EqualReplicas(check_every)]


class Broadcast(keras.callbacks.Callback):
    """Start from one rank's weights and optimizer state; make random layers draw different numbers on each rank.

    Args:
        root: that rank.
        local: variables that each rank keeps for itself.
    """

    def __init__(self, root: int = 0, local=()):
        super().__init__()
        self.root, self.local = root, list(local)

    def set_model(self, model):
        super().set_model(model)
        # Horovod's operations cannot be compiled by XLA, and Keras picks XLA by itself where there is a GPU.
        model.jit_compile = False

    def on_train_begin(self, logs=None):
        when_built(self.model, self._start)

    def on_train_end(self, logs=None):
        leave(self.model)

    def _start(self) -> None:
        model = self.model
        loss_scale_inside(model)
        self.check_optimizers()
        for optimizer in optimizers(model):
            if not optimizer.built and optimizer is model.optimizer:
                optimizer.build(model.trainable_variables)
        broadcast_variables(model, self.root, self.local)
        for seed in seeds(model):
            seed.assign(rank_seed(np.asarray(seed), hvd.rank()))

    def check_optimizers(self) -> None:
        """Refuse a model whose gradients would stay on their rank.

        Raises:
            UserError: on every rank, naming the optimizer.
        """
        model = self.model
        found = named_optimizers(model)
        plain = [(name, o) for name, o in found if not isinstance(o, DistributedOptimizer)]
        if len(found) > len(plain):
            # A compile() without an optimizer gives RMSprop, which the model's own training step does not use.
            plain = [(name, o) for name, o in plain if o is not model.optimizer]
        if model.trainable_variables and plain:
            name, optimizer = plain[0]
            raise UserError(
                f"the model's {name} is {type(optimizer).__name__}, which averages no gradients over ranks; wrap it in "
                "hpc_train.parallel.DistributedOptimizer (hvd.DistributedOptimizer does the same); where a model has "
                "several optimizers, wrap each"
            ).agreed()


def loss_scale_inside(model) -> None:
    """Turn LossScaleOptimizer(DistributedOptimizer(x)) into the other way round: all ranks must agree on overflow."""
    outer = model.optimizer
    inner = getattr(outer, "inner_optimizer", None)
    if isinstance(outer, keras.optimizers.LossScaleOptimizer) and isinstance(inner, DistributedOptimizer):
        inner.move_to(outer)


def rank_seed(state: np.ndarray, rank: int) -> np.ndarray:
    """A random layer's state on `rank`, from rank 0's state (2,): a different seed, the same counter."""
    moved = (int(state[0]) + rank * _SEED_STRIDE) % 2**32
    return np.array([moved, state[1]]).astype(state.dtype)


def broadcast_variables(model, root: int = 0, local=()) -> None:
    """Copy the variables of a built model and its optimizer from rank `root` to every rank, but not `local` ones.

    Collective.

    Raises:
        UserError: on every rank, when the ranks' models differ.
    """
    kept = {id(variable) for variable in local}
    variables = [variable for variable in everything(model) if id(variable) not in kept]
    check_layout(variables, model._flatten_layers())
    broadcast_values(variables, root)


def average_statistics(model) -> None:
    """Replace batch statistics by their means over the ranks, so that all ranks infer the same. Collective."""
    variables = statistics(model)
    if hvd.size() == 1 or not variables:
        return
    sums = sum_arrays([np.asarray(v, "float64") for v in variables], "hpc_train.statistics")
    for variable, total in zip(variables, sums, strict=True):
        variable.assign(tf.cast(total / hvd.size(), variable.dtype))


def average_local_state(model) -> None:
    """Replace the state that each rank gathers on its own by its mean over the ranks. Collective.

    This is batch statistics and, with lag 1, the waiting gradients. Then rank 0's state is that of all ranks, but for
    random layers' states, which stay as they are.
    """
    average_statistics(model)
    for optimizer in optimizers(model):
        if isinstance(optimizer, DistributedOptimizer):
            optimizer.average_waiting()


class AverageStatistics(keras.callbacks.Callback):
    """Average batch normalisation's moving statistics over the ranks before anything infers with them."""

    def on_test_begin(self, logs=None):
        average_statistics(self.model)

    def on_epoch_end(self, epoch, logs=None):
        average_statistics(self.model)


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
