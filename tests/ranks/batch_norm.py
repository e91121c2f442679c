"""Run on 2 ranks by test_batch_norm.py: each check asserts on every rank; rank 0 writes what happened as JSON."""

import tempfile
import zipfile
from pathlib import Path

from checks import write_outcomes

from hpc_train import parallel
from hpc_train.errors import UserError

world = parallel.init(seed=3)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

from hpc_train.parallel.batch_norm import synchronise_batch_norm  # noqa: E402
from hpc_train.parallel.collectives import gather_objects  # noqa: E402

BATCH, STEPS, EPSILON = 4, 3, 1e-3
WHOLE = BATCH * world.size
# Each rank's images have a mean of their own, so that local statistics would be far off.
PLACE = np.arange(STEPS * WHOLE) // BATCH % world.size
IMAGES = np.random.default_rng(7).normal(size=(STEPS * WHOLE, 6, 6, 3)) * (1 + PLACE[:, None, None, None])
IMAGES = (IMAGES + 3 * PLACE[:, None, None, None]).astype("float32")
LABELS = np.random.default_rng(8).integers(0, 3, STEPS * WHOLE)
MINE = np.equal(PLACE, world.rank)
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
    keras.utils.set_random_seed(3)
    nested = keras.Sequential(
        [layers.Conv2D(5, 3, use_bias=False), layers.BatchNormalization(center=False)], name="nested"
    )
    x = inputs = keras.Input((6, 6, 3))
    x = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(layers.Conv2D(4, 3, use_bias=False)(x)))
    x = layers.GlobalAveragePooling2D()(layers.Activation("tanh")(nested(x)))
    x = layers.BatchNormalization(scale=False)(x)
    return keras.Model(inputs, layers.Dense(3, dtype="float32")(x))


def data(pick):
    batch = WHOLE if pick.all() else BATCH
    return tf.data.Dataset.from_tensor_slices((IMAGES[pick], LABELS[pick])).batch(batch)


def normalisation(axis=-1, shape=(None, 5)):
    """A synchronised layer and a model of it alone."""
    layer = layers.BatchNormalization(axis, momentum=0.0, epsilon=EPSILON)
    model = keras.Sequential([layer])
    model.build(shape)
    assert synchronise_batch_norm(model) == 1
    return layer, model


def everybodys(rows, features=5, rank=None):
    """Rows of a rank, or of all of them one after the other."""
    ranks = range(world.size) if rank is None else [rank]
    draws = [np.random.default_rng(r).normal(10.0 * r, 1 + r, size=(rows[r], features)) for r in ranks]
    return np.concatenate(draws).astype("float32")


def training_equals_one_process_with_the_whole_batch():
    ours, alone = network(), network()
    assert synchronise_batch_norm(ours) == 3
    for model, optimizer, pick in (
        (ours, parallel.DistributedOptimizer(keras.optimizers.SGD(0.1, momentum=0.9)), MINE),
        (alone, keras.optimizers.SGD(0.1, momentum=0.9), np.ones_like(MINE)),
    ):
        model.compile(optimizer, CROSS_ENTROPY, auto_scale_loss=False, jit_compile=False)
        callbacks = [parallel.Broadcast()] if model is ours else []
        model.fit(data(pick), shuffle=False, verbose=0, callbacks=callbacks)
    for a, b, start in zip(ours.weights, alone.weights, network().weights, strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=1e-3, atol=1e-5, err_msg=a.path)
        assert not a.trainable or np.abs(np.asarray(a) - np.asarray(start)).max() > 1e-3, a.path
    statistics = [np.asarray(v).tobytes() for v in ours.non_trainable_variables]
    assert len({repr(other) for other in gather_objects(statistics)}) == 1


def mixed_precision_gives_the_float32_statistics_of_the_whole_batch():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy("float32")
    synchronise_batch_norm(model)
    first = next(layer for layer in model.layers if isinstance(layer, layers.BatchNormalization))
    convolution = model.layers[1]
    seen = keras.Model(model.inputs, convolution.output)(IMAGES[:WHOLE])
    assert seen.dtype == tf.bfloat16
    numbers = np.asarray(tf.cast(seen, tf.float32), "float64").reshape(-1, 4)
    model(IMAGES[:WHOLE][MINE[:WHOLE]], training=True)
    np.testing.assert_allclose(first.moving_mean, 0.1 * numbers.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first.moving_variance, 0.9 + 0.1 * numbers.var(0), rtol=1e-4)
    assert first.moving_mean.dtype == "float32"


def batches_of_different_sizes_count_by_their_size():
    rows = [3 + 4 * r for r in range(world.size)]
    layer, model = normalisation()
    got = model(everybodys(rows, rank=world.rank), training=True)
    whole = everybodys(rows).astype("float64")
    np.testing.assert_allclose(layer.moving_mean, whole.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, whole.var(0), rtol=1e-4)
    normal = (everybodys(rows, rank=world.rank) - whole.mean(0)) / np.sqrt(whole.var(0) + EPSILON)
    np.testing.assert_allclose(got, normal, rtol=1e-4, atol=1e-5)


