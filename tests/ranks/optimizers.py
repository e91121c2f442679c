"""Run on 2 ranks by test_optim_ranks.py: each check asserts on every rank; rank 0 writes what happened as JSON."""

import sys
from pathlib import Path

from checks import write_outcomes

from hpc_train import parallel
from hpc_train.errors import UserError

world = parallel.init(seed=4)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.optim import recipe  # noqa: E402
from hpc_train.optim.accumulate import accumulate  # noqa: E402
from hpc_train.optim.ema import Averages, EvaluateAverages  # noqa: E402
from hpc_train.optim.recipe import RecipeOptions  # noqa: E402
from hpc_train.parallel import wire  # noqa: E402
from hpc_train.parallel.collectives import gather_objects  # noqa: E402
from hpc_train.parallel.sync import average_local_state  # noqa: E402
from hpc_train.parallel.variables import everything, is_seed, optimizer_variables  # noqa: E402
from hpc_train.training import checkpoint  # noqa: E402
from hpc_train.training.task import cross_entropy  # noqa: E402

PARTS, MICRO, STEPS = 3, 4, 2
BATCH = PARTS * MICRO
DRAW = np.random.default_rng(6)
INPUTS = DRAW.normal(size=(STEPS, world.size, BATCH, 5)).astype("float32")
TARGETS = DRAW.integers(0, 3, (STEPS, world.size, BATCH))


def classifier():
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3, name="logits", dtype="float32")])


def network():
    keras.utils.set_random_seed(4)
    hidden = [keras.layers.Dense(8, activation="relu"), keras.layers.BatchNormalization(), keras.layers.Dropout(0.2)]
    return keras.Sequential([keras.Input((5,)), *hidden, keras.layers.Dense(3, name="logits", dtype="float32")])


def prepared(model, options, rate=0.1, multipliers=None):
    chain = parallel.DistributedOptimizer(recipe.optimizer(options, rate, multipliers), lag=options.lag)
    model.compile(chain, cross_entropy(options), metrics=["accuracy"], auto_scale_loss=False, jit_compile=False)
    chain.build(model.trainable_variables)
    accumulate(model, options.accumulate)
    return model


def share(inputs=INPUTS, targets=TARGETS):
    mine = inputs[:, world.rank].reshape(-1, *inputs.shape[3:]), targets[:, world.rank].ravel()
    return tf.data.Dataset.from_tensor_slices(mine).batch(BATCH, drop_remainder=True)


def fit(model, data, *callbacks, **options):
    return model.fit(data, callbacks=[*parallel.callbacks(), *callbacks], verbose=0, shuffle=False, **options)


def bits(variables):
    return [np.asarray(v).tobytes() for v in variables]


def same_on_all_ranks(variables):
    everybody = gather_objects(bits(variables))
    return all(other == everybody[0] for other in everybody)


def in_float16(build):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return build()
    finally:
        keras.config.set_dtype_policy("float32")


def a_float16_overflow_in_one_part_on_one_rank_skips_the_step_on_all():
    for parts in (1, PARTS):
        options = RecipeOptions(precision="float16", accumulate=parts, clip_norm=1.0, weight_decay=0.1, ema=0.9)
        model = prepared(in_float16(network), options)
        scaling = model.optimizer
        scaling.dynamic_scale.assign(64.0)
        # All weights 1, so that a sample of five times 6e4 overflows float16: the first one of the second part.
        model.layers[0].kernel.assign(tf.ones_like(model.layers[0].kernel))
        inputs = INPUTS[:1].copy()
        if world.rank == world.size - 1:
            inputs[0, world.rank, MICRO] = 6e4
        kept = [*model.trainable_variables, *scaling.inner_optimizer.variables]
        before = bits(kept)
        averages = EvaluateAverages(Averages(model))
        fit(model, share(inputs, TARGETS[:1]), averages)
        assert bits(kept) == before, parts
        assert float(scaling.dynamic_scale) == 32.0, parts
        assert int(model.optimizer.iterations) == 0, parts
        fit(model, share(INPUTS[:1], TARGETS[:1]), averages)
        assert int(model.optimizer.iterations) == 1, parts
        assert bits(kept) != before, parts
        assert float(scaling.dynamic_scale) == 32.0, parts
        assert same_on_all_ranks(optimizer_variables(model)), parts


