"""The ratio of two rates that were measured in turns: how sure it is, and whether it shows a difference at all.

A machine changes its speed while it measures, and other work disturbs it. What is compared takes turns, so each pair
meets the same minute. From six pairs on, the ratio is their median, and the interval is that of order statistics, which
from nine on no single outlier moves; from fewer than six it is their mean, and the interval is Student's. Both hold the
ratio in 95 of 100 measurements. A difference smaller than the machine's own drift, the change of the same rate from the
first half of a measurement to the second, is not claimed, whatever the interval says.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import fmean, median, stdev

_SURE = 0.95
# From so many pairs on, their extremes hold the median in more than 95 of 100 measurements.
_MANY = 6
# Student's quantiles for 1, 2, 3 and 4 degrees of freedom: all that are needed.
_STUDENT = 12.706, 4.303, 3.182, 2.776


@dataclass(frozen=True)
class Comparison:
    """A ratio of rates, its interval of 95 %, and how much the machine drifted meanwhile."""

    ratio: float
    low: float | None
    high: float | None
    """None with a single pair, as `low`."""
    drift: float | None
    """Of the rates above the line, as a share; None with fewer than four pairs."""

    @property
    def doubt(self) -> str | None:
        """Why the ratio shows no difference; None where it shows one."""
        if self.low is None or self.high is None:
            return "a single pair shows no difference"
        if self.low <= 1 <= self.high:
            return "no difference is shown"
        if self.drift is not None and self.drift > abs(self.ratio - 1):
            return f"no difference is claimed: the machine drifted by {self.drift:.1%}"
        return None

    def text(self, form: str = ".3f") -> str:
        """The comparison as text, each number in the given form."""
        interval = "" if self.low is None else f" (95 %: {self.low:{form}} to {self.high:{form}})"
        return f"{self.ratio:{form}}{interval}" + (f"; {self.doubt}" if self.doubt else "")

    @classmethod
    def of(cls, figures: dict) -> "Comparison":
        """The comparison with the figures that `as_dict` gave."""
        return cls(**{field.name: figures[field.name] for field in fields(cls)})

    def as_dict(self) -> dict:
        """For JSON, with `doubt`."""
        return {**asdict(self), "doubt": self.doubt}


def compared(above: Sequence[float], below: Sequence[float]) -> Comparison:
    """Compare rates.

    Args:
        above: the rates above the line, in the order of their time.
        below: those below it, each measured next to the one at its place in `above`; as many.
    """
    ratios = sorted(one / other for one, other in zip(above, below, strict=True))
    ratio = median(ratios) if len(ratios) >= _MANY else fmean(ratios)
    return Comparison(ratio, *_interval(ratios), _drift(above))


def _interval(ratios: list[float]) -> tuple[float | None, float | None]:
    count = len(ratios)
    if count < 2:
        return None, None
    if count < _MANY:
        half = _STUDENT[count - 2] * stdev(ratios) / math.sqrt(count)
        return fmean(ratios) - half, fmean(ratios) + half
    # So many smallest and as many largest ones that the median lies outside of them in 5 of 100 measurements at most.
    outside, place = 0.0, 0
    while (outside := outside + 2 * math.comb(count, place) / 2**count) <= 1 - _SURE:
        place += 1
    return ratios[place - 1], ratios[count - place]


def _drift(rates: Sequence[float]) -> float | None:
    half = len(rates) // 2
    return abs(median(rates[-half:]) / median(rates[:half]) - 1) if half > 1 else None
