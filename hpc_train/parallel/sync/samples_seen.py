"""A look at the samples of the first epoch: ranks whose data overlap train less than they seem to."""

import sys
from functools import cache, wraps

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

from hpc_train.console import say
from hpc_train.parallel.collectives import gather_objects, reduce_arrays

# Samples that a rank remembers, and those that all ranks compare.
_REMEMBERED, _COMPARED = 2**16, 2**17
# Values of a sample that its mark is made of; larger ones are looked at in steps.
_VALUES = 2**11
# Fewer samples say nothing.
_FEWEST = 32
_FIX = "shard first, then shuffle: data.shard(world.size, world.rank).shuffle(n)"


class SamplesSeen(keras.callbacks.Callback):
    """Compare which samples the ranks have seen in the first epoch of a `fit`, and warn once where they overlap.

    A sample is known by a mark of 8 bytes that the training step makes of its inputs. Inputs that are augmented at
    random, texts, and ragged and sparse ones are not looked at. Later epochs cost one comparison a step.
    """

    def __init__(self):
        super().__init__()
        self._marks = None
        self._looked = hvd.size() == 1

    def set_model(self, model):
        super().set_model(model)
        # A training function that is there has been made of the step as it was.
        if self._looked or model.train_function is not None:
            return
        marks, step, held = _Marks(), model.train_step, vars(model).get("train_step")

        @wraps(step)
        def train_step(data):
            marks.see(keras.utils.unpack_x_y_sample_weight(data)[0])
            return step(data)

        self._marks, self._held, self._ours = marks, held, train_step
        model.train_step = train_step

    def on_train_batch_begin(self, batch, logs=None):
        # Once it is traced, a step shows its samples by itself. Not at a batch's end, where Keras would wait for logs.
        if batch and not self.model.run_eagerly:
            self._leave_step()

    def on_epoch_end(self, epoch, logs=None):
        self._leave_step()
        if not self._looked:
            self._looked = True
            _warn(self._marks.seen() if self._marks else np.zeros(0, "int64"))

    def on_train_end(self, logs=None):
        self._leave_step()

    def _leave_step(self) -> None:
        """Take off what `set_model` put on: other code asks whether a step is Keras's own."""
        if self._marks and vars(self.model).get("train_step") is self._ours:
            del self.model.train_step
            if self._held is not None:
                self.model.train_step = self._held


class _Marks:
    """The marks of the first samples that this rank has trained on."""

    def __init__(self):
        with tf.init_scope(), tf.device("/cpu:0"):
            self.count = tf.Variable(0, dtype="int64", trainable=False)
            self.held = tf.Variable(tf.zeros(_REMEMBERED, "int64"), trainable=False)

    def seen(self) -> np.ndarray:
        """The marks, int64 (n,), in the order of training."""
        return self.held.numpy()[: int(self.count)]

    def see(self, inputs) -> None:
        """Note the samples of a batch; called in the training step."""
        parts = [part for part in tf.nest.flatten(inputs) if _is_plain(part)]
        if not parts:
            return

        def note():
            marks = tf.add_n([_mark(part, number) for number, part in enumerate(parts)])
            with tf.device("/cpu:0"):
                places = self.count + tf.range(tf.size(marks, tf.int64))
                kept = places < _REMEMBERED
                self.held.scatter_nd_update(tf.boolean_mask(places, kept)[:, None], tf.boolean_mask(marks, kept))
                self.count.assign_add(tf.size(marks, tf.int64))

        tf.cond(self.count < _REMEMBERED, note, lambda: None)


def _is_plain(part) -> bool:
    if not isinstance(part, tf.Tensor) or not part.shape.rank:
        return False
    return part.dtype.is_floating or part.dtype.is_integer or part.dtype.is_bool


def _mark(part: tf.Tensor, number: int) -> tf.Tensor:
    """A number of each sample, int64 (b,), which few others share; `number` of the part among the inputs."""
    flat = tf.reshape(part, [tf.shape(part)[0], -1])
    flat = flat[:, :: tf.maximum(1, tf.shape(flat)[1] // _VALUES)]
    if part.dtype.is_floating:
        flat = tf.bitcast(tf.cast(flat, "float64"), "int64")
    # What is padded with zeros keeps its mark: it counts them for nothing.
    factors = tf.constant(_factors(number))[: tf.shape(flat)[1]]
    return tf.reduce_sum(tf.cast(flat, "int64") * factors, 1)


@cache
def _factors(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-(2**63), 2**63, 2 * _VALUES, "int64") | 1


def _warn(seen: np.ndarray) -> None:
    """Print on rank 0 what the samples that the ranks have seen, marks (n,), have in common. Collective."""
    most = int(reduce_arrays([np.array([len(seen)])], "max", "hpc_train.samples")[0][0])
    # The same marks on every rank, so that what they share stays so.
    share = max(1, -(-most * hvd.size() // _COMPARED))
    everybody = gather_objects(seen[_mixed(seen) % np.uint64(share) == 0], "hpc_train.samples_seen")
    text = describe(everybody)
    if text and hvd.rank() == 0:
        say(f"warning: {text}", sys.stderr)


def _mixed(marks: np.ndarray) -> np.ndarray:
    """The high bits, which depend on all others."""
    return (marks.view("uint64") * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)


def describe(everybody: list[np.ndarray]) -> str:
    """What is wrong with the samples of the ranks; empty for nothing that can be told.

    Args:
        everybody: the marks of each rank's samples, in the order in which it trained on them.
    """
    if min(map(len, everybody)) < _FEWEST:
        return ""
    if all(np.array_equal(one, everybody[0]) for one in everybody):
        return (
            "in the first epoch all ranks trained on the same samples in the same order, so more ranks add nothing; "
            "give each its own: data.shard(world.size, world.rank)"
        )
    own = [np.unique(one) for one in everybody]
    distinct = sum(map(len, own))
    values, ranks = np.unique(np.concatenate(own), return_counts=True)
    shared = ranks[ranks > 1].sum() / distinct
    # Samples that are equal by nature are so within a rank too.
    repeated = 1 - distinct / sum(map(len, everybody))
    if shared <= 0.05 + 2 * len(everybody) * repeated:
        return ""
    if len(values) < 1.05 * min(map(len, own)):
        return f"in the first epoch every rank trained on all samples; {_FIX}"
    return (
        f"in the first epoch {shared:.0%} of a rank's samples were on other ranks too, and others may have been on "
        f"none; {_FIX}"
    )
