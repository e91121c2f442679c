"""Ranks with unequal numbers of batches in a loop of their own, run by test_elastic.py: `hvd.join` waits for the last.

Argument: a file for rank 0's results. Rank r has 2 + 3 r batches.
"""

import json
import sys
import time

import horovod.tensorflow as hvd
import keras
import numpy as np
import tensorflow as tf

RATE, ROUNDS = 0.1, 2


def batches(rank):
    """Inputs (2 + 3 rank, 4, 3) and targets (2 + 3 rank, 4, 1) of a rank."""
    draw = np.random.default_rng(rank)
    return draw.normal(size=(2 + 3 * rank, 4, 3)), draw.normal(size=(2 + 3 * rank, 4, 1))


def main():
    hvd.init()
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    optimizer = keras.optimizers.SGD(RATE)
    optimizer.build(model.trainable_variables)

    @tf.function
    def step(inputs, targets):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(inputs, training=True) - targets) ** 2)
        tape = hvd.DistributedGradientTape(tape)
        grads = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    waited = []
    for _ in range(ROUNDS):
        for inputs, targets in zip(*(part.astype("float32") for part in batches(hvd.rank())), strict=True):
            step(tf.constant(inputs), tf.constant(targets))
        if hvd.rank() == hvd.size() - 1:
            time.sleep(1)
        begin = time.monotonic()
        last = int(hvd.join())
        waited.append(time.monotonic() - begin)
        # The ranks that had fewer batches lack the last steps.
        hvd.broadcast_variables([variable.value for variable in model.variables], root_rank=last)
    weights = hvd.allgather_object(model.get_weights()[0].ravel().tolist())
    if hvd.rank() == 0:
        with open(sys.argv[1], "w") as file:
            json.dump({"weights": weights, "waited": waited, "last": last}, file)


if __name__ == "__main__":
    main()
