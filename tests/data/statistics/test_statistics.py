"""Statistics of a data set: how they are counted, merged, weighed and kept in files."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from realdata import real_data

from hpc_train.data.statistics import load_statistics
from hpc_train.data.statistics.file import write_all
from hpc_train.data.statistics.moments import WEIGHT_POWERS, BadSample, Statistics, class_weights
from hpc_train.errors import UserError


def batch(samples=7, channels=3, side=5, seed=0, dtype="float32"):
    """Inputs (samples, channels, side, side) of unlike channels, labels (samples, side, side) of three classes."""
    draw = np.random.default_rng(seed)
    scale = 10.0 ** np.arange(channels)[:, None, None]
    inputs = (draw.normal(size=(samples, channels, side, side)) * scale + 3 * scale).astype(dtype)
    return inputs, draw.integers(0, 3, (samples, side, side))


def assert_moments(statistics, values, rtol=1e-12):
    """The moments agree with NumPy's of the float64 `values` (channels, n)."""
    values = np.asarray(values, np.float64)
    assert statistics.count.tolist() == [values.shape[1]] * len(values)
    np.testing.assert_allclose(statistics.mean, values.mean(axis=1), rtol=rtol, atol=rtol * np.abs(values).max())
    np.testing.assert_allclose(statistics.std, values.std(axis=1), rtol=1e3 * rtol)
    assert statistics.min.tolist() == values.min(axis=1).tolist()
    assert statistics.max.tolist() == values.max(axis=1).tolist()


def per_channel(inputs):
    return np.moveaxis(inputs, 1, 0).reshape(inputs.shape[1], -1)


