"""What a timeline says, as figures."""

import functools
import json
import math
import re
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.timeline.advice import advise
from hpc_train.timeline.lateness import Lateness
from hpc_train.timeline.reader import Event, Timeline
from hpc_train.timeline.stages import Stages, Tensor, Waits

# Tensors of one grouped operation are named NAME_1of7 and so on, those without a name by a running number.
_MEMBER = re.compile(r"_\d+of\d+$|(?<=\.noname)\.\d+$")
_BITS = re.compile(r"\d+$")


def summarise(path: Path, top: int = 10, skip: float = 0) -> dict:
    """Sum up a timeline of Horovod, in memory that does not grow with its length.

    Args:
        path: what Horovod wrote with HOROVOD_TIMELINE or hvd.start_timeline, whole or cut anywhere.
        top: tensors and ranks to name.
        skip: seconds from the first event that are left out, such as those of tracing.

    Returns:
        Plain values, times in s. `stages` tells for each stage (timeline.stages.STAGES) the time with at least one
        tensor in it ("wall", "wall_share" of `seconds`) and the sum over tensors ("summed", "summed_share" of all
        stages' sums); walls of stages overlap. `ranks_last`, `waiting` and `open` are sorted, the worst first.

    Raises:
        UserError: the file cannot be read, or holds no operation of Horovod.
    """
    timeline = Timeline(path)
    reading = _Reading(skip)
    for event in timeline.events():
        reading.take(event)
    if not reading.stages.busy.times:
        skipped = f" after the first {skip:g} s" if skip else ""
        raise UserError(f"{path}: no operation of Horovod in it{skipped}")
    return _figures(timeline, reading, top)


class _Reading:
    """What is known after so many events."""

    def __init__(self, skip: float):
        self.stages, self.lateness = Stages(), Lateness()
        self.tensors: dict[int, Tensor] = {}
        self.waits: dict[str, Waits] = {}
        self.done: dict[str, list] = {}
        self.cycles = 0
        self.start: int | None = None
        """us of what counts first."""
        self.now = 0
        self._skip = round(skip * 1e6)

    def take(self, event: Event) -> None:
        phase, name, time, number, args = event
        if phase == "M":
            if name:
                self.tensors[number] = Tensor(name, self.waits.setdefault(_MEMBER.sub("", name), Waits()))
            return
        if phase == "?":
            for tensor in self.tensors.values():
                self.stages.lose(tensor, self.now)
            return
        if self.start is None:
            self.start = time + self._skip
        if time < self.start:
            return
        # Its clock is steady; another program may have sorted the events otherwise.
        if time > self.now:
            self.now = time
        if phase == "i":
            self.cycles += name == "CYCLE_START"
            return
        tensor = self.tensors.get(number) or self._unnamed(number)
        if phase == "E":
            self._end(tensor, args)
        elif phase == "B":
            self.stages.begin(tensor, name, self.now)
        elif phase == "X" and name.isdecimal():
            self.stages.announce(tensor, name, self.now)

    def _unnamed(self, number: int) -> Tensor:
        """One whose name stood where the file is damaged."""
        tensor = Tensor(f"tensor {number}", self.waits.setdefault("unnamed", Waits()))
        return self.tensors.setdefault(number, tensor)

    def _end(self, tensor: Tensor, args: str) -> None:
        ended = self.stages.end(tensor, self.now)
        if ended == "NEGOTIATE":
            self.lateness.add(tensor.ranks, tensor.ticks)
        elif ended:
            done = self.done.setdefault(ended, [0, 0])
            done[0] += 1
            done[1] += _bytes(args)

    @property
    def seconds(self) -> float:
        return max(0, self.now - (self.start or 0)) / 1e6


@functools.lru_cache(4096)
def _bytes(args: str) -> int:
    """Of a tensor, from its type and shape; 0 if they are not told, as of a broadcast on its root."""
    try:
        told = json.loads("{" + args + "}")
        bits = 8 if told["dtype"] == "bool" else int(_BITS.search(told["dtype"])[0])
        return math.prod(json.loads(told["shape"])) * bits // 8
    except (ValueError, KeyError, TypeError):
        return 0


