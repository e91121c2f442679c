"""The options of a segmentation's loss, and the loss they make."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hpc_train.data.statistics.moments import class_weights
from hpc_train.errors import UserError

POWERS = {"none": 0.0, "deepcam": -0.125, "inverse-sqrt": -0.5, "inverse": -1.0}


@dataclass(frozen=True)
class LossOptions:
    """The loss that a network for label maps is trained with."""

    GROUP = "loss"

    loss: Literal[
        "cross-entropy",
        "focal",
        "dice",
        "tversky",
        "cross-entropy+dice",
        "cross-entropy+tversky",
        "focal+dice",
        "focal+tversky",
    ] = "cross-entropy"
    """A loss of pixels (cross-entropy or focal), of the classes' areas (Dice or Tversky), or the sum of two."""
    class_weights: Literal["none", "deepcam", "inverse-sqrt", "inverse"] = "inverse-sqrt"
    """Weight of a pixel by its class: the frequency of the class to the power 0 (none), -1/8 (deepcam), -1/2
    (inverse-sqrt: Kurth et al. 2018) or -1 (inverse), scaled so that the mean over all pixels is 1. `hpc-train stats`
    counts the frequencies."""
    weight_power: float | None = None
    """Power of the frequency, instead of --class-weights."""
    weights: tuple[float, ...] = ()
    """Weight of each class, instead of --class-weights; used as given, without scaling."""
    focal_gamma: float = 2.0
    """With --loss focal: the power of 1 - p, where p is the probability of the true class."""
    tversky: tuple[float, float] = (0.3, 0.7)
    """With --loss tversky: the weights of false positives and of false negatives; 0.5 0.5 is Dice."""

    def check_loss(self) -> None:
        """Check the values and their combinations.

        Raises:
            UserError: the first one that makes no sense.
        """
        parts = self.loss.split("+")
        if self.weight_power is not None and not -2 <= self.weight_power <= 0:
            raise UserError(
                f"--weight-power is {self.weight_power}; it must be from -2 to 0, so that rare classes weigh more"
            )
        if not all(0 <= weight < math.inf for weight in self.weights) or (self.weights and not any(self.weights)):
            raise UserError(f"--weights {_spaced(self.weights)}: give numbers of 0 or more, at least one above 0")
        if not 0 <= self.focal_gamma < math.inf:
            raise UserError(f"--focal-gamma is {self.focal_gamma}; it must be 0 or more")
        if not all(0 < weight < math.inf for weight in self.tversky):
            raise UserError(f"--tversky {_spaced(self.tversky)}: give two weights above 0")
        ways = [option for option in ("class_weights", "weight_power", "weights") if self._is_given(option)]
        if len(ways) > 1:
            raise UserError(f"{' and '.join(map(_flag, ways))} both weight the classes; give only one of them")
        if ways and not _of_pixels(parts):
            raise UserError(
                f"{_flag(ways[0])} weights pixels, but --loss {self.loss} is not a loss of pixels; leave it out"
            )
        for option, part in (("focal_gamma", "focal"), ("tversky", "tversky")):
            if self._is_given(option) and part not in parts:
                raise UserError(f"{_flag(option)} is for --loss {part}, not {self.loss}; leave one of them out")

    @property
    def needs_counts(self) -> bool:
        """Whether the weights are computed from the pixel counts of the classes."""
        return _of_pixels(self.loss.split("+")) and not self.weights and _power(self) != 0

    def _is_given(self, option: str) -> bool:
        return getattr(self, option) != getattr(LossOptions, option)


def weights_of_classes(options: LossOptions, classes: int, counts: Sequence[int] | None) -> np.ndarray | None:
    """The weight of each class in the loss.

    Args:
        options: checked options.
        classes: number of classes.
        counts: pixels of each class in the training data, for at most `classes` classes; None if unknown.

    Returns:
        float64 (classes,); None if all weights are equal or the loss takes none.

    Raises:
        UserError: the counts are needed but unknown, or the number of weights or counts does not fit `classes`.
    """
    if not _of_pixels(options.loss.split("+")):
        return None
    if options.weights:
        if len(options.weights) != classes:
            raise UserError(
                f"--weights gives {len(options.weights)}, but the data have {classes} classes; give one for each class"
            )
        return np.array(options.weights, np.float64)
    if not options.needs_counts:
        return None
    if counts is None or not np.sum(counts):
        option = _flag("class_weights" if options.weight_power is None else "weight_power")
        raise UserError(
            f"{option}: the pixels of each class are not known; count them with `hpc-train stats`, or give --weights "
            "or --class-weights none"
        )
    if len(counts) > classes:
        raise UserError(
            f"the statistics count {len(counts)} classes, but the data have {classes}; run `hpc-train stats` on them"
        )
    # Statistics end with the last class that occurs.
    return normalised(np.pad(counts, (0, classes - len(counts))), _power(options))


def normalised(counts, power: float) -> np.ndarray:
    """Weights frequency ** power, scaled so that their mean over all counted pixels is 1.

    So a learning rate means the same for every power. A class that never occurs gets 1.

    Args:
        counts: pixels of each class.
        power: see `data.statistics.moments.class_weights`.

    Returns:
        float64 (classes,).
    """
    counts = np.asarray(counts, np.float64)
    weights = class_weights(counts, power)
    seen = counts > 0
    if not seen.any():
        return np.ones(len(counts))
    return np.where(seen, weights / np.average(weights, weights=counts), 1.0)


def make(options: LossOptions, classes: int, counts=None, smoothing: float = 0.0, ignore: int | None = None):
    """Make the Keras loss of targets (batch, height, width) and logits (batch, height, width, classes).

    Args:
        options: checked options.
        classes, counts: see `weights_of_classes`.
        smoothing: of the labels, in losses of pixels.
        ignore: a label whose pixels do not count; pixels with a negative label never count.

    Raises:
        UserError: see `weights_of_classes`; or `smoothing` for a loss without label smoothing.
    """
    from hpc_train import losses

    parts = options.loss.split("+")
    if smoothing and not _of_pixels(parts):
        raise UserError(f"--label-smoothing is for losses of pixels, not --loss {options.loss}; leave it out")
    weights = weights_of_classes(options, classes, counts)
    makers = {
        "cross-entropy": lambda: losses.PixelCrossEntropy(weights, smoothing, ignore),
        "focal": lambda: losses.FocalLoss(options.focal_gamma, weights, smoothing, ignore),
        "dice": lambda: losses.DiceLoss(ignore),
        "tversky": lambda: losses.TverskyLoss(*options.tversky, ignore),
    }
    made = [makers[part]() for part in parts]
    return made[0] if len(made) == 1 else losses.SumOfLosses(made, name="_".join(loss.name for loss in made))


def _power(options: LossOptions) -> float:
    return POWERS[options.class_weights] if options.weight_power is None else options.weight_power


def _of_pixels(parts: list[str]) -> bool:
    return bool({"cross-entropy", "focal"} & set(parts))


def _flag(option: str) -> str:
    return f"--{option.replace('_', '-')}"


def _spaced(values) -> str:
    return " ".join(f"{value:g}" for value in values)
