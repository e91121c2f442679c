"""A rank's guard: its parent, a small process that outlives it and says how it was killed, or that it was stopped.

The launcher knows the guard as the rank. So it learns that the rank has gone, and ends the others, when the guard has
spoken. The guard ends as its rank does, with the same status; if the guard is killed, so is the rank.
"""

import ctypes
import json
import mmap
import os
import re
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from hpc_train.console import HEARD, say
from hpc_train.errors import UserError
from hpc_train.units import size
from hpc_train.watch import memory, neighbours
from hpc_train.watch.neighbours import BLOCKED, STOPPED
from hpc_train.watch.record import LEAST, WITHOUT_END
from hpc_train.watch.verdict import SILENT
from hpc_train.watch.witness import Witness

NAME = "hpc-train-guard"
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
# Modules that may have threads which Python does not know.
_STARTED = {"mpi4py.MPI", "horovod.tensorflow", "horovod.torch", "torch", "polars", "sklearn"}
# Ends by these are somebody's wish, or a launcher's.
_WISHED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
# Launchers send these to a process or to its group, and a rank may get them twice. Ctrl-C always reaches the group.
_PASSED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_KEPT = (signal.SIGINT, signal.SIGHUP)
# Seconds between two looks, and a gap between two that only a guard makes that was stopped itself.
_LOOK, _SUSPENDED = 1.0, 5.0
# Between two looks whether a rank still beats.
_BEATS = 4.0
# Seconds in which ranks that the death of this one ends find that it has been spoken of.
_STAYS = 2.0
_NATIVE = "a native library failed; see its lines above, if it printed any"
_CAUSES = {
    signal.SIGBUS: "a file in memory was cut, or /dev/shm or a disk is full; look at `df` on that node",
    signal.SIGXCPU: "nothing moved while a native call held its interpreter's lock (its stacks are above), or it was "
    "given no more CPU time (`ulimit -t`)",
}


class Note:
    """What a rank lets its guard know: `job`, a word of its ranks, and of a training `again`, `checkpoints`, and what
    a `Witness` needs.
    """

    _BEAT = struct.Struct("d")

    def __init__(self) -> None:
        self.page: mmap.mmap | None = None
        self._facts: dict[str, str] = {}

    def add(self, **facts: str) -> None:
        """Add to what the guard knows; nothing without a guard."""
        self._facts |= facts
        text = json.dumps(self._facts).encode()
        begin = self._BEAT.size
        if self.page and begin + len(text) < len(self.page):
            self.page[begin : begin + len(text) + 1] = text + b"\0"

    def read(self) -> dict[str, str]:
        """What the rank has added; nothing where it was killed while it wrote."""
        with suppress(ValueError):
            return json.loads(self.page[self._BEAT.size :].split(b"\0")[0]) if self.page else {}
        return {}

    def beat(self, on: bool = True) -> None:
        """Show that this process runs, as from then on it does again and again; or that it no longer shows it."""
        if self.page:
            self._BEAT.pack_into(self.page, 0, time.monotonic() if on else 0.0)

    def silence(self) -> float:
        """Seconds since the last beat; 0 where there is none to come."""
        (last,) = self._BEAT.unpack_from(self.page) if self.page else (0.0,)
        return time.monotonic() - last if last else 0.0


# Of this process.
NOTE = Note()


def begin(rank: int, ranks: int, claim: Callable[[str], bool], job: str, after: float | None = 0.0) -> None:
    """Split this process into a guard, which does not return, and its child, which goes on as the rank.

    It does nothing if that would harm, as the rank keeps no thread and no child of this process: where threads of
    Python, Horovod, MPI, TensorFlow's operations, a GPU or other programs have started, or a library that computes in
    threads is imported.

    Args:
        rank: of this process.
        ranks: of the job; 0 where that is unknown.
        claim: whether this process, of those of its node with the same word, is the one that prints.
        job: the word, until the rank gives another one.
        after: seconds after which a stopped rank is ended; None for the default limits, 0 for never.
    """
    if NOTE.page or threading.active_count() > 1 or _STARTED & set(sys.modules) or _has_begun_tensorflow():
        return
    if _holds_gpu() or _has_children():
        return
    NOTE.page = mmap.mmap(-1, 1 << 16)
    NOTE.add(job=job)
    sys.stdout.flush()
    sys.stderr.flush()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, *_PASSED, *_KEPT})
    guard = os.getpid()
    # Before the fork, as the rank may be killed at once.
    killed = memory.killed()
    child = os.fork()
    if child:
        _Guard(child, rank, ranks, claim, after, killed).run()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != guard:
        os._exit(1)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def process() -> int:
    """The guard of this process; 0 where there is none."""
    return os.getppid() if NOTE.page else 0


