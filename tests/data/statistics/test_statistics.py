"""Statistics of a data set: how they are counted and merged, and the class weights from them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real_data
from statistics_batches import assert_same, batch, per_channel

from hpc_train.data.statistics.moments import WEIGHT_POWERS, BadSample, Statistics, class_weights


def assert_moments(statistics, values, rtol=1e-12):
    """The moments agree with NumPy's of the float64 `values` (channels, n)."""
    values = np.asarray(values, np.float64)
    assert statistics.count.tolist() == [values.shape[1]] * len(values)
    np.testing.assert_allclose(statistics.mean, values.mean(axis=1), rtol=rtol, atol=rtol * np.abs(values).max())
    np.testing.assert_allclose(statistics.std, values.std(axis=1), rtol=1e3 * rtol)
    assert statistics.min.tolist() == values.min(axis=1).tolist()
    assert statistics.max.tolist() == values.max(axis=1).tolist()


# Counting


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", ">f4", "float16"])
def test_moments_are_numpys_in_float64_whatever_the_dtype(dtype):
    inputs, _ = batch(dtype=dtype)
    assert_moments(Statistics.of(inputs, channel_axis=0), per_channel(inputs))


@pytest.mark.parametrize(("samples", "shape", "axis"), [(3, (2, 400, 300), 0), (3, (400, 300, 2), 2), (90000, (4,), 0)])
def test_a_batch_of_several_blocks_counts_every_value_once(samples, shape, axis):
    inputs = np.random.default_rng(1).normal(5, 2, (samples, *shape)).astype("float32")
    values = np.moveaxis(inputs, 1 + axis, 0).reshape(shape[axis], -1)
    assert_moments(Statistics.of(inputs, channel_axis=axis), values)


def test_channels_last_count_as_the_same_channels_first():
    inputs, targets = batch()
    first = Statistics.of(inputs, targets, channel_axis=0)
    last = Statistics.of(np.ascontiguousarray(np.moveaxis(inputs, 1, -1)), targets, channel_axis=2)
    assert_same(first, last, rtol=1e-13)


def test_samples_without_a_channel_axis_are_one_channel():
    inputs = np.random.default_rng(0).integers(0, 256, (9, 4, 6), dtype=np.uint8)
    assert_moments(Statistics.of(inputs), inputs.reshape(1, -1))


def test_features_can_be_the_channels():
    inputs = np.random.default_rng(0).normal(size=(50, 3))
    assert_moments(Statistics.of(inputs, channel_axis=0), inputs.T)


def test_float16_does_not_overflow():
    inputs = np.full((2, 1, 300, 300), 60000, np.float16)
    inputs[0] = -60000
    statistics = Statistics.of(inputs, channel_axis=0)
    value = float(np.float16(60000))
    assert (statistics.mean[0], statistics.std[0], statistics.max[0]) == pytest.approx((0, value, value), abs=1e-6)


def test_a_small_spread_about_a_large_mean_is_kept_where_the_mean_of_squares_loses_it():
    # Like sea-level pressure in Pa, whose published standard deviation is the root of a negative number.
    draw = np.random.default_rng(2)
    batches = [draw.normal(1e5, 1, (4, 1, 64, 64)).astype("float32") for _ in range(10)]
    statistics = Statistics.empty(1)
    for inputs in batches:
        statistics = statistics.update(inputs, channel_axis=0)
    values = np.concatenate(batches).astype(np.float64)
    assert statistics.std[0] == pytest.approx(values.std(), rel=1e-9)
    singles = np.concatenate(batches)
    naive = np.mean(singles**2) - np.mean(singles) ** 2
    assert abs(naive - 1) > 0.5, "float32's mean of squares would have done: the test proves nothing"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("axis", [0, 2])
def test_a_value_that_is_not_finite_is_an_error_that_names_sample_and_channel(value, axis):
    inputs, _ = batch()
    inputs[4, 1, 2, 3] = value
    inputs[5, 0, 0, 0] = np.nan
    inputs = inputs if axis == 0 else np.moveaxis(inputs, 1, -1).copy()
    with pytest.raises(BadSample) as caught:
        Statistics.of(inputs, channel_axis=axis)
    assert (caught.value.place, caught.value.problem) == (4, f"holds {value} in channel 1")


def test_values_that_are_not_finite_can_be_skipped_and_are_counted():
    inputs, _ = batch()
    inputs[4, 1, 2, :3] = [np.nan, np.inf, -np.inf]
    inputs[2, 1, 0, 0] = np.nan
    statistics = Statistics.of(inputs, channel_axis=0, skip_nan=True)
    again = statistics.merge(statistics)
    values = per_channel(inputs).astype(np.float64)
    for channel, row in enumerate(values):
        row = row[np.isfinite(row)]
        assert (statistics.count[channel], statistics.not_finite[channel]) == (len(row), 175 - len(row))
        assert statistics.mean[channel] == pytest.approx(row.mean(), rel=1e-12)
        assert statistics.std[channel] == pytest.approx(row.std(), rel=1e-12)
        assert (statistics.min[channel], statistics.max[channel]) == (row.min(), row.max())
    assert again.not_finite.tolist() == [0, 8, 0]


