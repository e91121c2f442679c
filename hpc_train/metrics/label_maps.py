"""Scores of predicted label maps: from one confusion matrix, and DeepCAM's IoU of single samples."""

from collections.abc import Sequence

import keras
from keras import ops

from hpc_train.losses.pixels import counted


def scores(matrix, class_names: Sequence[str] = ()) -> dict:
    """Accuracy, mean IoU, and IoU, precision and recall of each class: numbers from 0 to 1, never NaN.

    The mean IoU leaves out classes that neither occur nor are predicted, as Keras's MeanIoU does; their own IoU is 0.
    The precision of a class that is never predicted and the recall of a class that never occurs are 0, as in
    scikit-learn.

    Args:
        matrix: pixels (classes, classes), a row for each true class, a column for each predicted one.
        class_names: see `keys`.

    Returns:
        The keys are accuracy, mean_iou, and iou_<class>, precision_<class>, recall_<class>.
    """
    matrix = ops.cast(matrix, "float64")
    right, true, predicted = ops.diagonal(matrix), ops.sum(matrix, axis=1), ops.sum(matrix, axis=0)
    union = true + predicted - right
    iou, there = ops.divide_no_nan(right, union), ops.cast(union > 0, matrix.dtype)
    result = {
        "accuracy": ops.divide_no_nan(ops.sum(right), ops.sum(true)),
        "mean_iou": ops.divide_no_nan(ops.sum(iou), ops.sum(there)),
    }
    of_classes = {
        "iou": iou,
        "precision": ops.divide_no_nan(right, predicted),
        "recall": ops.divide_no_nan(right, true),
    }
    names = keys(matrix.shape[0], class_names)
    for score, values in of_classes.items():
        result |= {f"{score}_{name}": values[i] for i, name in enumerate(names)}
    return result


def keys(classes: int, class_names: Sequence[str] = ()) -> tuple[str, ...]:
    """Short names of the classes for keys of metrics: lower case, without blanks.

    Without class names they are class0, class1, ...
    """
    if class_names:
        return tuple("_".join(name.lower().split()) for name in class_names)
    return tuple(f"class{i}" for i in range(classes))


def confusion(y_true, y_pred, classes: int, ignore_class: int | None = None):
    """Confusion matrix of each sample: its pixels by true class (rows) and predicted class (columns).

    Args:
        y_true: labels (batch, height, width), whole numbers of any type; labels that are negative, `ignore_class` or
            beyond the classes are left out.
        y_pred: logits or probabilities (batch, height, width, classes).
        classes: number of classes.
        ignore_class: a label, or None.

    Returns:
        float64 (batch, classes, classes).
    """
    labels = ops.cast(y_true, "int32")
    truth = ops.one_hot(ops.where(counted(labels, ignore_class), labels, -1), classes, dtype="float32")
    predicted = ops.one_hot(ops.argmax(y_pred, axis=-1), classes, dtype="float32")
    # Products of ones over one row of an image are exact in float32, on every device and in any order.
    rows = ops.matmul(ops.swapaxes(truth, -1, -2), predicted)
    return ops.sum(ops.cast(rows, "float64"), axis=1)


class _MapMetric(keras.metrics.Metric):
    """A metric of label maps without sample weights."""

    def __init__(self, classes: int, ignore_class: int | None, name: str, dtype):
        super().__init__(dtype=dtype, name=name)
        self.classes, self.ignore_class = classes, ignore_class

    def update_state(self, y_true, y_pred, sample_weight=None):
        if sample_weight is not None:
            raise ValueError(f"{self.name} takes no sample weights: compile it among metrics, not weighted_metrics")
        self.add(confusion(y_true, y_pred, self.classes, self.ignore_class))

    def get_config(self):
        return {**super().get_config(), "classes": self.classes, "ignore_class": self.ignore_class}


@keras.saving.register_keras_serializable(package="hpc_train")
class SegmentationScores(_MapMetric):
    """`scores` over all pixels seen, from one confusion matrix.

    The matrix is its state, in float64: exact up to 9e15 pixels, also over ranks, whose matrices are added. The result
    is a dict, which Keras puts into the logs key by key. The metric is called like `confusion`.

    Args:
        classes: number of classes.
        class_names: see `keys`.
        ignore_class: see `confusion`.
        name: of the metric; it is no key of the logs.
    """

    def __init__(self, classes: int, class_names=(), ignore_class: int | None = None, name="scores", dtype=None):
        super().__init__(classes, ignore_class, name, dtype)
        if class_names and len(class_names) != classes:
            raise ValueError(f"{len(class_names)} class names for {classes} classes")
        self.class_names = tuple(class_names)
        self.matrix = self.add_variable((classes, classes), "zeros", "float64", name="matrix")

    def add(self, matrices) -> None:
        """Add confusion matrices of samples, (batch, classes, classes)."""
        self.matrix.assign_add(ops.sum(matrices, axis=0))

    def result(self) -> dict:
        return scores(self.matrix, self.class_names)

    def plain(self) -> keras.metrics.Metric:
        """The nearest metric of Keras itself, for files that load without this package: the mean IoU."""
        ignore = -1 if self.ignore_class is None else self.ignore_class
        return keras.metrics.MeanIoU(self.classes, name="mean_iou", ignore_class=ignore, sparse_y_pred=False)

    def get_config(self):
        return {**super().get_config(), "class_names": self.class_names}


@keras.saving.register_keras_serializable(package="hpc_train")
class SampleIoU(_MapMetric):
    """The IoU of MLPerf HPC's DeepCAM: the mean over the classes of each sample, and the mean over the samples.

    A class that neither occurs in a sample nor is predicted there counts as 1, so this exceeds the IoU of all pixels if
    classes are rare. (DeepCAM's code uses a rank's batch as the sample; its validation batch is 1.) The metric is
    called like `confusion`.

    Args:
        classes: number of classes.
        ignore_class: see `confusion`.
        name: of the metric, and its key in the logs.
    """

    def __init__(self, classes: int, ignore_class: int | None = None, name="sample_iou", dtype=None):
        super().__init__(classes, ignore_class, name, dtype)
        self.total = self.add_variable((), "zeros", "float64", name="total")
        self.count = self.add_variable((), "zeros", "float64", name="count")

    def add(self, matrices) -> None:
        """Add confusion matrices of samples, (batch, classes, classes)."""
        right = ops.diagonal(matrices, axis1=1, axis2=2)
        union = ops.sum(matrices, axis=1) + ops.sum(matrices, axis=2) - right
        iou = ops.where(union > 0, ops.divide_no_nan(right, union), 1.0)
        self.total.assign_add(ops.sum(ops.mean(iou, axis=-1)))
        self.count.assign_add(ops.cast(ops.shape(matrices)[0], "float64"))

    def result(self):
        return ops.divide_no_nan(self.total, self.count)

    def plain(self) -> None:
        """Keras has no such metric."""
