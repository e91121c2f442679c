"""Run on N ranks by test_horovod_names.py: collectives, tapes and broadcasts as scripts call them, against NumPy."""

import os

import horovod.keras
import horovod.tensorflow as hvd
import horovod.tensorflow.keras as hvd_keras
from checks import write_outcomes

EVENS = hvd.ProcessSet([0, 2] if os.environ.get("HOROVOD_SIZE") == "3" else [0])
hvd.init(process_sets=[EVENS])

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.errors import UserError  # noqa: E402
from hpc_train.parallel import World, gather_objects  # noqa: E402

RANK, SIZE = hvd.rank(), hvd.size()
NAMES = (hvd, hvd_keras, horovod.keras)


def network(seed=0):
    keras.utils.set_random_seed(seed)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, activation="tanh"), keras.layers.Dense(1)])


def the_ranks_are_told_the_same_by_every_module():
    for names in NAMES:
        assert (names.rank(), names.size(), names.local_size()) == (RANK, SIZE, SIZE)
        assert names.is_initialized()
        assert names.mpi_enabled() is not names.gloo_enabled()
        assert names.Average != names.Sum
    assert hvd.__name__ == "horovod.tensorflow"


def numbers_and_lists_are_reduced():
    for names in NAMES:
        np.testing.assert_array_equal(names.allreduce([0], name="Barrier"), [0])
        np.testing.assert_allclose(names.allreduce([float(RANK), 1.0]), [(SIZE - 1) / 2, 1])
        np.testing.assert_allclose(names.allreduce(float(RANK), op=names.Sum), SIZE * (SIZE - 1) / 2)
        np.testing.assert_allclose(names.allreduce(np.float64(RANK), op=names.Max), SIZE - 1)
        np.testing.assert_allclose(
            names.allreduce(np.arange(3.0) * RANK, average=False), np.arange(3) * sum(range(SIZE))
        )
        np.testing.assert_allclose(names.allreduce(keras.Variable([1.0 + RANK])), [(SIZE + 1) / 2])
        got = names.allreduce([1.0 / 3], compression=names.Compression.fp16)
        np.testing.assert_allclose(got, [1 / 3], rtol=1e-3)
        got = names.allreduce([2.0], op=names.Sum, prescale_factor=0.5, postscale_factor=3.0)
        np.testing.assert_allclose(got, [3.0 * SIZE])
    both = hvd.grouped_allreduce([[1.0 * RANK], keras.Variable([2.0, 3.0])], op=hvd.Sum)
    np.testing.assert_allclose(both[0], [sum(range(SIZE))])
    np.testing.assert_allclose(both[1], [2 * SIZE, 3 * SIZE])


def numbers_and_lists_are_gathered_and_broadcast():
    for names in NAMES:
        np.testing.assert_array_equal(
            names.allgather([[RANK]] * (RANK + 1)).numpy().ravel(), np.repeat(range(SIZE), range(1, SIZE + 1))
        )
        assert int(names.broadcast(RANK + 7, 0)) == 7
        assert list(range(int(names.broadcast(RANK, root_rank=1, name="epoch")), 2)) == [1]
        np.testing.assert_array_equal(names.broadcast([RANK, 5], SIZE - 1), [SIZE - 1, 5])
        np.testing.assert_allclose(names.broadcast(keras.Variable([1.0 * RANK]), 1), [1])
    np.testing.assert_array_equal(hvd.allgather(keras.Variable([RANK], dtype="int32")), range(SIZE))


