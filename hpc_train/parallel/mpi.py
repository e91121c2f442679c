"""MPI for commands that run over ranks without Horovod: `mpirun -np 4 hpc-train stats ...`.

A communicator here is anything with mpi4py's lower-case methods (`bcast`, `allgather`, `gather`, `allreduce`,
`barrier`), `rank` and `size`: COMM_WORLD, or `Alone`, which needs no MPI.
"""

import os
import socket
import sys
import time
import traceback
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_train.console import HEARD, interrupted, say
from hpc_train.errors import UserError
from hpc_train.parallel.failure import begin_guard, first_of_node
from hpc_train.parallel.launcher import GLOO, detect, keep_sockets, wrong_size
from hpc_train.watch.guard import NOTE
from hpc_train.watch.hang import after_of_environment

# Seconds in which ranks with the same error find each other before one of them ends the job.
_MEETING = 1.0
# Seconds that a failed rank waits for the rank that prints before it ends the job itself.
_PATIENCE = 10.0


class Alone:
    """The communicator of a process that is the only rank."""

    rank = 0
    size = 1

    def bcast(self, obj, root: int = 0):
        """`obj`."""
        return obj

    def allgather(self, obj) -> list:
        """`[obj]`."""
        return [obj]

    def gather(self, obj, root: int = 0) -> list:
        """`[obj]`."""
        return [obj]

    def allreduce(self, obj, op=None):
        """`obj`."""
        return obj

    def barrier(self) -> None:
        """Do nothing."""

    def Split(self, color: int = 0, key: int = 0) -> "Alone":
        """Itself."""
        return self

    def Free(self) -> None:
        """Do nothing."""


def communicator():
    """COMM_WORLD where an MPI launcher started several ranks, else `Alone`.

    Raises:
        UserError: the launcher and mpi4py do not fit, or the ranks were started without MPI.
    """
    launcher = detect()
    if launcher.size == 1:
        return Alone()
    if launcher.name == GLOO:
        raise UserError(
            f"this command needs MPI, and horovodrun started its {launcher.size} ranks with Gloo: use `mpirun -np N` "
            "(Slurm: `srun`), or `horovodrun --mpi`"
        )
    begin_guard(after_of_environment())
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpi4py finds no MPI here ({error}); load your site's MPI, or pip install mpich") from error
    keep_sockets()
    if MPI.COMM_WORLD.size == 1 and not launcher.size:
        return Alone()
    if problem := wrong_size(launcher, MPI.COMM_WORLD.size):
        library = " ".join(MPI.Get_library_version().split("\n")[0].split())
        raise UserError(f"{problem[0]} (mpi4py runs on {library}); {problem[1]}")
    return MPI.COMM_WORLD


@contextmanager
def agree(comm) -> Iterator[None]:
    """Do work that may fail on some ranks only: all ranks leave it together, or all raise one UserError. Collective.

    The work itself must not wait for other ranks.

    Raises:
        UserError: the error of the lowest rank that failed, on every rank.
    """
    failed = None
    try:
        yield
    except UserError as error:
        failed = error
    errors = comm.allgather(str(failed) if failed else None)
    text = next((error for error in errors if error is not None), None)
    if text is not None:
        raise UserError(text).agreed() from failed


@contextmanager
def job() -> Iterator:
    """Give the communicator; an exception of a rank inside ends all ranks at once, with one message, non-zero status.

    With one rank, exceptions pass through. With several: if every rank raises a UserError (`agree`), rank 0 prints it
    and all ranks end in good order with status 2. If only some ranks raise one, one of them prints it, and MPI ends the
    others, wherever they wait. Any other exception is printed with its traceback.
    """
    comm = communicator()
    if comm.size == 1:
        yield comm
        return
    word, first_host = comm.bcast((uuid.uuid4().hex, socket.gethostname()))
    NOTE.add(job=word)
    # A second communicator: the meeting of failed ranks must not mix with collectives that are running.
    meeting = comm.Dup()
    try:
        yield comm
    except UserError as error:
        prints = error.every_rank or first_of_node(word)
        if error.every_rank or _all_come(meeting, _MEETING if prints else _PATIENCE):
            texts = meeting.gather(str(error))
            if comm.rank == 0:
                say(f"error: {texts[0]}", sys.stderr)
            # Ranks that leave before rank 0 has printed might end the job first.
            meeting.barrier()
            sys.exit(2)
        if socket.gethostname() != first_host:
            time.sleep(_MEETING)  # if ranks of rank 0's node failed too, one of those prints
        if prints:
            say(f"error: rank {comm.rank}: {error}", sys.stderr)
        _abort(comm, 2)
    except KeyboardInterrupt as stop:
        # Launchers pass the signal to every rank.
        if comm.rank == 0:
            say(interrupted(stop), sys.stderr)
        os._exit(130)
    except Exception as error:
        if first_of_node(word):
            text = f"{traceback.format_exc()}error: rank {comm.rank}: {type(error).__name__}: {error}"
            say(text, sys.stderr)
        time.sleep(_MEETING)
        _abort(comm, 1)


def _all_come(meeting, seconds: float) -> bool:
    """Whether every rank fails, within these seconds from now."""
    request = meeting.Ibarrier()
    deadline = time.monotonic() + seconds
    while not (complete := request.Test()) and time.monotonic() < deadline:
        time.sleep(0.01)
    return complete


def _abort(comm, status: int) -> None:
    sys.stdout.flush()
    # The launcher learns of the abort and reads the output through different channels: let it read first.
    time.sleep(HEARD)
    # MPI's own lines about the abort would bury the message.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    comm.Abort(status)


def on_root(comm, function):
    """Call function() on rank 0; every rank gets its value, or raises its UserError. Collective."""
    value, text = None, None
    if comm.rank == 0:
        try:
            value = function()
        except UserError as error:
            text = str(error)
    value, text = comm.bcast((value, text))
    if text is not None:
        raise UserError(text).agreed()
    return value
