"""Which ranks are slow: those that the others wait for in step after step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

# Steps that must be known, and those of an epoch whose halves are looked at by themselves.
FEWEST, LONG = 8, 64
# How much longer a slow rank's own part is in the middle, and at the lower quartile: again and again, not now and then.
_SLOWER, _AGAIN = 1.15, 1.1
# Slow ranks that a line names.
_NAMED = 3


@dataclass(frozen=True)
class Slow:
    """A rank whose steps are late again and again."""

    rank: int
    by: float
    """How much longer its own part of a step takes than the others': 0.3 is 30 %."""
    seconds: float
    """The same in seconds a step."""
    reading: float
    """Of them spent waiting for data."""
    cost: float
    """The share of its time that the job would save if this rank were as fast as the others."""


class SlowEpoch(TypedDict):
    """The slowest rank of an epoch, as run.json has it."""

    epoch: int
    rank: int
    place: str
    by: float
    cost: float


def row(pace: Iterable[tuple[float, float, float]]) -> np.ndarray:
    """What a rank tells the others of its steps.

    Args:
        pace: of each step (seconds, of them waiting for others, of them waiting for data).

    Returns:
        float64 (4,): the median seconds of a step, the median and the lower quartile of its own part, which is all but
        waiting for others, and the median seconds waiting for data; NaN with too few steps.
    """
    steps = np.array(list(pace), "float64").reshape(-1, 3)
    if len(steps) < FEWEST:
        return np.full(4, np.nan)
    own = steps[:, 0] - steps[:, 1]
    return np.array([np.median(steps[:, 0]), np.median(own), np.quantile(own, 0.25), np.median(steps[:, 2])])


def slow_ranks(rows: np.ndarray) -> list[Slow]:
    """Find the ranks that hold the others up, the slowest first.

    Args:
        rows: float64 (ranks, 4), `row` of every rank.
    """
    if len(rows) < 2 or np.isnan(rows).any():
        return []
    step, own, low, reading = rows.T
    # Half of the ranks or more set the pace; of two, the faster one.
    usual, least, read = (float(np.sort(values)[(len(rows) - 1) // 2]) for values in (own, low, reading))
    late = np.flatnonzero((own > _SLOWER * usual) & (low > _AGAIN * least) & (usual > 0))
    found = []
    for rank in sorted(late, key=lambda rank: -own[rank]):
        more = own[rank] - usual
        figures = more / usual, more, max(0.0, reading[rank] - read), min(1.0, more / np.median(step))
        found.append(Slow(int(rank), *map(float, figures)))
    return found


def told(found: Sequence[Slow], places: Sequence[str]) -> str:
    """The slow ranks in words; "" without any.

    Args:
        found: the slow ranks, the slowest first.
        places: host and GPU of every rank.
    """
    named = [f"rank {one.rank} on {places[one.rank]} is {one.by:.0%} slower{_reads(one)}" for one in found[:_NAMED]]
    more = [f"{len(found) - _NAMED} more"] if len(found) > _NAMED else []
    return f"{', '.join([*named, *more])}: costs all ranks {found[0].cost:.0%}" if found else ""


def _reads(one: Slow) -> str:
    return ", waiting for data" if one.reading > one.seconds / 2 else ""
