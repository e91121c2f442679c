"""How gradients travel between ranks: dense in groups, sparse as they are, optionally in 16 bits."""

import horovod.tensorflow as hvd
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.world import World


def average(tensors: list[tf.Tensor], name: str, wire_dtype: str | None = None) -> list[tf.Tensor]:
    """Means over the ranks of dense tensors of one dtype, in one grouped all-reduce. Collective.

    Args:
        tensors: dense tensors of the same dtype.
        name: the same on every rank, and unique among running collectives.
        wire_dtype: None, "float16" or "bfloat16": the type in which float32 tensors travel; others stay as they are.
    """
    if wire_dtype is None or tensors[0].dtype != tf.float32:
        return hvd.grouped_allreduce(tensors, op=hvd.Average, name=name)
    if wire_dtype == "float16":
        # Dividing before the sum keeps float16 from overflowing on many ranks.
        narrow = [tf.cast(tensor / hvd.size(), tf.float16) for tensor in tensors]
        return [tf.cast(t, tf.float32) for t in hvd.grouped_allreduce(narrow, op=hvd.Sum, name=name)]
    return _average_bfloat16(tensors, name)


def _average_bfloat16(tensors: list[tf.Tensor], name: str) -> list[tf.Tensor]:
    # Horovod 0.28.1 cannot add bfloat16. So each rank gets one slice of all ranks' bits, adds them up in float32 and
    # sends the mean back: the traffic of a ring all-reduce in 16 bits, with one rounding each way.
    sizes = [tensor.shape.num_elements() for tensor in tensors]
    flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
    ranks = hvd.size()
    padded = tf.pad(tf.cast(flat, tf.bfloat16), [[0, -sum(sizes) % ranks]])
    slices = hvd.alltoall(tf.bitcast(padded, tf.uint16), name=f"{name}.scatter")
    parts = tf.cast(tf.bitcast(tf.reshape(slices, [ranks, -1]), tf.bfloat16), tf.float32)
    mean = tf.bitcast(tf.cast(tf.reduce_mean(parts, 0), tf.bfloat16), tf.uint16)
    whole = tf.bitcast(hvd.allgather(mean, name=f"{name}.gather"), tf.bfloat16)
    means = tf.split(tf.cast(whole, tf.float32)[: sum(sizes)], sizes)
    return [tf.reshape(mean, tensor.shape) for mean, tensor in zip(means, tensors, strict=True)]


def adasum(tensor: tf.Tensor, name: str) -> tf.Tensor:
    """Combine the gradients of all ranks as in Maleki et al. (2021, section 3). Collective; on 2, 4, 8, ... ranks.

    For two gradients a and b this is (1 - a.b / 2 a.a) a + (1 - a.b / 2 b.b) b: their sum where they are orthogonal,
    their mean where they are equal. More gradients are combined in pairs, then in pairs of pairs.

    Args:
        tensor: gradient of one layer, float32 or float64.
        name: the same on every rank, and unique among running collectives.
    """
    # One at a time: hvd.grouped_allreduce of 0.28.1 fails with this operation. Horovod fuses them anyway.
    return hvd.allreduce(tensor, op=hvd.Adasum, name=name)


def average_sparse(slices: tf.IndexedSlices, name: str) -> tf.IndexedSlices:
    """The mean over the ranks of a sparse gradient: the rows of all ranks one after the other. Collective."""
    values = hvd.allgather(slices.values / hvd.size(), name=f"{name}.values")
    indices = hvd.allgather(slices.indices, name=f"{name}.indices")
    return tf.IndexedSlices(values, indices, slices.dense_shape)


def check_adasum(world: World) -> None:
    """Check that Horovod can combine the gradients of these ranks by Adasum.

    Raises:
        UserError: the number of ranks is not a power of two, or they do not use MPI.
    """
    if world.size & (world.size - 1):
        raise UserError(f"--reduction adasum combines ranks in pairs: start 2, 4, 8, ... ranks, not {world.size}")
    if world.size > 1 and not hvd.mpi_enabled():
        raise UserError("--reduction adasum needs MPI, and these ranks use Gloo: start them with horovodrun --mpi")
