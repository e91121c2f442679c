"""The figures of a timeline."""

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

# Tensors of one grouped operation are named NAME_1of7 and so on; tensors without a name have a number.
_MEMBER = re.compile(r"_\d+of\d+$|(?<=\.noname)\.\d+$")
_BITS = re.compile(r"\d+$")


def summarise(path: Path, top: int = 10, skip: float = 0) -> dict:
    """Summarise a timeline of Horovod. The memory that this takes does not grow with the file.

    Args:
        path: the file that Horovod wrote with HOROVOD_TIMELINE or hvd.start_timeline, complete or cut off anywhere.
        top: number of tensors and of ranks to list.
        skip: seconds to leave out after the first event, for example the tracing of the first step.

    Returns:
        Plain values, times in s. `stages` has for each stage (timeline.stages.STAGES) the time with at least one
        tensor in it ("wall", "wall_share" of `seconds`) and the sum over tensors ("summed", "summed_share" of the sum
        over all stages); the walls of stages overlap. `ranks_last`, `waiting` and `open` are sorted, the worst first.

    Raises:
        UserError: the file cannot be read, or holds no operation of Horovod.
    """
    timeline = Timeline(path)
    reading = _Reading(skip)
    for event in timeline.events():
        reading.take(event)
    if not reading.stages.busy.times:
        skipped = f" after the first {skip:g} s" if skip else ""
        how = "; give a smaller --skip" if skip else ": the run has not communicated yet, or was stopped before it did"
        raise UserError(f"{path} has no operation of Horovod{skipped}{how}")
    return _figures(timeline, reading, top)


class _Reading:
    """What is known after the events read so far."""

    def __init__(self, skip: float):
        self.stages, self.lateness = Stages(), Lateness()
        self.tensors: dict[int, Tensor] = {}
        self.waits: dict[str, Waits] = {}
        self.done: dict[str, list] = {}
        self.cycles = 0
        self.start: int | None = None
        """Time of the first event that counts, us."""
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
        # Horovod's clock never goes back, but another program may have sorted the events.
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
        """A tensor whose name was in a damaged place."""
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
    """The bytes of a tensor, from its type and shape; 0 if the file lacks them, as for a broadcast on its root."""
    try:
        tensor = json.loads("{" + args + "}")
        bits = 8 if tensor["dtype"] == "bool" else int(_BITS.search(tensor["dtype"])[0])
        return math.prod(json.loads(tensor["shape"])) * bits // 8
    except (ValueError, KeyError, TypeError):
        return 0


def _figures(timeline: Timeline, reading: _Reading, top: int) -> dict:
    stages, lateness = reading.stages, reading.lateness
    # Before the next lines end every open operation at the end of the file.
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
    """Average bytes of an all-reduce, and bytes per second while one runs; None if the file has no bytes."""
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
