"""The ways that go through Keras's `fit`, each step timed by this rank's clock, and reading alone."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from hpc_train.parallel import DistributedOptimizer
from hpc_train.training.input_wait import InputWait


@dataclass(frozen=True)
class Timed:
    """One round of one way on this rank.

    seconds: float64 (steps,), of each counted step. input_wait: share of the round spent waiting for data, over all
    ranks; None where nothing is read, or nothing else is done.
    """

    seconds: np.ndarray
    input_wait: float | None = None


class LocalOptimizer(DistributedOptimizer):
    """Does what a `DistributedOptimizer` does, but for the all-reduce: the gradients stay on their rank."""

    def average(self, grads: list) -> list:
        return grads


class Clock(keras.callbacks.Callback):
    """Notes when each step of a `fit` ends: the last of its callbacks.

    Keras gives callbacks the values of a step's loss and metrics, so their copy to the host is waited for. TensorFlow
    copies them behind everything that was launched on the device: also on a GPU, a step has ended when its time is
    taken, weights and all.
    """

    def on_epoch_begin(self, epoch, logs=None):
        self.ends: list[float] = []

    def on_train_batch_end(self, batch, logs=None):
        self.ends.append(time.perf_counter())

    def on_epoch_end(self, epoch, logs=None):
        self.input_wait = (logs or {}).get("input_wait")


class Resident(InputWait):
    """Gives every step the same batch, which stays where it is; `fit`'s own data are not read."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def _step(self, iterator):
        return self._function(iter((self.batch,)))


class Fit:
    """`fit` on data, timed.

    model: compiled; several ways may share one. data: from a number of steps to a `tf.data` set of so many batches.
    callbacks: those that training has in every step.
    """

    def __init__(self, model, data: Callable[[int], tf.data.Dataset], callbacks: list):
        self.model, self.data, self.callbacks = model, data, callbacks

    def __call__(self, warmup: int, steps: int) -> Timed:
        """Make `warmup` steps and `steps` more, and time these."""
        clock = Clock()
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

    lead: batches that are read ahead. So many more go before the counted ones, and as many after, so that as many are
    under way when the clock stops as when it starts.
    """

    def __init__(self, data: Callable[[int], tf.data.Dataset], lead: int):
        self.data, self.lead = data, lead

    def __call__(self, warmup: int, steps: int) -> Timed:
        """As `Fit`; the last step ends when all that was delivered is there."""
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
    """Seconds of each of the last `steps` steps, float64 (steps,), from when each of all steps ended."""
    return np.diff(ends)[-steps:]


@contextmanager
def reading_errors(feed) -> Iterator[None]:
    """Show what went wrong in the reader, where TensorFlow shows an error of its own."""
    try:
        yield
    except tf.errors.OpError as error:
        raise (feed.error or error) from None
