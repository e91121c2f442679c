"""How ranks end: one rank's failure ends them all, at once, with one message; or all end in good order."""

import contextlib
import os
import re
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from hpc_train.console import HEARD, say, unread
from hpc_train.errors import UserError
from hpc_train.files import whole
from hpc_train.parallel.launcher import detect
from hpc_train.parallel.world import World
from hpc_train.watch import guard

# What TensorFlow's and Horovod's errors say on ranks whose collective was cut short because another rank ended.
_ELSEWHERE = ("Horovod has been shut down", "HorovodInternalError", "Connection reset", "Connection closed by peer")
_PYTHON = "Traceback (most recent call last)"
# Seconds in which a rank that failed prints why, and those in which the launcher ends the job across nodes.
_HEAD_START = 1.0
_ACROSS_NODES = 5.0
# Seconds in which the other ranks' interpreters end.
_FAREWELL = 2.0
_claims: list[socket.socket] = []
_inside_graph: list[UserError] = []
# Functions of an exception's class, itself and its traceback: a line that says what to do, or None.
explainers: list[Callable] = []


def begin_guard(after: float | None = 0.0) -> None:
    """Where a launcher started this process, let a small process say so if it is killed; call it before all else.

    For trainers and commands; a script of a user may have started what a fork leaves behind.

    Args:
        after: seconds after which a stopped rank is ended, as `watch.guard.begin` takes them.
    """
    if (launcher := detect()).name:
        guard.begin(launcher.rank, launcher.size, first_of_node, job_on_node() or str(os.getpid()), after)


def install(world: World, job: str = "") -> None:
    """Make an exception that leaves the main thread end every rank of the job.

    Args:
        world: the ranks.
        job: a word that only the ranks of this job share; without it each rank prints its own error.
    """
    job = job or str(os.getpid())
    guard.NOTE.add(job=job)
    sys.excepthook = lambda kind, error, trace: _end(world, job, kind, error, trace)


def install_early(rank: int) -> None:
    """Until the ranks know each other: make what leaves the main thread one line, where its cause is known.

    Args:
        rank: of this process, as its launcher says; the first rank prints at once, the others only if it does not.
    """

    def end(kind, error, trace):
        known = (line for explain in explainers if (line := explain(kind, error, trace)))
        text = error if isinstance(error, UserError) else next(known, None)
        if text is None:
            sys.__excepthook__(kind, error, trace)
            return
        time.sleep(3 * _HEAD_START if rank else 0)
        say(f"error: {text}", sys.stderr)
        sys.stdout.flush()
        time.sleep(HEARD)
        os._exit(1)

    end.early = True  # type: ignore[attr-defined]
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = end


def remember(error: UserError) -> None:
    """Keep an error that is raised inside a TensorFlow graph, which makes another exception of it."""
    _inside_graph.append(error)


def cut_short(kind, error) -> bool:
    """Whether an exception is Horovod's word that another rank has ended."""
    # A user's own connections may be reset too: only these two libraries speak for Horovod, and Gloo through them.
    text = f"{kind.__name__} {error}"
    spoken = kind.__module__.partition(".")[0] in ("tensorflow", "horovod") and re.search("horovod|gloo", text, re.I)
    # TensorFlow quotes the traceback of Python that it called, such as a generator of the user's.
    return bool(spoken) and _PYTHON not in text and any(word in text for word in _ELSEWHERE)


def message(world: World, kind, error, trace) -> str | None:
    """What this rank prints about an exception; None where another rank prints it."""
    where = f"rank {world.rank}: " if world.size > 1 else ""
    # TensorFlow's own exception quotes it.
    error = next((told for told in _inside_graph if str(told) in str(error)), error)
    if isinstance(error, UserError):
        if error.every_rank:
            return f"error: {error}" if world.is_root else None
        return f"error: {where}{error}"
    if issubclass(kind, KeyboardInterrupt):
        return "interrupted" if world.is_root else None
    if issubclass(kind, BrokenPipeError) and unread():
        return f"error: {where}nothing reads the output any more: the program after the pipe has ended"
    if cut_short(kind, error):
        return None
    for explain in (_compiled_by_xla, _storage, *explainers):
        if line := explain(kind, error, trace):
            return f"error: {where}{line}"
    told = f"{kind.__name__}: {error}"
    if _PYTHON in told:
        told = told.partition(_PYTHON)[0].strip().splitlines()[-1]
    return f"{''.join(traceback.format_exception(kind, error, trace))}error: {where}{told}"


