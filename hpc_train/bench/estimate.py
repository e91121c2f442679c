"""Means with standard errors, from jobs that each measured several rounds.

The rounds of one job share its processes, its nodes and its minute; two jobs share none of these. So if there are
several jobs, each counts as one draw, the mean of its rounds, and the standard error is over jobs: sd / sqrt(n). With a
single job the error is over its rounds. That shows only how steady this job was.
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
    """None if there was a single value."""

    def as_dict(self) -> dict[str, float | None]:
        """Both as a dictionary, for JSON."""
        return asdict(self)


Jobs = Sequence[tuple[Hashable, Sequence[float]]]
"""(repeat, one value for each round) of each job; the repeat is None if it is not known."""


def of_values(values: Sequence[float]) -> Estimate | None:
    """The estimate from independent draws; None if there are none."""
    if not values:
        return None
    return Estimate(fmean(values), stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None)


def of_jobs(jobs: Jobs) -> Estimate | None:
    """The estimate from the rounds of several jobs; jobs without a round do not count."""
    measured = [values for _, values in jobs if values]
    return of_values([fmean(values) for values in measured] if len(measured) > 1 else next(iter(measured), []))


def ratio(above: Jobs, below: Jobs) -> Estimate | None:
    """The ratio of two rates, from jobs that measured one of the two each.

    A machine drifts more within hours than within a repeat, whose jobs run one after another. So if two or more repeats
    have both rates, the ratio is the mean of the repeats' quotients. Otherwise it is the quotient of the means, and the
    relative errors add as squares (first order).
    """
    pairs = paired(above, below)
    if len(pairs[0]) > 1:
        return of_values([one / other for one, other in zip(*pairs, strict=True)])
    one, other = of_jobs(above), of_jobs(below)
    if one is None or other is None:
        return None
    quotient = one.mean / other.mean
    if one.error is None or other.error is None:
        return Estimate(quotient, None)
    return Estimate(quotient, quotient * math.hypot(one.error / one.mean, other.error / other.mean))


def paired(above: Jobs, below: Jobs) -> tuple[list[float], list[float]]:
    """The rates of both in each repeat that has both, the means of its rounds, in the order of the repeats."""
    common = sorted(_repeats(above) & _repeats(below))
    return [_of_repeat(above, repeat) for repeat in common], [_of_repeat(below, repeat) for repeat in common]


def _repeats(jobs: Jobs) -> set:
    return {repeat for repeat, values in jobs if values and repeat is not None}


def _of_repeat(jobs: Jobs, wanted: Hashable) -> float:
    return fmean(fmean(values) for repeat, values in jobs if repeat == wanted and values)
