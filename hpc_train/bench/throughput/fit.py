"""The ways that go through Keras's `fit`, with each step timed by this rank's clock; and reading alone."""

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from hpc_train.parallel import DistributedOptimizer
from hpc_train.training.input_wait import InputWait


@dataclass(frozen=True)
class Timed:
    """One round of one way on this rank."""

    seconds: np.ndarray
    """Of each counted step, float64 (steps,)."""
    input_wait: float | None = None
    """Share of the round spent waiting for data, over all ranks; None if the way reads nothing, or only reads."""


class LocalOptimizer(DistributedOptimizer):
    """A `DistributedOptimizer` without the all-reduce: the gradients stay on their rank, and so do the weights."""

    def _check_first_steps(self, weights: list, grads: list) -> None:
        pass

    def average(self, grads: list, weights: list | None = None) -> list:
        return grads


class Clock(keras.callbacks.Callback):
    """Notes when each step of a `fit` ends; it must be the last of the callbacks.

    Keras gives callbacks the values of a step's loss and metrics, so it waits for their copy to the host. TensorFlow
    copies them after everything that was launched on the device. So on a GPU, too, the step has ended and its weights
    are updated when the time is noted.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.ends: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None):
        self.input_wait = (logs or {}).get("input_wait")


class Resident(InputWait):
    """Gives every step the same batch, which stays where it is. The data of `fit` are not read."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def _step(self, iterator):
        return self._function(iter((self.batch,)))


class Fit:
    """`fit` on data, timed.

    Args:
        model: compiled; several ways may share one.
        data: a function that makes a `tf.data` set with the given number of batches.
        callbacks: those that training has in every step.
        handed: the same as `data` for batches as from `Input.handed`; None where `tf.data` has them.
    """

    def __init__(
        self,
        model,
        data: Callable[[int], tf.data.Dataset],
        callbacks: list,
        handed: Callable[[int], Generator | None] | None = None,
    ):
        self.model, self.data, self.callbacks, self.handed = model, data, callbacks, handed

    def __call__(self, warmup: int, steps: int) -> Timed:
        """Make `warmup` steps, then `steps` timed ones."""
        clock = Clock()
        if self.handed:
            next(each for each in self.callbacks if isinstance(each, InputWait)).take_from(self.handed(warmup + steps))
        self.model.fit(
            self.data(warmup + steps),
            steps_per_epoch=warmup + steps,
            callbacks=[*self.callbacks, clock],
            shuffle=False,
            verbose=0,
        )
        return Timed(durations(clock.ends, steps), clock.input_wait)


class Reading:
    """The batches that `fit` would take, delivered to the device as for `fit`, and dropped.

    Args:
        data: a function that gives the given number of batches.
        lead: batches that are read ahead. This many more are read before the counted ones, and again after them: so the
            same number is under way when the clock starts and when it stops.
    """

    def __init__(self, data: Callable[[int], Iterable], lead: int):
        self.data, self.lead = data, lead

    def __call__(self, warmup: int, steps: int) -> Timed:
        """As in `Fit`; the last step ends when everything delivered has arrived."""
        first = warmup + self.lead + steps
        batches, ends = iter(self.data(first + self.lead)), []
        for _ in range(first):
            next(batches)
            ends.append(time.perf_counter())
        if tf.config.get_visible_devices("GPU"):
            tf.test.experimental.sync_devices()
            ends[-1] = time.perf_counter()
        deque(batches, maxlen=0)
        return Timed(durations(ends, steps))


def durations(ends: list[float], steps: int) -> np.ndarray:
    """Seconds of each of the last `steps` steps, float64 (steps,).

    Args:
        ends: when each step ended, in s, those of the warm-up included.
        steps: how many count.
    """
    return np.diff(ends)[-steps:]


@contextmanager
def reading_errors(feed) -> Iterator[None]:
    """Raise the error of the reader in place of the one that TensorFlow makes of it."""
    try:
        yield
    except tf.errors.OpError as error:
        raise (feed.error or error) from None
