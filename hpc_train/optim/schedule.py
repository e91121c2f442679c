"""The learning rate as a function of how far training is, so that it does not depend on the number of ranks."""

import math
from dataclasses import dataclass


def scale(rule: str, global_batch: int, base_batch: int) -> float:
    """The factor by which a larger global batch raises the rate.

    Linear: Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1; sqrt: Krizhevsky (2014), section 5.
    The names are CosmoFlow's.

    Args:
        rule: "linear", "sqrt" or "none".
        global_batch: samples a step over all ranks.
        base_batch: samples a step for which the base rate was chosen.
    """
    ratio = global_batch / base_batch
    return {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]


@dataclass(frozen=True)
class Schedule:
    """Warm-up, then decay.

    Attributes:
        base: rate at the base batch, where warm-up begins.
        peak: rate after warm-up, scaled for the global batch.
        epochs: length of training.
        warmup_epochs: length of the linear ramp from `base` to `peak` (Goyal et al. 2017, section 2.2).
        decay: "cosine" to 0 at the end, "step" to a tenth at 1/2 and 3/4 of training, or "none".
    """

    base: float
    peak: float
    epochs: int
    warmup_epochs: float = 1.0
    decay: str = "cosine"

    def rate(self, progress: float) -> float:
        """The rate when `progress` epochs have been seen, a fraction included."""
        if progress < self.warmup_epochs:
            return self.base + (self.peak - self.base) * progress / self.warmup_epochs
        if self.decay == "none":
            return self.peak
        if self.decay == "step":
            return self.peak * 0.1 ** sum(progress >= self.epochs * part for part in (0.5, 0.75))
        length = max(self.epochs - self.warmup_epochs, 1e-9)
        done = min(1.0, (progress - self.warmup_epochs) / length)
        return self.peak * 0.5 * (1 + math.cos(math.pi * done))