def _figures(timeline: Timeline, reading: _Reading, top: int) -> dict:
    stages, lateness = reading.stages, reading.lateness
    # Before what is open is closed where the file ends.
    open_ = [tensor for tensor in reading.tensors.values() if tensor.stage]
    under_way = [_open(tensor, reading.now) for tensor in open_]
    for tensor in open_:
        stages.lose(tensor, reading.now)
    seconds = reading.seconds
    summed = sum(stage.summed for stage in stages.stages.values())
    idle = seconds - stages.busy.wall / 1e6
    figures = {
        "file": str(timeline.path),
        "file_bytes": timeline.bytes,
        "events": timeline.count,
        "damaged": timeline.damaged,
        "complete": timeline.complete,
        "start": timeline.start,
        "seconds": seconds,
        "tensors": len(reading.tensors),
        "ranks": lateness.size or None,
        "cycles": reading.cycles or None,
        "operations": {
            kind: {"tensors": count, "bytes": total or None} for kind, (count, total) in sorted(reading.done.items())
        },
        "collectives": {
            name: {"count": sender.times, "wall": sender.wall / 1e6} for name, sender in sorted(stages.senders.items())
        },
        "allreduce": _allreduce(reading),
        "stages": {
            name: {
                "wall": stage.wall / 1e6,
                "wall_share": _share(stage.wall / 1e6, seconds),
                "summed": stage.summed / 1e6,
                "summed_share": _share(stage.summed, summed),
            }
            for name, stage in stages.stages.items()
        },
        "idle": {"wall": idle, "wall_share": _share(idle, seconds)},
        "negotiations": {"count": stages.negotiations.count, **_quantiles(stages.negotiations)},
        "ranks_noted": {"negotiations": lateness.negotiations, "even": lateness.even},
        "ranks_last": _last(lateness, seconds)[:top],
        "waiting": _waiting(reading.waits)[:top],
        "open": {"count": len(open_), "longest": sorted(under_way, key=lambda one: -one["for"])[:top]},
    }
    return figures | {"advice": advise(figures)}


def _allreduce(reading: _Reading) -> dict | None:
    """Bytes of one all-reduce, as the tensors in it have, and per second in which one runs; None if none is told."""
    sent = reading.done.get("ALLREDUCE", (0, 0))[1]
    senders = [sender for name, sender in reading.stages.senders.items() if name.endswith("_ALLREDUCE")]
    count, wall = sum(sender.times for sender in senders), sum(sender.wall for sender in senders) / 1e6
    return {"bytes_each": sent / count, "bytes_per_second": sent / wall} if sent and wall else None


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _quantiles(durations) -> dict[str, float]:
    return {
        "p50": durations.at(0.5) / 1e6,
        "p95": durations.at(0.95) / 1e6,
        "max": durations.longest / 1e6,
    }


def _last(lateness: Lateness, seconds: float) -> list[dict]:
    found = [
        {
            "rank": int(rank),
            "times": late.lateness.count,
            "share": late.lateness.count / lateness.negotiations,
            **_quantiles(late.lateness),
            "alone": late.alone / 1e6,
            "alone_share": _share(late.alone / 1e6, seconds),
        }
        for rank, late in lateness.ranks.items()
    ]
    return sorted(found, key=lambda one: (-one["times"], one["rank"]))


def _waiting(waits: dict[str, Waits]) -> list[dict]:
    found = [
        {"name": name, "count": one.count, "mean": one.total / one.count / 1e6, "max": one.longest / 1e6}
        for name, one in waits.items()
        if one.count
    ]
    return sorted(found, key=lambda one: -one["mean"] * one["count"])


def _open(tensor: Tensor, now: int) -> dict:
    ranks = sorted(map(int, tensor.ranks)) if tensor.stage.name == "negotiation" else []
    return {
        "name": tensor.name,
        "stage": tensor.stage.name,
        "for": (now - tensor.since) / 1e6,
        "ranks_ready": ranks or None,
    }
