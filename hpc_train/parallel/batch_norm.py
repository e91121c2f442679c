"""Batch normalisation over the batches of all ranks."""

from types import MethodType

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hpc_train.errors import UserError


def synchronise_batch_norm(model: keras.Model) -> int:
    """Make every batch normalisation of `model`, nested ones too, use the mean and variance of the global batch.

    Each layer needs one all-reduce in each direction, of 3 numbers a channel. Gradients flow back through it: averaged
    over the ranks, they are those of one process with the whole batch. Batches may differ in size, and masks count.
    Layers that are frozen or infer use their moving statistics as always. What is saved is a plain Keras model.

    Args:
        model: built; it must train with the same moving means on every rank, as `parallel.callbacks` ensures.

    Returns:
        The number of layers that are not frozen.

    Raises:
        UserError: this version of Keras computes the statistics elsewhere.
    """
    found = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)]
    if found and not callable(getattr(keras.layers.BatchNormalization, "_moments", None)):
        raise UserError(
            f"Keras {keras.__version__} has no BatchNormalization._moments, which synchronised batch normalisation "
            "replaces: install Keras 3.15, or train without it"
        ).agreed()
    for number, layer in enumerate(found):
        synchronise(layer, str(number))
    return sum(layer.trainable for layer in found)


def synchronise(layer: keras.layers.BatchNormalization, name: str) -> None:
    """Make one layer use the mean and variance of the global batch; `name` is the same on every rank, and unique."""
    # On this layer alone: the class, and so what is saved, stays Keras's own.
    layer._moments = MethodType(_moments_of(f"hpc_train.batch_norm.{name}"), layer)


def _moments_of(name: str):
    def moments(layer, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
        """(mean, variance), each (channels,), over all axes but the layer's and over all ranks."""
        axis = layer.axis % inputs.shape.rank
        others = [i for i in range(inputs.shape.rank) if i != axis]
        # Near the mean and the same on all ranks: the difference of squares below loses fewer digits.
        shift = tf.stop_gradient(tf.cast(layer.moving_mean, inputs.dtype))
        x = inputs - tf.reshape(shift, [-1 if i == axis else 1 for i in range(inputs.shape.rank)])
        if mask is None:
            count = tf.fill([inputs.shape[axis]], tf.size(x, tf.int64) // inputs.shape[axis])
        else:
            keep = tf.broadcast_to(tf.cast(mask, tf.bool)[..., None], tf.shape(x))
            x = tf.where(keep, x, tf.zeros_like(x))
            count = tf.math.count_nonzero(keep, others)
        sums = tf.stack([tf.reduce_sum(x, others), tf.reduce_sum(tf.square(x), others), tf.cast(count, x.dtype)])
        total, squares, count = tf.unstack(hvd.allreduce(sums, op=hvd.Sum, name=name))
        mean = tf.math.divide_no_nan(total, count)
        variance = tf.math.divide_no_nan(squares, count) - tf.square(mean)
        return mean + shift, tf.maximum(variance, 0.0)

    return moments
