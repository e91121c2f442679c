"""Run on 2 ranks by test_unbuilt.py: models that have no weights before their first batch; see checks.py."""

import numpy as np
from checks import write_outcomes

from hpc_train import parallel
from hpc_train.errors import UserError

world = parallel.init(seed=1)

import horovod.tensorflow.keras as hvd  # noqa: E402
import keras  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.parallel.collectives import gather_objects  # noqa: E402

BATCH = 8
X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = X[:, :1]
MINE = np.arange(len(X)).reshape(-1, world.size, BATCH)[:, world.rank].ravel()


def stack():
    hidden = keras.layers.Dense(8, activation="tanh")
    return keras.Sequential([hidden, keras.layers.Dropout(0.0), keras.layers.Dense(1)])


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)
        self.not_called = keras.layers.Dense(3)

    def call(self, inputs, training=False):
        return self.head(self.hidden(inputs))


class OwnStep(Subclass):
    """Its step is no call of the model, which could not be called."""

    def call(self, inputs):
        raise NotImplementedError

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = keras.ops.mean((self.head(self.hidden(x)) - y) ** 2)
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return {"loss": loss}


class Eager(Subclass):
    """It cannot be traced."""

    def call(self, inputs, training=False):
        return super().call(inputs) * float(np.sign(inputs[0, 0].numpy()) ** 2)


def sgd():
    return keras.optimizers.SGD(0.05, momentum=0.9)


def trained(model, optimizer, callbacks, pick=MINE, batch=BATCH, **compiled):
    model.compile(optimizer, "mse", **compiled)
    model.fit(X[pick], Y[pick], batch_size=batch, shuffle=False, verbose=0, epochs=2, callbacks=callbacks)
    return model


def alone(make, optimizer, **compiled):
    """Plain Keras on this rank, with rank 0's seed and the batches of all ranks."""
    keras.utils.set_random_seed(1)
    return trained(make(), optimizer, [], np.arange(len(X)), BATCH * world.size, **compiled)


def own_seed():
    keras.utils.set_random_seed(1 + world.rank)


def assert_equal(model, plain):
    got = [np.asarray(variable) for variable in model.trainable_variables]
    everybody = gather_objects([value.tobytes() for value in got])
    assert all(other == everybody[0] for other in everybody)
    for value, variable in zip(got, plain.trainable_variables, strict=True):
        np.testing.assert_allclose(value, np.asarray(variable), rtol=1e-4, atol=1e-5)


def they_train_as_one_rank_with_the_whole_batch():
    adam = {"learning_rate": 0.01, "use_ema": True, "ema_overwrite_frequency": 3}
    for make, optimizer, compiled in (
        (stack, sgd, {}),
        (stack, lambda: keras.optimizers.AdamW(**adam), {}),
        (stack, sgd, {"steps_per_execution": 2}),
        (stack, sgd, {"run_eagerly": True}),
        (Subclass, sgd, {}),
        (OwnStep, sgd, {}),
        (Eager, sgd, {"run_eagerly": True}),
    ):
        own_seed()
        model = trained(make(), parallel.DistributedOptimizer(optimizer()), parallel.callbacks(), **compiled)
        assert_equal(model, alone(make, optimizer(), **compiled))


def horovod_names_train_them_too():
    own_seed()
    start = [hvd.callbacks.BroadcastGlobalVariablesCallback(0)]
    assert_equal(trained(stack(), hvd.DistributedOptimizer(sgd()), start), alone(stack, sgd()))


def train_on_batch_needs_no_callbacks_and_runs_without_xla():
    models = []
    for optimizer, rows in (parallel.DistributedOptimizer(sgd()), X[MINE]), (sgd(), X):
        keras.utils.set_random_seed(1)
        models.append(made := stack())
        made.compile(optimizer, "mse", jit_compile=True)
        for _ in range(3):
            made.train_on_batch(rows, rows[:, :1])
    assert_equal(*models)


def lag_and_several_passes_are_as_in_a_built_model():
    for wrap, callbacks in (
        (lambda: parallel.DistributedOptimizer(sgd(), lag=1), parallel.callbacks),
        (
            lambda: hvd.DistributedOptimizer(sgd(), backward_passes_per_step=2),
            lambda: [hvd.callbacks.BroadcastGlobalVariablesCallback(0)],
        ),
    ):
        models = []
        for built in (False, True):
            own_seed()
            model = stack()
            if built:
                model.build((None, 6))
            models.append(trained(model, wrap(), callbacks()))
        assert_equal(*models)


def a_model_may_be_built_on_one_rank_only():
    own_seed()
    model = stack()
    if world.is_root:
        model.build((None, 6))
    assert_equal(trained(model, parallel.DistributedOptimizer(sgd()), parallel.callbacks()), alone(stack, sgd()))


def a_layer_that_no_step_uses_is_looked_at_once():
    traced = []

    class Counted(Subclass):
        def train_step(self, data):
            traced.append(1)
            return super().train_step(data)

    model = trained(Counted(), parallel.DistributedOptimizer(sgd()), parallel.callbacks())
    first = len(traced)
    model.fit(X[MINE], Y[MINE], batch_size=BATCH, verbose=0, callbacks=parallel.callbacks())
    assert not model.not_called.built
    assert len(traced) == first


def a_fit_without_a_batch_leaves_the_model_as_it_is():
    model = stack()
    model.compile(parallel.DistributedOptimizer(sgd()), "mse")
    model.make_train_function()
    before = model.train_function
    model.fit(X[MINE], Y[MINE], epochs=0, verbose=0, callbacks=parallel.callbacks())
    assert model.train_function is before


def an_error_of_the_step_is_that_of_plain_keras():
    class Wrong(Subclass):
        def call(self, inputs):
            raise ValueError("no such layer")

    for optimizer, callbacks in (sgd(), []), (parallel.DistributedOptimizer(sgd()), parallel.callbacks()):
        with pytest.raises(ValueError, match="no such layer"):
            trained(Wrong(), optimizer, callbacks)


def what_a_batch_cannot_build_is_named():
    class Never(Eager):
        def call(self, inputs, training=False):
            raise TypeError("not like this")

    with pytest.raises(UserError, match=r"no weights.*\(TypeError: not like this\): call") as caught:
        trained(Never(), parallel.DistributedOptimizer(sgd()), parallel.callbacks(), run_eagerly=True)
    assert caught.value.every_rank


def a_plain_optimizer_is_refused_before_the_first_step():
    model = stack()
    with pytest.raises(UserError, match="averages no gradients"):
        trained(model, sgd(), parallel.callbacks())
    assert int(model.optimizer.iterations) == 0


CHECKS = [
    they_train_as_one_rank_with_the_whole_batch,
    horovod_names_train_them_too,
    train_on_batch_needs_no_callbacks_and_runs_without_xla,
    lag_and_several_passes_are_as_in_a_built_model,
    a_model_may_be_built_on_one_rank_only,
    a_layer_that_no_step_uses_is_looked_at_once,
    a_fit_without_a_batch_leaves_the_model_as_it_is,
    an_error_of_the_step_is_that_of_plain_keras,
    what_a_batch_cannot_build_is_named,
    a_plain_optimizer_is_refused_before_the_first_step,
]
write_outcomes(CHECKS, world)
