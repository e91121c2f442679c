"""Statistics in files: written, read back, refused, and used to normalise."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
from realdata import real_data
from statistics_batches import assert_same, batch, per_channel

from hpc_train.data.statistics import load_statistics
from hpc_train.data.statistics.file import write_all
from hpc_train.data.statistics.moments import Statistics
from hpc_train.errors import UserError


def refusal(function, *args):
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
            **{"format": "hpc-train statistics", "version": 2, "split": "train", "fingerprint": "abc", "samples": 7}
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
    assert "the statistics of channel 7 lack it; normalise by min-max" in refusal(statistics.normalisation, "mean-std")
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


def test_files_that_are_not_statistics_are_reported_in_one_line(tmp_path, counted):
    path = tmp_path / "stats.h5"
    assert "cannot be read (No such file" in refusal(load_statistics, path)
    path.write_bytes(b"nothing")
    assert "cannot be read" in refusal(load_statistics, path)
    with h5py.File(path, "w") as file:
        file["other"] = 1
    assert "there is no /channels" in refusal(load_statistics, path)
    with h5py.File(path, "w") as file:
        file["climate/stats"] = np.zeros((4, 3))
    assert "(channels, 4)" in refusal(load_statistics, path)
    path.unlink()
    (own, deepcam, _) = write_all(tmp_path, counted)
    with h5py.File(deepcam, "r+") as file:
        file["climate/minval"][1] = 1e9
    assert "it was cut or changed" in refusal(load_statistics, deepcam)
    with h5py.File(deepcam, "r+") as file:
        file.attrs["version"] = 1
    assert "channel 1: min 1000000000.0 exceeds max" in refusal(load_statistics, deepcam)
    with h5py.File(own, "r+") as file:
        file.attrs["version"] = 3
    assert "version 3" in refusal(load_statistics, own)


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
        assert "was not written by hpc-train" in refusal(write_all, tmp_path, counted)
        assert path.read_bytes() == before
