"""Which way a metric improves: the best model is the one with the least error or the largest score."""

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hpc_train.errors import UserError

# Of Keras's metrics and of this package's; those of `_OPEN` do not say it.
_MAX = (
    *("AUC", "Accuracy", "BinaryAccuracy", "CategoricalAccuracy", "SparseCategoricalAccuracy"),
    *("TopKCategoricalAccuracy", "SparseTopKCategoricalAccuracy", "TruePositives", "TrueNegatives"),
    *("Precision", "Recall", "PrecisionAtRecall", "RecallAtPrecision", "F1Score", "FBetaScore"),
    *("SensitivityAtSpecificity", "SpecificityAtSensitivity"),
    *("IoU", "BinaryIoU", "MeanIoU", "OneHotIoU", "OneHotMeanIoU", "SegmentationScores", "SampleIoU"),
    *("R2Score", "PearsonCorrelation", "ConcordanceCorrelation", "CosineSimilarity"),
)
_MIN = (
    *("MeanAbsoluteError", "MeanSquaredError", "RootMeanSquaredError", "MeanAbsolutePercentageError"),
    *("MeanSquaredLogarithmicError", "LogCoshError", "BinaryCrossentropy", "CategoricalCrossentropy"),
    *("SparseCategoricalCrossentropy", "KLDivergence", "Poisson", "Hinge", "SquaredHinge", "CategoricalHinge"),
    *("FalsePositives", "FalseNegatives"),
)
_OPEN = ("Metric", "Mean", "Sum", "MeanMetricWrapper")
_KNOWN = {**dict.fromkeys(_MAX, "max"), **dict.fromkeys(_MIN, "min")}
_SHORT = {"loss": "min", "mae": "min", "mse": "min", "rmse": "min", "mape": "min", "msle": "min", "acc": "max"}
# Functions of keras.metrics that are no losses.
_MAX_FUNCTIONS = ("accuracy", "correlation")
LOSS = "loss"


@dataclass(frozen=True)
class Monitor:
    """What chooses the best model.

    Args:
        name: of a metric, as validation reports it.
        direction: "min" or "max".
    """

    name: str
    direction: str

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is better than the best one so far; what is not a number is not."""
        if math.isnan(value):
            return False
        return best is None or (value < best if self.direction == "min" else value > best)

    def __str__(self) -> str:
        return f"{self.name}:{self.direction}"


def direction(metric) -> str | None:
    """Which way a metric improves, "min" or "max"; None for one that does not say it, as those of users' own.

    Args:
        metric: a Keras metric, of a class of Keras's or derived from one.
    """
    for kind in type(metric).__mro__:
        if kind.__module__.split(".")[0] in ("keras", "hpc_train") and kind.__name__ in _KNOWN:
            return _KNOWN[kind.__name__]
    return _of_function(getattr(metric, "_fn", None))


def usual_directions() -> dict[str, str]:
    """Which way metrics with usual names improve: those of Keras's classes and of this package's, and the loss."""
    found = dict(_SHORT)
    for kind, way in _KNOWN.items():
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
        # Keras calls it io_u, others iou.
        found |= {snake: way, snake.replace("io_u", "iou"): way}
    return found


def _of_function(function) -> str | None:
    """Of a function or loss of Keras's, whose mean a metric takes."""
    kind = function if hasattr(function, "__name__") else type(function)
    if function is None or str(kind.__module__).split(".")[0] != "keras":
        return None
    return "max" if kind.__name__.endswith(_MAX_FUNCTIONS) else "min"


def parse(text: str) -> tuple[str, str | None]:
    """Name and direction of `NAME`, `NAME:min` or `NAME:max`; a leading `val_` is left out.

    Raises:
        UserError: another direction.
    """
    name, colon, way = text.partition(":")
    if not name or (colon and way not in ("min", "max")):
        raise UserError(f"--monitor {text}: write the name of a metric, or NAME:min or NAME:max")
    return name.removeprefix("val_"), way or None


def choose(text: str, metrics: Mapping[str, object]) -> Monitor:
    """The monitor that `text` names.

    Args:
        text: see `parse`.
        metrics: what validation reports, by name, each with its metric or None.

    Raises:
        UserError: validation reports no such thing, or it is not known which way it improves.
    """
    name, way = parse(text)
    if name not in metrics:
        near = difflib.get_close_matches(name, metrics, 1)
        there = f"did you mean {near[0]}?" if near else f"there are {', '.join(metrics)}"
        raise UserError(f"--monitor {name}: validation reports no such metric; {there}")
    # Keras calls so what training minimises.
    way = way or ("min" if name == LOSS else direction(metrics[name]))
    if way is None:
        raise UserError(
            f"--monitor {name}: whether more or less of it is better is not known; write --monitor {name}:min or "
            f"{name}:max"
        )
    return Monitor(name, way)
