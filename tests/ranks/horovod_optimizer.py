"""Run on N ranks by test_horovod_names.py: the options of `hvd.DistributedOptimizer`, one by one, against NumPy."""

import os

import horovod.tensorflow.keras as hvd
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
SHAPES = (4, 3), (3,), (5, 2)
DRAW = np.random.default_rng(2)
# By batch, rank and variable.
GRADS = [[[DRAW.normal(size=s).astype("float32") for s in SHAPES] for _ in range(SIZE)] for _ in range(6)]
START = [DRAW.normal(size=s).astype("float32") for s in SHAPES]
RATE = 0.5


class Doubled:
    """A compression of one's own: gradients travel in float64, doubled."""

    @staticmethod
    def compress(tensor):
        return tf.cast(tensor, tf.float64) * 2, tensor.dtype

    @staticmethod
    def decompress(tensor, context):
        return tf.cast(tensor / 2, context)


def weights():
    # All of one name, as Keras 3 has it.
    return [keras.Variable(value, name="kernel") for value in START]


def mean(batch, ranks=None):
    ranks = range(SIZE) if ranks is None else ranks
    return [np.mean([GRADS[batch][rank][i] for rank in ranks], axis=0) for i in range(len(SHAPES))]


def mine(batch):
    return [tf.constant(grad) for grad in GRADS[batch][RANK]]


def applied(optimizer, variables=None, batches=1, compiled=False):
    """The weights after `batches` batches of this rank's gradients."""
    variables = variables or weights()
    optimizer.build(variables)
    apply = tf.function(lambda grads: optimizer.apply(grads, variables)) if compiled else optimizer.apply
    for batch in range(batches):
        apply(mine(batch)) if compiled else apply(mine(batch), variables)
    return [np.asarray(variable) for variable in variables]


def check(got, steps, scale=1.0, rtol=1e-5, atol=1e-6, ranks=None):
    """`got` is what SGD makes of START by gradients `scale` x their mean, one step a batch; the bits are the same."""
    want = [start - RATE * scale * grad for start, grad in zip(START, steps, strict=True)]
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)
    everybody = gather_objects([array.tobytes() for array in got])
    chosen = range(SIZE) if ranks is None else ranks
    assert len({tuple(everybody[rank]) for rank in chosen}) == 1


def sgd(**options):
    return hvd.DistributedOptimizer(keras.optimizers.SGD(RATE), **options)


def gradients_are_averaged_or_added_up():
    check(applied(sgd()), mean(0))
    check(applied(sgd(op=hvd.Average), compiled=True), mean(0))
    check(applied(sgd(op=hvd.Sum)), mean(0), scale=SIZE)
    check(applied(hvd.DistributedOptimizer("sgd", name="mine")), mean(0), scale=0.01 / RATE)


def gradients_may_be_compressed():
    check(applied(sgd(compression=hvd.Compression.none)), mean(0))
    check(applied(sgd(compression=hvd.Compression.fp16)), mean(0), rtol=2e-3, atol=2e-3)
    check(applied(sgd(compression=Doubled)), mean(0))
    check(applied(sgd(compression=Doubled, op=hvd.Sum)), mean(0), scale=SIZE)
    check(applied(sgd(compression=hvd.Compression.fp16, op=hvd.Sum)), mean(0), scale=SIZE, rtol=2e-3, atol=4e-3)


def a_predivide_factor_changes_no_mean():
    for factor in (2.0, 0.5, float(SIZE)):
        check(applied(sgd(gradient_predivide_factor=factor)), mean(0))
    with pytest.raises(ValueError, match="gradient_predivide_factor"):
        sgd(gradient_predivide_factor=2.0, op=hvd.Sum)


def groups_change_no_mean():
    for number in (1, 2, 3, 100):
        check(applied(sgd(num_groups=number)), mean(0))
        check(applied(sgd(groups=number), compiled=True), mean(0))
    variables = weights()
    check(applied(sgd(groups=[variables[:2]]), variables), mean(0))
    variables = weights()
    check(applied(sgd(groups=[[variables[2], variables[0]], [variables[1]]]), variables, compiled=True), mean(0))
    for wrong in (-1, 1.5, "two"):
        with pytest.raises(ValueError, match="groups"):
            sgd(groups=wrong)


def sparse_gradients_are_averaged_sparse_or_dense():
    everybody = np.zeros((SIZE + 1, 2), "float32")
    for rank in range(SIZE):
        everybody[[rank, rank + 1]] += np.array([[1.0, 2.0], [3.0, 4.0]]) * (rank + 1)
    # One row comes twice.
    everybody[0] += SIZE * 5.0
    rows = tf.constant([[1.0, 2.0], [3.0, 4.0]]) * (RANK + 1)
    grad = tf.IndexedSlices(tf.concat([rows, [[5.0, 5.0]]], 0), [RANK, RANK + 1, 0], [SIZE + 1, 2])
    for options, scale in (
        ({}, 1 / SIZE),
        ({"sparse_as_dense": True}, 1 / SIZE),
        ({"op": hvd.Sum}, 1.0),
        ({"backward_passes_per_step": 2}, 1 / SIZE * 2),
        ({"sparse_as_dense": True, "compression": hvd.Compression.fp16}, 1 / SIZE),
    ):
        table = keras.Variable(np.zeros((SIZE + 1, 2), "float32"))
        optimizer = sgd(**options)
        for _ in range(options.get("backward_passes_per_step", 1)):
            optimizer.apply([grad], [table])
        # A third of a number is rounded to 11 bits on its way.
        rtol = 1e-3 if "compression" in options else 1e-5
        np.testing.assert_allclose(table, -RATE * everybody * scale, rtol=rtol, err_msg=str(options))


