"""State that each rank gathers from its own batches: batch statistics, and what a user's own layers remember."""

import sys

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.parallel.collectives import broadcast_values, sum_arrays
from hpc_train.parallel.optimizer import DistributedOptimizer
from hpc_train.parallel.replicas import checksums
from hpc_train.parallel.variables import named, optimizers, statistics

CHOICES = ("average", "root", "error")
# Layers whose state is a statistic, or the same on all ranks.
_STATISTICS = (keras.layers.BatchNormalization, keras.layers.Normalization, keras.layers.SpectralNormalization)


def average_statistics(model) -> None:
    """Replace batch statistics by their means over the ranks, so that all ranks infer the same. Collective."""
    _average(statistics(model))


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
    """Make state that each rank gathers from its own batches equal before anything infers with it.

    Statistics of batch normalisation are averaged. Other floating-point state that layers assign to, and that differs
    between ranks (a queue of earlier samples, a codebook, a running quantile), is named once, and treated as the user
    chose: a mean is right for some of it, and destroys other.

    Args:
        local_state: "average" over the ranks, "root" to take rank 0's, or "error" to end the training.

    Raises:
        ValueError: an unknown `local_state`.
        UserError: on every rank, in the second step or at the epoch's end, where `local_state` is "error".
    """

    def __init__(self, local_state: str = "average"):
        super().__init__()
        if local_state not in CHOICES:
            raise ValueError(f"local_state must be one of {', '.join(map(repr, CHOICES))}, not {local_state!r}")
        self.local_state = local_state
        self._named = False
        self._steps = 0

    def on_train_batch_begin(self, batch, logs=None):
        self._steps += 1
        if self._steps == 2:
            # One step has changed the state: what is wrong is seen before an epoch is lost.
            self._name(_others(self.model))

    def on_test_begin(self, logs=None):
        self._settle()

    def on_epoch_end(self, epoch, logs=None):
        self._settle()

    def _settle(self) -> None:
        if hvd.size() == 1:
            return
        others = _others(self.model)
        self._name(others)
        if others and self.local_state == "root":
            broadcast_values(others)
        average_statistics(self.model)

    def _name(self, others: list) -> None:
        if self._named or hvd.size() == 1 or not others:
            return
        names = _differing(others)
        if not names:
            return
        self._named = True
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        what = f"each rank changes {', '.join(names[:4])}{more} by its own batches"
        if self.local_state == "error":
            raise UserError(
                f"{what}: choose what all ranks go on with, parallel.callbacks(local_state='average') or 'root'"
            ).agreed()
        if hvd.rank() == 0:
            does = "averages it over the ranks" if self.local_state == "average" else "takes that of rank 0"
            say(
                f"note: {what}; local_state={self.local_state!r} {does} before validation and after an epoch",
                sys.stderr,
            )


def _others(model) -> list:
    """The state that is neither of batch normalisation nor of a layer whose state is constant in training."""
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, _STATISTICS)]
    known = {id(variable) for layer in layers for variable in layer.non_trainable_variables}
    return [variable for variable in statistics(model) if id(variable) not in known]


def _differing(variables: list) -> list[str]:
    """Names of the variables that are not the same on all ranks. Collective."""
    mine = checksums(variables)
    with tf.device("/cpu:0"):
        both = tf.constant(np.concatenate([mine, -mine]))
        least = hvd.allreduce(both, op=hvd.Min, name="hpc_train.local_state").numpy()
    differ = least[: len(mine)] != -least[len(mine) :]
    return [name for (name, _), found in zip(named(variables), differ, strict=True) if found]


def _average(variables: list) -> None:
    if hvd.size() == 1 or not variables:
        return
    sums = sum_arrays([np.asarray(v, "float64") for v in variables], "hpc_train.statistics")
    for variable, total in zip(variables, sums, strict=True):
        variable.assign(tf.cast(total / hvd.size(), variable.dtype))
