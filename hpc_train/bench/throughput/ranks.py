"""A measurement over all ranks."""

import resource

import horovod.tensorflow as hvd
import numpy as np
import tensorflow as tf

from hpc_train.bench.throughput.figures import of_steps
from hpc_train.parallel.collectives import gather_objects


def longest(seconds: float) -> float:
    """The largest value of all ranks. Collective: it is also the barrier before the next measurement."""
    return float(_reduce(np.array([seconds]), hvd.Max, "hpc_train.bench.longest")[0])


def over_ranks(seconds: np.ndarray, rank: int) -> dict:
    """The times of steps, as a measurement's file has them. Collective.

    Args:
        seconds: this rank's, (steps,).
        rank: the number of this rank.

    Returns:
        The same on every rank. by_rank: statistics of each rank; slowest, fastest and mean: over the ranks, for each
        step.
    """
    size = hvd.size()
    return {
        "by_rank": gather_objects({"rank": rank, **of_steps(seconds)}, name="hpc_train.bench.steps"),
        "slowest": _reduce(seconds, hvd.Max, "hpc_train.bench.slowest").tolist(),
        "fastest": _reduce(seconds, hvd.Min, "hpc_train.bench.fastest").tolist(),
        "mean": (_reduce(seconds, hvd.Sum, "hpc_train.bench.mean") / size).tolist(),
    }


def peak_memory() -> dict:
    """The most bytes that each rank has held so far. Collective.

    Returns:
        host: of each rank's process; gpu: of TensorFlow on each rank's GPU, or None without GPUs.
    """
    gpu = None
    if tf.config.get_visible_devices("GPU"):
        gpu = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    hosts, gpus = zip(*gather_objects((host, gpu), name="hpc_train.bench.memory"), strict=True)
    return {"host": list(hosts), "gpu": None if None in gpus else list(gpus)}


def _reduce(values: np.ndarray, op, name: str) -> np.ndarray:
    with tf.device("/cpu:0"):
        return hvd.allreduce(tf.constant(values, tf.float64), op=op, name=name).numpy()
