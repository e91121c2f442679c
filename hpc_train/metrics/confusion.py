"""Scores from a confusion matrix."""

import numpy as np

from hpc_train.names import label

# Of a matrix in text; more do not fit on a screen.
_MOST_COLUMNS = 20


def softmax(logits):
    """Probabilities (..., classes) from logits (..., classes)."""
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def confusion_matrix(targets, predicted, classes: int):
    """Count pairs of labels: a row for each true class, a column for each predicted one.

    Args:
        targets, predicted: integers of the same shape, from 0 to classes - 1.
        classes: number of classes.

    Returns:
        int64 (classes, classes).
    """
    pairs = np.asarray(targets, "int64") * classes + np.asarray(predicted, "int64")
    return np.bincount(pairs.ravel(), minlength=classes * classes).reshape(classes, classes)


def recall(matrix):
    """Share of each true class that was found, float64 (classes,); NaN for a class that does not occur."""
    return _ratio(np.diag(matrix), matrix.sum(1))


def precision(matrix):
    """Share of the predictions of each class that are true, float64 (classes,); NaN for a class never predicted."""
    return _ratio(np.diag(matrix), matrix.sum(0))


def iou(matrix):
    """Intersection over union of each class, float64 (classes,); NaN for a class neither true nor predicted."""
    return _ratio(np.diag(matrix), matrix.sum(0) + matrix.sum(1) - np.diag(matrix))


def mean_iou(matrix) -> float:
    """Mean of `iou` over the classes that occur or are predicted; NaN for an empty matrix."""
    occurring = iou(matrix)[~np.isnan(iou(matrix))]
    return float(occurring.mean()) if len(occurring) else np.nan


def sample_iou(matrix) -> float:
    """Mean IoU of one sample as in MLPerf HPC's DeepCAM: a class that neither occurs nor is predicted counts as 1."""
    return float(np.nan_to_num(iou(matrix), nan=1.0).mean())


def table(matrix, names: list[str]) -> str:
    """The confusion matrix as text, with the recall of each class."""
    return _table(matrix, names, {"recall": recall(matrix)})


def segmentation_table(matrix, names: list[str]) -> str:
    """The confusion matrix of pixels as text, with recall, precision and IoU of each class."""
    return _table(matrix, names, {"recall": recall(matrix), "precision": precision(matrix), "IoU": iou(matrix)})


def mistakes(matrix, most: int) -> list[tuple[int, int, int]]:
    """The `most` pairs of classes that are confused most often, each as (true class, predicted class, count)."""
    wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, matrix.shape), strict=True)
    return [(int(true), int(found), int(matrix[true, found])) for true, found in pairs if wrong[true, found]]


def _table(matrix, names: list[str], scores: dict) -> str:
    names = [label(name) for name in names]
    if len(names) > _MOST_COLUMNS:
        return _of_classes(matrix, names, scores)
    width = max(6, *(len(name) for name in names), len(str(matrix.max())), *map(len, scores)) + 1
    lines = ["confusion matrix: a row for each true class, a column for each predicted one"]
    lines.append(" " * width + "".join(title.rjust(width) for title in [*names, *scores]))
    for i, (name, row) in enumerate(zip(names, matrix, strict=True)):
        figures = ["-" if np.isnan(values[i]) else f"{values[i]:.3f}" for values in scores.values()]
        lines.append(name.rjust(width) + "".join(str(cell).rjust(width) for cell in [*row, *figures]))
    return "\n".join(lines)


def _of_classes(matrix, names: list[str], scores: dict) -> str:
    """A line for each class in place of a matrix that no screen is wide enough for."""
    width = max(map(len, names)) + 1
    heads = ("samples", *scores)
    lines = [
        f"{len(names)} classes, with the class that each is most often taken for (`hpc-train report` has them all):"
    ]
    lines.append("class".rjust(width) + "".join(title.rjust(10) for title in heads) + "  taken for")
    for i, name in enumerate(names):
        figures = ["-" if np.isnan(values[i]) else f"{values[i]:.3f}" for values in scores.values()]
        others = np.where(np.arange(len(names)) == i, 0, matrix[i])
        taken = f"  {names[others.argmax()]} ({others.max()})" if others.any() else ""
        lines.append(name.rjust(width) + "".join(f"{cell!s:>10}" for cell in [matrix[i].sum(), *figures]) + taken)
    return "\n".join(lines)


def _ratio(part, whole):
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
