"""Input wait: the share of a training step that is spent waiting for data."""

import time

import keras
import numpy as np
import tensorflow as tf

from hpc_train.parallel.collectives import sum_arrays


class InputWait(keras.callbacks.Callback):
    """Measures how long each step waits for its batch, and adds `input_wait` to an epoch's logs.

    The epoch's value is over all ranks: seconds waited / seconds trained, from the end of the first step (which
    compiles) to the end of the last one. On a GPU, which computes while Python goes on, it is an upper bound of what
    the device waited. Only `steps_per_execution=1` can be measured; else there is no value. Put it before callbacks
    that read the logs.
    """

    def __init__(self):
        super().__init__()
        self._function = None

    def on_train_begin(self, logs=None):
        # After a fit that failed, the function in between is still there.
        between = self.model.train_function == self._step
        if self.model.steps_per_execution == 1 and not between:
            self._function = self.model.train_function
            self.model.train_function = self._step

    def on_train_end(self, logs=None):
        if self._function:
            self.model.train_function, self._function = self._function, None

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
        """This rank's value in the epoch so far; None before its second step."""
        seconds = (self._last or 0.0) - (self._first or 0.0)
        return self._waited / seconds if seconds and self._function else None

    def _step(self, iterator):
        if not isinstance(iterator, tf.data.Iterator):
            return self._function(iterator)
        begin = time.perf_counter()
        batch = next(iterator)
        self._waited += time.perf_counter() - begin
        # Keras's function takes batches from any iterator; from one of tf.data it would fetch them out of our sight.
        return self._function(iter((batch,)))
