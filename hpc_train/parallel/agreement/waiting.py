"""What our build of Horovod knows and does for reports of hangs and slow ranks."""

import ctypes
import math
from collections.abc import Callable
from functools import cache

_ROOM = 2**20
# Of the numbers that the watch exchanges each second.
_OURS = "hpc_train.watch"


def waiting_tensors() -> list[str] | None:
    """Names of the tensors that this rank has given to Horovod and other ranks have not.

    Returns:
        The names; None where it is not known: with a Horovod of an earlier version of this package, while Horovod is
        busy with its process sets, or with more than a MiB of names.
    """
    ask = _function("horovod_hpc_train_waiting")
    if ask is None:
        return None
    text = ctypes.create_string_buffer(_ROOM)
    written = ask(text, _ROOM)
    if written < 0:
        return None
    names = text.raw[:written].decode(errors="replace").splitlines()
    return sorted(name for name in names if not name.startswith(_OURS))


def end_after(seconds: float) -> None:
    """Let Horovod end this process by SIGXCPU after so many seconds, unless this is called again; 0 takes it back.

    It needs no lock of the interpreter. Seconds in which the process is stopped do not count. A Horovod of an earlier
    version does nothing.
    """
    if call := _function("horovod_hpc_train_end_after"):
        call(int(seconds))


def wait_counter() -> Callable[[], float]:
    """A function that gives the seconds for which this rank has waited for others in steps since its last call.

    From the last gradient that it gave to Horovod until all came back; nan where it is not known: with a Horovod of an
    earlier version of this package.
    """
    if (call := _function("horovod_hpc_train_waited")) is None:
        return lambda: math.nan
    call.restype = ctypes.c_double
    return call


@cache
def _function(name: str):
    return getattr(_library(), name, None)


def _library() -> ctypes.CDLL:
    import horovod.tensorflow as hvd

    return hvd.mpi_ops._basics.MPI_LIB_CTYPES