def accumulated_steps_are_steps_on_the_whole_batch_of_all_ranks():
    options = RecipeOptions(nesterov=True, weight_decay=0.01, label_smoothing=0.1, accumulate=PARTS)
    model = prepared(classifier(), options, 0.2)
    kernel, bias = (np.asarray(v).astype("float64") for v in model.trainable_variables)
    fit(model, share())
    momenta = [0.0, 0.0]
    for inputs, targets in zip(INPUTS.reshape(STEPS, -1, 5), TARGETS.reshape(STEPS, -1), strict=True):
        logits = inputs @ kernel + bias
        probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        error = (probabilities - (0.9 * np.eye(3)[targets] + 0.1 / 3)) / len(targets)
        grads = inputs.T @ error + 0.01 * kernel, error.sum(0)
        momenta = [0.9 * m - 0.2 * g for m, g in zip(momenta, grads, strict=True)]
        kernel, bias = (w + 0.9 * m - 0.2 * g for w, m, g in zip((kernel, bias), momenta, grads, strict=True))
    np.testing.assert_allclose(model.trainable_variables[0], kernel, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(model.trainable_variables[1], bias, rtol=1e-4, atol=1e-6)
    assert int(model.optimizer.iterations) == STEPS


def accumulated_sparse_gradients_are_those_of_the_whole_batch():
    words = np.array([[[[i + rank], [i % 3]] for i in range(BATCH)] for rank in range(world.size)])[None, ..., 0]

    def trained(parts):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Embedding(20, 3), keras.layers.Flatten()])
        model.add(keras.layers.Dense(3))
        prepared(model, RecipeOptions(momentum=0.0, accumulate=parts))
        fit(model, share(words, TARGETS[:1]))
        return model.get_weights()

    for once, parts in zip(trained(1), trained(PARTS), strict=True):
        np.testing.assert_allclose(parts, once, rtol=1e-5, atol=1e-7)


def an_accumulated_step_makes_one_all_reduce():
    counter = tf.Variable(0)

    def counted(*arguments):
        counter.assign_add(1)
        return reduce(*arguments)

    reduce, wire.reduce = wire.reduce, counted
    try:
        fit(prepared(network(), RecipeOptions(accumulate=PARTS)), share(), epochs=2)
    finally:
        wire.reduce = reduce
    assert int(counter) == 2 * STEPS


def accumulation_counts_every_sample_in_loss_and_metrics():
    model = prepared(classifier(), RecipeOptions(accumulate=PARTS), rate=0.0)
    history = fit(model, share()).history
    logits = INPUTS.reshape(-1, 5) @ model.get_weights()[0] + model.get_weights()[1]
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(logits)), TARGETS.ravel()]
    np.testing.assert_allclose(history["loss"][0], losses.mean(), rtol=1e-5)
    np.testing.assert_allclose(history["accuracy"][0], (logits.argmax(1) == TARGETS.ravel()).mean(), rtol=1e-6)


def accumulation_without_a_multiple_is_refused_in_one_line():
    model = prepared(classifier(), RecipeOptions(accumulate=5))
    with pytest.raises(UserError, match="a batch of 12 cannot be split into 5 equal parts"):
        fit(model, share())
    model = prepared(classifier(), RecipeOptions(accumulate=2))
    unknown = tf.data.Dataset.from_tensor_slices((INPUTS[0, 0], TARGETS[0, 0])).batch(BATCH)
    with pytest.raises(UserError, match="fixed size"):
        fit(model, unknown)