def assert_same(one, other, rtol=0):
    for name in ("count", "not_finite", "class_counts", "min", "max"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    assert one.samples == other.samples
    np.testing.assert_allclose(one.mean, other.mean, rtol=rtol)
    np.testing.assert_allclose(one.m2, other.m2, rtol=rtol)


def refusal(function, *args):
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Counting


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", ">f4", "float16"])
def test_moments_are_numpys_in_float64_whatever_the_dtype(dtype):
    inputs, _ = batch(dtype=dtype)
    assert_moments(Statistics.of(inputs, channel_axis=0), per_channel(inputs))


@pytest.mark.parametrize(("samples", "shape", "axis"), [(3, (2, 400, 300), 0), (3, (400, 300, 2), 2), (90000, (4,), 0)])
def test_a_batch_larger_than_what_is_looked_at_together_counts_every_value_once(samples, shape, axis):
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
def test_a_value_that_is_not_finite_is_an_error_that_tells_sample_and_channel(value, axis):
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
def test_missing_values_are_errors_or_skipped_and_counted_as_what_is_not_finite(axis):
    inputs = np.random.default_rng(0).integers(-50, 50, (4, 3, 5, 2)).astype("int16")
    inputs[2, 1, 3, 1] = inputs[3, 0, 0, 0] = -32767
    channels = 1 if axis is None else inputs.shape[1 + axis]
    missing = np.full(channels, -32767.0)
    with pytest.raises(BadSample) as caught:
        Statistics.of(inputs, channel_axis=axis, missing=missing)
    assert caught.value.place == 2
    where = {0: " in channel 1", 2: " in channel 1", None: ""}[axis]
    assert caught.value.problem == f"holds the missing value -32767{where}"

    statistics = Statistics.of(inputs, channel_axis=axis, skip_nan=True, missing=missing)
    values = np.where(inputs == -32767, np.nan, inputs.astype(float))
    rows = values.reshape(1, -1) if axis is None else np.moveaxis(values, 1 + axis, 0).reshape(channels, -1)
    assert statistics.not_finite.tolist() == np.isnan(rows).sum(axis=1).tolist()
    assert statistics.not_finite.sum() == 2
    np.testing.assert_allclose(statistics.mean, np.nanmean(rows, axis=1), rtol=1e-12)
    np.testing.assert_allclose(statistics.std, np.nanstd(rows, axis=1), rtol=1e-12)
    np.testing.assert_array_equal(statistics.min, np.nanmin(rows, axis=1))


def test_what_is_missing_in_one_channel_is_a_value_in_another():
    inputs = np.array([[[7.0, 1.0], [7.0, 1.0]]], "float32")
    statistics = Statistics.of(inputs, channel_axis=0, skip_nan=True, missing=np.array([np.nan, 7.0]))
    assert statistics.not_finite.tolist() == [0, 1]
    assert statistics.mean.tolist() == [4.0, 1.0]
    with pytest.raises(BadSample, match=r"holds the missing value 7\.0 in channel 1"):
        Statistics.of(inputs, channel_axis=0, missing=np.array([np.nan, 7.0]))


def test_skipped_values_are_counted_once_however_many_pieces_the_batch_is_looked_at_in():
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
def test_a_label_that_is_no_class_is_an_error_that_tells_the_sample(label, classes, problem):
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


# Files


@pytest.fixture
def counted():
    inputs, targets = batch()
    statistics = Statistics.of(inputs, targets, channel_axis=0, classes=4)
    names = {"channel_names": ("TMQ", "PSL", "T500"), "class_names": ("background", "TC", "AR", "none")}
    return replace(statistics, **names, split="train", fingerprint="abc")


def test_the_suites_file_comes_back_as_it_was(tmp_path, counted):
    write_all(tmp_path, counted)
    back = load_statistics(tmp_path / "statistics.h5")
    assert_same(back, counted, rtol=1e-15)
    for name in ("channel_names", "class_names", "split", "fingerprint", "flavour", "notes"):
        assert getattr(back, name) == getattr(counted, name)
    assert_same(back.merge(back), counted.merge(counted), rtol=1e-15)


def test_the_suites_file_says_what_its_page_says(tmp_path, counted):
    write_all(tmp_path, counted)
    with h5py.File(tmp_path / "statistics.h5") as file:
        assert dict(file.attrs) == {
            **{"format": "hpc-train statistics", "version": 1, "split": "train", "fingerprint": "abc", "samples": 7}
        }
        assert sorted(file["channels"]) == ["count", "max", "mean", "min", "names", "not_finite", "std"]
        np.testing.assert_array_equal(file["channels/std"], counted.std)
        assert file["classes/powers"][()].tolist() == [0, -1 / 8, -1 / 2, -1]
        share = counted.class_counts[:3] / counted.class_counts.sum()
        np.testing.assert_allclose(file["classes/weights"][2], [*share**-0.5, 1])
        assert file["classes/names"].asstr()[()].tolist() == ["background", "TC", "AR", "none"]


def test_deepcams_file_is_written_as_the_real_one_and_read_back(tmp_path, counted):
    write_all(tmp_path, counted)
    with h5py.File(tmp_path / "stats.h5") as ours, h5py.File(real_data("deepcam_stats") / "stats.h5") as real:
        assert sorted(ours["climate"]) == sorted(real["climate"])
        for name, data in real["climate"].items():
            assert (ours["climate"][name].dtype, ours["climate"][name].ndim) == (data.dtype, data.ndim)
    back = load_statistics(tmp_path / "stats.h5")
    assert (back.flavour, back.samples, back.notes) == ("deepcam", 7, ())
    for name in ("mean", "min", "max"):
        np.testing.assert_array_equal(getattr(back, name), getattr(counted, name).astype("float32"))
    np.testing.assert_allclose(back.std, counted.std, rtol=1e-4)


def test_the_papers_file_has_columns_mean_max_min_std_and_is_read_back(tmp_path, counted):
    write_all(tmp_path, counted)
    expected = np.stack([counted.mean, counted.max, counted.min, counted.std], axis=1).astype("float32")
    with h5py.File(tmp_path / "stats_paper.h5") as file:
        np.testing.assert_array_equal(file["climate/stats"], expected)
        assert file["climate/stats"].dtype == np.float32
    back = load_statistics(tmp_path / "stats_paper.h5")
    assert back.flavour == "paper"
    np.testing.assert_allclose(np.stack([back.mean, back.max, back.min, back.std], axis=1), expected, rtol=1e-15)


def test_files_without_labels_names_or_finite_values_come_back_too(tmp_path):
    inputs = np.full((2, 2, 3), np.nan)
    inputs[:, 0] = 1.5
    write_all(tmp_path, Statistics.of(inputs, channel_axis=0, skip_nan=True))
    back = load_statistics(tmp_path / "statistics.h5")
    assert (back.count.tolist(), back.not_finite.tolist()) == ([6, 0], [0, 6])
    assert (back.std[0], back.mean[0], back.class_counts.size, back.channel_names) == (0, 1.5, 0, ())
    assert np.isnan(back.mean[1])
    assert back.merge(back).mean[0] == 1.5


def test_the_real_deepcam_file_normalises_by_min_and_max_but_has_no_deviation_of_sea_level_pressure():
    path = real_data("deepcam_stats") / "stats.h5"
    statistics = load_statistics(path)
    assert (statistics.flavour, statistics.samples) == ("deepcam", 121266)
    assert np.flatnonzero(np.isnan(statistics.std)).tolist() == [7]
    (note,) = statistics.notes
    assert "channel 7 has no standard deviation" in note
    assert "normalise it by min and max" in note
    offset, divisor = statistics.normalisation("min-max")
    with h5py.File(path) as file:
        low, high = file["climate/minval"][()].astype(float), file["climate/maxval"][()].astype(float)
    np.testing.assert_array_equal((low - offset) / divisor, 0)
    np.testing.assert_array_equal((high - offset) / divisor, 1)
    assert "for channel 7; normalise by min-max" in refusal(statistics.normalisation, "mean-std")
    with pytest.raises(ValueError, match="cannot be merged"):
        statistics.merge(statistics)


def test_a_deviation_that_float32_squares_cannot_hold_is_not_made_up(tmp_path):
    inputs = np.random.default_rng(0).normal(1e5, 1, (3, 1, 50, 50))
    write_all(tmp_path, Statistics.of(np.concatenate([inputs, inputs * 0 + 0.1], axis=1), channel_axis=0))
    back = load_statistics(tmp_path / "stats.h5")
    assert np.isnan(back.std[0])
    assert "channel 0" in back.notes[0]
    assert back.std[1] == 0  # constant: min and max say so
    assert load_statistics(tmp_path / "statistics.h5").std[0] == pytest.approx(inputs.std(), rel=1e-9)


def test_normalised_inputs_have_mean_0_and_deviation_1_and_constant_channels_become_0():
    inputs, _ = batch()
    inputs[:, 1] = 42
    statistics = Statistics.of(inputs, channel_axis=0)
    for how in ("mean-std", "min-max"):
        offset, divisor = statistics.normalisation(how)
        normal = (per_channel(inputs) - offset[:, None]) / divisor[:, None]
        assert (normal[1] == 0).all()
        low, high = (normal[0].mean(), normal[0].std()) if how == "mean-std" else (normal[0].min(), normal[0].max())
        assert (low, high) == pytest.approx((0, 1), abs=1e-12)


def test_files_that_are_no_statistics_are_told_in_one_line(tmp_path, counted):
    path = tmp_path / "stats.h5"
    assert "cannot be read (No such file" in refusal(load_statistics, path)
    path.write_bytes(b"nothing")
    assert "cannot be read" in refusal(load_statistics, path)
    with h5py.File(path, "w") as file:
        file["other"] = 1
    assert "neither" in refusal(load_statistics, path)
    with h5py.File(path, "w") as file:
        file["climate/stats"] = np.zeros((4, 3))
    assert "(channels, 4)" in refusal(load_statistics, path)
    path.unlink()
    (own, deepcam, _) = write_all(tmp_path, counted)
    with h5py.File(deepcam, "r+") as file:
        file["climate/minval"][1] = 1e9
    assert "channel 1: min 1000000000.0 exceeds max" in refusal(load_statistics, deepcam)
    with h5py.File(own, "r+") as file:
        file.attrs["version"] = 2
    assert "version 2" in refusal(load_statistics, own)


def test_a_file_that_came_with_the_data_or_belongs_to_another_split_is_kept(tmp_path, counted):
    write_all(tmp_path, counted)
    write_all(tmp_path, counted)  # one's own may be renewed
    assert "split 'train'" in refusal(write_all, tmp_path, replace(counted, split="test"))
    for content in (b"published", None):
        path = tmp_path / "stats.h5"
        path.unlink()
        if content:
            path.write_bytes(content)
        else:
            h5py.File(path, "w").close()
        before = path.read_bytes()
        assert "not written by hpc-train" in refusal(write_all, tmp_path, counted)
        assert path.read_bytes() == before
