"""Horovod's timeline file, as intervals of time."""

from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.timeline.reader import Timeline

Interval = tuple[float, float]
# What a collective does before its data are there: no time of its own.
_WAITING = ("WAIT", "QUEUE", "INIT", "ALLOCATE")


def collectives(path: Path, name: str) -> list[Interval]:
    """When rank 0 was sending tensors of a name, memory copies included.

    Args:
        path: what Horovod wrote with HOROVOD_TIMELINE.
        name: part of the names of the tensors that count.

    Returns:
        (begin, end) in s since 1970, one for each activity of each tensor, as they began; they overlap where tensors
        travelled together.

    Raises:
        UserError: no timeline in the file.
    """
    timeline = Timeline(path)
    intervals: list[Interval] = []
    open_: dict[int, list] = {}
    for phase, what, time, tensor, _ in timeline.events():
        if phase == "?":
            # Which ends belong to which beginnings is no longer known.
            open_ = {tensor: [] for tensor in open_}
        elif phase == "M" and what and name in what:
            open_[tensor] = []
        elif phase == "B" and tensor in open_:
            open_[tensor].append((what, time))
        elif phase == "E" and open_.get(tensor):
            begun, since = open_[tensor].pop()
            # Within its collective: the outer interval also counts what it waits for.
            if open_[tensor] and not begun.startswith(_WAITING):
                intervals.append((since / 1e6, time / 1e6))
    if timeline.start is None:
        raise UserError(f"{path} does not say when it began: its first lines are missing; write it again")
    return sorted((timeline.start + begin, timeline.start + end) for begin, end in intervals)


def union(intervals: list[Interval]) -> list[Interval]:
    """The same times as intervals that do not overlap, in order."""
    joined: list[Interval] = []
    for begin, end in sorted(intervals):
        if joined and begin <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((begin, end))
    return joined


def length(intervals: list[Interval]) -> float:
    """Time covered by `intervals`, in s; what overlaps counts once."""
    return sum(end - begin for begin, end in union(intervals))


def within(intervals: list[Interval], windows: list[Interval]) -> list[Interval]:
    """The parts of `intervals` that lie within `windows`."""
    parts = [(max(a, begin), min(b, end)) for a, b in union(intervals) for begin, end in union(windows)]
    return [(begin, end) for begin, end in parts if begin < end]
