"""Which rank the others wait for.

Horovod notes when each rank announces a tensor only where the ranks exchange its name. A tensor that all have met
before goes by its place in the response cache, and no rank is noted. HOROVOD_CACHE_CAPACITY=0 has all noted.
"""

from collections import deque

from hpc_train.timeline.quantiles import Quantiles

# us. The coordinator notes the ranks one after another, and looks once a cycle (1 ms): what is closer is a tie.
TIE = 500
_OPEN = 64


class Rank:
    """How often a rank is last to announce a tensor, and by how much.

    Attributes:
        lateness: from the last but one to it, us.
    """

    def __init__(self):
        self.lateness = Quantiles()
        self._alone: deque[tuple[int, int]] = deque()
        self._earlier = 0

    def add(self, awaited_since: int, came: int) -> None:
        """It alone was awaited from one time to another; calls are in the order of the second."""
        self.lateness.add(came - awaited_since)
        while self._alone and self._alone[-1][1] >= awaited_since:
            awaited_since = min(awaited_since, self._alone.pop()[0])
        self._alone.append((awaited_since, came))
        if len(self._alone) > _OPEN:
            begin, end = self._alone.popleft()
            self._earlier += end - begin

    @property
    def alone(self) -> int:
        """us in which it alone was awaited for some tensor; what overlaps counts once."""
        return self._earlier + sum(end - begin for begin, end in self._alone)


class Lateness:
    """Who is last.

    Attributes:
        negotiations: of which the ranks are noted.
        even: those whose last two ranks came within TIE.
        ranks: those that were last, by number.
        size: ranks seen.
    """

    def __init__(self):
        self.negotiations = self.even = self.size = 0
        self.ranks: dict[str, Rank] = {}

    def add(self, ranks: list[str], ticks: tuple[int, int]) -> None:
        """A negotiation is over: the ranks in the order in which they came, and when the last two did."""
        if len(ranks) < 2:
            return
        self.negotiations += 1
        self.size = max(self.size, len(ranks))
        if ticks[1] - ticks[0] < TIE:
            self.even += 1
        else:
            self.ranks.setdefault(ranks[-1], Rank()).add(*ticks)