def a_step_that_applies_twice_is_not_accumulated():
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(0.1))
    weight = keras.Variable([1.0, 2.0])
    with optimizer.collecting() as collected:
        optimizer.apply([tf.constant([1.0, 1.0])], [weight])
        with pytest.raises(ValueError, match="applies twice"):
            optimizer.apply([tf.constant([1.0, 1.0])], [weight])
    np.testing.assert_array_equal(weight, [1, 2])
    np.testing.assert_array_equal(collected.grads[0], [1, 1])


def a_step_with_lag_applies_the_mean_of_the_step_before_also_accumulated():
    # Three steps of batches that come twice, so that the last one to be applied is not the last one computed.
    inputs, targets = np.concatenate([INPUTS, INPUTS[:1]]), np.concatenate([TARGETS, TARGETS[:1]])
    for parts in (1, PARTS):
        model = prepared(classifier(), RecipeOptions(lag=1, accumulate=parts), 0.2)
        path = [[np.asarray(v).astype("float64") for v in model.trainable_variables]] * 2
        fit(model, share(inputs, targets))
        momenta = [0.0, 0.0]
        for x, y in zip(INPUTS.reshape(STEPS, -1, 5), TARGETS.reshape(STEPS, -1), strict=True):
            kernel, bias = path[-2]
            exponentials = np.exp(x @ kernel + bias)
            error = (exponentials / exponentials.sum(1, keepdims=True) - np.eye(3)[y]) / len(y)
            momenta = [0.9 * m - 0.2 * g for m, g in zip(momenta, (x.T @ error, error.sum(0)), strict=True)]
            path.append([w + m for w, m in zip(path[-1], momenta, strict=True)])
        for got, wanted in zip(model.trainable_variables, path[-1], strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)
        assert int(model.optimizer.iterations) == STEPS


def with_lag_the_all_reduces_wait_for_nothing_that_the_step_computes():
    kinds = {}
    for lag in (0, 1):
        model = prepared(classifier(), RecipeOptions(lag=lag))
        step = tf.function(lambda x, y, model=model: model.train_step((x, y)), autograph=False)
        graph = step.get_concrete_function(tf.constant(INPUTS[0, 0]), tf.constant(TARGETS[0, 0])).graph
        todo = [op for op in graph.get_operations() if op.type == "HorovodGroupedAllreduce"]
        assert todo
        before = {}
        while todo:
            op = todo.pop()
            for other in [*(tensor.op for tensor in op.inputs), *op.control_inputs]:
                if other.name not in before:
                    before[other.name] = other.type
                    todo.append(other)
        kinds[lag] = set(before.values())
    assert "MatMul" in kinds[0]
    assert kinds[1] <= {"ReadVariableOp", "Placeholder", "Identity", "NoOp"}, kinds[1]


def with_lag_an_overflow_on_one_rank_skips_the_next_step_on_all():
    for loss_scale in (None, 64.0):
        options = RecipeOptions(lag=1, precision="float16", loss_scale=loss_scale, momentum=0.0)
        model = prepared(classifier(), options)
        if loss_scale is None:
            model.optimizer.dynamic_scale.assign(64.0)
        inputs = np.concatenate([INPUTS, INPUTS])
        if world.rank == world.size - 1:
            inputs[1, world.rank] = np.inf
        seen = []

        class Weights(keras.callbacks.Callback):
            def on_train_batch_end(self, batch, logs=None, seen=seen, model=model):
                seen.append(bits(model.trainable_variables))

        fit(model, share(inputs, np.concatenate([TARGETS, TARGETS])), Weights())
        # Of steps 0 to 3: the first applies nothing, the third what overflowed in the second.
        assert seen[0] != seen[1]
        assert seen[1] == seen[2]
        assert seen[2] != seen[3]
        assert same_on_all_ranks(model.trainable_variables)
        if loss_scale is None:
            assert float(model.optimizer.dynamic_scale) == 32.0
        else:
            assert int(model.optimizer.skipped) == 1


