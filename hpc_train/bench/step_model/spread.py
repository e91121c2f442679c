"""The slowest of N ranks: how long a step waits for it.

A step ends when its slowest rank has its gradients. If the times of N ranks are independent draws, the mean of the
largest is above the mean of all by the standard deviation times a factor, which grows with N without limit (David and
Nagaraja, "Order Statistics", 2003). Measured steps show this excess for the few ranks that ran. How it grows with more
ranks depends on the tail; a few hundred steps do not reach as far into it as 27,360 ranks do. So the tail is one of two
laws:

normal: the factor grows as sqrt(2 ln N). Many small causes give this law, and differences between devices look like it.
gumbel: the factor is sqrt(6)/pi ln N, exactly, because the largest of Gumbel draws has a Gumbel law, too. Its tail is
    that of an exponential law: interrupts, other work on the node, a slow read now and then.

The measured steps of each rank decide between them: their 99th percentile is 1.41 times as far from the median as their
95th in a normal law, and 1.63 times in Gumbel's. Noise that all ranks have at the same time costs time, but no rank
waits for another, so it does not count: excess is over the mean of the ranks in the same step.
"""

import math
from functools import lru_cache
from statistics import median
from typing import Literal

import numpy as np

Tail = Literal["normal", "gumbel"]
TAILS: tuple[Tail, ...] = ("normal", "gumbel")
# Half way between the two laws' values of (p99 - p50) / (p95 - p50).
_DIVIDE = 1.52


@lru_cache(maxsize=4096)
def factor(tail: Tail, ranks: int) -> float:
    """How far the mean of the largest of `ranks` draws is above the mean of all, in standard deviations of one draw."""
    if ranks == 1:
        return 0.0
    if tail == "gumbel":
        return math.sqrt(6) / math.pi * math.log(ranks)
    x, logarithm = _normal()
    # The mean of x by the law of the largest, which is the law of one to the power N.
    return float(((x[1:] + x[:-1]) / 2 * np.diff(np.exp(ranks * logarithm))).sum())


def deviation(tail: Tail, excess: dict[int, tuple[float, int]]) -> float:
    """Fit the standard deviation of a rank's step to how far the slowest of N ranks was above their mean.

    Args:
        tail: the law.
        excess: (mean of slowest - mean, number of steps) by N, which is at least 2.

    Returns:
        The best fit, weighted by steps, in the unit of the excess.
    """
    # The mean of all is that of the same N draws, so it does not shift.
    above = sum(steps * mean * factor(tail, ranks) for ranks, (mean, steps) in excess.items())
    return above / sum(steps * factor(tail, ranks) ** 2 for ranks, (_, steps) in excess.items())


def tail_of(steps: list[dict]) -> Tail:
    """The law that fits the steps of single ranks; steps: entries with p50, p95 and p99."""
    shapes = [(one["p99"] - one["p50"]) / (one["p95"] - one["p50"]) for one in steps if one["p95"] > one["p50"]]
    return "gumbel" if shapes and median(shapes) > _DIVIDE else "normal"


@lru_cache(maxsize=1)
def _normal() -> tuple[np.ndarray, np.ndarray]:
    """A grid, and the logarithm of the normal distribution on it, exact in both tails."""
    x = np.linspace(-12, 12, 6001)
    above = np.array([math.erfc(value / math.sqrt(2)) / 2 for value in x])
    # Each side uses its own small probability, because 1 minus it would be rounded.
    return x, np.where(x > 0, np.log1p(-np.minimum(above, 0.5)), np.log(above[::-1]))
