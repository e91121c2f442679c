"""Which way metrics improve: every metric and loss of Keras, and the choice of what is watched."""

import inspect

import pytest

pytest.importorskip("tensorflow")

import keras

from hpc_train.errors import UserError
from hpc_train.metrics import SampleIoU, SegmentationScores
from hpc_train.training import monitor
from hpc_train.training.monitor import Monitor, choose, direction

NEEDED = {
    "IoU": {"num_classes": 3, "target_class_ids": [1]},
    "MeanIoU": {"num_classes": 3},
    "OneHotIoU": {"num_classes": 3, "target_class_ids": [1]},
    "OneHotMeanIoU": {"num_classes": 3},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.9},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
}
CLASSES = {name: kind for name, kind in vars(keras.metrics).items() if inspect.isclass(kind)}
LOSSES = {name: kind for name, kind in vars(keras.losses).items() if inspect.isclass(kind) and name != "Loss"}
# What a perfect prediction gives, and a bad one: (targets, perfect, bad).
BINARY = [[1.0], [0.0], [1.0], [0.0]], [[0.99], [0.01], [0.99], [0.01]], [[0.2], [0.9], [0.3], [0.8]]
ONE_HOT = [[1.0, 0, 0], [0, 1.0, 0]], [[0.98, 0.01, 0.01], [0.01, 0.98, 0.01]], [[0.1, 0.5, 0.4], [0.6, 0.1, 0.3]]
SPARSE = [0, 1], *ONE_HOT[1:]
VALUES = [[1.0, 2.0], [3.0, 4.5], [5.0, 1.0]], [[1.0, 2.1], [3.0, 4.5], [5.0, 1.1]], [[9.0, 1.0], [1.0, 0.5], [2.0, 7]]
EXAMPLES = {
    "BINARY": "AUC BinaryAccuracy BinaryCrossentropy BinaryIoU FalseNegatives FalsePositives Precision Recall "
    "PrecisionAtRecall RecallAtPrecision SensitivityAtSpecificity SpecificityAtSensitivity TrueNegatives TruePositives",
    "ONE_HOT": "CategoricalAccuracy CategoricalCrossentropy CategoricalHinge F1Score FBetaScore KLDivergence "
    "OneHotIoU OneHotMeanIoU Hinge SquaredHinge",
    "SPARSE": "SparseCategoricalAccuracy SparseCategoricalCrossentropy",
    "VALUES": "ConcordanceCorrelation CosineSimilarity LogCoshError MeanAbsoluteError MeanAbsolutePercentageError "
    "MeanSquaredError MeanSquaredLogarithmicError PearsonCorrelation Poisson R2Score RootMeanSquaredError",
}
EXAMPLE_OF = {name: globals()[kind] for kind, names in EXAMPLES.items() for name in names.split()}


@pytest.mark.parametrize("name", CLASSES)
def test_every_metric_of_keras_has_its_direction_or_is_known_to_have_none(name):
    assert (name in monitor._KNOWN) != (name in monitor._OPEN)


@pytest.mark.parametrize("name", EXAMPLE_OF)
def test_the_direction_of_a_metric_is_that_of_a_better_prediction(name):
    def value(predicted):
        metric = CLASSES[name](**NEEDED.get(name, {}))
        metric.update_state(keras.ops.array(EXAMPLE_OF[name][0]), keras.ops.array(predicted))
        return float(keras.ops.mean(metric.result()))

    perfect, bad = map(value, EXAMPLE_OF[name][1:])
    assert perfect != bad
    assert direction(CLASSES[name](**NEEDED.get(name, {}))) == ("max" if perfect > bad else "min")


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_of_keras_as_a_metric_is_the_better_the_smaller(name):
    assert direction(keras.metrics.MeanMetricWrapper(LOSSES[name]())) == "min"


@pytest.mark.parametrize("function", [keras.losses.huber, keras.losses.cosine_similarity, keras.metrics.hinge])
def test_functions_of_losses_are_the_better_the_smaller(function):
    assert direction(keras.metrics.MeanMetricWrapper(function)) == "min"


def test_functions_of_scores_are_the_better_the_larger():
    for function in (keras.metrics.categorical_accuracy, keras.metrics.pearson_correlation):
        assert direction(keras.metrics.MeanMetricWrapper(function)) == "max"
    assert direction(SegmentationScores(3)) == direction(SampleIoU(3)) == "max"


def test_nothing_is_guessed_from_a_name():
    def mean_squared_error(y_true, y_pred):
        return -y_true

    for metric in (keras.metrics.Mean(name="val_loss"), keras.metrics.MeanMetricWrapper(mean_squared_error)):
        assert direction(metric) is None
    with pytest.raises(UserError, match=r"write --monitor kl_loss:min or kl_loss:max"):
        choose("kl_loss", {"kl_loss": keras.metrics.Mean(name="kl_loss")})


def test_a_subclass_improves_as_its_class_of_keras():
    class Mine(keras.metrics.MeanAbsoluteError):
        pass

    assert direction(Mine()) == "min"


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("loss", Monitor("loss", "min")),
        ("val_mae", Monitor("mae", "min")),
        ("auc", Monitor("auc", "max")),
        ("mine:max", Monitor("mine", "max")),
        ("mae:max", Monitor("mae", "max")),
    ],
)
def test_what_is_chosen(text, chosen):
    metrics = {"loss": None, "mae": keras.metrics.MeanAbsoluteError(), "auc": keras.metrics.AUC(), "mine": None}
    assert choose(text, metrics) == chosen


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mea", "did you mean mae?"),
        ("zzz", "there are loss, mae"),
        ("mae:up", "or NAME:min or"),
        (":min", "write"),
    ],
)
def test_what_there_is_not_is_one_line(text, said):
    with pytest.raises(UserError, match=said):
        choose(text, {"loss": None, "mae": keras.metrics.MeanAbsoluteError()})


def test_what_is_not_a_number_is_never_the_best():
    for way in ("min", "max"):
        watched = Monitor("x", way)
        assert not watched.better(float("nan"), None)
        assert watched.better(1.0, None)
        assert watched.better(1.0, 2.0) == (way == "min")
