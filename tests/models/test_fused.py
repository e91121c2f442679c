"""Fused batch normalisation trains as Keras's own does, and stays out of the way where it could not."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import layers

from hpc_train.models.fused import fuse_batch_norm

IMAGES = np.random.default_rng(0).normal(2, 3, (6, 5, 4, 3)).astype("float32")
VOLUMES = IMAGES.reshape(3, 2, 5, 2, 6)
WANTED = np.random.default_rng(1).normal(size=IMAGES.size).astype("float32")


def both(**options):
    """A layer of Keras, and the same of a model whose layers are fused."""
    pair = [layers.BatchNormalization(name="norm", **options) for _ in range(2)]
    assert fuse_batch_norm(keras.Sequential([pair[1]])) == 1
    return pair


def step(layer, x):
    """What a training step computes: outputs, gradients of the input and the weights, moving statistics."""
    x, wanted = tf.constant(x), tf.reshape(WANTED, x.shape)

    @tf.function
    def compute():
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.cast(layer(x, training=True), tf.float32)
            loss = tf.reduce_sum(y * y * wanted)
        return y, tape.gradient(loss, [x, *(weight.value for weight in layer.trainable_variables)])

    y, gradients = compute()
    return [y, *gradients, *(weight.value for weight in layer.non_trainable_variables)]


def assert_alike(fused, own, tolerance=1e-5):
    assert len(fused) == len(own)
    for one, other in zip(fused, own, strict=True):
        assert one.dtype == other.dtype
        scale = np.abs(other).max()
        np.testing.assert_allclose(np.asarray(one, "float64"), np.asarray(other, "float64"), atol=tolerance * scale)


def started(layer, x):
    """`layer` with weights that are no ones and zeros."""
    layer.build(x.shape)
    draw = np.random.default_rng(2)
    layer.set_weights([draw.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    return layer


@pytest.mark.parametrize("x", [IMAGES, VOLUMES], ids=["images", "volumes"])
@pytest.mark.parametrize(
    "options", [{}, {"scale": False, "epsilon": 1e-5}, {"center": False, "momentum": 0.5}], ids=str
)
def test_a_step_is_that_of_keras(x, options):
    own, fused = (started(layer, x) for layer in both(**options))
    ops = {op.type for op in tf.function(fused).get_concrete_function(x, training=True).graph.get_operations()}
    assert "FusedBatchNormV3" in ops
    assert_alike(step(fused, x), step(own, x))


def test_a_step_in_half_precision_is_that_of_keras():
    own, fused = (started(layer, IMAGES) for layer in both(dtype="mixed_float16"))
    assert_alike(step(fused, IMAGES.astype("float16")), step(own, IMAGES.astype("float16")), 2e-3)


def test_a_gradient_of_a_gradient_is_that_of_the_formula():
    _, fused = both()
    started(fused, IMAGES)

    def penalty(layer, x, gamma, beta):
        with tf.GradientTape() as outer:
            outer.watch((x, gamma, beta))
            with tf.GradientTape() as inner:
                inner.watch(x)
                energy = tf.reduce_sum(tf.sin(layer(x, gamma, beta)))
            force = inner.gradient(energy, x)
            loss = tf.reduce_sum(force * force * tf.cast(tf.reshape(WANTED, x.shape), x.dtype))
        return outer.gradient(loss, [x, gamma, beta])

    def formula(x, gamma, beta):
        mean = tf.reduce_mean(x, [0, 1, 2])
        variance = tf.reduce_mean(tf.square(x), [0, 1, 2]) - mean * mean
        return (x - mean) / tf.sqrt(variance + fused.epsilon) * gamma + beta

    weights = fused.gamma.value, fused.beta.value
    found = penalty(lambda x, *_: fused(x, training=True), tf.constant(IMAGES), *weights)
    wanted = penalty(formula, *(tf.cast(value, tf.float64) for value in (IMAGES, *weights)))
    assert_alike(found, [tf.cast(value, tf.float32) for value in wanted], 1e-4)


@pytest.mark.parametrize(
    ("x", "options", "given"),
    [
        (IMAGES[:, 0, 0], {}, {"training": True}),
        (IMAGES[:, 0], {}, {"training": True}),
        (IMAGES, {"axis": 1}, {"training": True}),
        (IMAGES.astype("float64"), {"dtype": "float64"}, {"training": True}),
        (IMAGES, {}, {"training": True, "mask": IMAGES[..., 0] > 2}),
        (IMAGES, {}, {"training": False}),
        (IMAGES, {"trainable": False}, {"training": True}),
    ],
    ids=["rank 2", "rank 3", "another axis", "float64", "mask", "inference", "frozen"],
)
def test_everything_else_is_left_to_keras(x, options, given):
    own, fused = (started(layer, x) for layer in both(**options))
    np.testing.assert_array_equal(fused(x, **given), own(x, **given))
    for one, other in zip(fused.weights, own.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_layers_that_do_something_else_are_not_touched():
    class Mine(layers.BatchNormalization):
        pass

    others = [layers.BatchNormalization(synchronized=True), layers.BatchNormalization(renorm=True), Mine()]
    nested = keras.Sequential([layers.BatchNormalization(), *others])
    assert fuse_batch_norm(keras.Sequential([nested, layers.Dense(1)])) == 1


def test_a_layer_that_is_synchronised_later_computes_what_it_is_told():
    _, fused = both()
    fused._moments = lambda inputs, mask: (tf.zeros(3), tf.ones(3))
    x = started(fused, IMAGES)(IMAGES, training=True)
    np.testing.assert_allclose(x, IMAGES / np.sqrt(1 + fused.epsilon) * fused.gamma + fused.beta, rtol=1e-4)


def test_what_is_saved_is_plain_keras(tmp_path):
    _, fused = both()
    model = keras.Sequential([keras.Input(IMAGES.shape[1:]), fused])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert "call" not in vars(loaded.layers[0])
    np.testing.assert_array_equal(loaded(IMAGES), model(IMAGES))
