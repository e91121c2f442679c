"""One more round under Horovod's timeline: what the all-reduces of a step wait for.

From `hvd.init` on, Horovod's timeline keeps a thread of rank 0 busy (it waits by `sched_yield`), also while it records
nothing. So it must not run while anything is measured: Horovod is shut down after the measurement and started again
with a timeline. MPI keeps running if the program, not Horovod, has started it: `start_mpi`. On Gloo, Horovod can start
only once.
"""

import atexit
import ctypes
import os
import tempfile
from pathlib import Path

from hpc_train.parallel.launcher import GLOO, detect

_THREAD_MULTIPLE = 3  # in MPICH, Open MPI and their kin


def start_mpi() -> bool:
    """Start the MPI that Horovod is built with. Call it before `parallel.init`.

    Returns:
        Whether Horovod can be started again: there are several ranks, on MPI, and no timeline is being written.
    """
    controller = os.environ.get("HOROVOD_CONTROLLER", "mpi").lower()
    if detect().size == 1 or detect().name == GLOO or controller != "mpi" or "HOROVOD_TIMELINE" in os.environ:
        return False
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from hpc_train.parallel.quiet import quiet_import

    with quiet_import():
        try:
            import horovod.tensorflow as hvd
        except ImportError:
            return False  # `parallel.init` says what to do
    # Horovod's library has brought the symbols of its MPI into the process.
    mpi, started = ctypes.CDLL(None), ctypes.c_int()
    if not (hvd.mpi_built() and hasattr(mpi, "MPI_Init_thread")):
        return False
    mpi.MPI_Initialized(ctypes.byref(started))
    if not started:
        mpi.MPI_Init_thread(None, None, _THREAD_MULTIPLE, ctypes.byref(ctypes.c_int()))
        atexit.register(mpi.MPI_Finalize)
    return True


def record(fit, warmup: int, steps: int, world) -> dict | None:
    """Start Horovod again, and record some steps. Collective, but nothing collective can follow: Horovod is down then.

    Args:
        fit: a `fit.Fit`.
        warmup: steps that go before, not recorded.
        steps: steps to record.
        world: ranks.

    Returns:
        On rank 0 the summary of `hpc_train.timeline.summarise`; else None.
    """
    import horovod.tensorflow as hvd
    import keras

    from hpc_train.bench.throughput.fit import Fit
    from hpc_train.timeline import summarise

    class Recorder(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == warmup - 1:
                hvd.start_timeline(str(path))
            if batch == warmup + steps - 1:
                hvd.stop_timeline()

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "timeline.json"
        hvd.shutdown()
        os.environ["HOROVOD_TIMELINE"] = "DYNAMIC"
        hvd.init()
        Fit(fit.model, fit.data, [*fit.callbacks, Recorder()], fit.handed)(warmup, steps)
        hvd.shutdown()
        # The file is gone, so its name would be useless.
        return {key: value for key, value in summarise(path).items() if key != "file"} if world.is_root else None
