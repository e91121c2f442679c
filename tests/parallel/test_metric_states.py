"""How metric states of several ranks are merged: each metric of Keras, and classes of one's own, in one process."""

import inspect
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from hpc_train.errors import UserError
from hpc_train.metrics import SampleIoU, SegmentationScores
from hpc_train.parallel.metrics import join_states, states
from hpc_train.parallel.metrics.rules import rule, watch

DRAW = np.random.default_rng(4)
CLASSES = 3
TRUE, LOGITS = DRAW.integers(0, CLASSES, 40), DRAW.normal(size=(40, CLASSES)).astype("float32")
SHARES = DRAW.dirichlet(np.ones(CLASSES), 40).astype("float32")
ONE_HOT = np.eye(CLASSES, dtype="float32")[TRUE]
PAIRS = {
    "classes": (TRUE, SHARES),
    "one_hot": (ONE_HOT, SHARES),
    "binary": ((TRUE > 0).astype("float32")[:, None], SHARES[:, :1]),
    "numbers": (LOGITS, LOGITS + DRAW.normal(size=LOGITS.shape).astype("float32")),
    "labels": (TRUE, DRAW.integers(0, CLASSES, 40)),
}
WEIGHTS = DRAW.uniform(0.5, 2, 40).astype("float32")
ARGUMENTS = {
    "MeanIoU": {"num_classes": CLASSES},
    "IoU": {"num_classes": CLASSES, "target_class_ids": [0, 2]},
    "OneHotIoU": {"num_classes": CLASSES, "target_class_ids": [0, 2]},
    "OneHotMeanIoU": {"num_classes": CLASSES},
    "MeanMetricWrapper": {"fn": lambda true, predicted: ops.abs(true - predicted)},
    "PrecisionAtRecall": {"recall": 0.5},
    "RecallAtPrecision": {"precision": 0.5},
    "SensitivityAtSpecificity": {"specificity": 0.5},
    "SpecificityAtSensitivity": {"sensitivity": 0.5},
    "TopKCategoricalAccuracy": {"k": 2},
    "SparseTopKCategoricalAccuracy": {"k": 2},
}
KINDS = {
    **{"SparseCategoricalAccuracy": "classes", "SparseCategoricalCrossentropy": "classes"},
    **{"SparseTopKCategoricalAccuracy": "classes", "Accuracy": "labels", "MeanIoU": "labels", "IoU": "labels"},
    **{"CategoricalAccuracy": "one_hot", "CategoricalCrossentropy": "one_hot", "CategoricalHinge": "one_hot"},
    **{"TopKCategoricalAccuracy": "one_hot", "OneHotIoU": "one_hot", "OneHotMeanIoU": "one_hot"},
    **{"FBetaScore": "one_hot", "F1Score": "one_hot", "KLDivergence": "one_hot", "Poisson": "one_hot"},
    **{"MeanMetricWrapper": "numbers", "CosineSimilarity": "numbers", "LogCoshError": "numbers", "R2Score": "numbers"},
    **{"MeanAbsoluteError": "numbers", "MeanSquaredError": "numbers", "RootMeanSquaredError": "numbers"},
    **{"PearsonCorrelation": "numbers", "ConcordanceCorrelation": "numbers"},
}
KERAS = sorted(
    name
    for name, kind in vars(keras.metrics).items()
    if inspect.isclass(kind) and issubclass(kind, keras.metrics.Metric) and kind is not keras.metrics.Metric
)


def of(metric):
    """A model as far as its metrics go."""
    return SimpleNamespace(metrics=[metric], _flatten_layers=lambda include_self: [])


def merged(make, *batches):
    """The result of a metric on each batch by itself, merged."""
    parts = []
    for batch in batches:
        metric = make()
        watch(of(metric))
        metric.update_state(*batch[:-1], **batch[-1])
        parts.append(states(of(metric)))
    total = parts[0]
    for part in parts[1:]:
        total = join_states(of(metric), total, part)
    for variable, value in zip(metric.variables, total, strict=True):
        variable.assign(value)
    return metric.result()


@pytest.mark.parametrize("name", KERAS)
def test_every_metric_of_keras_is_exact_over_uneven_ranks(name):
    def make():
        return getattr(keras.metrics, name)(**ARGUMENTS.get(name, {}))

    whole = make()
    cuts = (slice(0, 25), slice(25, 28), slice(28, 40))
    if name in ("Mean", "Sum"):
        batches = [(LOGITS[cut, 0], {"sample_weight": WEIGHTS[cut]}) for cut in cuts]
        whole.update_state(LOGITS[:, 0], sample_weight=WEIGHTS)
    else:
        true, predicted = PAIRS[KINDS.get(name, "binary")]
        batches = [(true[cut], predicted[cut], {"sample_weight": WEIGHTS[cut]}) for cut in cuts]
        whole.update_state(true, predicted, sample_weight=WEIGHTS)
    np.testing.assert_allclose(merged(make, *batches), whole.result(), rtol=2e-5, atol=1e-6)


class Own(keras.metrics.Metric):
    """A metric with one state."""

    begin = 0.0

    def __init__(self, shape=()):
        super().__init__(name="own")
        self.state = self.add_variable(shape, keras.initializers.Constant(self.begin), name="state")

    def reset_state(self):
        self.state.assign(ops.full(self.state.shape, self.begin))

    def result(self):
        return self.state


