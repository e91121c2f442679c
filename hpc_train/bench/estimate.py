"""Means with standard errors, of what several jobs measured in several rounds each.

Rounds of one job share its processes, its nodes and its minute; jobs do not. So where there are several jobs, each
counts as one draw, the mean of its rounds, and the standard error is over jobs: sd / sqrt(n). Of a single job it is
over the rounds, which says less: how steady that job was.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev


@dataclass(frozen=True)
class Estimate:
    """A mean and its standard error."""

    mean: float
    error: float | None
    """None of a single value."""

    def as_dict(self) -> dict[str, float | None]:
        """For JSON."""
        return asdict(self)


Jobs = Sequence[tuple[Hashable, Sequence[float]]]
"""(repeat, one value a round) of each job; the repeat is None where it is not known."""


def of_values(values: Sequence[float]) -> Estimate | None:
    """Of independent draws; None of nothing."""
    if not values:
        return None
    return Estimate(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


def of_jobs(jobs: Jobs) -> Estimate | None:
    """Of the rounds of several jobs; jobs without a round do not count."""
    held = [values for _, values in jobs if values]
    return of_values([fmean(values) for values in held] if len(held) > 1 else held[0] if held else [])


def ratio(above: Jobs, below: Jobs) -> Estimate | None:
    """Of a rate over another, from jobs that measured one each.

    Machines drift within hours more than within a repeat, whose jobs run one after another: where two or more repeats
    have both, it is the mean of their quotients. Else it is the quotient of the means, and the relative errors add as
    squares (first order).
    """
    pairs = [(_of_repeat(above, repeat), _of_repeat(below, repeat)) for repeat in _repeats(above) & _repeats(below)]
    if len(pairs) > 1:
        return of_values([one / other for one, other in pairs])
    one, other = of_jobs(above), of_jobs(below)
    if one is None or other is None:
        return None
    quotient = one.mean / other.mean
    if one.error is None or other.error is None:
        return Estimate(quotient, None)
    return Estimate(quotient, quotient * math.hypot(one.error / one.mean, other.error / other.mean))


def _repeats(jobs: Jobs) -> set:
    return {repeat for repeat, values in jobs if values and repeat is not None}


def _of_repeat(jobs: Jobs, wanted: Hashable) -> float:
    return fmean(fmean(values) for repeat, values in jobs if repeat == wanted and values)
