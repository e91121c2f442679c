"""Run on N ranks by test_parallel.py: each check asserts on every rank; rank 0 prints what happened as JSON."""

import functools
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

from checks import write_outcomes

from hpc_train import parallel
from hpc_train.errors import UserError

# As where CPUs are few, whatever this machine has.
os.environ.setdefault("HPC_TRAIN_MPI_SLEEP", "300")
world = parallel.init(seed=3)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.parallel import wire  # noqa: E402
from hpc_train.parallel.collectives import gather_objects, sum_arrays  # noqa: E402
from hpc_train.parallel.replicas import check_replicas  # noqa: E402
from hpc_train.parallel.variables import everything, is_seed, optimizer_variables, seeds  # noqa: E402

BATCH = 8
DRAW = np.random.default_rng(11)
INPUTS = DRAW.normal(size=(10 * BATCH * world.size, 6)).astype("float32")
TARGETS = (INPUTS @ DRAW.normal(size=(6, 3))).argmax(1).astype("int32")
CROSS_ENTROPY = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(noisy=False):
    keras.utils.set_random_seed(3)
    extra = [keras.layers.BatchNormalization(), keras.layers.Dropout(0.3)] if noisy else []
    hidden = keras.layers.Dense(16, activation="tanh")
    return keras.Sequential([keras.Input((6,)), hidden, *extra, keras.layers.Dense(3, name="head")])


def share(inputs=INPUTS, targets=TARGETS):
    """This rank's tenth of ten global batches, batch by batch."""
    pick = np.arange(len(inputs)).reshape(-1, world.size, BATCH)[:, world.rank].ravel()
    return tf.data.Dataset.from_tensor_slices((inputs[pick], targets[pick])).batch(BATCH)


def fit(model, optimizer, data, callbacks=(), **options):
    model.compile(optimizer, CROSS_ENTROPY, metrics=["accuracy"], auto_scale_loss=False)
    return model.fit(data, callbacks=[*parallel.callbacks(4), *callbacks], verbose=0, shuffle=False, **options)


def same_on_all_ranks(values):
    return all(other == gather_objects(values)[0] for other in gather_objects(values))


def bits(variables):
    return [np.asarray(v).tobytes() for v in variables]


def weights_are_bit_identical_after_training():
    model = network(noisy=True)
    fit(model, parallel.DistributedOptimizer(keras.optimizers.Adam(0.01)), share(), epochs=2, validation_data=share())
    assert same_on_all_ranks(bits(v for v in everything(model) if not is_seed(v)))


def random_layers_draw_differently_on_each_rank():
    model = network(noisy=True)
    fit(model, parallel.DistributedOptimizer(keras.optimizers.SGD(0.01)), share())
    states = gather_objects([int(np.asarray(seed)[0]) for seed in seeds(model)])
    assert len({tuple(state) for state in states}) == world.size


def ranks_equal_one_rank_with_the_whole_batch():
    def scaled(inner):
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=64.0)

    makers = {
        "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
        "Adam": lambda: keras.optimizers.Adam(0.01),
        "scaled SGD": lambda: scaled(keras.optimizers.SGD(0.1, momentum=0.9)),
        "scaled Adam": lambda: scaled(keras.optimizers.Adam(0.01)),
    }
    for name, make in makers.items():
        ours, alone = network(), network()
        fit(ours, parallel.DistributedOptimizer(make()), share())
        alone.compile(make(), CROSS_ENTROPY, auto_scale_loss=False)
        alone.fit(INPUTS, TARGETS, batch_size=BATCH * world.size, shuffle=False, verbose=0)
        for a, b in zip(ours.trainable_variables, alone.trainable_variables, strict=True):
            np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=2e-4, atol=2e-5, err_msg=name)
        moved = np.abs(np.asarray(ours.trainable_variables[0]) - np.asarray(network().trainable_variables[0])).max()
        assert moved > 1e-3, name


def small_buckets_give_the_same_mean():
    grads = [tf.fill([5, 3], float(world.rank + i)) for i in range(4)]
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(), bucket_mib=100 / 2**20)
    assert [len(b) for b in wire.buckets([0, 1, 2, 3], grads, 100)] == [1, 1, 1, 1]
    for i, mean in enumerate(optimizer.average(grads)):
        np.testing.assert_allclose(mean, np.full((5, 3), i + (world.size - 1) / 2))


