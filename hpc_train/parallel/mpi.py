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

from hpc_train.console import HEARD, say
from hpc_train.errors import UserError
from hpc_train.parallel.failure import first_of_node
from hpc_train.parallel.launcher import GLOO, detect, wrong_size

# Seconds in which ranks that fail alike find each other before one of them ends the job.
_MEETING = 1.0
# Seconds that a failed rank leaves to the one that speaks before it ends the job itself.
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
        """Nobody to wait for."""

    def Split(self, color: int = 0, key: int = 0) -> "Alone":
        """Itself."""
        return self

    def Free(self) -> None:
        """Nothing to free."""


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
            f"this needs MPI, and horovodrun started its {launcher.size} ranks with Gloo: use `mpirun -np N` "
            "(Slurm: `srun`), or `horovodrun --mpi`"
        )
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise UserError(f"mpi4py finds no MPI here ({error}); load the site's MPI, or pip install mpich") from error
    if MPI.COMM_WORLD.size == 1 and not launcher.size:
        return Alone()
    if problem := wrong_size(launcher, MPI.COMM_WORLD.size):
        library = " ".join(MPI.Get_library_version().split("\n")[0].split())
        raise UserError(f"{problem[0]}, mpi4py runs on {library}; {problem[1]}")
    return MPI.COMM_WORLD


@contextmanager
def agree(comm) -> Iterator[None]:
    """Work that may fail on some ranks only: all leave it together, or all raise one UserError. Collective.

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
    """The communicator; what a rank raises inside ends all ranks at once, with one message and a non-zero status.

    Alone, exceptions pass through. Else a UserError that every rank raises (`agree`) is printed by rank 0, and the
    ranks end with status 2 in good order; one that only some raise is printed by one of them, and MPI ends the others,
    wherever they wait. Any other exception is printed with its traceback.
    """
    comm = communicator()
    if comm.size == 1:
        yield comm
        return
    word, first_host = comm.bcast((uuid.uuid4().hex, socket.gethostname()))
    # A communicator of its own: the meeting of failed ranks must not mix with collectives under way.
    meeting = comm.Dup()
    try:
        yield comm
    except UserError as error:
        speaks = error.every_rank or first_of_node(word)
        if error.every_rank or _all_come(meeting, _MEETING if speaks else _PATIENCE):
            texts = meeting.gather(str(error))
            if comm.rank == 0:
                say(f"error: {texts[0]}", sys.stderr)
            # Ranks that left before rank 0 has spoken might end the job first.
            meeting.barrier()
            sys.exit(2)
        if socket.gethostname() != first_host:
            time.sleep(_MEETING)  # where ranks of rank 0's node failed as well, one of those speaks
        if speaks:
            say(f"error: rank {comm.rank}: {error}", sys.stderr)
        _abort(comm, 2)
    except KeyboardInterrupt:
        # Launchers pass the signal to every rank.
        if comm.rank == 0:
            say("interrupted", sys.stderr)
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
    # The launcher hears of the abort and reads what was printed by different ways: let it read first.
    time.sleep(HEARD)
    # All is said: MPI's own account of the abort would bury it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    comm.Abort(status)


def on_root(comm, function):
    """function() of rank 0, on every rank; its UserError is raised on every rank. Collective."""
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