def rows_are_exchanged_and_scattered():
    got = hvd.alltoall([[RANK, rank] for rank in range(SIZE)])
    np.testing.assert_array_equal(got, [[rank, RANK] for rank in range(SIZE)])
    got, splits = hvd.alltoall(np.full(SIZE * (SIZE + 1) // 2, RANK), splits=list(range(1, SIZE + 1)))
    np.testing.assert_array_equal(got, np.repeat(range(SIZE), RANK + 1))
    np.testing.assert_array_equal(splits, [RANK + 1] * SIZE)
    for names in NAMES:
        rows = np.arange(2.0 * SIZE).reshape(SIZE, 2) * (RANK + 1)
        got = names.reducescatter(rows.tolist(), op=names.Sum)
        np.testing.assert_allclose(got, np.arange(2.0 * SIZE).reshape(SIZE, 2)[RANK : RANK + 1] * SIZE * (SIZE + 1) / 2)


def objects_travel():
    for names in NAMES:
        assert names.allgather_object({"rank": RANK}) == [{"rank": rank} for rank in range(SIZE)]
        assert names.broadcast_object(("root", RANK), root_rank=1) == ("root", 1)


def process_sets_reduce_among_their_own():
    inside = [0, 2][: EVENS.size()]
    if EVENS.included():
        got = hvd.allreduce([1.0 * RANK], op=hvd.Sum, process_set=EVENS)
        np.testing.assert_allclose(got, [sum(inside)])
        np.testing.assert_array_equal(hvd.allgather([RANK], process_set=EVENS), inside)
        variables = [keras.Variable([float(RANK)])]
        hvd.broadcast_variables(variables, root_rank=inside[-1], process_set=EVENS)
        assert float(variables[0][0]) == inside[-1]
    assert EVENS.included() == (RANK in inside)


def variables_of_keras_are_broadcast():
    for names in NAMES:
        model = network(seed=RANK)
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.build(model.trainable_variables)
        for v in optimizer.variables:
            v.assign(tf.cast(tf.fill(v.shape, RANK + 3), v.dtype))
        root = 1 if names is hvd else 0
        names.broadcast_variables(model.variables, root_rank=root)
        names.broadcast_variables(optimizer.variables(), root_rank=root)
        for got, want in zip(model.get_weights(), network(seed=root).get_weights(), strict=True):
            np.testing.assert_array_equal(got, want)
        for v in optimizer.variables:
            np.testing.assert_array_equal(v, np.full(v.shape, root + 3))


def variables_that_differ_over_ranks_are_named_on_every_rank():
    one = [keras.Variable(np.zeros((2, 3))), keras.Variable(np.zeros(4))]
    for wrong in (
        [keras.Variable(np.zeros((3, 2))), one[1]],
        one[:1],
        [*one, keras.Variable(1.0)],
        [one[0], keras.Variable(np.zeros(4), dtype="float16")],
    ):
        with pytest.raises(UserError, match="different variables; number") as caught:
            hvd.broadcast_variables(wrong if RANK == SIZE - 1 else one, root_rank=0)
        assert caught.value.every_rank
        assert "\n" not in str(caught.value)


def global_variables_of_tensorflow_1_are_refused_in_a_line():
    for names in NAMES[1:]:
        with pytest.raises(UserError, match=r"broadcast_variables\(model\.variables, 0\)"):
            names.broadcast_global_variables(0)


INPUTS = np.random.default_rng(1).normal(size=(SIZE * 6, 3)).astype("float32")
TARGETS = INPUTS[:, :1]


def loss_of(model, inputs, targets):
    return tf.reduce_mean((model(inputs) - targets) ** 2)


def wanted(scale=1.0):
    """Gradients of the whole batch, by a tape of TensorFlow."""
    model = network()
    with tf.GradientTape() as tape:
        loss = loss_of(model, INPUTS, TARGETS)
    grads = tape.gradient(loss, [v.value for v in model.trainable_variables])
    return [grad.numpy() * scale for grad in grads]


def own_gradients():
    model = network()
    with tf.GradientTape() as tape:
        loss = loss_of(model, INPUTS[RANK::SIZE], TARGETS[RANK::SIZE])
    return tape.gradient(loss, [v.value for v in model.trainable_variables])


def taped(pack=lambda variables: variables, **options):
    """Gradients of this rank's share, by a distributed tape."""
    model = network()
    groups = options.pop("groups", None)
    if groups:
        options["groups"] = groups(model.trainable_variables)
    with tf.GradientTape() as tape:
        loss = loss_of(model, INPUTS[RANK::SIZE], TARGETS[RANK::SIZE])
    tape = hvd.DistributedGradientTape(tape, **options)
    return tape.gradient(loss, pack(model.trainable_variables))


def compare(got, want, rtol=1e-5, atol=1e-6):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def a_tape_gives_the_gradient_of_the_whole_batch():
    compare(taped(), wanted())
    compare(taped(op=hvd.Sum), wanted(SIZE))
    compare(taped(compression=hvd.Compression.fp16), wanted(), rtol=3e-3, atol=3e-3)
    compare(taped(gradient_predivide_factor=2.0), wanted())
    compare(taped(lambda variables: tuple(v.value for v in variables)), wanted())


def a_tape_takes_groups_of_keras_variables():
    # The kernels of both layers have the same name, and so have the biases.
    compare(taped(num_groups=2), wanted())
    compare(taped(groups=lambda v: [[v[0], v[2]], [v[1], v[3]]]), wanted())
    compare(taped(groups=lambda v: [v[:2]]), wanted())


def a_tape_takes_structures_of_variables():
    got = taped(lambda v: {"first": [v[0], v[1]], "second": (v[2], v[3])})
    compare([*got["first"], *got["second"]], wanted())
    compare([taped(lambda v: v[2])], wanted()[2:3])


def a_tape_works_in_a_function():
    model = network()
    optimizer = keras.optimizers.SGD(0.5)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs, targets, first):
        with tf.GradientTape() as tape:
            loss = loss_of(model, inputs, targets)
        tape = hvd.DistributedGradientTape(tape)
        grads = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        if first:
            hvd.broadcast_variables(model.variables, root_rank=0)
            hvd.broadcast_variables(optimizer.variables(), root_rank=0)
        return loss

    first = [w - 0.5 * g for w, g in zip(network().get_weights(), wanted(), strict=True)]
    step(INPUTS[RANK::SIZE], TARGETS[RANK::SIZE], True)
    compare(model.get_weights(), first)
    step(INPUTS[RANK::SIZE], TARGETS[RANK::SIZE], False)
    everybody = gather_objects([w.tobytes() for w in model.get_weights()])
    assert all(other == everybody[0] for other in everybody)


def a_partial_tape_keeps_the_gradients_of_local_layers():
    for scaled in (True, False):
        model = network()
        with tf.GradientTape() as tape:
            loss = loss_of(model, INPUTS[RANK::SIZE], TARGETS[RANK::SIZE])
        options = {"local_layers": [model.layers[-1]], "scale_local_gradients": scaled}
        tape = hvd.PartialDistributedGradientTape(tape, **options)
        got = tape.gradient(loss, model.trainable_variables)
        own = [grad / (SIZE if scaled else 1) for grad in own_gradients()]
        compare(got, [*wanted()[:2], *own[2:]])


def a_tape_of_a_process_set_averages_among_its_own():
    got = taped(process_set=EVENS)
    inside = [0, 2][: EVENS.size()]
    everybody = gather_objects([grad.numpy() for grad in own_gradients()])
    chosen = inside if RANK in inside else [RANK]
    compare(got, [np.mean([everybody[rank][i] for rank in chosen], axis=0) for i in range(4)])


def batch_norm_sees_the_batch_of_all_ranks():
    values = np.random.default_rng(3).normal(2, 3, size=(4 * SIZE, 5)).astype("float32")
    for names in NAMES:
        layer = names.SyncBatchNormalization(momentum=0.5, epsilon=1e-3)
        got = layer(values[RANK::SIZE], training=True)
        want = (values - values.mean(0)) / np.sqrt(values.var(0) + 1e-3)
        np.testing.assert_allclose(got, want[RANK::SIZE], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(layer.moving_mean, 0.5 * values.mean(0), rtol=1e-4)
        assert type(layer) is keras.layers.BatchNormalization
        keras.Sequential([keras.Input((5,)), layer, names.SyncBatchNormalization()])  # each has a name of its own


def ranks_that_have_ended_join():
    assert hvd.join() in range(SIZE)


CHECKS = [value for name, value in list(globals().items()) if callable(value) and name.count("_") >= 2]
CHECKS.insert(0, objects_travel)


if __name__ == "__main__":
    write_outcomes(CHECKS, World(rank=RANK, size=SIZE))
    hvd.shutdown()
