"""What `horovod.tensorflow` takes from here: `init`, and what it does for Keras variables."""

import os

import horovod.tensorflow as hvd
import tensorflow as tf
from horovod.tensorflow import mpi_ops

from hpc_train.errors import UserError
from hpc_train.parallel import failure, wire
from hpc_train.parallel.agreement.watch import watch_horovod
from hpc_train.parallel.collectives import equal_on_all_ranks
from hpc_train.parallel.horovod_names import removed
from hpc_train.parallel.horovod_names.reduction import Reduction
from hpc_train.parallel.horovod_names.words import teach
from hpc_train.parallel.launcher import detect, keep_sockets, wrong_size
from hpc_train.parallel.start import settings
from hpc_train.parallel.world import World, threads_per_rank


def init(*args, **kwargs) -> None:
    """Start Horovod on this rank.

    From here on an error that ends one rank ends all of them, and is printed in one line where its cause is known;
    words of Keras 2 are understood (`words.teach`); TensorFlow shares the node's cores among its ranks, where it has
    not started yet.

    Args:
        *args: Horovod's own, such as a communicator.
        **kwargs: Horovod's own, such as `process_sets`.

    Raises:
        UserError: the launcher started N jobs of size 1 instead of N ranks.
    """
    teach()
    cpus = len(os.sched_getaffinity(0))
    for name, value in settings(cpus).items():
        os.environ.setdefault(name, value)
    mpi_ops.init(*args, **kwargs)
    keep_sockets()
    watch_horovod()
    world = World(
        rank=mpi_ops.rank(),
        size=mpi_ops.size(),
        local_rank=mpi_ops.local_rank(),
        local_size=mpi_ops.local_size(),
        node=mpi_ops.cross_rank(),
        nodes=mpi_ops.cross_size(),
    )
    removed.explain_errors()
    failure.install(world, failure.job_on_node())
    if not (args or wire.elastic()) and (problem := wrong_size(detect(), world.size)):
        raise UserError("; ".join(problem))
    _share_cores(threads_per_rank(world.local_size, cpus, os.cpu_count() or 1))


def _share_cores(threads: int) -> None:
    config = tf.config.threading
    try:
        for get, put in (
            (config.get_intra_op_parallelism_threads, config.set_intra_op_parallelism_threads),
            (config.get_inter_op_parallelism_threads, config.set_inter_op_parallelism_threads),
        ):
            if not get():
                put(threads)
    except RuntimeError:
        # TensorFlow has started: its threads stay as they are.
        return


def same_variables(variables: list, process_set) -> list:
    """Check, outside compiled functions, that all ranks give variables of the same shapes and types. Collective.

    Args:
        variables: TensorFlow's.
        process_set: the ranks that give them.

    Returns:
        The variables.

    Raises:
        UserError: on every rank, naming the first that differs.
    """
    if not tf.executing_eagerly() or wire.alone(process_set):
        return variables
    mine = [(variable.name, tuple(variable.shape), variable.dtype.name) for variable in variables]
    # Names may differ: Keras numbers layers anew in each process.
    if equal_on_all_ranks(repr([kind for _, *kind in mine]).encode(), "hpc_train.broadcast.equal", process_set):
        return variables
    with tf.device("/cpu:0"):
        everybody = hvd.allgather_object(mine, name="hpc_train.broadcast.layout", process_set=process_set)
    for rank, theirs in zip(process_set.ranks or range(len(everybody)), everybody, strict=True):
        for number in range(max(len(theirs), len(everybody[0]))):
            first, other = _nth(everybody[0], number), _nth(theirs, number)
            if first.partition(": ")[2] != other.partition(": ")[2]:
                raise UserError(
                    f"hvd.broadcast_variables: the ranks give different variables; number {number + 1} is {first} on "
                    f"the first rank and {other} on rank {rank}: build the same model and optimizer on every rank"
                ).agreed()
    return variables


def _nth(variables: list, number: int) -> str:
    if number >= len(variables):
        return "missing: -"
    name, shape, dtype = variables[number]
    return f"{name}: {dtype} {shape}"


def grouped(name: str, **options):
    """A function of gradients and their variables that reduces them in the groups of `options`; see `Reduction`."""
    rules = Reduction(**options)
    return lambda grads, vars=None, use_generic_names=False: rules.reduce(list(grads), list(vars), name)
