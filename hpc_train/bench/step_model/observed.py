"""The measurements of a study, in the form that the model needs.

Rounds are averaged by their samples/s, as in the tables of the study. So a round in which the machine did something
else weighs less than in the mean of the seconds.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hpc_train.bench.estimate import Estimate, of_jobs
from hpc_train.bench.step_model.job import Job, buckets_of
from hpc_train.bench.study.measurements import OURS, Measurement, read
from hpc_train.errors import UserError

# (with averaged gradients, each rank for itself); the model takes the first pair that all measurements have.
_PAIRS = (("fit", "fit alone"), ("device", "device alone"), ("bare", "bare alone"))
_CYCLE_MS = 1.0  # Horovod's default, in `operations.cc`


@dataclass(frozen=True)
class Run:
    """One job of the study: arrays with one entry for each round."""

    step: np.ndarray
    """Steps/s, with averaged gradients."""
    compute: np.ndarray
    """Steps/s of each rank for itself, by the mean step of the ranks."""
    excess: np.ndarray
    """How much longer the slowest rank's step was than the mean of the ranks, each for itself, as a share of that mean;
    0 with one rank."""
    ranks_steps: list[dict]
    """For each rank, its steps without the others, in s: mean, std, p50, p95, p99."""


@dataclass(frozen=True)
class Size:
    """All jobs of one number of ranks and nodes, with one set of options."""

    ranks: int
    nodes: int
    batch_size: int
    """Samples in a step on each rank."""
    shape: Job
    """The buckets of a step, without its computation."""
    hierarchical: bool
    cycle: float
    """s from one of Horovod's cycles to the next."""
    changed: str
    """What a sweep changed from the base; empty for the base."""
    runs: tuple[Run, ...]

    @cached_property
    def means(self) -> tuple[float, float, float]:
        """(s of a step, s of computation, excess as in `Run`): means over the means of the runs."""
        return self._of([slice(None)] * len(self.runs), self.runs)

    def drawn(self, draw: np.random.Generator) -> tuple[float, float, float]:
        """`means` of resampled runs and rounds, drawn with replacement (Efron and Tibshirani 1993, "bootstrap")."""
        runs = [self.runs[number] for number in draw.integers(len(self.runs), size=len(self.runs))]
        return self._of([draw.integers(len(run.step), size=len(run.step)) for run in runs], runs)

    @property
    def steps(self) -> int:
        """The number of steps whose slowest rank is known, over all runs."""
        return sum(one["steps"] for run in self.runs for one in run.ranks_steps[:1])

    @property
    def samples_per_s(self) -> Estimate:
        """Over all ranks, as measured."""
        return of_jobs([(None, (self.ranks * self.batch_size * run.step).tolist()) for run in self.runs])

    def job(self, compute: float) -> Job:
        """A step with `compute` seconds of computation."""
        return replace(self.shape, compute=compute)

    def _of(self, rounds, runs) -> tuple[float, float, float]:
        rows = [
            [values[chosen].mean() for values in (run.step, run.compute, run.excess)]
            for run, chosen in zip(runs, rounds, strict=True)
        ]
        steps, computed, excess = np.mean(rows, axis=0).tolist()
        return 1 / steps, 1 / computed, excess


@dataclass(frozen=True)
class Curve:
    """One curve of a study, and what the sweep measured beside it."""

    mode: str
    """weak or strong."""
    ways: tuple[str, str]
    """Names of the ways: with averaged gradients, and each rank for itself."""
    sizes: tuple[Size, ...]
    """Of the base, smallest first."""
    swept: tuple[Size, ...]
    notes: tuple[str, ...]
    """Which parts of the study are left out."""
    crowded: bool = False
    """Whether sizes are included whose ranks share cores or GPUs."""