def a_channel_axis_in_front_is_heeded():
    images = np.random.default_rng(1).normal(size=(world.size, 2, 3, 4, 5)).astype("float32")
    layer, model = normalisation(axis=1, shape=(None, 3, 4, 5))
    model(images[world.rank], training=True)
    np.testing.assert_allclose(layer.moving_mean, images.mean((0, 1, 3, 4)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, images.var((0, 1, 3, 4)), rtol=1e-4)


def masked_steps_do_not_count():
    rows = [6] * world.size
    keep = np.arange(6) % (2 + world.rank) == 0
    layer, _ = normalisation(shape=(None, 6, 5))
    layer(everybodys(rows, rank=world.rank)[None], training=True, mask=tf.constant(keep[None]))
    kept = np.concatenate([everybodys(rows, rank=r)[np.arange(6) % (2 + r) == 0] for r in range(world.size)])
    np.testing.assert_allclose(layer.moving_mean, kept.mean(0), rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance, kept.var(0), rtol=1e-4)


def a_mean_far_above_the_deviation_loses_no_digits():
    layer, model = normalisation()
    far = np.random.default_rng(2).normal(1000, 0.5, size=(world.size, 64, 5)).astype("float32")
    layer.moving_mean.assign(np.full(5, 999.0))
    model(far[world.rank], training=True)
    np.testing.assert_allclose(layer.moving_variance, far.astype("float64").var((0, 1)), rtol=1e-4)


def gradients_in_a_while_loop_are_those_outside():
    rows = [8] * world.size
    mine = everybodys(rows, rank=world.rank)
    _, model = normalisation()
    weights = tf.constant(np.random.default_rng(9).normal(size=(8, 5)).astype("float32"))

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(weights * model(x, training=True) ** 3)
        return tape.gradient(loss, x)

    @tf.function
    def looped(x):
        body = lambda i, total: (i + 1, total + gradient(x * tf.cast(i + 1, x.dtype)))  # noqa: E731
        return tf.while_loop(lambda i, _: i < 2, body, (0, tf.zeros_like(x)), parallel_iterations=1)[1]

    got = looped(tf.constant(mine))

    # One process with everybody's rows, and Keras's own layer.
    alone = layers.BatchNormalization(epsilon=EPSILON)
    total = np.zeros((8, 5))
    for factor in (1.0, 2.0):
        x = tf.constant(everybodys(rows) * factor)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.tile(weights, [world.size, 1]) * alone(x, training=True) ** 3)
        total += tape.gradient(loss, x).numpy()[world.rank * 8 : world.rank * 8 + 8]
    np.testing.assert_allclose(got, total, rtol=2e-3, atol=2e-4)
    assert np.abs(total).max() > 0.1


def what_is_frozen_or_infers_waits_for_no_other_rank():
    _, model = normalisation()
    frozen = network()
    frozen.trainable = False
    assert synchronise_batch_norm(frozen) == 0
    if world.is_root:
        rows = everybodys([4] * world.size, rank=0)
        np.testing.assert_allclose(model(rows, training=False), rows / np.sqrt(1 + EPSILON), rtol=1e-5)
        before = [np.asarray(v) for v in frozen.weights]
        frozen(IMAGES[:2], training=True)
        for a, b in zip(before, frozen.weights, strict=True):
            np.testing.assert_array_equal(a, b)


def what_is_saved_is_plain_keras():
    model = network()
    synchronise_batch_norm(model)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        assert b"hpc_train" not in zipfile.ZipFile(path).read("config.json")
        loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded(IMAGES[:2], training=False), model(IMAGES[:2], training=False))
    if world.is_root:
        loaded(IMAGES[:2], training=True)  # alone: not synchronised any more


def another_keras_is_refused_in_one_line():
    model = network()
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(layers.BatchNormalization, "_moments")
        with pytest.raises(UserError, match="_moments") as refused:
            synchronise_batch_norm(model)
    assert "\n" not in str(refused.value)


CHECKS = [
    training_equals_one_process_with_the_whole_batch,
    mixed_precision_gives_the_float32_statistics_of_the_whole_batch,
    batches_of_different_sizes_count_by_their_size,
    a_channel_axis_in_front_is_heeded,
    masked_steps_do_not_count,
    a_mean_far_above_the_deviation_loses_no_digits,
    gradients_in_a_while_loop_are_those_outside,
    what_is_frozen_or_infers_waits_for_no_other_rank,
    what_is_saved_is_plain_keras,
    another_keras_is_refused_in_one_line,
]


if __name__ == "__main__":
    write_outcomes(CHECKS, world)
    hvd.shutdown()
