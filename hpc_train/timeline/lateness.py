"""Which rank the others wait for.

Horovod records when each rank announces a tensor only if the ranks exchange its name. For a tensor that all ranks know
already, they exchange its place in the response cache, and Horovod records no rank. With HOROVOD_CACHE_CAPACITY=0 it
records all of them.
"""

from collections import deque

from hpc_train.timeline.quantiles import Quantiles

# us. The coordinator looks once a cycle (1 ms) and records the ranks one after another: closer times are a tie.
TIE = 500
_OPEN = 64


class Rank:
    """How often a rank is last to announce a tensor, and by how much.

    Attributes:
        lateness: us between the last but one rank and this rank.
    """

    def __init__(self):
        self.lateness = Quantiles()
        self._alone: deque[tuple[int, int]] = deque()
        self._earlier = 0

    def add(self, awaited_since: int, came: int) -> None:
        """Add a time in which all others waited only for this rank. Call it in the order of `came`.

        Args:
            awaited_since: when the last but one rank came, us.
            came: when this rank came, us.
        """
        self.lateness.add(came - awaited_since)
        while self._alone and self._alone[-1][1] >= awaited_since:
            awaited_since = min(awaited_since, self._alone.pop()[0])
        self._alone.append((awaited_since, came))
        if len(self._alone) > _OPEN:
            begin, end = self._alone.popleft()
            self._earlier += end - begin

    @property
    def alone(self) -> int:
        """us in which all others waited only for this rank, for one tensor at least; overlaps count once."""
        return self._earlier + sum(end - begin for begin, end in self._alone)


class Lateness:
    """Which ranks are last.

    Attributes:
        negotiations: number of negotiations with recorded ranks.
        even: number of those whose last two ranks came within TIE.
        ranks: the ranks that were last, by number.
        size: number of ranks seen.
    """

    def __init__(self):
        self.negotiations = self.even = self.size = 0
        self.ranks: dict[str, Rank] = {}

    def add(self, ranks: list[str], ticks: tuple[int, int]) -> None:
        """Add a negotiation that is over.

        Args:
            ranks: in the order in which they came.
            ticks: when the last two came, us.
        """
        if len(ranks) < 2:
            return
        self.negotiations += 1
        self.size = max(self.size, len(ranks))
        if ticks[1] - ticks[0] < TIE:
            self.even += 1
        else:
            self.ranks.setdefault(ranks[-1], Rank()).add(*ticks)
