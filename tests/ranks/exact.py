"""Run on N ranks by test_exact.py: logs, metrics and replicas are exact over the ranks, or refused by name."""

import re

import pytest
from checks import write_outcomes

from hpc_train import parallel
from hpc_train.errors import UserError

world = parallel.init(seed=3)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import ops  # noqa: E402

from hpc_train.parallel.collectives import broadcast_values, gather_objects  # noqa: E402

BATCH, STEPS = 4, 4
INPUTS = np.random.default_rng(8).normal(size=(world.size * BATCH * STEPS, 6)).astype("float32")
TARGETS = INPUTS[:, :1]
X, Y = INPUTS[world.rank :: world.size], TARGETS[world.rank :: world.size]


def network(kind=keras.Sequential, *layers):
    keras.utils.set_random_seed(3)
    return kind([keras.Input((6,)), *layers, keras.layers.Dense(1, name="head")])


def fit(model, callbacks=(), validation_steps=None, steps_per_execution=1, metrics=None, loss="mse", **options):
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(0.0))
    model.compile(optimizer, loss, metrics=metrics, steps_per_execution=steps_per_execution, jit_compile=False)
    ours = parallel.callbacks(2, validation_steps)
    options = {"batch_size": BATCH, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, callbacks=[*ours, *callbacks], **options).history


def same_on_all_ranks(value):
    everybody = gather_objects(value)
    return all(repr(other) == repr(everybody[0]) for other in everybody)


def error_of(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert caught.value.every_rank
    assert "\n" not in str(caught.value)
    assert same_on_all_ranks(str(caught.value))
    return str(caught.value)


def errors(model, inputs=INPUTS, targets=TARGETS):
    return (np.asarray(model(inputs), "float64") - targets) ** 2


class OwnStep(keras.Sequential):
    """Its train_step gives what the function `logs` makes of the losses of a batch."""

    def loss_of(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean((self(x) - y) ** 2)
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, self.trainable_weights), self.trainable_weights, strict=True)
        )
        return loss

    def train_step(self, data):
        return self.logs(self.loss_of(data), data)


class Tracked(OwnStep):
    """Means that it lists among `metrics`, and one that it does not."""

    def __init__(self, layers):
        super().__init__(layers)
        self.mean, self.total = keras.metrics.Mean(name="mean_loss"), keras.metrics.Sum(name="total")
        self.unlisted = {"y": keras.metrics.Mean(name="y")}

    @property
    def metrics(self):
        return [self.mean, self.total]

    def logs(self, loss, data):
        self.mean.update_state(loss)
        self.total.update_state(data[1])
        self.unlisted["y"].update_state(data[1])
        return {
            "loss": self.mean.result(),
            "root": ops.sqrt(self.mean.result()),
            "nested": {"both": self.mean.result() + 2 * self.total.result()},
            "y": self.unlisted["y"].result(),
        }

    def test_step(self, data):
        x, y = data
        self.mean.update_state((self(x) - y) ** 2)
        return {"renamed": self.mean.result()}


def logs_of_own_steps_are_those_of_one_rank_whatever_their_names():
    model = network(Tracked)
    seen = []
    last = keras.callbacks.LambdaCallback(on_train_end=lambda logs: seen.append(dict(logs)))
    history = fit(model, [last], validation_data=(X, Y), validation_batch_size=BATCH)
    loss, total = errors(model).mean(), TARGETS.astype("float64").sum()
    want = {"loss": loss, "root": loss**0.5, "both": loss + 2 * total, "y": TARGETS.mean(), "val_renamed": loss}
    assert history.keys() == want.keys()
    for name, value in want.items():
        np.testing.assert_allclose(history[name], [value], rtol=1e-4, atol=1e-5, err_msg=name)
    assert same_on_all_ranks(history)
    assert {name: [value] for name, value in seen[0].items()} == history


def numbers_of_a_batch_become_means_over_ranks_and_nothing_is_invented():
    for name in ("my_loss", "loss"):
        model = network(type("Own", (OwnStep,), {"logs": lambda self, loss, data, name=name: {name: loss}}))
        stop = keras.callbacks.EarlyStopping(name, patience=0, mode="min")
        history = fit(model, [stop], epochs=3)
        last = [errors(model, x[-BATCH:], y[-BATCH:]).mean() for x, y in gather_objects((X, Y))]
        assert history.keys() == {name}
        np.testing.assert_allclose(history[name], np.mean(last), rtol=1e-5)
        assert len(history[name]) == 2
        assert same_on_all_ranks(history)


