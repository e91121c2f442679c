"""Quantiles of any number of durations in little memory."""

import math

# A quantile lies in a bin 1 % wide; its value is the mean of the bin.
_WIDTH = math.log(1.01)


class Quantiles:
    """Durations, counted by size in bins 1 % wide.

    Attributes:
        count: number of durations.
        longest: the longest duration.
    """

    def __init__(self):
        self.count = self.longest = 0
        self._bins: dict[int, list[int]] = {}

    def add(self, duration: int) -> None:
        """Add a duration in whole us, 0 or more."""
        self.count += 1
        self.longest = max(self.longest, duration)
        bin_ = self._bins.setdefault(int(math.log(duration) / _WIDTH) if duration else -1, [0, 0])
        bin_[0] += 1
        bin_[1] += duration

    def at(self, share: float) -> float:
        """The shortest duration that at least `share` of the durations do not exceed, to 1 %; 0 without durations."""
        below = 0
        for _, (count, total) in sorted(self._bins.items()):
            below += count
            if below >= share * self.count:
                return total / count
        return 0.0
