"""The ranks' processes, as the ranks of the same node see them."""

import os
import signal
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

STOPPED, BLOCKED, GONE, RUNS, UNKNOWN = "stopped", "blocked", "gone", "runs", "unknown"
# Of the fields that `_fields` returns.
_STARTED = 19
_STATES = {"T": STOPPED, "t": STOPPED, "D": BLOCKED, "Z": GONE, "X": GONE}


@dataclass(frozen=True)
class Member:
    """The process of a rank."""

    rank: int
    host: str
    pid: int
    started: str
    """Clock ticks after the node's start, which tell it from a later process with the same number."""
    space: str
    """That its number is of; containers may have their own."""
    guard: int = 0
    """The number of its guard's process (`hpc_train.watch.guard`); 0 without one."""


def this_process(rank: int, guard: int = 0) -> Member:
    """The member that this process is."""
    return Member(rank, socket.gethostname(), os.getpid(), _fields(os.getpid())[_STARTED], _space(), guard)


def states(members: Sequence[Member]) -> dict[int, str]:
    """What the processes of this host's ranks are, by rank: stopped, blocked in the kernel, gone, or running."""
    return {one.rank: _state(one) for one in members if _seen(one)}


def at_rest(pid: int) -> tuple[str, tuple[str, ...]]:
    """(whether a process is stopped, or one of its threads blocked in the kernel; what grows when it does anything)."""
    whole = _fields(pid)
    threads = [_fields(int(name), pid) for name in _names(Path(f"/proc/{pid}/task"))]
    states = {_STATES.get(fields[0], RUNS) for fields in (whole, *threads) if fields}
    state = next((one for one in (STOPPED, BLOCKED) if one in states), RUNS)
    with suppress(OSError):
        return state, (*whole[11:13], Path(f"/proc/{pid}/io").read_text(errors="replace"))
    return state, (*whole[11:13],)


def state(pid: int, started: str = "") -> str:
    """What a process of this node is: stopped, blocked in the kernel, gone, or running.

    Args:
        pid: its number.
        started: as `Member` has it; one that was started at another time is another process.
    """
    fields = _fields(pid)
    return GONE if not fields or started not in ("", fields[_STARTED]) else _STATES.get(fields[0], RUNS)


def end(members: Sequence[Member]) -> None:
    """Kill these ranks, as far as they are on this host: nothing else ends a process that is stopped."""
    for one in members:
        if _seen(one) and _state(one) != GONE:
            with suppress(OSError):
                # A guard whose rank is killed would speak of it.
                os.kill(one.guard or one.pid, signal.SIGKILL)


def _seen(member: Member) -> bool:
    return member.host == socket.gethostname() and member.space == _space()


def _space() -> str:
    return os.readlink("/proc/self/ns/pid")


def _state(member: Member) -> str:
    return state(member.pid, member.started)


def _names(folder: Path) -> list[str]:
    with suppress(OSError):
        return os.listdir(folder)
    return []


def _fields(pid: int, process: int = 0) -> list[str]:
    """Those of /proc/PID/stat from the state on, of a thread of `process` if that is given; none if it has gone."""
    path = Path(f"/proc/{process}/task/{pid}/stat" if process else f"/proc/{pid}/stat")
    try:
        return path.read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
