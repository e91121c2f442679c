"""Horovod's timeline file, as intervals of time."""

from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.timeline.reader import Timeline

Interval = tuple[float, float]
# What an operation does before its data are there: not counted as sending.
_WAITING = ("WAIT", "QUEUE", "INIT", "ALLOCATE")


def collectives(path: Path, name: str) -> list[Interval]:
    """The times at which rank 0 sent tensors with a certain name, with memory copies.

    Args:
        path: the file that Horovod wrote with HOROVOD_TIMELINE.
        name: part of the tensors' names.

    Returns:
        (begin, end) in s since 1970 for each activity of each tensor, in the order of their beginnings. They overlap
        if tensors were sent together.

    Raises:
        UserError: the file is no timeline.
    """
    timeline = Timeline(path)
    intervals: list[Interval] = []
    open_: dict[int, list] = {}
    for phase, what, time, tensor, _ in timeline.events():
        if phase == "?":
            # It is no longer known which end belongs to which beginning.
            open_ = {tensor: [] for tensor in open_}
        elif phase == "M" and what and name in what:
            open_[tensor] = []
        elif phase == "B" and tensor in open_:
            open_[tensor].append((what, time))
        elif phase == "E" and open_.get(tensor):
            begun, since = open_[tensor].pop()
            # Only what lies within the operation: the operation's own interval holds waiting, too.
            if open_[tensor] and not begun.startswith(_WAITING):
                intervals.append((since / 1e6, time / 1e6))
    if timeline.start is None:
        raise UserError(f"{path} has no starting time: its first lines are missing; make a new timeline")
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
    """Time covered by `intervals`, in s; overlaps count once."""
    return sum(end - begin for begin, end in union(intervals))


def within(intervals: list[Interval], windows: list[Interval]) -> list[Interval]:
    """The parts of `intervals` inside `windows`."""
    parts = [(max(a, begin), min(b, end)) for a, b in union(intervals) for begin, end in union(windows)]
    return [(begin, end) for begin, end in parts if begin < end]