def narrow_gradients_arrive_with_the_right_mean():
    for wire_dtype, tolerance in (("float16", 2e-3), ("bfloat16", 2e-2)):
        optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(), wire_dtype=wire_dtype)
        all_ranks = np.random.default_rng(5).normal(size=(world.size, 7, 3)).astype("float32")
        got = optimizer.average([tf.constant(all_ranks[world.rank]), None, tf.constant(all_ranks[world.rank, :2])])
        np.testing.assert_allclose(got[0], all_ranks.mean(0), atol=tolerance)
        np.testing.assert_allclose(got[2], all_ranks.mean(0)[:2], atol=tolerance)
        assert got[1] is None
        assert same_on_all_ranks(got[0].numpy().tobytes())
    # Near float16's largest number a sum before the division would overflow.
    near = parallel.DistributedOptimizer(keras.optimizers.SGD(), wire_dtype="float16").average([tf.fill([4], 60000.0)])
    np.testing.assert_allclose(near[0], 60000, rtol=1e-3)


def adasum_combines_pairs_of_pairs_layer_by_layer():
    def pair(a, b):
        dot = (a * b).sum()
        return (1 - dot / (2 * (a * a).sum())) * a + (1 - dot / (2 * (b * b).sum())) * b

    def tree(parts):
        while len(parts) > 1:
            parts = [pair(parts[i], parts[i + 1]) for i in range(0, len(parts), 2)]
        return parts[0]

    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(), reduction="adasum")
    draw = np.random.default_rng(6)
    layers = [draw.normal(size=(world.size, *shape)).astype("float32") for shape in ((70, 30), (30,), (4,))]
    rows = tf.IndexedSlices(tf.fill([1, 2], 1.0 + world.rank), [world.rank], tf.constant([world.size, 2]))
    got = optimizer.average([*(tf.constant(layer[world.rank]) for layer in layers), None, rows])
    for mine, layer in zip(got[:3], layers, strict=True):
        np.testing.assert_allclose(mine, tree(list(layer.astype(float))), rtol=1e-4, atol=1e-5)
        assert same_on_all_ranks(mine.numpy().tobytes())
    assert got[3] is None
    # Rows of different ranks are orthogonal: their sum.
    np.testing.assert_allclose(got[4], [[1.0 + rank] * 2 for rank in range(world.size)], rtol=1e-6)
    same = optimizer.average([tf.constant([3.0, 4.0])])
    np.testing.assert_allclose(same[0], [3, 4], rtol=1e-6)


def sparse_gradients_stay_sparse_and_are_averaged():
    words = np.array([[world.rank, world.rank + 1]] * 4)

    def build():
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((2,)), keras.layers.Embedding(9, 3), keras.layers.Flatten()])

    ours, alone = build(), build()
    ours.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.5)), "mse")
    ours.fit(words, np.ones((4, 6)), batch_size=4, callbacks=parallel.callbacks(), verbose=0)
    everybody = np.concatenate([[[r, r + 1]] * 4 for r in range(world.size)])
    alone.compile(keras.optimizers.SGD(0.5), "mse")
    alone.fit(everybody, np.ones((len(everybody), 6)), batch_size=len(everybody), verbose=0)
    np.testing.assert_allclose(ours.get_weights()[0], alone.get_weights()[0], rtol=1e-5)


def an_overflow_on_one_rank_makes_all_ranks_skip_the_step():
    inputs = INPUTS[: BATCH * world.size].copy()
    inputs[-1] = np.inf
    scaled = functools.partial(keras.optimizers.LossScaleOptimizer, initial_scale=8.0)
    for optimizer in (
        parallel.DistributedOptimizer(scaled(keras.optimizers.SGD(0.1))),
        scaled(parallel.DistributedOptimizer(keras.optimizers.SGD(0.1))),
    ):
        model = network()
        before = bits(model.trainable_variables)
        fit(model, optimizer, share(inputs, TARGETS[: BATCH * world.size]))
        assert bits(model.trainable_variables) == before
        assert float(optimizer.dynamic_scale) == 4.0


