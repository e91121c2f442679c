"""A callback that marks the phases of a `fit` in this rank's record."""

import keras

from hpc_train.watch import record
from hpc_train.watch.hang import HANG
from hpc_train.watch.record import RECORD


class Phases(keras.callbacks.Callback):
    """Says in which phase of `fit` or `evaluate` the main thread is; put it before other callbacks."""

    def __init__(self):
        super().__init__()
        self._compiled = self._evaluated = False

    def on_train_begin(self, logs=None):
        self._compiled = self._evaluated = False
        RECORD.begin_fit()

    def on_epoch_begin(self, epoch, logs=None):
        RECORD.epoch = epoch + 1
        RECORD.rest()
        RECORD.enter(record.INPUT if self._compiled else record.COMPILE)

    # Keras waits for every step's logs where a callback has a method for its end.
    def on_train_batch_begin(self, batch, logs=None):
        self._compiled |= batch > 0
        # The first batch of an epoch waits for a pipeline that starts.
        first = record.INPUT if batch == 0 else record.STEP
        RECORD.begin_step(first if self._compiled else record.COMPILE)

    def on_test_begin(self, logs=None):
        RECORD.rest()
        RECORD.enter(record.VALIDATION if self._evaluated else record.COMPILE)

    def on_test_batch_begin(self, batch, logs=None):
        self._evaluated |= batch > 0
        RECORD.enter(record.VALIDATION if self._evaluated else record.COMPILE)

    def on_test_end(self, logs=None):
        RECORD.enter(record.EPOCH_END)

    def on_epoch_end(self, epoch, logs=None):
        HANG.expect()
        RECORD.rest()
        RECORD.enter(record.EPOCH_END)

    def on_train_end(self, logs=None):
        RECORD.enter(record.START)
