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


def this_process(rank: int) -> Member:
    """The member that this process is."""
    return Member(rank, socket.gethostname(), os.getpid(), _fields(os.getpid())[_STARTED], _space())


def states(members: Sequence[Member]) -> dict[int, str]:
    """What the processes of this host's ranks are, by rank: stopped, blocked in the kernel, gone, or running."""
    return {one.rank: _state(one) for one in members if _seen(one)}


def end(members: Sequence[Member]) -> None:
    """Kill these ranks, as far as they are on this host: nothing else ends a process that is stopped."""
    for one in members:
        if _seen(one) and _state(one) != GONE:
            with suppress(OSError):
                os.kill(one.pid, signal.SIGKILL)


def _seen(member: Member) -> bool:
    return member.host == socket.gethostname() and member.space == _space()


def _space() -> str:
    return os.readlink("/proc/self/ns/pid")


def _state(member: Member) -> str:
    fields = _fields(member.pid)
    if not fields or fields[_STARTED] != member.started:
        return GONE
    return _STATES.get(fields[0], RUNS)


def _fields(pid: int) -> list[str]:
    """Those of /proc/PID/stat from the state on; none where there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []
