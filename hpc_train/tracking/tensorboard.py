"""TensorBoard's files of a run: scalars, histograms, the network's graph, a profile of some steps, predictions."""

from contextlib import suppress
from pathlib import Path

import keras
import tensorflow as tf

from hpc_train.console import say
from hpc_train.tracking.pictures import Pictures


class TensorBoard(keras.callbacks.TensorBoard):
    """Writes what TensorBoard shows of a run; for rank 0.

    Keras's own class writes no graph that the page GRAPHS opens with, and marks steps in a way that the page PROFILE
    does not know.

    Args:
        folder: to write to.
        histograms: whether to write the weights' histograms after every epoch.
        profile: the first and the last step to profile, counted from 1 at this start; None for no profile.
        pictures: what draws predictions after every epoch; None for no pictures.
    """

    def __init__(
        self,
        folder: Path,
        histograms: bool = False,
        profile: tuple[int, int] | None = None,
        pictures: Pictures | None = None,
    ):
        super().__init__(folder, histogram_freq=int(histograms), write_graph=False)
        self._pictures = pictures
        self._profile = _Profile(folder / "train", *profile) if profile else None
        self._drawn = False

    def set_model(self, model):
        super().set_model(model)
        # Of a subclassed model the inputs are not known.
        if not self._drawn and getattr(model, "inputs", None):
            self._drawn = True
            try:
                graph = _forward(model)
            except Exception as error:  # whatever a layer raises: a training is worth more than its picture
                say(f"no graph for TensorBoard: {type(error).__name__}: {error}")
                return
            with self._train_writer.as_default():
                tf.summary.graph(graph)

    def on_train_batch_begin(self, batch, logs=None):
        super().on_train_batch_begin(batch, logs)
        if self._profile:
            self._profile.begin_step()

    def on_train_batch_end(self, batch, logs=None):
        # Keras's makes a summary of each value in every step, a millisecond, and writes none where it writes by epoch.
        if self._profile:
            self._profile.end_step()

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        picture = self._pictures.draw(self.model) if self._pictures else None
        if picture is not None:
            with self._val_writer.as_default():
                tf.summary.image("predictions", picture[None], step=epoch)

    def on_train_end(self, logs=None):
        if self._profile:
            self._profile.stop()
        super().on_train_end(logs)


def _forward(model) -> tf.Graph:
    """The graph of a prediction: that of a training step is in functions, which GRAPHS shows as boxes of one name."""
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    given = tf.nest.map_structure(lambda one: tf.TensorSpec(one.shape, one.dtype), inputs)
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
