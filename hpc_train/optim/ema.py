"""Exponential moving averages of the weights, as Keras's optimizers keep them, and evaluation with them.

An optimizer made with `use_ema=True` keeps an average of each trainable weight, w_ema = m * w_ema + (1 - m) * w after
every step that it applies, starting with the weights after the first step (Polyak and Juditsky 1992; the exponential
form: Szegedy et al. 2016, section 8). The statistics of batch normalisation are moving averages already and stay as
they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from hpc_train.optim.wrapper import unwrap


def averages(optimizer) -> list[tuple]:
    """The trainable variables of a built optimizer, each with its average; empty if it keeps no averages."""
    heart = unwrap(optimizer)
    if not heart.use_ema:
        return []
    try:
        kept = heart._model_variables_moving_average
    except AttributeError as error:
        raise RuntimeError(
            f"Keras {keras.__version__} does not keep averages where Keras 3.15 does; use Keras 3.15"
        ) from error
    return [
        (variable, average)
        for variable, average in zip(heart._trainable_variables, kept, strict=True)
        if average is not None
    ]


class Averages:
    """Exchanges a model's weights with their averages, and back.

    Before the optimizer's first step there are no averages, and nothing is exchanged.

    Args:
        model: compiled with an optimizer that has `use_ema`, alone or in a chain; otherwise nothing is exchanged.
    """

    def __init__(self, model):
        self.model = model
        self._weights: list[tuple] | None = None

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside this context the model has the averages as its weights; do not train in it."""
        with self._put(True):
            yield

    @contextmanager
    def out_of_place(self) -> Iterator[None]:
        """Inside this context, even within `in_place`, the model has the weights with which training continues."""
        with self._put(False):
            yield

    @contextmanager
    def _put(self, in_place: bool) -> Iterator[None]:
        before = self._weights is not None
        self.put(in_place)
        try:
            yield
        finally:
            self.put(before)

    def put(self, in_place: bool) -> None:
        """Replace the weights by the averages, or put the weights back; do nothing if that is done already."""
        optimizer = self.model.optimizer
        ready = optimizer is not None and optimizer.built and int(optimizer.iterations)
        if in_place and self._weights is None and ready:
            pairs = averages(optimizer)
            # The optimizer keeps the averages too, so that a model saved now continues them when it is trained.
            self._weights = [(variable, tf.identity(variable.value)) for variable, _ in pairs]
            for variable, average in pairs:
                variable.assign(average)
        elif not in_place and self._weights is not None:
            for variable, weight in self._weights:
                variable.assign(weight)
            self._weights = None


class EvaluateAverages(keras.callbacks.Callback):
    """Validate with the averages, continue training with the weights, and keep the weights at the end of `fit`.

    Keras by itself validates with the weights and replaces them by the averages when `fit` ends, so that another
    `fit` would not continue where the first one ended.

    Args:
        averages: of the model that is trained.
    """

    def __init__(self, averages: Averages):
        super().__init__()
        self.averages = averages

    def on_train_begin(self, logs=None):
        if self.model.optimizer is not None:
            self.model.optimizer.finalize_variable_values = _leave

    def on_train_end(self, logs=None):
        if self.model.optimizer is not None:
            del self.model.optimizer.finalize_variable_values

    def on_test_begin(self, logs=None):
        self.averages.put(True)

    def on_test_end(self, logs=None):
        self.averages.put(False)


def _leave(variables) -> None:
    """Stands in for `finalize_variable_values`, and keeps the weights."""
