"""Counts of the pixels of each class."""

import numpy as np

# A larger label is not a class but a measurement or a fill value; counting it would take this many entries of memory.
_MOST_CLASSES = 65536


class BadSample(ValueError):
    """A sample that cannot be counted: its `place` in the batch and the `problem` with it."""

    def __init__(self, place: int, problem: str):
        super().__init__(f"sample {place} of the batch {problem}")
        self.place = place
        self.problem = problem


def count_labels(targets: np.ndarray, classes: int, ignore: int | None = None) -> np.ndarray:
    """Count the labels of each class.

    Args:
        targets: (samples, ...), integers or whole floats.
        classes: their number; 0: up to the largest label.
        ignore: a label that is not counted; it may lie outside the classes.

    Returns:
        int64 (classes,).

    Raises:
        BadSample: the first label that is not a class.
    """
    flat, ignored = targets.reshape(-1), 0
    if ignore is not None:
        # They are counted as class 0 and subtracted below.
        where = flat == ignore
        ignored, flat = np.count_nonzero(where), np.where(where, flat.dtype.type(0), flat)
    with np.errstate(invalid="ignore"):
        labels = flat.astype(np.int64)
    fractional = targets.dtype.kind == "f" and not (labels == flat).all()
    if labels.size and (fractional or labels.min() < 0 or labels.max() >= (classes or _MOST_CLASSES)):
        bad = (labels != flat) | (labels < 0) | (labels >= (classes or _MOST_CLASSES))
        place = int(np.argmax(bad))
        expected = f"one of the {classes} classes (0 to {classes - 1})" if classes else "a class number"
        raise BadSample(place // (targets.size // len(targets)), f"has label {flat[place]}, not {expected}")
    counts = np.bincount(labels, minlength=classes)
    counts[:1] -= ignored
    return counts


def add_counts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sum of two arrays of counts, as long as the longer one."""
    size = max(len(one), len(other))
    return np.pad(one, (0, size - len(one))) + np.pad(other, (0, size - len(other)))
