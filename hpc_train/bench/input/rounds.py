"""Interleaved measurements: every way once in each round, so that all of them meet the same state of the machine."""

import time
from collections import deque
from collections.abc import Sequence
from itertools import islice

import numpy as np
import psutil

from hpc_train.bench.input.memory import Growth
from hpc_train.bench.input.ways import Way

_SUITE = "arrays", "fit", "tf.data"


def interleave(
    ways: Sequence[Way], rounds: int, seconds: float, batch_size: int, stored: int, slow=None
) -> dict[str, dict]:
    """Measure all ways, taking turns.

    An uncounted round finds how many steps a way makes in `seconds`, and the memory that it takes. The way makes this
    many in every round, each round in another epoch, and the order of the ways rotates. A way that reads ahead is timed
    in the middle of its work: it makes `lead` uncounted steps before the counted ones, and again after them. So the
    same number of batches is under way when the clock starts and when it stops.

    Args:
        ways: what to measure.
        rounds: counted ones.
        seconds: of one way in one round, approximately.
        batch_size: samples in a batch.
        stored: bytes of the files that the ways without a copy read.
        slow: the storage whose reads are counted, if any.

    Returns:
        Figures of each way by its name; lists have an entry for each round.
    """
    lists = "samples_per_second", "samples_per_core_second", "other_cores"
    found, counts = {}, []
    for way in ways:
        with Growth() as growth:
            counts.append(_steps_to_fill(way, seconds))
        found[way.name] = {"steps": counts[-1], "sample_bytes": way.sample_bytes, "memory": growth.bytes}
        found[way.name] |= {"bytes_on_disk": way.copy.bytes_on_disk if way.copy else stored}
        found[way.name] |= {name: [] for name in lists}
    for number in range(rounds):
        for place in np.roll(range(len(ways)), -number):
            way, samples = ways[place], counts[place] * batch_size
            if slow:
                slow.most = 0
            cores = _time(way, number + 1, counts[place])
            figures = found[way.name]
            figures["samples_per_second"].append(samples / cores.elapsed)
            figures["samples_per_core_second"].append(samples / max(cores.own, 1e-3))
            figures["other_cores"].append(cores.others)
            if slow:
                figures["most_reads_at_once"] = max(figures.get("most_reads_at_once", 0), slow.most)
    return found


def ratios(ways: Sequence[Way], found: dict[str, dict]) -> dict[str, list[float]]:
    """Quotients of the rates of each round: the suite's ways over the others with the same threads and read-ahead, and
    over the same way with the fewest threads; what becomes of its arrays over these."""
    result = {}
    for ours in (way for way in ways if way.kind in _SUITE):
        least = next(way for way in ways if way.kind == ours.kind)
        others = [
            way
            for way in ways
            if (way.kind not in _SUITE or way.kind == "arrays" != ours.kind)
            and way.threads in (0, ours.threads)
            and way.read_ahead in (None, ours.read_ahead)
        ]
        for other in others + [least] * (least is not ours):
            pairs = np.divide(found[ours.name]["samples_per_second"], found[other.name]["samples_per_second"])
            result[f"{ours.name} / {other.name}"] = pairs.tolist()
    return result


def _steps_to_fill(way: Way, seconds: float) -> int:
    count = 1
    while (took := _time(way, 0, count).elapsed) < seconds / 4:
        count *= 2
    # Whole groups: a part of one would be timed as all or nothing of its reading.
    return way.together * max(1, round(count * seconds / took / way.together))


def _time(way: Way, epoch: int, count: int) -> "CoreTime":
    """The time that `count` steps of a way take."""
    batches = iter(way.deliver(epoch, count + 2 * way.lead))
    deque(islice(batches, way.lead), maxlen=0)
    with CoreTime() as cores:
        deque(islice(batches, count), maxlen=0)
    deque(batches, maxlen=0)
    return cores


class CoreTime:
    """A context that measures its time.

    At its end it has `elapsed`: seconds; `own`: core-seconds of this process and its children; `others`: cores that all
    other work used, on average.
    """

    def __enter__(self) -> "CoreTime":
        machine, own = _machine(), _own()
        self._begun = time.perf_counter(), machine, own
        return self

    def __exit__(self, *_) -> None:
        end = time.perf_counter()
        begun, machine, own = self._begun
        self.elapsed = end - begun
        self.own = _own() - own
        self.others = max(0.0, _machine() - machine - self.own) / self.elapsed


def _machine() -> float:
    times = psutil.cpu_times()
    return sum(times) - times.idle - times.iowait - times.guest - times.guest_nice


def _own() -> float:
    process = psutil.Process()
    seconds = sum(process.cpu_times()[:4])
    for child in process.children(recursive=True):
        seconds += sum(child.cpu_times()[:2])
    return seconds
