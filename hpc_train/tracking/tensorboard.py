"""TensorBoard's files of a run: scalars, weight histograms, the network's graph, and a profile of some steps."""

from contextlib import suppress
from pathlib import Path

import keras
import tensorflow as tf

from hpc_train.console import say


class TensorBoard(keras.callbacks.TensorBoard):
    """Writes what TensorBoard shows of a run; for rank 0.

    Keras's own class writes no graph that the page GRAPHS opens with, and marks steps in a way that the page PROFILE
    does not know.

    Args:
        folder: to write to.
        histograms: whether to write the weights' histograms after every epoch.
        profile: the first and the last step to profile, counted from 1 at this start; None for no profile.
    """

    def __init__(self, folder: Path, histograms: bool = False, profile: tuple[int, int] | None = None):
        super().__init__(folder, histogram_freq=int(histograms), write_graph=False)
        self._profile = _Profile(folder / "train", *profile) if profile else None
        self._drawn = False

    def set_model(self, model):
        super().set_model(model)
        # Of a subclassed model the inputs are not known.
        if not self._drawn and getattr(model, "inputs", None):
            self._drawn = True
            with self._train_writer.as_default():
                tf.summary.graph(_forward(model))

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)
        if self._profile:
            self._profile.begin_step()

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        if self._profile:
            self._profile.end_step()

    def on_train_end(self, logs=None):
        if self._profile:
            self._profile.stop()
        super().on_train_end(logs)


def _forward(model) -> tf.Graph:
    """The graph of a prediction: that of a training step is in functions, which GRAPHS shows as boxes of one name."""
    given = tf.nest.pack_sequence_as(model.input, [tf.TensorSpec(one.shape, one.dtype) for one in model.inputs])
    return tf.function(lambda inputs: model(inputs, training=False)).get_concrete_function(given).graph


class _Profile:
    """A profile of the steps `first` to `last`, each marked as a step of training."""

    def __init__(self, folder: Path, first: int, last: int):
        self.folder, self.first, self.last = folder, first, last
        self.step, self.running = 0, False
        self.mark: tf.profiler.experimental.Trace | None = None
        # The first start of a profiler takes long.
        with suppress(tf.errors.OpError):
            tf.profiler.experimental.start("")
            tf.profiler.experimental.stop(save=False)

    def begin_step(self):
        self.step += 1
        if self.step == self.first:
            try:
                tf.profiler.experimental.start(str(self.folder))
                self.running = True
            except tf.errors.OpError as error:
                say(f"no profile: {error}")
        if self.running:
            # `_r` marks the root event of a step; without it the pages of the profile know no steps.
            self.mark = tf.profiler.experimental.Trace("train", step_num=self.step, _r=1)

    def end_step(self):
        if self.mark:
            self.mark.__exit__(None, None, None)
            self.mark = None
        if self.step == self.last:
            self.stop()

    def stop(self):
        if self.running:
            self.running = False
            try:
                tf.profiler.experimental.stop()
            except tf.errors.OpError as error:
                say(f"no profile: {error}")