@pytest.mark.parametrize("axis", [0, 2, None])
def test_missing_values_are_errors_or_skipped_and_counted_as_not_finite(axis):
    inputs = np.random.default_rng(0).integers(-50, 50, (4, 3, 5, 2)).astype("int16")
    inputs[2, 1, 3, 1] = inputs[3, 0, 0, 0] = -32767
    channels = 1 if axis is None else inputs.shape[1 + axis]
    absent = inputs == -32767
    with pytest.raises(BadSample) as caught:
        Statistics.of(inputs, channel_axis=axis, absent=absent)
    assert caught.value.place == 2
    where = {0: " in channel 1", 2: " in channel 1", None: ""}[axis]
    assert caught.value.problem == f"holds the missing value -32767{where}"

    statistics = Statistics.of(inputs, channel_axis=axis, skip_nan=True, absent=absent)
    values = np.where(inputs == -32767, np.nan, inputs.astype(float))
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, 1 + axis, 0).reshape(channels, -1)
    assert statistics.not_finite.tolist() == np.isnan(rows).sum(axis=1).tolist()
    assert statistics.not_finite.sum() == 2
    np.testing.assert_allclose(statistics.mean, np.nanmean(rows, axis=1), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, np.nanstd(rows, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(statistics.min, np.nanmin(rows, axis=1))


def test_a_number_that_means_missing_in_one_channel_is_a_value_in_another():
    inputs = np.array([[[7.0, 1.0], [7.0, 1.0]]], "float32")
    absent = np.array([[[False, False], [True, False]]])
    statistics = Statistics.of(inputs, channel_axis=0, skip_nan=True, absent=absent)
    assert statistics.not_finite.tolist() == [0, 1]
    assert statistics.mean.tolist() == [4.0, 1.0]
    with pytest.raises(BadSample, match=r"holds the missing value 7\.0 in channel 1"):
        Statistics.of(inputs, channel_axis=0, absent=absent)


def test_skipped_values_are_counted_once_in_a_batch_of_several_blocks():
    inputs = np.ones((3, 400, 400), np.float32)
    inputs[:, 0, 0] = np.nan
    statistics = Statistics.of(inputs, skip_nan=True)
    assert (statistics.not_finite[0], statistics.count[0], statistics.mean[0]) == (3, 3 * 400 * 400 - 3, 1)


def test_a_channel_without_any_finite_value_has_no_moments_and_leaves_those_of_others_alone():
    inputs, _ = batch()
    inputs[:, 2] = np.nan
    statistics = Statistics.of(inputs, channel_axis=0, skip_nan=True)
    assert np.isnan([statistics.mean[2], statistics.std[2], statistics.min[2], statistics.max[2]]).all()
    assert np.isfinite(statistics.std[:2]).all()
    filled = statistics.update(np.ones_like(inputs), channel_axis=0)
    assert (filled.mean[2], filled.std[2], filled.min[2], filled.max[2]) == (1, 0, 1, 1)


# Labels


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", ">f4", "float16"])
def test_class_counts_are_the_pixels_of_each_label(dtype):
    inputs, targets = batch()
    statistics = Statistics.of(inputs, targets.astype(dtype), channel_axis=0, classes=4)
    assert statistics.class_counts.tolist() == [int((targets == label).sum()) for label in range(4)]


def test_labels_one_a_sample_and_in_several_layers_are_counted():
    inputs, targets = batch()
    assert Statistics.of(inputs, np.array([0, 2, 2, 1, 0, 2, 2])).class_counts.tolist() == [2, 1, 4]
    layers = np.stack([targets, np.zeros_like(targets)], axis=1)
    expected = np.bincount(targets.ravel(), minlength=3) + np.array([targets.size, 0, 0])
    assert Statistics.of(inputs, layers).class_counts.tolist() == expected.tolist()


def test_with_an_unknown_number_of_classes_there_are_as_many_as_seen():
    inputs, _ = batch(2)
    some = Statistics.of(inputs, np.array([0, 1]))
    more = some.update(inputs, np.array([4, 1]))
    assert some.class_counts.tolist() == [1, 1]
    assert more.class_counts.tolist() == [1, 2, 0, 0, 1]
    assert Statistics.of(inputs).class_counts.tolist() == []


@pytest.mark.parametrize(
    ("label", "classes", "problem"),
    [
        (-1, 3, "has label -1.0, not one of the 3 classes (0 to 2)"),
        (3, 3, "has label 3.0, not one of the 3 classes (0 to 2)"),
        (0.5, 3, "has label 0.5, not one of the 3 classes (0 to 2)"),
        (np.nan, 3, "has label nan, not one of the 3 classes (0 to 2)"),
        (np.inf, 0, "has label inf, not a class number"),
        (-2, 0, "has label -2.0, not a class number"),
        (1e9, 0, "has label 1000000000.0, not a class number"),
    ],
)
def test_a_label_that_is_no_class_is_an_error_that_names_the_sample(label, classes, problem):
    inputs, targets = batch()
    targets = targets.astype("float32")
    targets[5, 1, 1] = label
    with pytest.raises(BadSample) as caught:
        Statistics.of(inputs, targets, classes=classes)
    assert (caught.value.place, caught.value.problem) == (5, problem)


# Merging


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 7), max_size=5), st.integers(0, 9), st.sampled_from([0, 1e3, 1e6]))
def test_any_split_into_batches_and_ranks_gives_the_moments_of_the_whole(cuts, seed, offset):
    inputs, targets = batch(seed=seed)
    inputs = inputs.astype(np.float64) + offset
    total = Statistics.empty(3, 3)
    for rows in np.split(np.arange(7), sorted(cuts)):  # some are empty
        total = total.merge(Statistics.of(inputs[rows], targets[rows], channel_axis=0, classes=3))
    assert total.samples == 7
    assert_moments(total, per_channel(inputs), rtol=1e-13)
    assert total.class_counts.tolist() == np.bincount(targets.ravel(), minlength=3).tolist()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9))