def a_second_fit_and_a_new_compile_keep_exact_logs():
    model = network(Tracked)
    first = fit(model)
    again = model.fit(X, Y, batch_size=BATCH, callbacks=parallel.callbacks(), verbose=0).history
    np.testing.assert_allclose(again["loss"], first["loss"], rtol=1e-6)
    np.testing.assert_allclose(fit(model)["loss"], first["loss"], rtol=1e-6)
    assert "train_step" not in vars(model)


def logs_that_are_no_numbers_or_differ_are_refused_in_one_line():
    def of(logs):
        return network(type("Own", (OwnStep,), {"logs": lambda self, loss, data: logs(loss)}))

    assert "log 'word' is string" in error_of(fit, of(lambda loss: {"word": tf.constant("a")}))
    assert "not a dict" in error_of(fit, of(lambda loss: loss))
    uneven = error_of(fit, of(lambda loss: {"loss": loss, f"of_{world.rank}": loss}))
    assert "rank 1 lacks of_0 and has of_1 more" in uneven


def validation_steps_count_with_any_number_of_steps_per_execution():
    for at_once, real in ((1, 3), (2, 3), (3, 1), (2, 2), (50, 3), (3, 4), (2, 9)):
        model = network()
        validation = {"validation_data": (X, Y), "validation_batch_size": BATCH}
        history = fit(model, validation_steps=real, steps_per_execution=at_once, **validation)
        parts = gather_objects((X[: real * BATCH], Y[: real * BATCH]))
        want = np.mean([errors(model, x, y).mean() for x, y in parts])
        np.testing.assert_allclose(history["val_loss"], [want], rtol=1e-5, err_msg=f"{real} of {at_once} at once")
        np.testing.assert_allclose(history["loss"], [errors(model).mean()], rtol=1e-5)


class Largest(keras.metrics.Metric):
    def __init__(self, name="largest"):
        super().__init__(name=name)
        self.state = self.add_variable((), "zeros", name="state")

    def update_state(self, true, predicted, sample_weight=None):
        self.state.assign(ops.maximum(self.state, ops.max(ops.abs(true - predicted))))

    def result(self):
        return self.state


class Running(Largest):
    def update_state(self, true, predicted, sample_weight=None):
        self.state.assign(0.9 * self.state + 0.1 * ops.mean(predicted))


class MergesItself(Running):
    def merge_state(self, metrics):
        self.state.assign(sum([metric.state for metric in metrics], self.state) / (1 + len(metrics)))


def states_that_do_not_add_up_are_merged_as_their_update_does():
    model = network()
    metrics = [Largest(), MergesItself("itself")]
    history = fit(model, metrics=metrics, validation_data=(X, Y), validation_batch_size=BATCH)
    for name in ("largest", "val_largest"):
        np.testing.assert_allclose(history[name], [errors(model).max() ** 0.5], rtol=1e-5)
    local = 0.0
    for step in range(STEPS):
        local = 0.9 * local + 0.1 * np.asarray(model(X[step * BATCH : (step + 1) * BATCH])).mean()
    np.testing.assert_allclose(history["itself"], [np.mean(gather_objects(local))], rtol=1e-4)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    np.testing.assert_allclose(parallel.evaluate(model, data)["largest"], errors(model).max() ** 0.5, rtol=1e-5)


def a_metric_that_cannot_be_merged_is_refused_before_the_first_step():
    model = network()
    before = [weights.tobytes() for weights in model.get_weights()]
    assert "metric running (Running)" in error_of(fit, model, metrics=[Running("running")])
    assert [weights.tobytes() for weights in model.get_weights()] == before
    assert int(model.optimizer.iterations) == 0


def state_outside_a_metrics_variables_is_found_on_the_results():
    class Hidden(keras.metrics.MeanSquaredError):
        def result(self):
            return super().result() + world.rank

    assert "hidden" in error_of(fit, network(), metrics=[Hidden("hidden")])


def evaluation_of_unequal_models_is_refused_by_name():
    model = network()
    model.set_weights([weights + world.rank for weights in model.get_weights()])
    model.compile(loss="mse")
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(BATCH)
    refused = error_of(parallel.evaluate, model, data)
    assert f"head/kernel on {world.size - 1} of {world.size} ranks" in refused


