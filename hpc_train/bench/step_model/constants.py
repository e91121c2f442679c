"""The constants of the model, and the step that they predict at any number of ranks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hpc_train.bench.step_model import solve, spread
from hpc_train.bench.step_model.job import Job
from hpc_train.bench.step_model.network import Algorithm, Link, Network
from hpc_train.bench.step_model.observed import Size


@dataclass(frozen=True)
class Measured:
    """One size, and a draw of its figures, as in `Size.means`."""

    size: Size
    step: float
    compute: float
    excess: float


@dataclass(frozen=True)
class Step:
    """The parts of a step, in s. All except `hidden` add up to it."""

    compute: float
    spread: float
    overhead: float
    exposed: float
    hidden: float

    @property
    def seconds(self) -> float:
        """The length of the step."""
        return self.compute + self.spread + self.overhead + self.exposed


@dataclass(frozen=True)
class Constants:
    """The constants of the model."""

    measured: tuple[Measured, ...]
    """Smallest size first."""
    strong: bool
    """Whether the ranks share a constant batch; otherwise each has the same."""
    network: Network
    overhead: float
    """s that averaging adds to a step on one rank, which sends nothing."""
    deviation: float
    """Standard deviation of a rank's step, over its mean."""
    tail: spread.Tail
    computed: dict[int, float]
    """s of computation at numbers of ranks that are not fitted, if it is known."""

    def batch_size(self, ranks: int) -> float:
        """Samples in a step on each rank."""
        smallest = self.measured[0].size
        return smallest.batch_size * (smallest.ranks / ranks if self.strong else 1)

    def compute(self, ranks: int) -> float:
        """Seconds of computation: those of the next smaller size measured, or in strong scaling by a rank's samples."""
        if ranks in self.computed:
            return self.computed[ranks]
        if not self.strong or len(self.measured) == 1:
            below = [one for one in self.measured if one.size.ranks <= ranks] or self.measured[:1]
            scale = self.batch_size(ranks) / below[-1].size.batch_size
            return below[-1].compute * scale
        rows = np.array([[1.0, one.size.batch_size] for one in self.measured])
        fixed, a_sample = solve.non_negative(rows, np.array([one.compute for one in self.measured]))
        return float(fixed + a_sample * self.batch_size(ranks))

    def step(self, ranks: int, like: Size | None = None, network: Network | None = None) -> Step:
        """The parts of a step.

        Args:
            ranks: any number of ranks.
            like: the size whose buckets and lag to use; by default those of the largest size measured.
            network: by default the fitted one.
        """
        job = (like or self.measured[-1].size).job(self.compute(ranks))
        network = network or self.network
        exposed = job.exposed(network, ranks)
        waiting = job.compute * self.deviation * spread.factor(self.tail, ranks)
        hidden = job.communication(network, ranks) - exposed
        return Step(job.compute, waiting, self.overhead, exposed, hidden)

    def samples_per_s(self, ranks: int) -> float:
        """Over all ranks."""
        return ranks * self.batch_size(ranks) / self.step(ranks).seconds

    def efficiency(self, ranks: int) -> float:
        """Samples/s of a rank over those of the smallest size."""
        smallest = self.measured[0].size.ranks
        return self.samples_per_s(ranks) / ranks / (self.samples_per_s(smallest) / smallest)


@dataclass(frozen=True)
class Given:
    """What is given, and not fitted to the measurements of a study."""

    algorithm: Algorithm | None = None
    """None: the one that fits better, if there are the three sizes that it takes to decide; else tree."""
    tail: spread.Tail = "normal"
    split: float = 0.5
    """Share of latency in the cost of an all-reduce. It counts if one size cannot separate latency from bandwidth."""
    network: Network | None = None
    """Links from another measurement."""
    computed: dict[int, float] = field(default_factory=dict)
    """As in `Constants`."""


