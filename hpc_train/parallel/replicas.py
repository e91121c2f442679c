"""Checks that the replicas are equal, by a checksum a variable."""

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.variables import named

_INTEGER_OF_SIZE = {1: tf.uint8, 2: tf.uint16, 4: tf.uint32, 8: tf.int64}


@tf.function(reduce_retracing=True)
def _checksum(value):
    if value.dtype == tf.bool:
        value = tf.cast(value, tf.uint8)
    bits = tf.cast(tf.reshape(tf.bitcast(value, _INTEGER_OF_SIZE[value.dtype.size]), [-1]), tf.int64)
    # Each place has its own odd weight: swapped or shifted elements change the sum too.
    places = tf.range(tf.size(bits, tf.int64), dtype=tf.int64)
    return tf.reduce_sum(bits * (2 * places + 1))


def checksums(variables) -> np.ndarray:
    """One int64 a variable, computed from all of its bits on the device that holds it."""
    if not variables:
        return np.zeros(0, "int64")
    return np.array([int(_checksum(tf.convert_to_tensor(v.value))) for v in variables], "int64")


def check_replicas(variables, where: str = "") -> None:
    """Make sure that `variables` have the same bits on every rank. Collective.

    Args:
        variables: Keras variables, in the same order on every rank.
        where: when this happens, for the message: "after step 500".

    Raises:
        UserError: on every rank, naming the variables that differ and how many ranks differ from rank 0.
    """
    if hvd.size() == 1:
        return
    mine = checksums(variables)
    with tf.device("/cpu:0"):
        root = hvd.broadcast(tf.constant(mine), root_rank=0, name="hpc_train.replicas.root").numpy()
        differs = tf.constant((mine != root).astype("int64"))
        ranks = hvd.allreduce(differs, op=hvd.Sum, name="hpc_train.replicas.differ").numpy()
    if ranks.any():
        names = [name for name, _ in named(variables)]
        wrong = [f"{name} on {n} of {hvd.size()} ranks" for name, n in zip(names, ranks, strict=True) if n]
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise UserError(
            f"the replicas differ from rank 0 {where}: {', '.join(wrong[:5])}{more}; "
            "some code changes weights on one rank alone, or gradients are not averaged"
        ).agreed()