def a_gradient_that_is_none_stays_none():
    variables = weights()
    optimizer = sgd()
    optimizer.build(variables)
    grads = mine(0)
    optimizer.apply_gradients(zip([grads[0], None, grads[2]], variables, strict=True))
    want = [mean(0)[0], np.zeros_like(START[1]), mean(0)[2]]
    check([np.asarray(variable) for variable in variables], want)


def several_batches_make_one_step():
    total = [np.sum([mean(batch)[i] for batch in range(3)], axis=0) for i in range(len(SHAPES))]
    rest = [np.sum([mean(batch)[i] for batch in range(6)], axis=0) for i in range(len(SHAPES))]
    for compiled in (False, True):
        for average, scale in ((False, 1.0), (True, 1 / 3)):
            options = {"backward_passes_per_step": 3, "average_aggregated_gradients": average}
            check(applied(sgd(**options), batches=2, compiled=compiled), [np.zeros(s) for s in SHAPES])
            check(applied(sgd(**options), batches=3, compiled=compiled), total, scale)
            check(applied(sgd(**options), batches=5, compiled=compiled), total, scale)
            optimizer = sgd(**options)
            check(applied(optimizer, batches=6, compiled=compiled), rest, scale)
            # As Horovod's, it counts batches.
            assert int(optimizer.iterations) == 6
    options = {"backward_passes_per_step": 3, "op": hvd.Sum, "compression": hvd.Compression.fp16}
    check(applied(sgd(**options), batches=3), total, SIZE, rtol=5e-3, atol=1e-2)


def adam_corrects_its_bias_by_updates():
    first, second = (
        [np.sum([mean(b)[i] for b in part], axis=0) / 3 for i in range(3)] for part in ((0, 1, 2), (3, 4, 5))
    )
    want = [start.astype(float) for start in START]
    m, v = [0.0] * 3, [0.0] * 3
    for update, grads in enumerate((first, second), 1):
        for i, grad in enumerate(grads):
            m[i] = 0.9 * m[i] + 0.1 * grad
            v[i] = 0.999 * v[i] + 0.001 * grad**2
            want[i] -= 0.1 * (m[i] / (1 - 0.9**update)) / (np.sqrt(v[i] / (1 - 0.999**update)) + 1e-7)
    for compiled in (False, True):
        inner = keras.optimizers.Adam(0.1)
        options = {"backward_passes_per_step": 3, "average_aggregated_gradients": True}
        optimizer = hvd.DistributedOptimizer(inner, **options)
        got = applied(optimizer, batches=6, compiled=compiled)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
        assert int(optimizer.iterations) == 6


def a_process_set_shares_its_own_mean():
    inside = [0, 2][: EVENS.size()]
    optimizer = sgd(process_set=EVENS)
    check(applied(optimizer), mean(0, inside) if EVENS.included() else [g.numpy() for g in mine(0)], ranks=inside)
    for options in ({"compression": hvd.Compression.fp16}, {"op": hvd.Sum}, {"backward_passes_per_step": 2}):
        got = applied(sgd(process_set=EVENS, **options), batches=2)
        parts = [mean(0, inside), mean(1, inside)] if EVENS.included() else [mine(0), mine(1)]
        total = [np.asarray(a) + np.asarray(b) for a, b in zip(*parts, strict=True)]
        scale = len(inside) if "op" in options and EVENS.included() else 1
        check(got, total, scale, rtol=2e-3, atol=4e-3, ranks=inside)


def gradients_of_local_variables_stay_on_their_rank():
    for scaled, divisor in ((True, SIZE), (False, 1)):
        variables = weights()
        optimizer = sgd(scale_local_gradients=scaled)
        optimizer.register_local_var(variables[1])
        got = applied(optimizer, variables)
        np.testing.assert_allclose(got[1], START[1] - RATE * GRADS[0][RANK][1] / divisor, rtol=1e-5, atol=1e-6)
        check([got[0], START[1], got[2]], [mean(0)[0], np.zeros_like(START[1]), mean(0)[2]])


def local_layers_keep_their_gradients():
    for several in (False, True):
        layers = [keras.layers.Dense(3, name=f"dense_{i}") for i in range(3)]
        model = keras.Sequential([keras.Input((2,)), *layers])
        local = layers[1:] if several else layers[1]
        optimizer = hvd.PartialDistributedOptimizer(keras.optimizers.SGD(1.0), local_layers=local)
        before = model.get_weights()
        optimizer.apply([tf.fill(v.shape, RANK + 1.0) for v in model.trainable_variables], model.trainable_variables)
        moved = [(b - a).ravel()[0] for a, b in zip(model.get_weights(), before, strict=True)]
        average, own = (SIZE + 1) / 2, (RANK + 1) / SIZE
        np.testing.assert_allclose(moved, [average] * 2 + [own] * 2 + [own if several else average] * 2, rtol=1e-5)
    with pytest.raises(ValueError, match="local_layers"):
        hvd.PartialDistributedOptimizer(keras.optimizers.SGD(1.0), local_layers=[3])


