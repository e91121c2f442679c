"""The learning rate as a function of the progress in epochs, so that it does not depend on the number of ranks."""

import math
from dataclasses import dataclass


def scale(rule: str, global_batch: int, base_batch: int) -> float:
    """The factor by which a larger global batch raises the rate.

    Linear: Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1; sqrt: Krizhevsky (2014), section 5.
    The names are CosmoFlow's.

    Args:
        rule: "linear", "sqrt" or "none".
        global_batch: samples in a step over all ranks.
        base_batch: samples in a step for which the base rate was chosen.
    """
    ratio = global_batch / base_batch
    return {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then decay.

    Attributes:
        start: rate at the start of warm-up; for gradual warm-up, the rate of one worker.
        peak: rate after warm-up, scaled for the global batch.
        epochs: length of the training.
        warmup_epochs: length of the linear ramp from `start` to `peak` (Goyal et al. 2017, section 2.2).
        decay: "cosine" to 0 at the end (Loshchilov and Hutter 2017, section 3, without restarts); "poly" to 0 at the
            end, as (1 - share of training after warm-up) ** power; "step" times `gamma` at each of `milestones`;
            or "none".
        milestones: of "step": shares of training. Goyal et al. step at 1/3, 2/3 and 8/9; He et al. (2016) on CIFAR-10
            at 1/2 and 3/4.
        gamma: of "step": the factor of the rate at each milestone.
        power: of "poly"; 2 in You et al. (2017), section 5.
    """

    start: float
    peak: float
    epochs: int
    warmup_epochs: float = 1.0
    decay: str = "cosine"
    milestones: tuple[float, ...] = (0.5, 0.75)
    gamma: float = 0.1
    power: float = 2.0

    def rate(self, progress: float) -> float:
        """The rate after `progress` epochs, which may be a fraction."""
        if progress < self.warmup_epochs:
            return self.start + (self.peak - self.start) * progress / self.warmup_epochs
        if self.decay == "none":
            return self.peak
        if self.decay == "step":
            return self.peak * self.gamma ** sum(progress >= self.epochs * share for share in self.milestones)
        length = max(self.epochs - self.warmup_epochs, 1e-9)
        left = 1 - min(1.0, (progress - self.warmup_epochs) / length)
        if self.decay == "poly":
            return self.peak * left**self.power
        return self.peak * 0.5 * (1 - math.cos(math.pi * left))
