"""Run on N ranks by test_own_steps.py: models with a training step, optimizers or a loop of their own."""

import copy
import pickle
import sys
from functools import partial
from pathlib import Path

from checks import write_outcomes

from hpc_train import parallel
from hpc_train.errors import UserError

world = parallel.init(seed=5)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.parallel.collectives import gather_objects  # noqa: E402
from hpc_train.parallel.variables import everything, is_seed, optimizer_variables  # noqa: E402
from hpc_train.training import checkpoint  # noqa: E402

BATCH, STEPS = 6, 5
REAL = np.random.default_rng(1).normal(size=(BATCH * STEPS * world.size, 4)).astype("float32")
NOISE = np.random.default_rng(2).normal(size=(BATCH * STEPS * world.size, 3)).astype("float32")
CROSS_ENTROPY = keras.losses.BinaryCrossentropy(from_logits=True)


class Gan(keras.Model):
    """Two networks, each with its own optimizer, as in Keras's guide; the noise comes with the data."""

    def __init__(self):
        super().__init__()
        keras.utils.set_random_seed(7)
        self.generator = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
        hidden = keras.layers.Dense(5, activation="tanh")
        self.critic = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(1)])
        self.loss_tracker = keras.metrics.Mean(name="critic_loss")

    def compile(self, critic_optimizer, generator_optimizer):
        super().compile()
        self.critic_optimizer, self.generator_optimizer = critic_optimizer, generator_optimizer

    def train_step(self, data):
        real, noise = data
        with tf.GradientTape() as tape:
            scores = self.critic(tf.concat([self.generator(noise), real], 0))
            labels = tf.concat([tf.ones([tf.shape(noise)[0], 1]), tf.zeros([tf.shape(real)[0], 1])], 0)
            loss = CROSS_ENTROPY(labels, scores)
        weights = self.critic.trainable_weights
        self.critic_optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        with tf.GradientTape() as tape:
            fooled = CROSS_ENTROPY(tf.zeros([tf.shape(noise)[0], 1]), self.critic(self.generator(noise)))
        weights = self.generator.trainable_weights
        self.generator_optimizer.apply(tape.gradient(fooled, weights), weights)
        self.loss_tracker.update_state(loss)
        return {"critic_loss": self.loss_tracker.result()}


class Elsewhere(Gan):
    """Keeps its optimizers as `place` says, out of its own attributes."""

    def __init__(self, place):
        super().__init__()
        self.place = place

    def compile(self, critic_optimizer, generator_optimizer):
        keras.Model.compile(self)
        match self.place:
            case "tuple":
                self.pair = critic_optimizer, generator_optimizer
            case "nested":
                self.pair = {"of": [critic_optimizer, (generator_optimizer,)]}
            case "parts":
                self.critic.compile(critic_optimizer)
                self.generator.compile(generator_optimizer)

    def __getattr__(self, name):
        if name in ("critic_optimizer", "generator_optimizer"):
            critic = name.startswith("critic")
            match self.place:
                case "tuple":
                    return self.pair[not critic]
                case "nested":
                    return self.pair["of"][0] if critic else self.pair["of"][1][0]
                case "parts":
                    return (self.critic if critic else self.generator).optimizer
        return super().__getattr__(name)


def share():
    pick = np.arange(len(REAL)).reshape(-1, world.size, BATCH)[:, world.rank].ravel()
    return tf.data.Dataset.from_tensor_slices((REAL[pick], NOISE[pick])).batch(BATCH)


def whole():
    return tf.data.Dataset.from_tensor_slices((REAL, NOISE)).batch(BATCH * world.size)


def trained(wrap, data, callbacks=(), make=Gan):
    model = make()
    model.compile(wrap(keras.optimizers.Adam(0.01)), wrap(keras.optimizers.SGD(0.1, momentum=0.9)))
    history = model.fit(data, callbacks=[*callbacks], verbose=0)
    return model, history.history


