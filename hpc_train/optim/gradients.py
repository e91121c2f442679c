"""Arithmetic on gradients as Keras passes them: dense tensors, tf.IndexedSlices (sparse rows) or None."""

import tensorflow as tf


def squared_norm(grad):
    """Sum of the squares of a gradient's elements, a float32 scalar; rows that occur twice are added first."""
    if isinstance(grad, tf.IndexedSlices):
        rows, place = tf.unique(grad.indices)
        grad = tf.math.unsorted_segment_sum(grad.values, place, tf.size(rows))
    return tf.reduce_sum(tf.square(tf.cast(grad, tf.float32)))


def norm(grad):
    """Euclidean norm of a gradient or a weight, a float32 scalar."""
    return tf.sqrt(squared_norm(grad))


def scaled(grad, factor):
    """`grad` times a scalar; sparse gradients stay sparse."""
    factor = tf.cast(factor, grad.dtype)
    if isinstance(grad, tf.IndexedSlices):
        return tf.IndexedSlices(grad.values * factor, grad.indices, grad.dense_shape)
    return grad * factor


def decayed(grad, variable, rate: float):
    """`grad` plus `rate` times the weights, the gradient of an L2 penalty of rate / 2; always dense."""
    return tf.convert_to_tensor(grad) + rate * tf.cast(variable, grad.dtype)