def curve(study: Path, mode: str | None = None, crowded: bool = False) -> Curve:
    """Find the curve with the most sizes in a study; between weak and strong with the same number, the weak one.

    Args:
        study: the folder.
        mode: weak or strong, if only one is wanted.
        crowded: include sizes whose ranks share cores or GPUs.

    Raises:
        UserError: there is none in the folder.
    """
    measurements, notes = read(study)
    ours = [one for one in measurements if one.framework == OURS]
    sharing = sorted({one.ranks for one in ours if one.shared})
    if sharing:
        which = "they say nothing about scaling" if crowded else "left out, they say nothing about scaling"
        notes.append(f"ranks share cores or GPUs at {_listed(sharing)} ranks: {which}")
    lacking = [one.file for one in ours if not _pairs(one)]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        notes.append(f"no bytes of gradients, or no steps of ranks alone, in {lacking[0]}{more}: left out")
    swept = frozenset(name for one in ours for name, _ in one.variant)
    groups: dict[tuple, list[Measurement]] = {}
    for one in (one for one in ours if _pairs(one)):
        for scaling in one.modes:
            if (crowded or not one.shared) and mode in (None, scaling):
                key = scaling, tuple(sorted(one.conditions(scaling, swept).items()))
                groups.setdefault(key, []).append(one)
    found = [_curve(scaling, members, notes) for (scaling, _), members in groups.items()]
    found = [one for one in found if one.sizes]
    if not found:
        which = f" of {mode} scaling" if mode else ""
        raise UserError(f"{study} holds no measurement{which} to model; {'; '.join(notes) or 'measure it first'}")
    best = replace(max(found, key=lambda one: (len(one.sizes), one.mode == "weak")), crowded=crowded)
    if len(found) > 1:
        chosen = f"{best.mode} scaling, {_listed([size.ranks for size in best.sizes])} ranks"
        best = replace(best, notes=(*best.notes, f"of {len(found)} curves in the study this is {chosen}"))
    return best


def _pairs(one: Measurement) -> list[tuple[str, str]]:
    """The pairs of ways for which the measurement has everything that the model needs."""
    figures = one.figures
    if figures.get("gradient_bytes") is None or figures.get("parameters") is None:
        return []
    return [pair for pair in _PAIRS if set(pair) <= set(one.rates) and pair[1] in figures.get("steps", ())]


def _curve(mode: str, members: list[Measurement], notes: list[str]) -> Curve:
    have = [pair for pair in _PAIRS if all(pair in _pairs(one) for one in members)]
    if not have:
        return Curve(mode, _PAIRS[0], (), (), ())
    base = [one for one in members if one.place == 0]
    swept: dict[tuple, list[Measurement]] = {}
    for one in (one for one in members if one.place):
        swept.setdefault((one.ranks, len(one.nodes), one.variant), []).append(one)
    sizes: dict[tuple, list[Measurement]] = {}
    for one in base:
        sizes.setdefault((one.ranks, len(one.nodes)), []).append(one)
    first = dict(base[0].variant) if base else {}
    return Curve(
        mode,
        have[0],
        tuple(_size(same, have[0], {}) for _, same in sorted(sizes.items())),
        tuple(_size(same, have[0], first) for _, same in sorted(swept.items())),
        tuple(notes),
    )


def _size(same: list[Measurement], ways: tuple[str, str], base: dict[str, str]) -> Size:
    one, variant = same[0], dict(same[0].variant)
    figures, options = one.figures, one.figures["options"]
    # The gradients' bytes before compression fill the buckets.
    count = buckets_of(4 * figures["parameters"], float(options.get("bucket_mib", 32)))
    changed = [f"{name}={value}" for name, value in variant.items() if base and value != base.get(name)]
    return Size(
        ranks=one.ranks,
        nodes=len(one.nodes),
        batch_size=one.batch_size,
        shape=Job.even(0.0, float(figures["gradient_bytes"]), count, int(options.get("lag") or 0)),
        hierarchical=variant.get("HOROVOD_HIERARCHICAL_ALLREDUCE", "0") == "1",
        cycle=float(variant.get("HOROVOD_CYCLE_TIME", _CYCLE_MS)) / 1e3,
        changed=", ".join(changed),
        runs=tuple(_run(measurement, ways) for measurement in same),
    )


def _run(one: Measurement, ways: tuple[str, str]) -> Run:
    with_, alone = (np.asarray(one.rates[way], float) / one.ranks / one.batch_size for way in ways)
    steps = one.figures["steps"][ways[1]]
    means = [rank["mean"] for rank in steps["by_rank"]]
    # A rate is by the clock of the slowest rank: over a round, the one with the longest mean step.
    computed = alone * max(means) / float(np.mean(means))
    # One part for each round; steps are listed round after round.
    parts = zip(*(np.array_split(steps[name], len(alone)) for name in ("slowest", "mean")), strict=True)
    excess = [float(slowest.mean() / mean.mean()) - 1 for slowest, mean in parts]
    return Run(with_, computed, np.array(excess), steps["by_rank"])


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