def a_run_with_lag_goes_on_from_a_checkpoint_as_if_it_had_not_stopped():
    inputs, targets = np.concatenate([INPUTS] * 3), np.concatenate([TARGETS] * 3)
    middle = len(inputs) // 2
    folder = Path(parallel.broadcast_object(sys.argv[1])).parent
    options = RecipeOptions(optimizer="adam", lag=1, ema=0.9)
    differed = []

    class Checkpoint(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == middle:
                differed.append(not same_on_all_ranks(self.model.optimizer.waiting))
                average_local_state(self.model)
                if world.is_root:
                    checkpoint.save(folder, self.model, checkpoint.Progress(step=middle))

    def made():
        # Names begin anew, as in another process.
        keras.utils.clear_session()
        return prepared(classifier(), options, 0.05)

    def trained(model, first, *callbacks):
        # Every step checks that the replicas are equal: the gradients that wait are not, and are left out.
        callbacks = [*parallel.callbacks(1), *callbacks]
        model.fit(share(inputs[first:], targets[first:]), callbacks=callbacks, verbose=0, shuffle=False)
        return bits(everything(model))

    whole = trained(made(), 0)
    assert trained(made(), 0, Checkpoint()) == whole
    assert differed == [True]
    model = made()
    with parallel.agree(world):
        if world.is_root:
            checkpoint.load(checkpoint.newest(folder), model)
    parallel.broadcast_variables(model)
    assert trained(model, middle) == whole


def clipping_is_of_the_averaged_gradient():
    # On each rank far above the limit, but their mean has norm 0.5.
    sign = 1 if world.rank % 2 else -1
    weight = keras.Variable([1.0, 1.0])
    optimizer = parallel.DistributedOptimizer(recipe.optimizer(RecipeOptions(momentum=0.0, clip_norm=1.0), 1.0))
    optimizer.apply([tf.constant([0.3 + sign * 30, 0.4 - sign * 40])], [weight])
    np.testing.assert_allclose(weight, [0.7, 0.6], rtol=1e-4)


def larc_is_of_the_averaged_gradient():
    sign = 1 if world.rank % 2 else -1
    weight = keras.Variable([3.0, 4.0])
    chain = recipe.optimizer(RecipeOptions(momentum=0.0, layerwise="larc", trust=0.01), 1.0)
    parallel.DistributedOptimizer(chain).apply([tf.constant([0.6 + sign * 30, 0.8 - sign * 40])], [weight])
    # |w| = 5 and |g| = 1: the rate is 0.05.
    np.testing.assert_allclose(weight, [3 - 0.05 * 0.6, 4 - 0.05 * 0.8], rtol=1e-5)


def replicas_stay_equal_through_every_chain():
    chains = [
        RecipeOptions(layerwise="lars", weight_decay=1e-3, clip_norm=1.0, ema=0.9, label_smoothing=0.1),
        RecipeOptions(
            optimizer="adam", layerwise="larc", weight_decay=1e-3, precision="float16", accumulate=2, ema=0.9, lag=1
        ),
    ]
    for options in chains:
        build = (lambda: in_float16(network)) if options.precision == "float16" else network
        model = prepared(build(), options, 0.01, {"logits/*": 2.0})
        averages = EvaluateAverages(Averages(model))
        start = bits(model.trainable_variables)
        # The callbacks check the replicas at the end, and raise where they differ.
        fit(model, share(), averages, epochs=2, validation_data=share())
        assert bits(model.trainable_variables) != start
        assert same_on_all_ranks([v for v in everything(model) if not is_seed(v)])


CHECKS = [value for name, value in list(globals().items()) if callable(value) and name.count("_") >= 4]


if __name__ == "__main__":
    write_outcomes(CHECKS, world)
    hvd.shutdown()