def replicas_of_every_dtype_are_checked_and_broadcast():
    dtypes = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float16", "bfloat16", "float32")
    for dtype in (*dtypes, "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"):
        values = np.array([1, 0, 1, 1] if world.is_root else [1, 1, 0, 1], "float32")
        variable = keras.Variable(values, dtype=dtype, trainable=False, name=dtype)
        assert f"{dtype} on" in error_of(parallel.check_replicas, [variable], "here"), dtype
        broadcast_values([variable])
        parallel.check_replicas([variable], "here")
        np.testing.assert_array_equal(np.asarray(variable).astype("complex64"), [1, 0, 1, 1], err_msg=dtype)


class Seen(keras.layers.Layer):
    """Counts its rank's own way."""

    def build(self, shape):
        self.seen = self.add_weight(shape=(), dtype="int64", initializer="zeros", trainable=False, name="seen")

    def call(self, inputs):
        self.seen.assign_add(world.rank + 1)
        return inputs


def whole_numbers_that_a_rank_counts_are_found_at_the_first_check():
    refused = error_of(fit, network(keras.Sequential, Seen(name="counter")))
    assert "after step 1:" in refused
    assert "counter/seen on" in refused


class Scale(keras.layers.Layer):
    def __init__(self, dtype):
        super().__init__(dtype=dtype, name="scale")

    def build(self, shape):
        self.scale = self.add_weight(shape=shape[-1:], initializer="ones", name="scale")

    def call(self, inputs):
        return inputs * ops.cast(self.scale, inputs.dtype)


def ranks_that_built_different_models_name_the_first_difference():
    def of(make):
        return error_of(fit, network(keras.Sequential, *make(world.rank == 1)))

    dense = keras.layers.Dense
    assert "head/kernel (6, 1) float32 on rank 0" in of(lambda odd: [dense(6, name="extra")] if odd else [])
    assert "extra/kernel (6, 6) float32 on rank 1" in of(lambda odd: [dense(6, name="extra")] if odd else [])
    shape = of(lambda odd: [dense(5 if odd else 4, name="hidden")])
    assert "hidden/kernel (6, 4) float32 on rank 0" in shape
    assert "hidden/kernel (6, 5) float32 on rank 1" in shape
    assert "(4,) float64 on rank 1" in of(
        lambda odd: [dense(4, use_bias=False), Scale("float64" if odd else "float32")]
    )
    without_variables = of(lambda odd: [keras.layers.Flatten()] if odd else [])
    assert re.search(r"layer \d is Dense on rank 0 and Flatten on rank 1", without_variables), without_variables
    activation = of(lambda odd: [dense(4, activation="tanh" if odd else "relu")])
    assert 'is Dense with activation="relu" on rank 0 and Dense with activation="tanh" on rank 1' in activation
    dropout = of(lambda odd: [keras.layers.Dropout(0.5 if odd else 0.1)])
    assert "is Dropout with rate=0.1 on rank 0 and Dropout with rate=0.5 on rank 1" in dropout


def names_and_seeds_may_differ_between_ranks_built_alike():
    # As after `if rank == 0: build_model().summary()`: Keras has counted more layers and optimizers on one rank.
    for _ in range(world.rank):
        keras.layers.LSTM(2).build((None, 3, 2))
        network(keras.Sequential, keras.layers.BatchNormalization(), hvd.SyncBatchNormalization()).compile("sgd", "mse")
    first = keras.initializers.Constant(world.rank)
    inner = keras.layers.Bidirectional(keras.layers.LSTM(2, bias_initializer=first))
    rate = keras.layers.Dropout(0.5, seed=world.rank)
    layers = [keras.layers.BatchNormalization(), keras.layers.Reshape((2, 3)), inner, hvd.SyncBatchNormalization()]
    model = network(keras.Sequential, *layers, hvd.SyncBatchNormalization(), rate)
    parallel.synchronise_batch_norm(model)
    assert "loss" in fit(model)
    hvd.broadcast_variables(model.variables, root_rank=0)
    words = keras.Sequential(
        [keras.Input((3,)), keras.layers.Embedding(5, 2), keras.layers.Flatten(), keras.layers.Dense(1)]
    )

    @tf.function
    def gradients(inputs):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(words(inputs))
        return hvd.DistributedGradientTape(tape).gradient(loss, words.trainable_variables)

    assert len(gradients(tf.zeros((2, 3)))) == 3


if __name__ == "__main__":
    checks = [check for name, check in list(globals().items()) if name.count("_") >= 4 and callable(check)]
    write_outcomes(checks, world)
    hvd.shutdown()
