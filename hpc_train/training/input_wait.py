"""Input wait: the share of a training step that is spent waiting for data."""

import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np
import tensorflow as tf

from hpc_train.parallel.collectives import sum_arrays
from hpc_train.watch.record import INPUT, RECORD, STEP


class InputWait(keras.callbacks.Callback):
    """Gives a step its batch, and measures how long the step waits for it.

    Batches of `tf.data` are taken while the step before runs; others, see `take_from`, when the step begins.

    It adds `input_wait` to an epoch's logs, over all ranks: seconds waited / seconds trained, from the end of the first
    step (which compiles) to the end of the last step. A GPU computes while Python goes on, so on a GPU it is an upper
    bound of the time that the device waited. With `steps_per_execution` above 1 it does nothing. Put it before
    callbacks that read the logs.
    """

    def __init__(self):
        super().__init__()
        self._function: Callable | None = None
        self._coming: tuple[tf.data.Iterator, Future] | None = None
        self._handed: Generator | None = None

    def take_from(self, batches: Generator | None) -> None:
        """Give the steps of the next `fit` these batches, where it makes single steps, and read none of its data set.

        Args:
            batches: as many as `fit` makes steps, as `Input.handed` makes them; None for those of its data set.
        """
        if self._handed:
            self._handed.close()
        self._handed = batches

    def on_train_begin(self, logs=None):
        # After a fit that failed, our function is still in place.
        between = self.model.train_function == self._step
        if self.model.steps_per_execution == 1 and self.model.train_function and not between:
            self._function = self.model.train_function
            self.model.train_function = self._step
        # A batch passes through several threads, and each of them must find a free core.
        self._ahead = ThreadPoolExecutor(1, "hpc-train-next")
        RECORD.marks_input = self._function is not None
        self._coming = None

    def on_train_end(self, logs=None):
        if self._function:
            self.model.train_function, self._function = self._function, None
        RECORD.marks_input = False
        self._ahead.shutdown(wait=False, cancel_futures=True)
        self._coming = None
        self.take_from(None)

    def on_epoch_begin(self, epoch, logs=None):
        self._first = self._last = None
        self._waited = 0.0

    def on_train_batch_end(self, batch, logs=None):
        self._last = time.perf_counter()
        if self._first is None:
            self._first, self._waited = self._last, 0.0

    def on_epoch_end(self, epoch, logs=None):
        waited, seconds = self._waited, (self._last or 0.0) - (self._first or 0.0)
        waited, seconds = sum_arrays([np.array([waited, seconds])], "hpc_train.input_wait")[0]
        if logs is not None and seconds and self._function:
            logs["input_wait"] = float(waited / seconds)

    @property
    def share(self) -> float | None:
        """This rank's input wait in the epoch so far; None before the second step."""
        seconds = (self._last or 0.0) - (self._first or 0.0)
        return self._waited / seconds if seconds and self._function else None

    def _step(self, iterator):
        function, coming = self._function, self._coming
        assert function is not None  # Keras calls this method in its place
        if not isinstance(iterator, tf.data.Iterator):
            return function(iterator)
        begin = time.perf_counter()
        compiled = RECORD.phase in (STEP, INPUT)
        if compiled:
            RECORD.enter(INPUT)
        if self._handed:
            batch = next(self._handed)
        else:
            # Keras makes a new iterator for an epoch whose data end with it.
            batch = coming[1].result() if coming and coming[0] is iterator else next(iterator)
        self._waited += time.perf_counter() - begin
        if compiled:
            RECORD.enter(STEP)
        if not self._handed:
            self._coming = iterator, self._ahead.submit(next, iterator)
        # Keras's function takes batches from any iterator; given one of tf.data it would fetch them itself.
        return function(iter((batch,)))
