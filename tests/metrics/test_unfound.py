"""Classes that are never predicted are named, with the option that helps."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, jaccard_score

from hpc_train.metrics import unfound

NAMES = ("glaze", "crack", "hole", "stain")


def scores(true, predicted):
    """IoU of each class and its mean over those that occur or are predicted, by scikit-learn."""
    kinds = sorted({*true, *predicted})
    iou = jaccard_score(true, predicted, labels=range(4), average=None, zero_division=0)
    mean = jaccard_score(true, predicted, labels=kinds, average="macro", zero_division=0)
    return {"mean_iou": mean, "accuracy": 0.5} | {f"iou_{name}": value for name, value in zip(NAMES, iou, strict=True)}


@pytest.mark.parametrize(
    ("true", "predicted", "never", "wrong"),
    [
        ([0, 0, 1, 2], [0, 0, 1, 0], ["hole"], ["hole", "stain"]),
        ([0, 0, 1, 2], [0, 0, 0, 0], ["crack", "hole"], ["crack", "hole", "stain"]),
        # Nothing is missed: the last two classes do not occur.
        ([0, 0, 1, 1], [0, 1, 1, 1], [], []),
        ([0, 1, 2, 3], [0, 1, 2, 3], [], []),
        # A class that is predicted, but never where it is.
        ([0, 1, 2, 3], [1, 0, 2, 3], [], ["glaze", "crack"]),
    ],
)
def test_classes_that_are_there_and_never_predicted_are_named(true, predicted, never, wrong):
    matrix = confusion_matrix(true, predicted, labels=range(4))
    assert unfound.never_predicted(matrix, NAMES) == never
    assert unfound.never_right(scores(true, predicted)) == wrong


def test_the_line_names_the_option_that_helps():
    plain = {"class_weights": "none", "loss": "cross-entropy", "weights": [], "weight_power": None}
    line = unfound.advice(["hole"], "never predicted", plain)
    assert line.startswith("note: the class hole is never predicted; ")
    assert line.endswith("train with --class-weights inverse-sqrt")
    for more in ({"class_weights": "inverse-sqrt"}, {"loss": "dice"}, {"weights": [1.0, 2.0]}):
        assert "--class-weights inverse, --weights or --loss" in unfound.advice(["a", "b"], "x", plain | more)
    assert "classes a, b are x" in unfound.advice(["a", "b"], "x", {})
    assert "--class-weights" not in unfound.advice(["a"], "x", {})


def test_runs_without_scores_of_classes_name_none():
    assert unfound.never_right({"loss": 0.1, "accuracy": 0.0}) == []
    assert unfound.never_predicted(np.zeros((2, 2), int), ("a", "b")) == []