def each_of_several_optimizers_averages_once():
    ours, history = trained(parallel.DistributedOptimizer, share(), parallel.callbacks(2))
    alone, expected = trained(lambda optimizer: optimizer, whole())
    for got, wanted in zip(ours.trainable_variables, alone.trainable_variables, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(history["critic_loss"], expected["critic_loss"], rtol=1e-4)
    bits = [np.asarray(v).tobytes() for v in everything(ours) if not is_seed(v)]
    assert all(other == bits for other in gather_objects(bits))


def a_checkpoint_holds_every_optimizer():
    model, _ = trained(parallel.DistributedOptimizer, share(), parallel.callbacks())
    folder = Path(parallel.broadcast_object(sys.argv[1])).parent / str(world.rank)
    folder.mkdir()
    path = checkpoint.save(folder, model, checkpoint.Progress(step=1))
    momenta = [np.asarray(v) for v in optimizer_variables(model)]
    assert any("critic" in v.path or "dense" in v.path for v in optimizer_variables(model))
    for variable in optimizer_variables(model):
        variable.assign(tf.zeros_like(variable.value))
    checkpoint.load(path, model)
    for got, wanted in zip(optimizer_variables(model), momenta, strict=True):
        np.testing.assert_array_equal(got, wanted)


def a_plain_second_optimizer_is_named_before_the_first_step():
    model = Gan()
    model.compile(parallel.DistributedOptimizer(keras.optimizers.Adam(0.01)), keras.optimizers.SGD(0.1))
    with pytest.raises(UserError) as caught:
        model.fit(share(), callbacks=parallel.callbacks(), verbose=0)
    assert "generator_optimizer" in str(caught.value)
    assert "SGD" in str(caught.value)


def an_overflow_in_an_eager_loop_makes_all_ranks_skip_the_step():
    optimizer = keras.optimizers.LossScaleOptimizer(parallel.DistributedOptimizer("sgd"), initial_scale=8.0)
    weight = keras.Variable(np.ones(3, "float32"))
    # Each rank overflows once; then the mean over ranks counts.
    for bad in (0, 1, None):
        grad = np.full(3, np.inf if bad == world.rank else 2.0 * (world.rank + 1), "float32")
        optimizer.apply([tf.constant(grad)], [weight])
    assert float(optimizer.dynamic_scale) == 2.0
    mean = (world.size + 1) / 2.0
    np.testing.assert_allclose(np.asarray(weight), 1 - 0.01 * 2.0 * mean / 2.0, rtol=1e-6)


def optimizers_are_found_wherever_the_model_keeps_them():
    alone, expected = trained(lambda optimizer: optimizer, whole())
    for place in ("tuple", "nested", "parts"):
        make = partial(Elsewhere, place)
        ours, history = trained(parallel.DistributedOptimizer, share(), parallel.callbacks(2), make)
        for got, wanted in zip(ours.trainable_variables, alone.trainable_variables, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5, err_msg=place)
        np.testing.assert_allclose(history["critic_loss"], expected["critic_loss"], rtol=1e-4)
        assert len(optimizer_variables(ours)) > len(ours.trainable_variables) * 2, place


def a_part_that_was_compiled_for_itself_is_no_optimizer_of_the_model():
    part = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    part.compile(keras.optimizers.Adam(0.01), "mse")
    model = keras.Sequential([keras.Input((4,)), part, keras.layers.Dense(1)])
    model.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse")
    model.fit(REAL[:BATCH], REAL[:BATCH, :1], callbacks=parallel.callbacks(), verbose=0)
    assert int(model.optimizer.iterations) == 1


def what_is_no_optimizer_is_named_in_one_line():
    for wrong in ("adamm", None, keras.optimizers.SGD, {"class_name": "Sgdd", "config": {}}):
        with pytest.raises(UserError, match="is no optimizer of Keras 3") as caught:
            parallel.DistributedOptimizer(wrong)
        assert caught.value.every_rank
        assert "\n" not in str(caught.value)


def gradients_may_be_arrays_of_numpy():
    weight = keras.Variable(np.zeros(2, "float32"))
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(1.0))
    optimizer.apply([np.array([1.0, world.rank])], [weight])
    np.testing.assert_allclose(weight, [-1, -(world.size - 1) / 2])


def copies_and_pickles_average_as_the_optimizer_does():
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(1.0), bucket_mib=3.0, reduction="sum")
    copies = [pickle.loads(pickle.dumps(optimizer)), copy.deepcopy(optimizer)]
    copies.append(optimizer.from_config(optimizer.get_config()))
    for again in copies:
        assert (again.bucket_mib, again.reduction) == (3.0, "sum")
        weight = keras.Variable([0.0])
        again.apply([tf.constant([1.0])], [weight])
        np.testing.assert_array_equal(weight, [-world.size])


def every_setting_and_method_is_the_optimizers_own():
    class Counted(keras.optimizers.SGD):
        def set_phase(self, phase):
            self.phase = phase

        @property
        def doubled(self):
            return 2 * self.phase

    optimizer = parallel.DistributedOptimizer(Counted(0.5))
    assert isinstance(optimizer, (keras.optimizers.SGD, parallel.DistributedOptimizer))
    optimizer.set_phase(4)
    assert optimizer.doubled == 8
    optimizer.clipvalue, optimizer.weight_decay = 0.25, 0.1
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    kernel, bias = keras.Variable([2.0], name="kernel"), keras.Variable([2.0], name="bias")
    optimizer.apply([tf.constant([float(world.rank + 1)])] * 2, [kernel, bias])
    # Decay 0.1 of 2 at rate 0.5, then the clipped mean.
    np.testing.assert_allclose(kernel, [2 - 0.1 - 0.5 * 0.25], rtol=1e-6)
    np.testing.assert_allclose(bias, [2 - 0.5 * 0.25], rtol=1e-6)


CHECKS = [each_of_several_optimizers_averages_once, a_checkpoint_holds_every_optimizer]
CHECKS += [a_plain_second_optimizer_is_named_before_the_first_step, optimizers_are_found_wherever_the_model_keeps_them]
CHECKS += [a_part_that_was_compiled_for_itself_is_no_optimizer_of_the_model, what_is_no_optimizer_is_named_in_one_line]
CHECKS += [an_overflow_in_an_eager_loop_makes_all_ranks_skip_the_step, gradients_may_be_arrays_of_numpy]
CHECKS += [copies_and_pickles_average_as_the_optimizer_does, every_setting_and_method_is_the_optimizers_own]


if __name__ == "__main__":
    write_outcomes(CHECKS, world)
    hvd.shutdown()
