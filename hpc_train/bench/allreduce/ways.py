"""The ways of an all-reduce. Each has name, library, start and stop, and these collectives, which need it started:

sum(values): the sum over all ranks of float32 values (n,), the same on every rank.
times(count, iterations): the seconds of each all-reduce of `count` float32 values on this rank, (iterations,) float64.
most(values): the largest of all ranks' float64 values, element by element.
"""

import time
from functools import cache

import numpy as np

from hpc_train.parallel.launcher import GLOO, detect


def mpi_world() -> tuple:
    """Start MPI as Horovod does.

    Returns:
        mpi4py's COMM_WORLD and an empty text; or None and the reason.
    """
    if detect().name == GLOO:
        return None, f"{GLOO} starts ranks without MPI"
    from hpc_train.doctor import mpi, software

    library = software.horovod_library()
    horovods, mpi4pys = mpi.horovods(library) if library else None, mpi.mpi4pys()
    if not horovods or not mpi4pys:
        return None, "Horovod is built without MPI" if mpi4pys else "mpi4py finds no MPI"
    if horovods.path != mpi4pys.path:
        return None, f"mpi4py uses another MPI ({mpi4pys.path}) than Horovod ({horovods.path})"
    import mpi4py

    mpi4py.rc.initialize = False
    from mpi4py import MPI

    if not MPI.Is_initialized():
        MPI.Init_thread(MPI.THREAD_MULTIPLE)
    return MPI.COMM_WORLD, ""


class Horovod:
    """Through `hvd.allreduce`, on the GPU if the rank has one."""

    name = "Horovod"

    def __init__(self):
        import horovod.tensorflow as hvd
        import tensorflow as tf

        self.kind = "GPU" if tf.config.get_visible_devices("GPU") else "CPU"
        by_mpi_or_gloo = "Gloo" if hvd.gloo_enabled() else "MPI"
        self.library = "NCCL" if self.kind == "GPU" and hvd.nccl_built() else by_mpi_or_gloo
        self._repeated = cache(self._graph)

    def start(self) -> None:
        """Start Horovod, if it is stopped."""
        import horovod.tensorflow as hvd

        hvd.init()

    def stop(self) -> None:
        """Shut Horovod down: even when idle, it talks to the other ranks in each cycle."""
        import horovod.tensorflow as hvd

        hvd.shutdown()

    def sum(self, values: np.ndarray) -> np.ndarray:
        """As in the module's docstring."""
        return self._reduce(values, "Sum", self.kind)

    def most(self, values: np.ndarray) -> np.ndarray:
        """As in the module's docstring."""
        return self._reduce(values, "Max", "CPU")

    def times(self, count: int, iterations: int) -> np.ndarray:
        """As in the module's docstring; by the clock of TensorFlow's graph, so without the cost of Python."""
        import tensorflow as tf

        with tf.device(f"/{self.kind}:0"):
            return self._repeated(count)(tf.zeros(count), tf.constant(iterations)).numpy()

    def _reduce(self, values: np.ndarray, how: str, kind: str) -> np.ndarray:
        import horovod.tensorflow as hvd
        import tensorflow as tf

        name = f"hpc_train.bench.allreduce.{how}.{len(values)}.{values.dtype}"
        with tf.device(f"/{kind}:0"):
            return hvd.allreduce(tf.constant(values), op=getattr(hvd, how), name=name).numpy()

    def _graph(self, count: int):
        import horovod.tensorflow as hvd
        import tensorflow as tf

        def step(number, message, times):
            with tf.control_dependencies([message]):
                begun = tf.timestamp()
            with tf.control_dependencies([begun]):
                message = hvd.allreduce(tf.identity(message), op=hvd.Sum, name=f"hpc_train.bench.allreduce.{count}")
            # On the host, so the clock waits for the sum of a GPU.
            with tf.device("/CPU:0"), tf.control_dependencies([tf.identity(message[:1])]):
                took = tf.timestamp() - begun
            return number + 1, message, times.write(number, took)

        @tf.function(autograph=False)
        def repeated(message, iterations):
            times = tf.TensorArray(tf.float64, iterations)
            going = lambda number, *_: number < iterations  # noqa: E731
            return tf.while_loop(going, step, (0, message, times), parallel_iterations=1)[2].stack()

        # It is traced once for each size on purpose. Calls of `repeated` itself would warn of that.
        return repeated.get_concrete_function(tf.TensorSpec([count]), tf.TensorSpec([], tf.int32))


class Mpi:
    """Through mpi4py's Allreduce in place."""

    name = "MPI"

    def __init__(self, comm):
        from mpi4py import MPI

        self._comm, self._mpi = comm, MPI
        self.library = " ".join(MPI.Get_library_version().split("\n")[0].replace("Version:", "").split(",")[0].split())

    def start(self) -> None:
        """MPI runs all the time."""

    def stop(self) -> None:
        """MPI runs all the time."""

    def sum(self, values: np.ndarray) -> np.ndarray:
        """As in the module's docstring."""
        return self._reduce(values, self._mpi.SUM)

    def most(self, values: np.ndarray) -> np.ndarray:
        """As in the module's docstring."""
        return self._reduce(values, self._mpi.MAX)

    def times(self, count: int, iterations: int) -> np.ndarray:
        """As in the module's docstring."""
        message, times = np.zeros(count, "float32"), np.empty(iterations)
        for number in range(iterations):
            self._comm.Barrier()
            begun = time.perf_counter()
            self._comm.Allreduce(self._mpi.IN_PLACE, message)
            times[number] = time.perf_counter() - begun
        return times

    def _reduce(self, values: np.ndarray, how) -> np.ndarray:
        values = values.copy()
        self._comm.Allreduce(self._mpi.IN_PLACE, values, how)
        return values
