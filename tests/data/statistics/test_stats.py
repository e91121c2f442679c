"""`hpc-train stats`: one pass over a data set, by one process or several ranks."""

import os
import shutil

import h5py
import numpy as np
import pytest
import tyro
from launch import finish, start_mpi
from realdata import real_data

from hpc_train.data.options import DataOptions
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.statistics import load_statistics
from hpc_train.data.statistics.command import Stats, count, run
from hpc_train.errors import UserError

FILES = ("statistics.h5", "stats.h5", "stats_paper.h5")
CHANNELS = ["TMQ", "U850", "V850", "UBOT", "VBOT", "QREFHT", "PS", "PSL"]
CHANNELS += ["T200", "T500", "PRECT", "TS", "TREFHT", "Z1000", "Z200", "ZBOT"]


def stats(*arguments):
    run(tyro.cli(Stats, args=["--data", *map(str, arguments)]))


def refusal(*arguments):
    """The one line of the UserError that the command ends with."""
    with pytest.raises(UserError) as caught:
        stats(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def climate(samples=5, side=8, seed=0):
    """Inputs (samples, side, side, 16) float32 with different channels, labels (samples, side, side) float32."""
    draw = np.random.default_rng(seed)
    offset, scale = 10.0 ** draw.integers(-3, 5, 16), 10.0 ** draw.integers(-3, 3, 16)
    inputs = (draw.normal(size=(samples, side, side, 16)) * scale + offset).astype("float32")
    return inputs, draw.choice(3, (samples, side, side), p=[0.9, 0.02, 0.08]).astype("float32")


def write_cam5(folder, inputs, targets):
    """One sample a file, as CAM5 and DeepCAM were published."""
    folder.mkdir(parents=True)
    for number, (data, labels) in enumerate(zip(inputs, targets, strict=True)):
        with h5py.File(folder / f"data-2000-01-{number + 1:02d}-00-0.h5", "w") as file:
            file["climate/data"], file["climate/labels_0"] = data, labels
    return folder


def mpirun(ranks, *arguments):
    """`mpirun -np RANKS hpc-train stats ARGUMENTS`."""
    command = (
        "from hpc_train import command_line; from hpc_train.data.statistics.command import Stats, run;"
        "command_line.main(Stats, run, 'stats')"
    )
    return finish(start_mpi(ranks, "-c", command, *arguments), timeout=100)


def assert_statistics(statistics, inputs, targets, classes=3):
    """They are what NumPy finds in the float64 inputs (n, ..., channels) and the targets."""
    values = inputs.reshape(-1, inputs.shape[-1]).astype(np.float64)
    assert statistics.samples == len(inputs)
    assert statistics.count.tolist() == [len(values)] * values.shape[1]
    np.testing.assert_allclose(statistics.mean, values.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(statistics.std, values.std(axis=0), rtol=1e-9)
    np.testing.assert_array_equal(statistics.min, values.min(axis=0))
    np.testing.assert_array_equal(statistics.max, values.max(axis=0))
    expected = np.bincount(targets.astype(int).ravel(), minlength=classes)
    assert statistics.class_counts.tolist() == expected.tolist()


def test_a_folder_of_published_climate_files_gets_its_statistics_in_three_files(tmp_path, capsys):
    inputs, targets = climate()
    write_cam5(tmp_path / "train", inputs, targets)
    stats(tmp_path)
    out = capsys.readouterr().out
    statistics = load_statistics(tmp_path / "statistics.h5")
    assert_statistics(statistics, inputs, targets)
    assert statistics.channel_names == tuple(CHANNELS)
    assert statistics.split == "train"
    assert [load_statistics(tmp_path / name).flavour for name in FILES] == ["hpc-train", "deepcam", "paper"]
    lines = out.splitlines()
    assert lines[0].startswith("train: 5 samples of (8, 8, 16) float32")
    (psl,) = [line.split() for line in lines if " PSL " in line]
    values = inputs[..., 7].astype(float)
    assert psl == ["7", "PSL", *(f"{value:.6g}" for value in (values.mean(), values.std(), values.min(), values.max()))]
    (river,) = [line.split() for line in lines if line.startswith("2 ") and len(line.split()) == 7]
    share = (targets == 2).mean()
    assert river[1:] == [str((targets == 2).sum()), *(f"{share**p:.6g}" for p in (1, 0, -1 / 8, -1 / 2, -1))]
    for name in FILES:
        assert str(tmp_path / name) in lines[-1]


def test_the_papers_layout_has_its_channels_first_and_names_them_too(tmp_path):
    inputs, targets = climate()
    (tmp_path / "train").mkdir()
    for number in range(5):
        with h5py.File(tmp_path / "train" / f"{number}.h5", "w") as file:
            file["climate/data"] = np.moveaxis(inputs[number], -1, 0)
            file["climate/labels"] = targets[number]
    stats(tmp_path, "--layout", "paper")
    statistics = load_statistics(tmp_path / "statistics.h5")
    assert_statistics(statistics, inputs, targets)
    assert statistics.channel_names == tuple(CHANNELS)


def test_of_several_label_maps_the_one_that_trainers_use_is_counted_without_the_ignored_label(tmp_path):
    inputs, targets = climate()
    (tmp_path / "train").mkdir()
    labels = np.stack([targets, np.where(targets == 1, 255, 0)], axis=1)
    for number in range(5):
        with h5py.File(tmp_path / "train" / f"{number}.h5", "w") as file:
            file["climate/data"], file["climate/labels"] = np.moveaxis(inputs[number], -1, 0), labels[number]
    expected = np.bincount(targets.astype(int).ravel())
    for options, counts in (
        ((), expected),
        (("--ignore-label", "1"), expected * (1, 0, 1)),
        (("--annotation", "1", "--classes", "2", "--ignore-label", "255"), [targets.size - expected[1], 0]),
    ):
        stats(tmp_path, "--layout", "paper", *options)
        assert load_statistics(tmp_path / "statistics.h5").class_counts.tolist() == list(counts)
    line = refusal(tmp_path, "--layout", "paper", "--annotation", "1", "--classes", "2")
    assert "has label 255.0, not one of the 2 classes" in line
    assert "label maps 0 to 1, so there is no --annotation 2" in refusal(tmp_path, "--annotation", "2")
    assert "--annotation is -1" in refusal(tmp_path, "--annotation", "-1")


def test_shards_get_the_statistics_of_their_split_with_their_names_and_fingerprint(tmp_path):
    draw = np.random.default_rng(0)
    inputs, targets = draw.integers(0, 256, (50, 6, 6, 3), dtype=np.uint8), draw.integers(0, 4, 50)
    for split, rows in (("train", slice(0, 40)), ("test", slice(40, 50))):
        names = ["a", "b", "c", "d"]
        write_shards(tmp_path, split, inputs[rows], targets[rows], classes=4, class_names=names, shards=3)
    stats(tmp_path, "--split", "test", "--output", tmp_path / "new" / "folder")
    statistics = load_statistics(tmp_path / "new" / "folder" / "statistics.h5")
    assert_statistics(statistics, inputs[40:], targets[40:], classes=4)
    catalogue = DataOptions(tmp_path).catalogue("test")
    assert statistics.class_names == ("a", "b", "c", "d")
    assert statistics.fingerprint == catalogue.fingerprint != ""
    assert statistics.split == "test"


def test_stacked_columns_are_channels_of_their_own_and_carry_their_names(tmp_path):
    draw = np.random.default_rng(0)
    columns = {"length": draw.normal(5, 1, 30), "width": draw.normal(-300, 20, 30)}
    with h5py.File(tmp_path / "table.h5", "w") as file:
        for name, values in columns.items():
            file[f"flowers/{name}"] = values
    stats(tmp_path / "table.h5", "--inputs", "flowers/length", "flowers/width", "--output", tmp_path / "out")
    statistics = load_statistics(tmp_path / "out" / "statistics.h5")
    assert_statistics(statistics, np.stack(list(columns.values()), axis=1), np.zeros(0), classes=0)
    assert statistics.channel_names == ("length", "width")


def test_packed_values_count_as_what_they_stand_for(tmp_path):
    stored = np.random.default_rng(0).integers(-3000, 3000, (6, 4, 5), dtype=np.int16)
    with h5py.File(tmp_path / "wind.nc", "w") as file:
        for name, scale in (("u", 0.05), ("v", -0.1)):
            file[name] = stored
            file[name].attrs.update(scale_factor=scale, add_offset=7.0)
    stats(tmp_path / "wind.nc", "--inputs", "u", "v", "--output", tmp_path / "out")
    statistics = load_statistics(tmp_path / "out" / "statistics.h5")
    for channel, values in enumerate((stored * 0.05 + 7, stored * -0.1 + 7)):
        found = [getattr(statistics, name)[channel] for name in ("mean", "std", "min", "max")]
        assert found == pytest.approx([values.mean(), values.std(), values.min(), values.max()], rel=1e-12)


def test_missing_values_of_packed_netcdf_are_reported_or_left_out_and_counted(tmp_path, capsys):
    stored = np.random.default_rng(0).integers(-3000, 3000, (6, 4, 5), dtype=np.int16)
    gaps = stored.copy()
    gaps[4, 2, 1] = gaps[5, 0, 0] = -32767
    with h5py.File(tmp_path / "wind.nc", "w") as file:
        for name, values in (("u", stored), ("v", gaps)):
            file[name] = values
            file[name].attrs.update(scale_factor=0.01, add_offset=7.0, _FillValue=np.int16(-32767))
    options = (tmp_path / "wind.nc", "--inputs", "u", "v", "--output", tmp_path / "out")
    line = refusal(*options)
    place = "row 4 (sample 4 of 'train') holds the missing value -32767 in channel 1"
    assert line == f"{tmp_path}/wind.nc: {place}; fix the data, or leave out such values with --skip-nan"
    stats(*options, "--skip-nan")
    statistics = load_statistics(tmp_path / "out" / "statistics.h5")
    assert statistics.not_finite.tolist() == [0, 2]
    assert statistics.count.tolist() == [120, 118]
    for channel, kept in enumerate((stored.ravel(), gaps[gaps != -32767])):
        values = kept * 0.01 + 7
        found = [getattr(statistics, name)[channel] for name in ("mean", "std", "min", "max")]
        assert found == pytest.approx([values.mean(), values.std(), values.min(), values.max()], rel=1e-12)
    assert "not finite" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
@pytest.mark.parametrize("declared_by", ["attribute", "attribute of doubles", "fill value of HDF5"])
def test_a_large_number_that_means_missing_is_not_counted(tmp_path, dtype, declared_by):
    values = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(dtype)
    values[1, 2, 1] = 1e20
    with h5py.File(tmp_path / "a.h5", "w") as file:
        fill = {"fillvalue": 1e20} if declared_by == "fill value of HDF5" else {}
        dataset = file.create_dataset("x", data=values, **fill)
        if not fill:
            dataset.attrs["_FillValue"] = np.float64(1e20) if "doubles" in declared_by else np.array(1e20, dtype)
    options = (tmp_path / "a.h5", "--inputs", "x", "--output", tmp_path / "out")
    assert "row 1 (sample 1 of 'train') holds the missing value 1" in refusal(*options)
    stats(*options, "--skip-nan")
    statistics = load_statistics(tmp_path / "out" / "statistics.h5")
    assert statistics.not_finite.tolist() == [0, 1]
    assert statistics.max[1] == np.delete(values[..., 1].ravel(), 6).max()


def test_a_fill_value_that_is_an_ordinary_value_is_counted(tmp_path):
    images = np.arange(48, dtype=np.uint8).reshape(3, 4, 4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("bytes", data=images, fillvalue=17)
        file.create_dataset("floats", data=images.astype("f4"), fillvalue=0)
    for name in ("bytes", "floats"):
        stats(tmp_path / "a.h5", "--inputs", name, "--output", tmp_path / "out")
        assert load_statistics(tmp_path / "out" / "statistics.h5").count.sum() == 48


def test_small_batches_in_many_threads_give_the_same_as_one(tmp_path, monkeypatch):
    inputs, targets = climate(samples=9)
    catalogue = DataOptions(write_cam5(tmp_path / "train", inputs, targets)).catalogue("train")
    shown = []
    monkeypatch.setattr("hpc_train.data.statistics.command._BATCH_BYTES", catalogue.sample_bytes)
    statistics = count(catalogue, 0, 9, threads=4, add=lambda *done: shown.append(done))
    assert_statistics(statistics, inputs, targets)
    assert shown == [(1, inputs[0].nbytes + targets[0].nbytes)] * 9


@pytest.mark.parametrize("samples", [5, 2])
def test_three_ranks_find_what_one_process_finds_even_when_a_rank_has_no_sample(tmp_path, samples):
    inputs, targets = climate(samples)
    write_cam5(tmp_path / "train", inputs, targets)
    ended = mpirun(3, "--data", tmp_path)
    assert ended.status == 0, ended.output
    assert ended.output.count("wrote ") == 1
    assert "by 3 ranks" in ended.output
    together = load_statistics(tmp_path / "statistics.h5")
    assert_statistics(together, inputs, targets)
    stats(tmp_path, "--output", tmp_path / "alone")
    alone = load_statistics(tmp_path / "alone" / "statistics.h5")
    np.testing.assert_allclose(together.mean, alone.mean, rtol=1e-13)
    np.testing.assert_allclose(together.std, alone.std, rtol=1e-10)


def test_a_bad_label_on_one_of_three_ranks_ends_all_with_one_line(tmp_path):
    inputs, targets = climate()
    targets[4, 3, 3] = 0.5
    folder = write_cam5(tmp_path / "train", inputs, targets)
    ended = mpirun(3, "--data", tmp_path)
    assert ended.status != 0
    errors = [line for line in ended.output.splitlines() if "error:" in line]
    assert len(errors) == 1, ended.output
    assert f"{folder}/data-2000-01-05-00-0.h5: sample 4 has label 0.5, not a class number" in errors[0]
    assert "Traceback" not in ended.output
    assert not (tmp_path / "statistics.h5").exists()


def test_a_nan_is_reported_with_file_row_and_sample_or_skipped_and_counted(tmp_path, capsys):
    inputs = np.random.default_rng(0).normal(size=(3, 10, 2)).astype("float32")
    inputs[1, 4, 1] = np.nan
    (tmp_path / "train").mkdir()
    for number, data in enumerate(inputs):
        with h5py.File(tmp_path / "train" / f"{number}.h5", "w") as file:
            file["x"], file["y"] = data[:, None], np.arange(10) % 2
    options = (tmp_path, "--inputs", "x", "--targets", "y")
    line = refusal(*options)
    assert f"{tmp_path}/train/1.h5: row 4 (sample 14 of 'train') holds nan in channel 1" in line
    assert "--skip-nan" in line
    stats(*options, "--skip-nan")
    statistics = load_statistics(tmp_path / "statistics.h5")
    assert statistics.not_finite.tolist() == [0, 1]
    assert statistics.count.tolist() == [30, 29]
    np.testing.assert_allclose(statistics.mean, np.nanmean(inputs.reshape(-1, 2).astype(float), axis=0), rtol=1e-12)
    assert "not finite" in capsys.readouterr().out


def test_a_deviation_that_the_published_format_cannot_hold_is_noted_and_kept_in_the_others(tmp_path, capsys):
    inputs, targets = climate()
    inputs[..., 7] = np.random.default_rng(1).normal(1e5, 1, inputs.shape[:3])
    write_cam5(tmp_path / "train", inputs, targets)
    stats(tmp_path)
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert "stats.h5 cannot hold the std of channels" in note
    assert " 7" in note
    expected = inputs[..., 7].astype(float).std()
    for name in ("statistics.h5", "stats_paper.h5"):
        assert load_statistics(tmp_path / name).std[7] == pytest.approx(expected, rel=1e-6)


def test_a_label_outside_the_classes_is_reported(tmp_path):
    inputs, targets = climate()
    targets[2, 0, 0] = 3
    folder = write_cam5(tmp_path / "train", inputs, targets)
    line = refusal(tmp_path, "--classes", "3")
    assert f"{folder}/data-2000-01-03-00-0.h5: sample 2 has label 3.0, not one of the 3 classes (0 to 2)" in line
    stats(tmp_path, "--classes", "4")
    assert_statistics(load_statistics(tmp_path / "statistics.h5"), inputs, targets, classes=4)


def test_statistics_that_came_with_the_data_or_of_another_split_are_kept(tmp_path):
    inputs, targets = climate()
    for split in ("train", "validation"):
        write_cam5(tmp_path / split, inputs, targets)
    stats(tmp_path)
    stats(tmp_path)  # its own may be renewed
    assert "split 'train'; give another folder with --output" in refusal(tmp_path, "--split", "validation")
    shutil.copy(real_data("deepcam_stats") / "stats.h5", tmp_path / "published.h5")
    os.replace(tmp_path / "published.h5", tmp_path / "stats.h5")
    assert "stats.h5 was not written by hpc-train" in refusal(tmp_path)
    assert load_statistics(tmp_path / "stats.h5").samples == 121266


def test_statistics_in_an_undivided_folder_are_not_taken_for_data(tmp_path):
    inputs, targets = climate()
    folder = write_cam5(tmp_path / "all", inputs, targets)
    stats(folder)
    stats(folder)
    assert_statistics(load_statistics(folder / "statistics.h5"), inputs, targets)


def test_a_folder_that_cannot_be_written_is_reported_before_anything_is_read(tmp_path):
    inputs, targets = climate()
    write_cam5(tmp_path / "train", np.full_like(inputs, np.nan), targets)
    (tmp_path / "file").write_text("")
    assert "give a folder with --output" in refusal(tmp_path, "--output", tmp_path / "file" / "below")
    # Where a pattern is read from, the next run would take statistics for data.
    assert "is not a folder; give a folder for the statistics with --output" in refusal(tmp_path / "train" / "*.h5")


def test_a_vector_of_one_number_a_sample_may_hold_what_is_not_finite(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.array([1, 2, np.nan, 4], "f4")
    options = (tmp_path / "a.h5", "--inputs", "x", "--output", tmp_path / "out")
    assert "row 2 (sample 2 of 'train') holds nan; fix the data" in refusal(*options)
    stats(*options, "--skip-nan")
    statistics = load_statistics(tmp_path / "out" / "statistics.h5")
    assert statistics.mean.tolist() == [pytest.approx(7 / 3)]
    assert (statistics.count.tolist(), statistics.not_finite.tolist()) == ([3], [1])


def test_a_channel_without_a_finite_value_has_no_statistics_and_stops_nothing(tmp_path, capsys):
    values = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("f4")
    values[..., 1] = np.nan
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = values
    stats(tmp_path / "a.h5", "--inputs", "x", "--output", tmp_path / "out", "--skip-nan")
    assert "wrote" in capsys.readouterr().out
    for name in ("statistics.h5", "stats.h5", "stats_paper.h5"):
        statistics = load_statistics(tmp_path / "out" / name)
        assert np.isnan([statistics.mean[1], statistics.min[1], statistics.max[1]]).all()
        np.testing.assert_allclose(statistics.mean[[0, 2]], values[..., [0, 2]].mean(axis=(0, 1)), rtol=1e-4, atol=1e-6)
        with pytest.raises(UserError, match="the statistics of channel 1 lack it"):
            statistics.normalisation("min-max")