def words_of_keras_2_are_understood():
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(lr=1, momentum=0.9, nesterov=True))
    variables = weights()
    got = applied(optimizer, variables)
    np.testing.assert_allclose(got[0], START[0] - 1.9 * mean(0)[0], rtol=1e-5, atol=1e-6)
    optimizer.lr = 0.25
    tf.keras.backend.set_value(optimizer.lr, tf.keras.backend.get_value(optimizer.lr) * 2)
    assert float(optimizer.learning_rate) == 0.5
    assert len(optimizer.variables()) == len(optimizer.variables) == 5
    hvd.broadcast_variables(optimizer.variables(), root_rank=0)
    assert isinstance(optimizer, keras.optimizers.SGD)


def gradients_computed_by_the_optimizer_are_not_averaged_twice():
    variables = weights()
    optimizer = sgd()
    pairs = optimizer.compute_gradients(lambda: tf.reduce_sum(variables[0] * GRADS[0][RANK][0]), variables[:1])
    np.testing.assert_allclose(pairs[0][0], mean(0)[0], rtol=1e-5, atol=1e-6)
    optimizer.apply_gradients(pairs)
    np.testing.assert_allclose(variables[0], START[0] - RATE * mean(0)[0], rtol=1e-5, atol=1e-6)
    optimizer.apply_gradients(zip(mean(1)[:1], variables[:1], strict=True), skip_gradients_aggregation=True)
    want = START[0] - RATE * (mean(0)[0] + mean(1)[0])
    np.testing.assert_allclose(variables[0], want, rtol=1e-5, atol=1e-6)
    for options, scale in (({}, 1), ({"op": hvd.Sum}, SIZE)):
        variables = weights()
        optimizer = sgd(**options)
        for skip in (False, True):
            pairs = optimizer.compute_gradients(lambda v=variables: tf.reduce_sum(v[0] * mine(0)[0]), variables[:1])
            halves = [(grad / 2, variable) for grad, variable in pairs]
            if options and not skip:
                with pytest.raises(ValueError, match="skip_gradients_aggregation=True"):
                    optimizer.apply_gradients(halves)
            else:
                optimizer.apply_gradients(halves, skip_gradients_aggregation=skip)
        steps = 1 if options else 2
        want = START[0] - RATE * mean(0)[0] * steps * scale / 2
        np.testing.assert_allclose(variables[0], want, rtol=1e-5, atol=1e-6)


def sums_of_several_batches_belong_to_their_variables():
    variables = weights()
    optimizer = sgd(backward_passes_per_step=2)
    optimizer.build(variables)
    for batch, order in enumerate(((0, 1, 2), (2, 0, 1))):
        optimizer.apply([mine(batch)[i] for i in order], [variables[i] for i in order])
    total = [a + b for a, b in zip(mean(0), mean(1), strict=True)]
    check([np.asarray(variable) for variable in variables], total)
    optimizer = sgd(backward_passes_per_step=2)
    optimizer.build(variables)
    optimizer.apply(mine(0)[:1], variables[:1])
    with pytest.raises(ValueError, match="an optimizer of its own"):
        optimizer.apply(mine(0)[1:], variables[1:])


def mistakes_are_named():
    optimizer = sgd()
    with pytest.raises(UserError, match="wrapped in a DistributedOptimizer already"):
        hvd.DistributedOptimizer(optimizer)
    with pytest.raises(UserError, match="wrapped in a DistributedOptimizer already"):
        hvd.PartialDistributedOptimizer(optimizer, local_layers=[])
    with pytest.raises(UserError, match="update_step is called directly"):
        optimizer.update_step(tf.constant([1.0]), keras.Variable([1.0]), 0.1)
    with pytest.raises(UserError, match="InverseTimeDecay"):
        keras.optimizers.Adam(0.1, decay=1e-6)
    with pytest.raises(UserError, match="no optimizer of Keras 3"):
        hvd.DistributedOptimizer(tf.compat.v1.train.AdamOptimizer(0.1))
    with pytest.raises(ValueError, match="backward_passes_per_step"):
        sgd(backward_passes_per_step=0)
    for options, names in (
        ({"average_aggregated_gradients": True}, "average_aggregated_gradients"),
        ({"compression": hvd.Compression.fp16}, "compression"),
        ({"process_set": EVENS}, "process set"),
    ):
        with pytest.raises(ValueError, match=names):
            sgd(op=hvd.Adasum, **options)


CHECKS = [value for name, value in list(globals().items()) if callable(value) and name.count("_") >= 2]


if __name__ == "__main__":
    write_outcomes(CHECKS, World(rank=RANK, size=SIZE))
    hvd.shutdown()