def _compiled_by_xla(kind, error, trace) -> str | None:
    text = str(error)
    if "XLA" not in text or not re.search(r"unsupported operations.*Horovod|Horovod\w+.*No registered", text, re.S):
        return None
    return (
        "a tf.function with jit_compile=True averages gradients or calls Horovod, whose operations XLA does not know: "
        "leave jit_compile=True out there, or apply the gradients outside that function"
    )


def _storage(kind, error, trace) -> str | None:
    return whole.explain(error)


def end_together(world: World, status: int) -> None:
    """End every rank in good order, rank 0 last and with `status`, the others with 0. Collective; does not return.

    Launchers kill the other ranks when one ends with a status other than 0, and report how those ended.
    """
    from hpc_train.parallel.collectives import broadcast_object

    broadcast_object()  # by now rank 0 has printed and written everything
    sys.stdout.flush()
    import horovod.tensorflow as hvd

    hvd.mpi_ops.shutdown()
    time.sleep(_FAREWELL if world.is_root else 0)
    # Not os._exit: only a process that runs its exit handlers has ended well for MPICH's mpirun.
    sys.exit(status if world.is_root else 0)


def first_of_node(word: str) -> bool:
    """Whether this process, of those that run on its node, is the first to ask with this word: it prints for all."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        # An abstract socket's name belongs to one process of a node until that ends.
        claim.bind(f"\0hpc-train-{word}")
    except OSError:
        return False
    _claims.append(claim)
    return True


def job_on_node() -> str:
    """A word that the ranks of this job share on this node; empty where the launcher leaves no mark."""
    if port := os.environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT"):
        return f"gloo-{port}"
    if space := os.environ.get("PMIX_NAMESPACE"):
        return f"pmix-{space}"
    if "PMI_RANK" in os.environ and (proxy := _ancestor("hydra")):
        return f"hydra-{proxy}"
    if step := os.environ.get("SLURM_STEP_ID"):
        return f"slurm-{os.environ.get('SLURM_JOB_ID')}-{step}"
    return ""


def _ancestor(word: str) -> int:
    """The nearest ancestor of this process whose program's name begins with `word`; 0 for none."""
    process = os.getppid()
    while process > 1:
        try:
            name, _, rest = Path(f"/proc/{process}/stat").read_text().partition("(")[2].rpartition(")")
        except OSError:
            return 0
        if name.startswith(word):
            return process
        process = int(rest.split()[1])
    return 0


def _end(world: World, job: str, kind, error, trace) -> None:
    text = message(world, kind, error, trace)
    if not text or world.node:
        # Launchers end the job with the first rank that ends: that must be the rank that prints.
        time.sleep(_HEAD_START)
    if not text and cut_short(kind, error) and not _inside_graph:
        text = _ended_elsewhere(world)
    # Ranks with the same error fail at the same time. Ranks of other nodes come later, when the job has ended.
    with contextlib.suppress(OSError):
        if text and first_of_node(job):
            say(text, sys.stderr)
        sys.stdout.flush()
    # Shutting Horovod down wakes the ranks that wait in a collective. It then waits for them, so it gets 5 seconds.
    import horovod.tensorflow as hvd

    farewell = threading.Thread(target=hvd.mpi_ops.shutdown, daemon=True)
    farewell.start()
    farewell.join(timeout=5)
    time.sleep(HEARD)
    os._exit(130 if issubclass(kind, KeyboardInterrupt) else 1)


def _ended_elsewhere(world: World) -> str:
    """What to print where no rank with an error has printed: another rank has reached its end, or was killed."""
    time.sleep(_ACROSS_NODES if world.nodes > 1 else 0)
    return (
        f"error: rank {world.rank}: another rank has ended, while this one waited for it in a collective: every rank "
        "must make the same number of steps, and call the same collectives; if that rank was killed, see the "
        "launcher's lines and the node's memory"
    )
