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
    for layer in found:
        synchronise(layer)
    return sum(layer.trainable for layer in found)


def synchronise(layer: keras.layers.BatchNormalization) -> None:
    """Make one layer use the mean and variance of the global batch."""
    # On this layer alone: the class, and so what is saved, stays Keras's own.
    layer._moments = MethodType(_moments, layer)


def _moments(layer, inputs: tf.Tensor, mask: tf.Tensor | None) -> tuple[tf.Tensor, tf.Tensor]:
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
    total, squares, count = tf.unstack(_sum(sums, _next_name()))
    mean = tf.math.divide_no_nan(total, count)
    variance = tf.math.divide_no_nan(squares, count) - tf.square(mean)
    return mean + shift, tf.maximum(variance, 0.0)


def _sum(values: tf.Tensor, name: str) -> tf.Tensor:
    """The sum over the ranks, and in the backward pass that of its gradients."""

    @tf.custom_gradient
    def total(values):
        def gradient(above):
            return hvd.allreduce(above, op=hvd.Sum, name=f"{name}.gradient", ignore_name_scope=True)

        return hvd.allreduce(values, op=hvd.Sum, name=name, ignore_name_scope=True), gradient

    return total(values)


def _next_name() -> str:
    """The same name on every rank, by the turn in a compiled function: names of layers count those a rank has made."""
    graph = tf.compat.v1.get_default_graph()
    number = graph._hpc_train_batch_norms = getattr(graph, "_hpc_train_batch_norms", 0) + 1
    depth = 0
    while graph := getattr(graph, "outer_graph", None):
        depth += 1
    return f"hpc_train.batch_norm.{depth}.{number}"
