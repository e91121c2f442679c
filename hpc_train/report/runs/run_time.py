"""Where the time of a run went, and which ranks held it up, in lines of text."""

import statistics
from collections.abc import Sequence

from hpc_train.names import printable
from hpc_train.units import span
from hpc_train.watch import goodput


def lines(starts: Sequence[dict]) -> list[str]:
    """What the starts of run.json say; none for a run of an earlier version.

    Args:
        starts: of run.json.
    """
    rows = parts(starts)
    if not rows:
        return []
    width = max(len(name) for name, *_ in rows)
    shown = [f"  {name:{width}}  {value:>12}  {share:>6}" for name, value, share in rows]
    return [goodput.in_short(starts), *shown, *slow(starts)]


def parts(starts: Sequence[dict]) -> list[tuple[str, str, str]]:
    """Each part of a run's time, the time itself, and its share, in words; the queue is none."""
    seconds = goodput.added(starts)
    seconds.pop(goodput.QUEUE, None)
    total = sum(seconds.values())
    return [(name, span(value), f"{value / total:.1%}") for name, value in seconds.items()]


def slow(starts: Sequence[dict]) -> list[str]:
    """A line for each rank that was the slowest in some epoch."""
    by_rank: dict[tuple[int, str], list[dict]] = {}
    for one in (one for start in starts for one in start.get("slow", ())):
        by_rank.setdefault((one["rank"], one["place"]), []).append(one)
    return [
        f"rank {rank} on {printable(place)} was the slowest in {len(found)} epoch{'s' * (len(found) > 1)}: "
        f"{statistics.median(one['by'] for one in found):.0%} slower than the others, which cost all ranks "
        f"{statistics.fmean(one['cost'] for one in found):.0%} of {'them' if len(found) > 1 else 'it'}"
        for (rank, place), found in sorted(by_rank.items(), key=lambda item: -len(item[1]))
    ]