class Largest(Own):
    begin = -np.inf

    def update_state(self, values):
        self.state.assign(ops.maximum(ops.max(values), self.state))


class Smallest(Own):
    begin = np.inf

    def update_state(self, values):
        self.state.assign(ops.minimum(self.state, ops.min(values)))


class Product(Own):
    begin = 2.0

    def update_state(self, values):
        self.state.assign(self.state * ops.prod(values))


class SumFromThree(Own):
    begin = 3.0

    def update_state(self, values):
        self.state.assign(self.state + ops.sum(values) - 1.0)


class SumOfSome(Own):
    def update_state(self, values):
        self.state.assign(ops.where(ops.max(values) > 0, self.state + ops.sum(values), self.state))


class Running(Own):
    def update_state(self, values):
        self.state.assign(0.9 * self.state + 0.1 * ops.mean(values))


class MeanKeptAsMean(Own):
    def __init__(self):
        super().__init__()
        self.count = self.add_variable((), "zeros", name="count")

    def update_state(self, values):
        self.count.assign_add(1.0)
        self.state.assign(self.state + (ops.mean(values) - self.state) / self.count)


class LastValue(Own):
    def update_state(self, values):
        self.state.assign(ops.mean(values))


class StateOfItsOwn(Own):
    def __init__(self):
        super().__init__()
        self.hidden = tf.Variable(0.0)

    def update_state(self, values):
        self.hidden.assign_add(ops.sum(values))


class InNumPy(Own):
    def update_state(self, values):
        self.state.assign(self.state + float(np.asarray(values).sum()))


class MergesItself(MeanKeptAsMean):
    def merge_state(self, metrics):
        for other in metrics:
            count = self.count + other.count
            self.state.assign((self.state * self.count + other.state * other.count) / count)
            self.count.assign(count)


class Declared(Running):
    states_reduction = "max"


A, B = (np.array([0.5, 1.5], "float32"), np.array([3.0, 0.25, 0.5], "float32"))


@pytest.mark.parametrize(
    ("make", "want"),
    [
        (Largest, 3.0),
        (Smallest, 0.25),
        (Product, 2 * 0.75 * 0.375),
        (SumFromThree, 3 + (2 - 1) + (3.75 - 1)),
        (SumOfSome, 5.75),
        (MergesItself, (1.0 + 1.25) / 2),
        (Declared, 0.1 * 1.25),
    ],
)
def test_states_merge_as_their_update_works(make, want):
    np.testing.assert_allclose(merged(make, (A, {}), (B, {})), want, rtol=1e-6)


@pytest.mark.parametrize("make", [Running, MeanKeptAsMean, LastValue, StateOfItsOwn, InNumPy])
def test_what_cannot_be_merged_is_refused_by_name(make):
    with pytest.raises(UserError, match=f"metric own \\({make.__name__}\\).*merge_state"):
        merged(make, (tf.constant(A), {}), (tf.constant(B), {}))


def test_a_wrong_declaration_is_refused():
    class Wrong(Running):
        states_reduction = "average"

    with pytest.raises(UserError, match="'average' for state; it may be sum"):
        watch(of(Wrong()))


def test_metrics_of_this_package_are_sums():
    for metric in (SegmentationScores(3), SampleIoU(3)):
        assert set(rule(metric)) == {"sum"}


def test_a_count_that_outgrows_its_variable_is_refused():
    from hpc_train.parallel.metrics import assign_states

    class Samples(Own):
        def __init__(self):
            super().__init__()
            self.samples = self.add_variable((), "zeros", dtype="int32", name="samples")

    metric = Samples()
    with pytest.raises(UserError, match=r"metric own: .*samples .*int32"):
        assign_states(of(metric), [np.zeros(()), np.array(2.0**31)])


class Largest(keras.metrics.Metric):
    """As Keras 2 had metrics: it is reset by `reset_states`, and not to zero."""

    def __init__(self):
        super().__init__()
        self.largest = self.add_weight(name="largest", initializer=keras.initializers.Constant(-1.0))
        self.batches = self.add_weight(name="batches", initializer="zeros")

    def update_state(self, values):
        self.largest.assign(ops.maximum(self.largest, ops.max(values)))
        self.batches.assign_add(1.0)

    def reset_states(self):
        super().reset_states()
        self.largest.assign(-1.0)

    def result(self):
        return self.largest


def test_reset_states_of_keras_2_is_called_and_taken_from_metrics_of_ones_own():
    from hpc_train.parallel.horovod_names.words import teach

    teach()
    later = type("Later", (Largest,), {})
    precision = keras.metrics.Precision()
    precision.update_state([1.0, 0.0], [1.0, 1.0])
    precision.reset_states()
    assert not any(np.any(variable) for variable in precision.variables)
    for metric in (Largest(), later()):
        for reset in (metric.reset_state, metric.reset_states):
            metric.update_state(np.array([3.0, -7.0]))
            assert float(metric.result()) == 3.0
            reset()
            assert [float(variable) for variable in metric.variables] == [-1.0, 0.0]
