"""What ranks send each other outside the training step: little, on the CPU, through Horovod."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import cloudpickle
import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hpc_train.errors import UserError
from hpc_train.parallel.world import World

# The dtypes of Horovod's broadcast.
_BROADCAST = (tf.bool, tf.uint8, tf.int8, tf.uint16, tf.int16, tf.int32, tf.int64, tf.float16, tf.float32, tf.float64)
_OPERATIONS = {"sum": hvd.Sum, "max": hvd.Max, "min": hvd.Min, "product": hvd.Product}


def sum_arrays(arrays: list[np.ndarray], name: str) -> list[np.ndarray]:
    """Element-wise sums over the ranks, in float64, each of its array's shape. Collective."""
    return reduce_arrays(arrays, "sum", name)


def reduce_arrays(arrays: list[np.ndarray], operation: str, name: str) -> list[np.ndarray]:
    """Element-wise sum, max, min or product over the ranks, in float64, each of its array's shape. Collective."""
    flat = np.concatenate([np.asarray(array, "float64").ravel() for array in arrays] or [np.zeros(0)])
    if flat.size == 0:
        return [np.zeros(np.shape(array)) for array in arrays]
    with tf.device("/cpu:0"):
        total = hvd.allreduce(tf.constant(flat), op=_OPERATIONS[operation], name=f"{name}.{operation}").numpy()
    ends = np.cumsum([np.size(array) for array in arrays])[:-1]
    return [part.reshape(np.shape(array)) for part, array in zip(np.split(total, ends), arrays, strict=True)]


def equal_on_all_ranks(value: bytes, name: str, ranks: hvd.ProcessSet = hvd.global_process_set) -> bool:
    """Whether every rank gives the same bytes, by a digest: 16 bytes travel, however many ranks there are. Collective.

    Args:
        value: anything that describes what must be equal.
        name: of the operation.
        ranks: those that are asked.
    """
    digest = int.from_bytes(hashlib.blake2b(value, digest_size=7).digest(), "big")
    with tf.device("/cpu:0"):
        both = tf.constant([digest, -digest], tf.int64)
        low, high = hvd.allreduce(both, op=hvd.Min, name=name, process_set=ranks).numpy()
    return int(low) == -int(high)


def broadcast_values(variables, root: int = 0) -> None:
    """Copy Keras variables from one rank to every rank; those that Horovod cannot send travel as bytes. Collective.

    Args:
        variables: of any dtype, of the same shapes and dtypes on every rank.
        root: the rank that they come from.
    """
    if hvd.size() == 1:
        return
    known = [v for v in variables if tf.as_dtype(v.dtype) in _BROADCAST]
    if known:
        hvd.broadcast_variables([v.value for v in known], root_rank=root)
    others = [v for v in variables if tf.as_dtype(v.dtype) not in _BROADCAST]
    for number, variable in enumerate(others):
        value = np.asarray(variable)
        with tf.device("/cpu:0"):
            octets = tf.constant(np.frombuffer(value.tobytes(), "uint8"))
            sent = hvd.broadcast(octets, root_rank=root, name=f"hpc_train.octets.{number}").numpy()
        variable.assign(np.frombuffer(sent.tobytes(), value.dtype).reshape(value.shape))


def broadcast_object(value=None, root: int = 0, name: str = "hpc_train.object"):
    """`value` of the root, on every rank; anything that pickles. Collective."""
    with tf.device("/cpu:0"):
        return hvd.broadcast_object(value, root_rank=root, name=name)


def gather_objects(value, name: str = "hpc_train.objects") -> list:
    """Every rank's `value`, ordered by rank, on every rank. Collective."""
    if hvd.size() == 1:
        return [value]
    # Not Horovod's allgather_object: it adds up the sizes before each object anew, by extrapolation 40 s on 27,360.
    octets = np.frombuffer(cloudpickle.dumps(value), "uint8")
    with tf.device("/cpu:0"):
        sizes = hvd.allgather(tf.constant([octets.size], tf.int64), name=f"{name}.sizes").numpy()
        gathered = hvd.allgather(tf.constant(octets), name=f"{name}.octets").numpy().data
    return [cloudpickle.loads(gathered[end - size : end]) for end, size in zip(np.cumsum(sizes), sizes, strict=True)]


def gather_different(value, name: str) -> list:
    """Every rank's `value`, ordered by rank, on every rank; an empty list where all have the same. Collective.

    Args:
        value: what `repr` says all of.
        name: of the operation.
    """
    return [] if equal_on_all_ranks(repr(value).encode(), f"{name}.equal") else gather_objects(value, name)


def everywhere(fact: bool, name: str) -> bool:
    """Whether the fact is so on every rank. Collective."""
    return bool(reduce_arrays([np.array(float(fact))], "min", name)[0])


@contextmanager
def agree(world: World) -> Iterator[None]:
    """Do work that may fail on some ranks only: all ranks leave it together, or all raise one UserError. Collective.

    Raises:
        UserError: the error of the lowest rank that failed, on every rank.
    """
    failed = None
    try:
        yield
    except UserError as error:
        failed = error
    with tf.device("/cpu:0"):
        votes = np.zeros(1, "int32") + (world.rank if failed else world.size)
        first = int(hvd.allreduce(tf.constant(votes), op=hvd.Min, name="hpc_train.agree")[0])
    if first < world.size:
        text = broadcast_object(str(failed), root=first)
        raise UserError(text).agreed() from failed


class Ranks:
    """The ranks as an mpi4py communicator over Horovod, for code that also runs without Horovod."""

    def __init__(self, world: World):
        self.rank, self.size = world.rank, world.size

    def bcast(self, obj, root: int = 0):
        """`obj` of the root, on every rank. Collective."""
        return broadcast_object(obj, root) if self.size > 1 else obj

    def allgather(self, obj) -> list:
        """Every rank's `obj`, ordered by rank. Collective."""
        return gather_objects(obj)
