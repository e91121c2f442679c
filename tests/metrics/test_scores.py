"""Scores of label maps: one confusion matrix, DeepCAM's IoU of samples, and both over real ranks with uneven shares."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import RANKS, checks_of, outcomes_of

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from hpc_train.metrics.label_maps import SampleIoU, SegmentationScores, confusion, scores  # noqa: E402

SCRIPT = RANKS / "scores.py"
CHECKS = checks_of(SCRIPT, 3)
# By hand. Truth and prediction of two maps of 2 x 3 pixels, 9 is ignored: class 2 neither occurs nor is predicted in
# the second one.
TRUTH = np.array([[[0, 0, 1], [1, 2, 9]], [[0, 0, 0], [1, 1, -1]]])
PREDICTED = np.array([[[0, 1, 1], [0, 2, 2]], [[0, 0, 0], [1, 0, 1]]])
MATRIX = [[4, 1, 0], [2, 2, 0], [0, 0, 1]]


def logits_of(predicted, classes=3):
    return np.eye(classes, dtype="float32")[predicted] * 5


def numbers(result):
    return {key: float(value) for key, value in result.items()}


def test_a_confusion_matrix_of_each_sample_has_true_rows_and_predicted_columns():
    got = confusion(TRUTH, logits_of(PREDICTED), 3, ignore_class=9)
    np.testing.assert_array_equal(got, [[[1, 1, 0], [1, 1, 0], [0, 0, 1]], [[3, 0, 0], [1, 1, 0], [0, 0, 0]]])
    assert got.dtype == "float64"


def test_scores_by_hand():
    metric = SegmentationScores(3, ("background", "tc", "ar"), ignore_class=9)
    metric.update_state(TRUTH.astype("float32"), logits_of(PREDICTED))
    assert numbers(metric.result()) == pytest.approx(
        {
            "accuracy": 7 / 10,
            "mean_iou": (4 / 7 + 2 / 5 + 1) / 3,
            "iou_background": 4 / 7,
            "iou_tc": 2 / 5,
            "iou_ar": 1.0,
            "precision_background": 4 / 6,
            "precision_tc": 2 / 3,
            "precision_ar": 1.0,
            "recall_background": 4 / 5,
            "recall_tc": 2 / 4,
            "recall_ar": 1.0,
        },
        abs=1e-15,
    )


def test_the_sample_iou_counts_an_absent_class_as_1_in_each_sample():
    metric = SampleIoU(3, ignore_class=9)
    metric.update_state(TRUTH, logits_of(PREDICTED))
    assert float(metric.result()) == pytest.approx(((1 / 3 + 1 / 3 + 1) / 3 + (3 / 4 + 1 / 2 + 1) / 3) / 2, abs=1e-15)


def test_batches_add_up():
    whole, parts = SegmentationScores(3, ignore_class=9), SegmentationScores(3, ignore_class=9)
    samples, single = SampleIoU(3, ignore_class=9), SampleIoU(3, ignore_class=9)
    for metrics, batches in (((whole, samples), [slice(None)]), ((parts, single), [slice(0, 1), slice(1, 2)])):
        for rows in batches:
            for metric in metrics:
                metric.update_state(TRUTH[rows], logits_of(PREDICTED[rows]))
    np.testing.assert_array_equal(whole.matrix, MATRIX)
    np.testing.assert_array_equal(parts.matrix, MATRIX)
    assert float(samples.result()) == float(single.result())
    whole.reset_state()
    np.testing.assert_array_equal(whole.matrix, np.zeros((3, 3)))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**14), min_size=2, max_size=2), min_size=2, max_size=2))
def test_scores_of_any_matrix_are_from_0_to_1_and_the_mean_leaves_out_absent_classes(matrix):
    got = numbers(scores(np.array(matrix)))
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert all(0 <= value <= 1 for value in got.values())
    unions = [sum(matrix[k]) + matrix[1 - k][k] for k in (0, 1)]
    ious = [matrix[k][k] / unions[k] for k in (0, 1) if unions[k]]
    assert math.isclose(got["mean_iou"], sum(ious) / max(len(ious), 1), rel_tol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
def test_mean_iou_and_accuracy_are_those_of_keras(seed, classes):
    draw = np.random.default_rng(seed)
    truth, logits = draw.integers(0, classes, (2, 3, 5)), draw.normal(size=(2, 3, 5, classes))
    ours = SegmentationScores(classes)
    theirs = keras.metrics.MeanIoU(classes, sparse_y_pred=False)
    for metric in (ours, theirs):
        metric.update_state(truth, logits)
    got = numbers(ours.result())
    assert got["mean_iou"] == pytest.approx(float(theirs.result()), rel=1e-6)
    assert got["accuracy"] == (logits.argmax(-1) == truth).mean()


def test_an_all_background_prediction_is_accurate_and_has_a_third_of_the_mean_iou():
    truth = np.zeros((1, 10, 100), int)
    truth[0, :2, :9] = [[1], [2]]
    got = numbers(scores(confusion(truth, logits_of(0 * truth), 3)[0]))
    assert got["accuracy"] == 0.982
    assert got["mean_iou"] == pytest.approx(0.982 / 3)
    assert got["precision_class1"] == got["recall_class1"] == got["iou_class1"] == 0


def test_counts_stay_exact_to_the_pixel_far_beyond_float32():
    metric = SegmentationScores(2)
    metric.matrix.assign(np.array([[10**15, 0], [0, 0]], "float64"))
    metric.update_state(np.zeros((1, 1, 3)), logits_of(np.array([[[0, 0, 1]]]), 2))
    np.testing.assert_array_equal(metric.matrix, [[10**15 + 2, 1], [0, 0]])


def test_keys_carry_the_names_of_the_classes():
    names = [key for key in scores(np.eye(2), ("Background", "Tropical cyclone")) if key.startswith("iou")]
    assert names == ["iou_background", "iou_tropical_cyclone"]
    assert "recall_class3" in scores(np.eye(4))
    with pytest.raises(ValueError, match="2 class names for 3 classes"):
        SegmentationScores(3, ("a", "b"))


def test_sample_weights_are_refused_not_ignored():
    with pytest.raises(ValueError, match="weighted_metrics"):
        SampleIoU(3).update_state(TRUTH, logits_of(PREDICTED), np.ones(2))


def test_metrics_survive_serialisation_and_have_a_plain_form():
    for metric in (SegmentationScores(3, ("a", "b", "c"), ignore_class=9), SampleIoU(3, ignore_class=9)):
        again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(metric))
        assert again.get_config() == metric.get_config()
    plain = SegmentationScores(3, ignore_class=9).plain()
    assert type(plain) is keras.metrics.MeanIoU
    plain.update_state(np.where(TRUTH == -1, 9, TRUTH), logits_of(PREDICTED))
    assert float(plain.result()) == pytest.approx((4 / 7 + 2 / 5 + 1) / 3, rel=1e-6)
    assert SampleIoU(3).plain() is None


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return outcomes_of(SCRIPT, 3, tmp_path_factory.mktemp("scores"))


@pytest.mark.parametrize("check", CHECKS)
def test_on_three_ranks(outcomes, check):
    failures = outcomes.get(check, "the launch failed: see the first failure")
    assert not failures, failures
