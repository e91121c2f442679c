"""A variational autoencoder with a training step of its own (Kingma and Welling 2014), for small grey images.

    hpc-train prepare digits
    horovodrun -np 2 python -m hpc_train.fit examples/vae.py:build --data shards/digits --epochs 30

The labels are not used. Validation reports the same losses; the best model has the least of their sum.
"""

import keras
import tensorflow as tf
from keras import layers, ops

LATENT = 2


class VAE(keras.Model):
    """Encodes images into a normal distribution of two numbers, and decodes a draw from it."""

    def __init__(self, shape):
        super().__init__()
        pixels = shape[0] * shape[1] * shape[2]
        images = keras.Input(shape)
        x = layers.Dense(64, "relu")(layers.Flatten()(images))
        self.encoder = keras.Model(images, [layers.Dense(LATENT)(x), layers.Dense(LATENT)(x)])
        code = keras.Input((LATENT,))
        x = layers.Dense(pixels, "sigmoid")(layers.Dense(64, "relu")(code))
        self.decoder = keras.Model(code, layers.Reshape(shape)(x))
        # Attributes of the model: so each rank draws numbers of its own, and a checkpoint has where they were.
        self.seed = keras.random.SeedGenerator()
        self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", "reconstruction", "kl")]

    @property
    def metrics(self):
        return self.trackers

    def losses_of(self, images):
        mean, log_variance = self.encoder(images)
        code = mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean), seed=self.seed)
        likely = keras.losses.binary_crossentropy(images, self.decoder(code))
        reconstruction = ops.sum(likely, axis=(1, 2))
        kl = -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), axis=1)
        return reconstruction + kl, reconstruction, kl

    def report(self, losses):
        for tracker, values in zip(self.trackers, losses, strict=True):
            tracker.update_state(values)
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def train_step(self, data):
        images = ops.cast(data[0], "float32") / 255
        with tf.GradientTape() as tape:
            losses = self.losses_of(images)
            loss = ops.mean(losses[0])
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return self.report(losses)

    def test_step(self, data):
        return self.report(self.losses_of(ops.cast(data[0], "float32") / 255))


def build(catalogue):
    """The model, compiled with its own optimizer."""
    model = VAE(catalogue.input_shape)
    model.compile(keras.optimizers.Adam(0.002))
    return model
