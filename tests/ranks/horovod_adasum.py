"""Run on 2 ranks of MPI by test_horovod_names.py: `op=hvd.Adasum` against Maleki et al. (2021, section 3) in NumPy."""

import horovod.tensorflow.keras as hvd
from checks import write_outcomes

hvd.init()

import horovod.tensorflow as hvd_tensorflow  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.parallel import World  # noqa: E402

RANK, SIZE = hvd.rank(), hvd.size()
GRADS = np.random.default_rng(4).normal(size=(2, SIZE, 6)).astype("float32")


def adasum(a, b):
    dot = (a * b).sum()
    return (1 - dot / (2 * (a * a).sum())) * a + (1 - dot / (2 * (b * b).sum())) * b


def the_optimizer_combines_by_adasum():
    for passes in (1, 2):
        optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(1.0), op=hvd.Adasum, backward_passes_per_step=passes)
        weight = keras.Variable(np.zeros(6, "float32"))
        for batch in range(passes):
            optimizer.apply([tf.constant(GRADS[batch, RANK])], [weight])
        sums = GRADS[:passes].sum(0).astype(float)
        np.testing.assert_allclose(weight, -adasum(*sums), rtol=1e-4, atol=1e-5)


def the_tape_combines_by_adasum():
    weight = keras.Variable(np.zeros(6, "float32"))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(weight * GRADS[0, RANK])
    tape = hvd_tensorflow.DistributedGradientTape(tape, op=hvd.Adasum)
    np.testing.assert_allclose(tape.gradient(loss, [weight])[0], adasum(*GRADS[0].astype(float)), rtol=1e-4, atol=1e-5)


def values_are_combined_by_adasum():
    np.testing.assert_allclose(
        hvd.allreduce(GRADS[0, RANK], op=hvd.Adasum), adasum(*GRADS[0].astype(float)), rtol=1e-4, atol=1e-5
    )


CHECKS = [the_optimizer_combines_by_adasum, the_tape_combines_by_adasum, values_are_combined_by_adasum]


if __name__ == "__main__":
    write_outcomes(CHECKS, World(rank=RANK, size=SIZE))
    hvd.shutdown()
