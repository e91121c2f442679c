"""What one can reach without learning: by a threshold on one channel for each class, or by always the same class."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from hpc_train.metrics.confusion import confusion_matrix

_LEVELS = 200


@dataclass(frozen=True)
class Rule:
    """A pixel belongs to the class if the channel is at least (above) or at most (not above) the threshold."""

    channel: int
    above: bool
    threshold: float
    iou: float

    def holds(self, inputs: np.ndarray) -> np.ndarray:
        """Whether each pixel of (..., channels) belongs to the class, (...) bool."""
        values = inputs[..., self.channel]
        return values >= self.threshold if self.above else values <= self.threshold


def best_rules(read: Callable[[], Iterable], classes: int) -> list[Rule | None]:
    """Find the threshold on a single channel with the highest IoU, for each class except 0.

    It tries 200 quantiles of every channel in the pixels of the class, in both directions.

    Args:
        read: gives batches of inputs (..., channels) and labels (...); it is called twice.
        classes: how many.

    Returns:
        A rule for each class; None for class 0 and for a class that never occurs.
    """
    held = [[] for _ in range(classes)]
    for inputs, labels in read():
        for number in range(1, classes):
            held[number].append(inputs[labels == number])
    held = [np.concatenate(parts) if parts else None for parts in held]
    found = [number for number in range(1, classes) if len(held[number])]
    levels = np.linspace(0, 1, _LEVELS + 1)
    tried = {number: np.quantile(held[number], levels, axis=0).astype(held[number].dtype) for number in found}
    inside = {number: _beyond(held[number], tried[number]) for number in found}
    everywhere = dict.fromkeys(found, 0)
    for inputs, _ in read():
        for number in found:
            everywhere[number] = everywhere[number] + _beyond(inputs.reshape(-1, inputs.shape[-1]), tried[number])
    rules: list[Rule | None] = [None] * classes
    for number in found:
        union = everywhere[number] + len(held[number]) - inside[number]
        iou = inside[number] / union
        above, level, channel = np.unravel_index(iou.argmax(), iou.shape)
        threshold = float(tried[number][level, channel])
        rules[number] = Rule(int(channel), bool(above), threshold, float(iou.max()))
    return rules


def confusion(read: Callable[[], Iterable], rules: list[Rule | None]) -> np.ndarray:
    """Count pixels by label (rows) and by the class that the rules give (columns), int64 (classes, classes).

    If several rules hold, the lowest class counts; if none holds, class 0. [None, None, None] predicts the background
    everywhere.
    """
    classes = len(rules)
    total = np.zeros((classes, classes), np.int64)
    for inputs, labels in read():
        said = np.zeros(labels.shape, np.int64)
        for number in reversed(range(1, classes)):
            if rules[number]:
                said[rules[number].holds(inputs)] = number
        total += confusion_matrix(labels, said, classes)
    return total


def _beyond(values: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many of values (n, channels) are at most, and at least, each threshold: (2, levels, channels)."""
    counts = np.empty((2, *thresholds.shape), np.int64)
    for channel, tried in enumerate(thresholds.T):
        ordered = np.sort(values[:, channel])
        counts[0, :, channel] = np.searchsorted(ordered, tried, "right")
        counts[1, :, channel] = len(ordered) - np.searchsorted(ordered, tried, "left")
    return counts
