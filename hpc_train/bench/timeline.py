"""Horovod's timeline file, as intervals of time."""

import json
from pathlib import Path

from hpc_train.errors import UserError

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
    try:
        events = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: no timeline of Horovod in it ({error})") from error
    told = [event for event in events if event.get("name") == "process_name"]
    start = next(e["args"]["start_time_since_epoch_in_micros"] for e in told if e["pid"] == 0)
    tensors = {e["pid"] for e in told if name in e["args"].get("name", "")}
    intervals, open_ = [], {tensor: [] for tensor in tensors}
    for event in events:
        if event["pid"] not in tensors or event["ph"] not in "BE":
            continue
        stack = open_[event["pid"]]
        if event["ph"] == "B":
            stack.append(event)
        elif stack:
            begun = stack.pop()
            # Within its collective: the outer interval also counts what it waits for.
            if stack and not begun["name"].startswith(_WAITING):
                intervals.append(((start + begun["ts"]) / 1e6, (start + event["ts"]) / 1e6))
    return sorted(intervals)


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
