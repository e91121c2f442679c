"""What a user of `hpc_train.fit` may have in a file, and data for it; tests also give this file to the command."""

from pathlib import Path

import h5py
import keras
import numpy as np
import tensorflow as tf

CROSS_ENTROPY = keras.losses.BinaryCrossentropy(from_logits=True)
MADE: list = []


def write(folder: Path, train: int = 240, held_out: int = 61) -> Path:
    """HDF5 files with columns x, numbers y, class numbers k, one-hot labels, and numbers with a NaN in row 17."""
    draw = np.random.default_rng(0)
    for split, rows in (("train", train), ("validation", held_out)):
        (folder / split).mkdir(parents=True)
        x = draw.normal(size=(rows, 5)).astype("float32")
        noise = 0.1 * draw.normal(size=rows)
        with h5py.File(folder / split / "a.h5", "w") as file:
            file["x"] = x
            file["y"] = (x @ [1, -2, 0.5, 0, 3] + noise).astype("float32")
            file["two"] = np.stack([x[:, 0] + noise, x[:, 1] - noise], 1).astype("float32")
            file["k"] = (np.abs(x).argmax(1)).astype("int32")
            file["binary"] = (x[:, 0] + noise > 0).astype("int32")
            file["one_hot"] = np.eye(5, dtype="float32")[np.abs(x).argmax(1)]
            file["map"] = draw.normal(size=(rows, 2, 3, 4)).astype("float32")
            file["nan"] = np.where(np.arange(rows) == 17, np.nan, x[:, 0]).astype("float32")
    return folder


def _network(catalogue, *outputs, units=8):
    seeded = keras.initializers.GlorotUniform
    hidden = keras.layers.Dense(units, "tanh", kernel_initializer=seeded(seed=3), name="hidden")
    last = keras.layers.Dense(*outputs, kernel_initializer=seeded(seed=4), name="last")
    return keras.Sequential([keras.Input(catalogue.input_shape), hidden, last])


def one(catalogue):
    return _network(catalogue, 1)


def two(catalogue, units=8):
    return _network(catalogue, 2, units=units)


def five(catalogue):
    return _network(catalogue, 5)


def softmax(catalogue):
    return _network(catalogue, 5, "softmax")


def sigmoid(catalogue):
    return _network(catalogue, 1, "sigmoid")


def compiled(catalogue):
    model = _network(catalogue, 1)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "mse", metrics=["mae"])
    return model


def scheduled(catalogue):
    model = _network(catalogue, 1)
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)), "mse")
    return model


def without_optimizer(catalogue):
    model = _network(catalogue, 1)
    model.compile(None, "mse")
    return model


def transposed(catalogue):
    """Its maps have their channels last, as networks have them."""
    layers = keras.layers
    return keras.Sequential([keras.Input(catalogue.input_shape), layers.Dense(24), layers.Reshape((3, 4, 2))])


def raises(catalogue):
    return catalogue.input_shape[0] / 0


def returns_text():
    return "a model"


def needs_two(catalogue, width):
    return None


def squared(y_true, y_pred):
    return keras.ops.mean(keras.ops.square(y_true - y_pred), -1)


class Subclassed(keras.Model):
    """Has its weights only when it is called."""

    def __init__(self):
        super().__init__()
        self.last = keras.layers.Dense(1)

    def call(self, x):
        return self.last(x)


class Fails(Subclassed):
    def call(self, x):
        return self.last(x) + keras.ops.reshape(x, (3, 7))


class Gan(keras.Model):
    """Two networks, each with its own optimizer."""

    def __init__(self, units=6):
        super().__init__()
        layers = keras.layers
        self.generator = keras.Sequential([keras.Input((3,)), layers.Dense(units, "relu"), layers.Dense(5)])
        self.critic = keras.Sequential(
            [keras.Input((5,)), layers.Dense(6, "relu"), layers.Dropout(0.2), layers.Dense(1)]
        )
        self.seed = keras.random.SeedGenerator(1)
        self.tracker = keras.metrics.Mean(name="critic_loss")

    @property
    def metrics(self):
        return [self.tracker]

    def compile(self, critic_optimizer, generator_optimizer):
        super().compile()
        self.critic_optimizer, self.generator_optimizer = critic_optimizer, generator_optimizer

    def fakes(self, like):
        return self.generator(keras.random.normal((tf.shape(like)[0], 3), seed=self.seed))

    def critic_loss(self, real, training=False):
        ones = tf.ones((tf.shape(real)[0], 1))
        scores = self.critic(tf.concat([self.fakes(real), real], 0), training=training)
        return CROSS_ENTROPY(tf.concat([ones, 0 * ones], 0), scores)

    def train_step(self, data):
        real = data[0]
        with tf.GradientTape() as tape:
            loss = self.critic_loss(real, training=True)
        weights = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(loss, weights), weights)
        with tf.GradientTape() as tape:
            fooled = CROSS_ENTROPY(tf.zeros((tf.shape(real)[0], 1)), self.critic(self.fakes(real)))
        weights = self.generator.trainable_variables
        self.generator_optimizer.apply(tape.gradient(fooled, weights), weights)
        self.tracker.update_state(loss)
        return {"critic_loss": self.tracker.result()}


class EvaluatedGan(Gan):
    def test_step(self, data):
        self.tracker.update_state(self.critic_loss(data[0]))
        return {"critic_loss": self.tracker.result()}


_ELSEWHERE = keras.optimizers.SGD(0.1)


class Loose(Gan):
    """Its optimizer is nowhere in the model."""

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.critic_loss(data[0])
        weights = self.critic.trainable_variables
        _ELSEWHERE.apply(tape.gradient(loss, weights), weights)
        return {"critic_loss": loss}


class ByHand(Gan):
    """Applies gradients without an optimizer."""

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = self.critic_loss(data[0])
        weights = self.critic.trainable_variables
        for weight, grad in zip(weights, tape.gradient(loss, weights), strict=True):
            weight.assign_sub(0.1 * grad)
        self.tracker.update_state(loss)
        return {"critic_loss": self.tracker.result()}


def _compiled_gan(kind, **arguments):
    model = kind(**arguments)
    model.compile(keras.optimizers.Adam(0.001), keras.optimizers.SGD(0.01, momentum=0.9))
    MADE.append(model)
    return model


def uncompiled_gan():
    return Gan()


def gan(units=6):
    return _compiled_gan(Gan, units=units)


def evaluated_gan():
    return _compiled_gan(EvaluatedGan)


def loose():
    return _compiled_gan(Loose)


def by_hand():
    return _compiled_gan(ByHand)


def words_and_numbers():
    """A network of a sequence of tokens, of which 0 is padding, and of three numbers."""
    words, numbers = keras.Input((None,), name="words"), keras.Input((3,), name="numbers")
    read = keras.layers.GRU(4)(keras.layers.Embedding(9, 3, mask_zero=True)(words))
    return keras.Model([words, numbers], keras.layers.Dense(1)(keras.layers.concatenate([read, numbers])))


def _of_two_outputs(first, second):
    x = keras.Input((5,))
    return keras.Model(x, [keras.layers.Dense(first, name="y")(x), keras.layers.Dense(second, name="k")(x)])


def losses_in_a_list():
    model = _of_two_outputs(1, 5)
    model.compile("sgd", ["mse", "mse"])
    return model


def metrics_in_lists():
    model = _of_two_outputs(1, 5)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", ["mse", loss], metrics=[["mae"], ["mae"]])
    return model