class _Guard:
    def __init__(
        self,
        child: int,
        rank: int,
        ranks: int,
        claim: Callable[[str], bool],
        after: float | None,
        killed: dict[str, int],
    ):
        self._child, self._claim = child, claim
        self._who = f"rank {rank}{f' of {ranks}' if ranks else ''} (on {socket.gethostname()})"
        self._limits = {STOPPED: LEAST, BLOCKED: WITHOUT_END}
        if after is not None:
            self._limits = dict.fromkeys(self._limits, after)
        self._killed = killed
        self._still: tuple[str, float] | None = None
        self._moved: tuple[str, ...] = ()
        self._witness = Witness(child, NOTE.read, NOTE.silence)

    def run(self) -> NoReturn:
        try:
            _prctl(_PR_SET_NAME, NAME.encode())
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _close_files()
            self._watch()
        finally:
            # The rank ends with its guard.
            os._exit(1)

    def _watch(self) -> None:
        limited = any(self._limits.values())
        looks = _LOOK if limited else _BEATS
        looked = time.monotonic()
        while True:
            heard = {signal.SIGCHLD, *_PASSED}
            told = signal.sigtimedwait(heard, looks)
            if told and told.si_signo in _PASSED:
                os.kill(self._child, told.si_signo)
            ended, status, used = os.wait4(self._child, os.WNOHANG)
            if ended:
                self._end(status, used.ru_maxrss * 1024)
            if time.monotonic() - looked >= looks:
                if time.monotonic() - looked > looks + _SUSPENDED:
                    self._still = None
                looked = time.monotonic()
                self._witness.look()
                if limited:
                    self._look()

    def _end(self, status: int, had: int) -> NoReturn:
        """End as the rank did."""
        if not os.WIFSIGNALED(status):
            os._exit(os.WEXITSTATUS(status))
        if self._witness.over:
            os._exit(1)
        number = os.WTERMSIG(status)
        if number in _WISHED:
            signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
            os.kill(os.getpid(), number)
            # The first process of a container does not end so.
            os._exit(128 + number)
        name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
        cause = self._why_killed() if number == signal.SIGKILL else _CAUSES.get(number, _NATIVE)
        most = memory.limit()
        may = f", and may have {size(most)}" if most else ""
        self._print(f"{self._who} was ended by {name}: {cause}; it had at most {size(had)} of memory{may}")
        os._exit(128 + number)

    def _why_killed(self) -> str:
        now = memory.killed()
        more = {what for what, count in now.items() if count > self._killed.get(what, count)}
        remedy = "give the job more memory, or put fewer ranks on a node"
        if memory.CGROUP in more:
            return f"out of memory, says the kernel (oom_kill of its cgroup): {remedy}"
        if memory.CGROUP not in now and memory.NODE in more:
            return f"its node was out of memory, says the kernel (oom_kill in /proc/vmstat): {remedy}"
        if now:
            return (
                "not for want of memory, as far as the kernel says: a person, a limit of the site or a program did it"
            )
        return f"whether for want of memory is not known here: look at dmesg and sacct; if so, {remedy}"

    def _look(self) -> None:
        """End a rank that has been stopped, or blocked in the kernel without a movement, for too long."""
        state, moved = neighbours.at_rest(self._child)
        now = time.monotonic()
        if self._still is None or (state, moved) != (self._still[0], self._moved):
            self._still, self._moved = (state, now), moved
        seconds, limit = now - self._still[1], self._limits.get(state, 0)
        if 0 < limit <= seconds:
            what, help = SILENT[state]
            self._print(f"nothing has moved for {seconds:.0f} s: {self._who} {what}. What helps: {help}")
            os.kill(self._child, signal.SIGKILL)
            # One that is blocked may not end; MPI's launcher ends the others for sure where it ends before its guard.
            signal.sigtimedwait({signal.SIGCHLD}, _STAYS)
            os._exit(1)

    def _print(self, text: str) -> None:
        note = NOTE.read()
        if self._claim(note.get("job", "")):
            say(f"error: {UserError(f'{text}; {_how_on(note)}')}", sys.stderr)
            # Survivors in a collective learn of the death at once, and need not speak of it.
            time.sleep(_STAYS)
        time.sleep(HEARD)


def _how_on(note: dict[str, str]) -> str:
    if "again" not in note:
        return "then give the same command again"
    names = [path.name for path in Path(note["checkpoints"]).glob("step-*")]
    if not names:
        return f"no checkpoint yet: {note['again']} begins again"
    step = re.sub(r"\D", "", max(names).partition(".")[0])
    return f"the last checkpoint is that of step {int(step)}: {note['again']} goes on from there"


def _holds_gpu() -> bool:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{name}").startswith(("/dev/nvidia", "/dev/kfd")):
                return True
    return False


def _has_begun_tensorflow() -> bool:
    """Whether TensorFlow has made its threads: it does with its first operation."""
    eager = sys.modules.get("tensorflow.python.eager.context")
    return eager is not None and getattr(eager, "_context", None) is not None and eager._context._initialized


def _has_children() -> bool:
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):
            if Path(f"/proc/self/task/{thread}/children").read_text():
                return True
    return False


def _close_files() -> None:
    """Close what is the rank's, as programs may wait for its end; only MPI's launcher must see no end yet."""
    kept = os.environ.get("PMI_FD", "")
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2 and name != kept:
            with suppress(OSError):
                os.close(int(name))


def _prctl(what: int, value) -> None:
    ctypes.CDLL(None).prctl(what, value, 0, 0, 0)