def metrics_are_exact_over_uneven_shares():
    model = network()
    model.compile(loss=CROSS_ENTROPY, metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")])
    samples = len(INPUTS) - 3
    mine = np.array_split(np.arange(samples), world.size)[world.rank]
    data = tf.data.Dataset.from_tensor_slices((INPUTS[mine], TARGETS[mine])).batch(5)
    real = len(data)
    padded = data.concatenate(tf.data.Dataset.from_tensor_slices((INPUTS[:1], TARGETS[:1])).batch(1).repeat(2))
    got = parallel.evaluate(model, padded, real)
    logits = model.predict(INPUTS[:samples], verbose=0).astype("float64")
    true = TARGETS[:samples]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(samples), true]
    np.testing.assert_allclose(got["loss"], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(got["accuracy"], (logits.argmax(1) == true).mean(), rtol=1e-6)
    np.testing.assert_allclose(got["top2"], (np.argsort(-logits)[:, :2] == true[:, None]).any(1).mean(), rtol=1e-6)


def a_rank_with_only_padding_counts_nothing():
    model = network()
    model.compile(loss=CROSS_ENTROPY, metrics=["accuracy"])
    data = tf.data.Dataset.from_tensor_slices((INPUTS[:4], TARGETS[:4])).batch(4)
    got = parallel.evaluate(model, data, 1 if world.is_root else 0)
    want = model.evaluate(INPUTS[:4], TARGETS[:4], verbose=0, return_dict=True)
    np.testing.assert_allclose(got["loss"], want["loss"], rtol=1e-6)


def history_is_the_same_on_all_ranks_and_exact():
    model = network()
    history = fit(model, parallel.DistributedOptimizer(keras.optimizers.SGD(0.0)), share(), validation_data=share())
    assert same_on_all_ranks(history.history)
    want = model.evaluate(INPUTS, TARGETS, verbose=0, return_dict=True)
    for name in ("loss", "accuracy"):
        np.testing.assert_allclose(history.history[name][0], want[name], rtol=1e-5)
        np.testing.assert_allclose(history.history[f"val_{name}"][0], want[name], rtol=1e-5)


def batch_statistics_are_means_over_the_ranks():
    model = keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization(momentum=0.0)])
    model.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.0)), "mse")
    inputs = INPUTS[: BATCH * world.size]
    mine = inputs.reshape(world.size, BATCH, 6)[world.rank]
    model.fit(mine, mine, batch_size=BATCH, callbacks=parallel.callbacks(), verbose=0)
    np.testing.assert_allclose(model.layers[0].moving_mean, inputs.mean(0), rtol=1e-4, atol=1e-5)


def a_divergence_is_caught_by_name_on_every_rank():
    class Diverge(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2 and world.rank == world.size - 1:
                kernel = self.model.trainable_variables[2]
                kernel.assign_add(tf.fill(kernel.shape, 1e-6))

    with pytest.raises(UserError) as caught:
        fit(network(), parallel.DistributedOptimizer(keras.optimizers.SGD(0.1)), share(), [Diverge()])
    assert "after step 4" in str(caught.value)
    assert f"head/kernel on 1 of {world.size} ranks" in str(caught.value)


def swapped_elements_are_a_divergence_too():
    order = [0, 1, 2] if world.is_root else [1, 0, 2]
    variable = keras.Variable(np.array([1.0, 2.0, 3.0], "float32")[order], name="swapped")
    with pytest.raises(UserError) as caught:
        check_replicas([variable], "here")
    assert "swapped" in str(caught.value)


def training_starts_from_the_root_whatever_ranks_had():
    model = network()
    model.set_weights([w + world.rank for w in model.get_weights()])
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(0.0, momentum=0.9))
    optimizer.build(model.trainable_variables)
    for slot in optimizer.variables[2:]:
        slot.assign(tf.fill(slot.shape, float(world.rank)))
    fit(model, optimizer, share(), steps_per_epoch=1)
    for got, want in zip(model.get_weights(), network().get_weights(), strict=True):
        np.testing.assert_array_equal(got, want)
    assert same_on_all_ranks(bits(optimizer_variables(model)))


def a_plain_optimizer_is_refused():
    model = network()
    model.compile(keras.optimizers.SGD(0.1), CROSS_ENTROPY)
    with pytest.raises(UserError) as caught:
        model.fit(share(), callbacks=parallel.callbacks(), verbose=0)
    assert "SGD" in str(caught.value)
    assert "DistributedOptimizer" in str(caught.value)


def an_optimizer_distributed_inside_a_loss_scale_is_refused():
    model = network()
    inner = keras.optimizers.SGD(0.1)
    wrong = keras.optimizers.LossScaleOptimizer(inner)
    parallel.DistributedOptimizer(inner)
    model.compile(wrong, CROSS_ENTROPY)
    with pytest.raises(ValueError, match="the other way round"):
        model.fit(share(), verbose=0)
    with pytest.raises(UserError, match="LossScaleOptimizer, which averages no gradients"):
        model.fit(share(), callbacks=parallel.callbacks(), verbose=0)


def models_that_differ_between_ranks_are_refused():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3 + world.rank)])
    with pytest.raises(UserError) as caught:
        fit(model, parallel.DistributedOptimizer(keras.optimizers.SGD(0.1)), share())
    assert "different models" in str(caught.value)


