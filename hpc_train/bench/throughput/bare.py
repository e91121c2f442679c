"""A loop as one writes it by hand: over arrays in memory, with one grouped all-reduce, and nothing else."""

import time

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hpc_train.bench.throughput.fit import Timed, durations

# The loop goes through this many batches in memory, again and again.
_BATCHES = 100


class Bare:
    """A training loop without the suite: `tf.data` over arrays, a gradient tape, the optimizer.

    Args:
        model: not compiled.
        loss: a Keras loss.
        optimizer: any Keras optimizer.
        data: a `tf.data` set of batches; the loop takes the first ones.
        average: whether to average gradients over the ranks.
    """

    def __init__(self, model, loss, optimizer, data: tf.data.Dataset, average: bool):
        first = list(data.take(_BATCHES).as_numpy_iterator())
        arrays = tuple(np.concatenate(parts) for parts in zip(*first, strict=True))
        batches = tf.data.Dataset.from_tensor_slices(arrays).repeat().batch(len(first[0][0]), drop_remainder=True)
        self._batches = iter(batches.prefetch(4))
        optimizer.build(model.trainable_variables)

        @tf.function
        def step(inputs, targets):
            with tf.GradientTape() as tape:
                value = loss(targets, model(inputs, training=True))
                scaled = optimizer.scale_loss(value)
            grads = tape.gradient(scaled, [variable.value for variable in model.trainable_variables])
            if average:
                grads = hvd.grouped_allreduce(grads, op=hvd.Average, name="hpc_train.bench.bare")
            optimizer.apply(grads, model.trainable_variables)
            return value

        self._step = step

    def __call__(self, warmup: int, steps: int) -> Timed:
        """Make `warmup` steps, then `steps` timed ones. It fetches the loss of each step, as `fit` does."""
        ends = []
        for _ in range(warmup + steps):
            self._step(*next(self._batches)).numpy()
            ends.append(time.perf_counter())
        return Timed(durations(ends, steps))