def test_the_order_of_merging_changes_no_more_than_the_last_digits(a, b, c):
    one, two, three = (Statistics.of(*batch(1 + seed % 4, seed=seed), channel_axis=0) for seed in (a, b, c))
    assert_same(one.merge(two).merge(three), one.merge(two.merge(three)), rtol=1e-13)
    assert_same(one.merge(two), two.merge(one), rtol=1e-13)


def test_counts_beyond_what_squares_in_an_int64_hold_are_merged():
    one = Statistics.of(np.array([[1.0], [3.0]]), channel_axis=0)
    many = Statistics(**{**vars(one), "count": np.array([2**40]), "m2": np.array([2.0**40])})
    both = many.merge(many)
    assert (both.count[0], both.mean[0], both.std[0]) == (2**41, 2, 1)


# Weights


def test_class_weights_are_powers_of_the_frequencies():
    counts = np.array([90, 1, 9])
    for power in WEIGHT_POWERS:
        np.testing.assert_allclose(class_weights(counts, power), [0.9**power, 0.01**power, 0.09**power], rtol=1e-12)
    assert class_weights(counts, 0).tolist() == [1, 1, 1]


def test_deepcams_weights_follow_from_the_frequencies_in_its_code():
    # 98.63 %, 0.0458 %, 1.33 %. The paper's own 98.2 %, 0.07 %, 1.7 % give 1.002, 2.479, 1.664 instead.
    deepcam = class_weights([0.986267818390377, 0.0004578708870701058, 0.01327431072255291], -0.125)
    assert np.round(deepcam, 3).tolist() == [1.002, 2.615, 1.716]
    paper = class_weights([0.982 + 0.0003, 0.0007, 0.017], -0.125)
    assert np.round(paper, 3).tolist() == [1.002, 2.479, 1.664]


def test_a_class_that_never_occurs_weighs_as_in_an_unweighted_loss():
    for power in WEIGHT_POWERS:
        assert class_weights([75, 0, 25], power).tolist() == pytest.approx([0.75**power, 1, 0.25**power])
    assert class_weights([0, 0], -1).tolist() == [1, 1]


def test_weights_of_real_climate_labels_undo_their_frequencies():
    with np.load(real_data("climatenet_points") / "climatenet_patches.npz") as patches:
        # votes (5, 176, 3, 4, 5): annotators per class; the label is the majority's.
        labels = patches["votes"].argmax(axis=2).reshape(5 * 176, 4, 5)
        inputs = patches["x"].reshape(5 * 176, 16, 4, 5)
    statistics = Statistics.of(inputs, labels, channel_axis=0, classes=3)
    assert_moments(statistics, per_channel(inputs))
    assert statistics.class_counts.sum() == 5 * 176 * 20
    background, cyclone, river = statistics.class_counts
    assert background > river > cyclone > 0, "the order of classes is 0 background, 1 cyclone, 2 river"
    np.testing.assert_allclose(statistics.class_counts * class_weights(statistics.class_counts, -1), labels.size)
