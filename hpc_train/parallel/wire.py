"""How gradients travel between ranks: dense in groups, sparse as they are, optionally in 16 bits."""

import os

import horovod.tensorflow as hvd
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.world import World


def elastic() -> bool:
    """Whether ranks may come and go: then no number of ranks may stay in a compiled function."""
    return os.environ.get("HOROVOD_ELASTIC", "0") not in ("", "0")


def alone(ranks: hvd.ProcessSet = hvd.global_process_set) -> bool:
    """Whether this rank shares nothing: it is the only one of `ranks`, and no other can join, or it is none of them."""
    if ranks is hvd.global_process_set:
        return hvd.size() == 1 and not elastic()
    return not ranks.included() or ranks.size() == 1


def count(dtype: tf.DType, ranks: hvd.ProcessSet = hvd.global_process_set) -> tf.Tensor:
    """The number of ranks, a scalar of `dtype`."""
    number = hvd.size_op(process_set_id=ranks.process_set_id) if elastic() else ranks.size()
    return tf.cast(number, dtype)


def reduce(
    tensors: list[tf.Tensor],
    name: str,
    wire_dtype: str | None = None,
    reduction: str = "average",
    ranks: hvd.ProcessSet = hvd.global_process_set,
    divide: float = 1.0,
) -> list[tf.Tensor]:
    """Means or sums over the ranks of dense tensors of one dtype, in one grouped all-reduce. Collective.

    Args:
        tensors: dense tensors of the same dtype.
        name: the same on every rank, and unique among running collectives.
        wire_dtype: None, "float16" or "bfloat16": the type in which float32 tensors travel; others stay as they are.
        reduction: "average" or "sum".
        ranks: those that take part.
        divide: in a mean, divide by this before the sum, and by the rest of the number of ranks after it.
    """
    dtype = tensors[0].dtype
    if dtype == tf.float32 and wire_dtype == "float16":
        # Dividing before the sum keeps float16 from overflowing on many ranks.
        narrow = [tf.cast(t / count(dtype, ranks) if reduction == "average" else t, tf.float16) for t in tensors]
        sums = hvd.grouped_allreduce(narrow, op=hvd.Sum, name=name, process_set=ranks)
        return [tf.cast(total, dtype) for total in sums]
    if dtype == tf.bfloat16 or (dtype == tf.float32 and wire_dtype == "bfloat16"):
        means = _average_bfloat16(tensors, name, ranks)
        return means if reduction == "average" else [mean * count(dtype, ranks) for mean in means]
    scales = {"prescale_factor": 1 / divide, "postscale_factor": divide} if reduction == "average" else {}
    op = hvd.Average if reduction == "average" else hvd.Sum
    parts = [_reals(tensor) for tensor in tensors]
    reduced = hvd.grouped_allreduce(parts, op=op, name=name, process_set=ranks, **scales)
    return [_as(part, tensor) for part, tensor in zip(reduced, tensors, strict=True)]


def buckets(chosen: list[int], grads: list, most: float) -> list[list[int]]:
    """Indices of dense gradients that travel together: the last first, each bucket of one dtype and `most` bytes."""
    parts: list[list[int]] = []
    filled, dtype = 0, None
    for i in reversed(chosen):
        size = grads[i].dtype.size * grads[i].shape.num_elements()
        if not parts or grads[i].dtype != dtype or filled + size > most:
            parts.append([])
            filled, dtype = 0, grads[i].dtype
        parts[-1].append(i)
        filled += size
    return parts


def _reals(tensor: tf.Tensor) -> tf.Tensor:
    # Horovod knows no complex numbers.
    return tf.stack([tf.math.real(tensor), tf.math.imag(tensor)]) if tensor.dtype.is_complex else tensor


def _as(reduced: tf.Tensor, tensor: tf.Tensor) -> tf.Tensor:
    return tf.complex(reduced[0], reduced[1]) if tensor.dtype.is_complex else reduced


def _average_bfloat16(tensors: list[tf.Tensor], name: str, ranks: hvd.ProcessSet) -> list[tf.Tensor]:
    # Horovod 0.28.1 cannot add bfloat16. So each rank gets one slice of all ranks' bits, adds them up in float32 and
    # sends the mean back: the traffic of a ring all-reduce in 16 bits, with one rounding each way.
    dtype = tensors[0].dtype
    sizes = [tensor.shape.num_elements() for tensor in tensors]
    flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
    number = count(tf.int32, ranks)
    padded = tf.pad(tf.cast(flat, tf.bfloat16), [[0, -sum(sizes) % number]])
    slices = hvd.alltoall(tf.bitcast(padded, tf.uint16), name=f"{name}.scatter", process_set=ranks)
    parts = tf.cast(tf.bitcast(tf.reshape(slices, [number, -1]), tf.bfloat16), tf.float32)
    mean = tf.bitcast(tf.cast(tf.reduce_mean(parts, 0), tf.bfloat16), tf.uint16)
    whole = tf.bitcast(hvd.allgather(mean, name=f"{name}.gather", process_set=ranks), tf.bfloat16)
    means = tf.split(tf.cast(whole, dtype)[: sum(sizes)], sizes)
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


def reduce_sparse(
    slices: tf.IndexedSlices,
    name: str,
    reduction: str = "average",
    ranks: hvd.ProcessSet = hvd.global_process_set,
) -> tf.IndexedSlices:
    """The mean or sum over the ranks of a sparse gradient: the rows of all ranks one after the other. Collective."""
    values = slices.values / count(slices.values.dtype, ranks) if reduction == "average" else slices.values
    values = hvd.allgather(values, name=f"{name}.values", process_set=ranks)
    indices = hvd.allgather(slices.indices, name=f"{name}.indices", process_set=ranks)
    return tf.IndexedSlices(values, indices, slices.dense_shape)


def check_adasum(world: World, option: str = "--reduction adasum") -> None:
    """Check that Horovod can combine the gradients of these ranks by Adasum, which `option` asks for.

    Raises:
        UserError: the number of ranks is not a power of two, or they do not use MPI.
    """
    if world.size & (world.size - 1):
        raise UserError(f"{option} combines ranks in pairs: start 2, 4, 8, ... ranks, not {world.size}")
    if world.size > 1 and not hvd.mpi_enabled():
        raise UserError(f"{option} needs MPI, and these ranks use Gloo: start them with horovodrun --mpi")
