"""Fitting the model to a study, and predicting sizes that were not run.

The model is fitted again to resampled jobs and rounds of the study; the band holds 90 % of these fits. What the
measurements leave open varies, too: the tail of the ranks' steps, and, if a single size has all-reduces, the shares of
latency and bandwidth in their cost. The band does not include what no measurement of the study can show, such as a
network that gets slower when many nodes use it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from hpc_train.bench.step_model import spread
from hpc_train.bench.step_model.constants import Constants, Given, Measured, constants, linked
from hpc_train.bench.step_model.job import Job
from hpc_train.bench.step_model.network import Algorithm, Network
from hpc_train.bench.step_model.observed import Curve, Size, curve
from hpc_train.errors import UserError

_DRAWS = 100
_BAND = (5, 95)


@dataclass(frozen=True)
class Fitted:
    """The model with the constants of a study."""

    curve: Curve
    given: Given

    @cached_property
    def constants(self) -> Constants:
        """Fitted to all that was measured."""
        return self._constants([Measured(size, *size.means) for size in self.curve.sizes], self.given)

    @property
    def link_sizes(self) -> int:
        """Sizes that determine the link: latency and bandwidth need two, and three with the algorithm."""
        return len(linked(self.curve.sizes))

    def predict(self, ranks: Sequence[int]) -> list[dict]:
        """Predict the step at each of these numbers of ranks.

        Returns:
            For each number: ranks; efficiency, relative to the smallest size measured; low and high, its band;
            samples_per_s, over all ranks; and in s: step, its parts compute, spread (the slowest rank less the mean),
            overhead and exposed, and hidden, the all-reduces beside the computation.

        Raises:
            UserError: a number below 1, or in strong scaling above the global batch.
        """
        for size in ranks:
            if size < 1 or self.constants.batch_size(size) < 1:
                raise UserError(f"--np {size}: it must be at least 1, and in strong scaling at most the global batch")
        drawn = [[made.efficiency(size) for size in ranks] for made in self._drawn]
        low, high = np.percentile(drawn, _BAND, axis=0).tolist()
        return [self._prediction(*row) for row in zip(ranks, low, high, strict=True)]

    @cached_property
    def holdout(self) -> dict | None:
        """The largest size, predicted from the others.

        If the study has ranks that share cores, the computation of the largest size is as measured there, each rank for
        itself: no smaller size shows it.

        Returns:
            ranks; fitted, the sizes used; predicted and measured, in samples/s; low and high, the band of predicted;
            measured_error, the standard error (None with a single round); error, predicted / measured - 1. None if
            there are too few other sizes.
        """
        *others, largest = self.curve.sizes
        if len(others) < (1 if self.given.network else 2):
            return None
        computed = {largest.ranks: largest.means[1]} if self.curve.crowded else {}
        fitted = _fit(replace(self.curve, sizes=tuple(others)), replace(self.given, computed=computed))
        (found,) = fitted.predict([largest.ranks])
        rate, measured = found["samples_per_s"], largest.samples_per_s
        return {
            "ranks": largest.ranks,
            "fitted": [size.ranks for size in others],
            "predicted": rate,
            "low": rate * found["low"] / found["efficiency"],
            "high": rate * found["high"] / found["efficiency"],
            "measured": measured.mean,
            "measured_error": measured.error,
            "error": rate / measured.mean - 1,
        }

    @cached_property
    def sweep(self) -> list[dict]:
        """What the variants of the sweep do to samples/s, by the model and as measured, over the base at the same size.

        The model is fitted to the base only; buckets, bytes, lag, cycle time and hierarchy are those of the variant.

        Returns:
            For each variant: changed, ranks, predicted, measured.
        """
        base = {(one.size.ranks, one.size.nodes): one for one in self.constants.measured}
        found = []
        for size in self.curve.swept:
            same = base.get((size.ranks, size.nodes))
            if same:
                before, after = self.constants.step(size.ranks), self.changed(size)
                factors = {"predicted": before.seconds / after.seconds, "measured": same.step / size.means[0]}
                found.append({"changed": size.changed, "ranks": size.ranks, **factors})
        return found

    def changed(self, size: Size):
        """The step with the buckets, lag, cycle time and hierarchy of `size`."""
        network = self.constants.network
        # On average, a bucket waits for half a cycle. The constants include the wait of the base.
        wait = (size.cycle - self.curve.sizes[0].cycle) / 2
        network = replace(network, hierarchical=size.hierarchical, wait=network.wait + wait)
        return self.constants.step(size.ranks, size, network)

    def remedies(self, ranks: int) -> dict[str, float]:
        """What would help at this number of ranks: factors of samples/s, by the model.

        They are for float16 or bfloat16 on the wire, lag 1, a better number of buckets, and no rank slower than the
        mean.
        """
        size = self.curve.sizes[-1]
        shape, step = size.shape, self.constants.step(ranks)
        changed = {"half the bytes on the wire": shape.compressed(0.5)}
        if not shape.lag:
            changed["lag 1"] = replace(shape, lag=1)
        for count in sorted({1, 2, 4, 8, 16, 32} - {len(shape.buckets)}):
            changed[f"{count} bucket{'s' * (count > 1)}"] = Job.even(0.0, shape.bytes, count, shape.lag)
        steps = {name: self.constants.step(ranks, replace(size, shape=one)).seconds for name, one in changed.items()}
        best = min((name for name in steps if "bucket" in name), key=steps.get)
        better = steps[best] < step.seconds
        steps = {name: one for name, one in steps.items() if "bucket" not in name or (better and name == best)}
        steps["no rank slower than the mean"] = step.seconds - step.spread
        return {name: step.seconds / seconds for name, seconds in steps.items()}

    @cached_property
    def _drawn(self) -> list[Constants]:
        draw = np.random.default_rng(0)
        found = []
        for number in range(_DRAWS):
            measured = [Measured(size, *size.drawn(draw)) for size in self.curve.sizes]
            # What the measurements leave open takes each of its values equally often.
            open_ = {"tail": spread.TAILS[number % 2], "split": (number + 0.5) / _DRAWS}
            found.append(self._constants(measured, replace(self.given, **open_)))
        return found

    def _constants(self, measured: list[Measured], given: Given) -> Constants:
        return constants(measured, self.curve.mode == "strong", given)

    def _prediction(self, ranks: int, low: float, high: float) -> dict:
        step = self.constants.step(ranks)
        efficiency = self.constants.efficiency(ranks)
        return {
            "ranks": ranks,
            "efficiency": efficiency,
            "low": min(low, efficiency),
            "high": max(high, efficiency),
            "samples_per_s": self.constants.samples_per_s(ranks),
            "step": step.seconds,
            "compute": step.compute,
            "spread": step.spread,
            "overhead": step.overhead,
            "exposed": step.exposed,
            "hidden": step.hidden,
        }


def fit_study(
    study: Path,
    network: Network | None = None,
    algorithm: Algorithm | None = None,
    mode: str | None = None,
    crowded: bool = False,
) -> Fitted:
    """Fit the model to the folder of a study.

    Args:
        study: the folder.
        network: links from another measurement, such as `hpc-train bench allreduce`; by default they are fitted.
        algorithm: of the all-reduce, if `network` does not name it; by default the one that fits better if there are at
            least three sizes, else tree.
        mode: "weak" or "strong"; by default the curve with more sizes.
        crowded: also fit sizes whose ranks share cores or GPUs, to try the model without a larger machine.

    Raises:
        UserError: no measurements, or too few sizes.
    """
    found = curve(study, mode, crowded)
    sizes = [size.ranks for size in found.sizes]
    if len(sizes) < 2 and network is None:
        step, compute, _ = found.sizes[0].means
        raise UserError(
            f"{study}: one size only, {sizes[0]} rank{'s' * (sizes[0] > 1)}: a step takes {1e3 * step:.3g} ms, "
            f"{1e3 * compute:.3g} ms of it computation; a prediction needs two sizes or more"
            + "".join(f"; {note}" for note in found.notes)
        )
    if network:
        algorithm = network.algorithm
    return _fit(found, Given(algorithm, network=network))


def _fit(found: Curve, given: Given) -> Fitted:
    steps = [one for size in found.sizes for run in size.runs for one in run.ranks_steps]
    return Fitted(found, replace(given, tail=spread.tail_of(steps)))
