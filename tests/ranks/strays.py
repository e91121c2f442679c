"""Run on 2 ranks by test_together.py: mistakes that end the job, each with one line: strays.py CASE"""

import os
import sys

from hpc_train import parallel
from hpc_train.parallel.launcher import detect

case = sys.argv[1]
other = detect().rank == 1
if case == "settings" and other:
    os.environ["KERAS_HOME"] = sys.argv[2]

world = parallel.init(seed=1)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.parallel.agreement import watch  # noqa: E402
from hpc_train.parallel.agreement.first_steps import FirstSteps  # noqa: E402

watch.PATIENCE = 4
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
model.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse")
batch = np.ones((4, 6), "float32"), np.ones((4, 1), "float32")
batches = [batch] * (3 if other else 5)


class Resets(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if other:
            raise ConnectionResetError(104, "Connection reset by peer")


def reset_later():
    """Batches that a server gives, until it resets the connection of one rank."""
    yield batch
    if other:
        # TensorFlow quotes the line, and with it a word that Horovod's errors have.
        raise ConnectionResetError(104, "Connection reset by peer")  # not by horovod
    yield from [batch] * 9


match case:
    case "fit":
        signature = (tf.TensorSpec((4, 6)), tf.TensorSpec((4, 1)))
        data = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=signature)
        model.fit(data, epochs=2, callbacks=parallel.callbacks(), verbose=0)
    case "loop":
        for x, y in batches:
            model.train_on_batch(x, y)
        parallel.evaluate(model, *batch)
    case "tape":
        weight = tf.Variable([1.0])
        for _ in batches:
            with tf.GradientTape() as tape:
                loss = tf.reduce_sum(weight)
            hvd.DistributedGradientTape(tape).gradient(loss, [weight])
        hvd.allreduce(loss)
    case "end":
        for x, y in batches:
            model.train_on_batch(x, y)
        sys.exit(0)
    case "xla":

        @tf.function(jit_compile=True)
        def step(x, y):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - y) ** 2)
            weights = model.trainable_variables
            model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))

        step(*batch)
    case "connection":
        model.fit(*batch, callbacks=[*parallel.callbacks(), Resets()], verbose=0)
    case "server":
        signature = (tf.TensorSpec((4, 6)), tf.TensorSpec((4, 1)))
        data = tf.data.Dataset.from_generator(reset_later, output_signature=signature)
        model.fit(data, steps_per_epoch=9, callbacks=parallel.callbacks(), verbose=0)
    case "weights":
        variable = keras.Variable(np.ones(3, "float32") * (1 + world.rank), name="unequal")
        check = FirstSteps("check").check
        step = tf.function(lambda: check([variable], [None]))
        for _ in range(3):
            step()
print("went on")