def constants(measured: Sequence[Measured], strong: bool, given: Given) -> Constants:
    """Fit the model to one draw of a study's figures."""
    if given.algorithm is None:
        enough = len(linked(one.size for one in measured)) > 2
        ways: tuple[Algorithm, ...] = ("tree", "ring") if enough else ("tree",)
        return min((constants(measured, strong, replace(given, algorithm=way)) for way in ways), key=residual)
    first = measured[0]
    overhead = max(0.0, first.step - first.compute) if first.size.ranks == 1 else 0.0
    network = given.network or Network(Link(0, 0), None, _ranks_per_node(measured), given.algorithm)
    network = replace(network, hierarchical=first.size.hierarchical)
    if first.size.ranks == 1:
        # One rank waits for Horovod's cycle, too: the overhead includes it.
        network = replace(network, wait=0.0)
    deviation = _deviation(measured, given.tail)
    made = Constants(tuple(measured), strong, network, overhead, deviation, given.tail, given.computed)
    if given.network:
        return made
    single = [one for one in measured if one.size.nodes == 1 and one.size.ranks > 1]
    several = [one for one in measured if one.size.nodes > 1]
    if single and several:
        network = replace(network, within=_fitted(single, made, lambda link: replace(network, within=link), given))
    network = replace(
        network, between=_fitted(several or single, made, lambda link: replace(network, between=link), given)
    )
    return replace(made, network=network)


def residual(made: Constants) -> float:
    """Root mean square of the relative errors of the steps."""
    errors = [made.step(one.size.ranks, one.size).seconds / one.step - 1 for one in made.measured]
    return float(np.sqrt(np.mean(np.square(errors))))


def linked(sizes: Iterable[Size]) -> set[int]:
    """The numbers of ranks that determine the link which more ranks would use."""
    sizes = list(sizes)
    several = {size.ranks for size in sizes if size.nodes > 1}
    return several or {size.ranks for size in sizes if size.ranks > 1}


def _ranks_per_node(measured: Sequence[Measured]) -> int:
    """Of the sizes on several nodes; 1 if all sizes ran on one node, so all ranks are linked in the same way."""
    several = [one.size for one in measured if one.size.nodes > 1]
    return max((-(-size.ranks // size.nodes) for size in several), default=1)


def _deviation(measured: Sequence[Measured], tail: spread.Tail) -> float:
    excess = {one.size.ranks: (one.excess, one.size.steps) for one in measured if one.size.ranks > 1}
    if excess:
        return max(0.0, spread.deviation(tail, excess))
    # One rank does not show which noise all ranks would have at the same time, so this is an upper bound.
    steps = [one for run in measured[0].size.runs for one in run.ranks_steps]
    return float(np.mean([one["std"] / one["mean"] for one in steps]))


def _fitted(measured: Sequence[Measured], made: Constants, network, given: Given) -> Link:
    if not measured:
        return Link(0, 0)
    jobs: list[Job] = [one.size.job(one.compute) for one in measured]
    ranks = [one.size.ranks for one in measured]

    def shown(link: Link) -> np.ndarray:
        return np.array([job.exposed(network(link), size) for job, size in zip(jobs, ranks, strict=True)])

    waiting = [one.compute * made.deviation * spread.factor(made.tail, one.size.ranks) for one in measured]
    target = np.array([one.step - one.compute for one in measured]) - waiting - made.overhead
    if target.max() <= 0:
        return Link(0, 0)
    # Start at a link so slow that nothing is hidden: from there the error falls steadily.
    most = float(target.max()) + max(job.compute for job in jobs)
    by_latency = max(job.communication(network(Link(1, 0)), size) for job, size in zip(jobs, ranks, strict=True))
    by_bytes = max(job.communication(network(Link(0, 1)), size) for job, size in zip(jobs, ranks, strict=True))
    start = Link(most / by_latency, most / by_bytes)
    if len(set(ranks)) > 1:
        return solve.links(shown, target, start)
    return solve.along(shown, target, Link(given.split * start.latency, (1 - given.split) * start.byte_time))