def ranks_that_wait_leave_their_core_to_others():
    sum_arrays([np.zeros(1)], "hpc_train.test.before")
    before = time.process_time()
    if world.rank == world.size - 1:
        subprocess.Popen(["sh", "-c", f"sleep 2; kill -CONT {os.getpid()}"])
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(1.5)
    used = time.process_time() - before
    sum_arrays([np.zeros(1)], "hpc_train.test.after")
    assert used < 0.5, "seconds of CPU time, most of 1.5 of them waiting"


def xla_compiles_evaluation_where_asked_for_and_no_training():
    for asked in (True, "auto"):
        model = network()
        optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(0.1))
        model.compile(optimizer, CROSS_ENTROPY, jit_compile=asked)
        # XLA would fail on Horovod's operations.
        model.fit(share(), callbacks=parallel.callbacks(), verbose=0)
        assert model.jit_compile == (asked is True)


def what_is_saved_of_the_optimizer_is_the_plain_one():
    inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
    optimizer = parallel.DistributedOptimizer(inner, "bfloat16", 3.0)
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is keras.optimizers.LossScaleOptimizer
    assert type(again.inner_optimizer) is keras.optimizers.Adam


def sums_and_unusual_types_are_reduced():
    for dtype in ("float64", "bfloat16", "complex64", "float16"):
        optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD())
        got = optimizer.average([tf.cast(tf.fill([3], world.rank + 1), dtype)])[0]
        assert got.dtype == dtype
        np.testing.assert_allclose(tf.cast(got, "complex64"), [(world.size + 1) / 2] * 3, rtol=1e-2)
    total = parallel.DistributedOptimizer(keras.optimizers.SGD(), reduction="sum")
    rows = tf.IndexedSlices(tf.ones([1, 2]), [0], tf.constant([1, 2]))
    dense, sparse = total.average([tf.ones(2), rows])
    np.testing.assert_allclose(dense, [world.size] * 2)
    np.testing.assert_allclose(tf.convert_to_tensor(sparse), [[world.size] * 2])


def an_optimizer_is_wrapped_once():
    optimizer = parallel.DistributedOptimizer("adam")
    assert type(optimizer).__name__ == "Adam"
    with pytest.raises(UserError, match="Adam is wrapped in a DistributedOptimizer already"):
        parallel.DistributedOptimizer(optimizer)
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope(), pytest.raises(UserError, match="leave out the strategy"):
        parallel.DistributedOptimizer(keras.optimizers.SGD())


def inputs_of_any_rank_train_with_batches_of_unknown_size():
    def build():
        keras.utils.set_random_seed(3)
        recurrent = keras.layers.GRU(4)
        return keras.Sequential([keras.Input((5, 6)), keras.layers.Dense(4), recurrent, keras.layers.Dense(1)])

    draw = np.random.default_rng(2)
    inputs = draw.normal(size=(4 * world.size * 3, 5, 6)).astype("float32")
    targets = inputs[:, :1, :1].sum(2)
    ours, alone = build(), build()
    ours.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
    pick = np.arange(len(inputs)).reshape(-1, world.size, 4)[:, world.rank].ravel()
    mine = tf.data.Dataset.from_tensor_slices((inputs[pick], targets[pick])).batch(4)
    ours.fit(mine, callbacks=parallel.callbacks(), verbose=0)
    alone.compile(keras.optimizers.SGD(0.1), "mse")
    alone.fit(inputs, targets, batch_size=4 * world.size, shuffle=False, verbose=0)
    for a, b in zip(ours.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def early_stopping_stops_all_ranks_together():
    model = network()
    stop = keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=10.0)
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(0.01))
    history = fit(model, optimizer, share(), [stop], epochs=9, validation_data=share())
    assert len(history.epoch) == 2
    assert same_on_all_ranks(history.epoch)


def sums_keep_shapes_and_large_counts():
    a, b = sum_arrays([np.full((2, 3), 2.0**40), np.array(world.rank)], "hpc_train.test.sums")
    assert a.shape == (2, 3)
    assert (a == world.size * 2.0**40).all()
    assert b == world.size * (world.size - 1) / 2


def an_idle_rank_seldom_wakes():
    def wakes():
        status = {task: (task / "status").read_text() for task in Path("/proc/self/task").iterdir()}
        return {
            task: int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.M)[1]) for task, text in status.items()
        }

    gather_objects(0)
    before = wakes()
    time.sleep(1)
    after = wakes()
    gather_objects(0)
    # Horovod's cycle is a millisecond.
    assert max(after[task] - before[task] for task in before.keys() & after.keys()) < 1000


CHECKS = [
    value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == "__main__" and name.count("_") >= 3
]


if __name__ == "__main__":
    write_outcomes([check for check in CHECKS if check is not same_on_all_ranks], world)
    hvd.shutdown()
