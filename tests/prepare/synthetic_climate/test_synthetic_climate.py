"""The synthetic climate's files, the command that makes them, and the comparison with real data."""

import os

import h5py
import numpy as np
import pytest
from launch import finish, start_mpi

from hpc_train.bench.climate_synthetic import command as compare
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.layout import CAM5_CHANNELS
from hpc_train.errors import UserError
from hpc_train.prepare.synthetic_climate import command, weather
from hpc_train.prepare.synthetic_climate.command import ClimateSynthetic


def make(folder, **options):
    options = {"size": (32, 48), "train": 3, "validation": 2, "test": 1, **options}
    command.run(ClimateSynthetic(output=folder / "made", **options))
    return folder / "made"


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_those_of_deepcam_with_coordinates(tmp_path, capsys):
    folder = make(tmp_path)
    said = capsys.readouterr().out
    assert "train: 3 samples of (32, 48, 16) float32" in said
    assert "% tropical cyclone" in said
    assert sorted(path.name for path in folder.iterdir()) == ["synthetic-climate.json", "test", "train", "validation"]
    names = sorted(os.listdir(folder / "train"))
    assert names == ["data-1996-01-01-00-1.h5", "data-1996-03-29-02-1.h5", "data-1996-08-15-01-1.h5"]
    with h5py.File(folder / "train" / names[0]) as file:
        climate = file["climate"]
        data, stats = climate["data"][()], climate["data_stats"][()]
        assert data.shape == (32, 48, 16)
        assert data.dtype == climate["labels_0"].dtype == np.float32
        for row, moment in zip(stats, (np.mean, np.max, np.min, np.std), strict=True):
            np.testing.assert_allclose(row, moment(data.astype(np.float64), axis=(0, 1)), rtol=1e-3)
        assert climate["latitude"].dtype == np.float64
        np.testing.assert_allclose(climate["latitude"][[0, -1]], [-90, 90])
        np.testing.assert_allclose(climate["longitude"][:2], [0, 7.5])
    catalogue = Catalogue.open(folder, "train")
    assert (catalogue.layout.name, catalogue.samples, catalogue.channel_names) == ("cam5", 3, CAM5_CHANNELS)


def test_a_sample_depends_on_seed_split_and_number_alone(tmp_path):
    alone = contents(make(tmp_path))
    more = contents(make(tmp_path / "more", train=5, test=2))
    assert all(more[name] == alone[name] for name in alone)
    assert len({*alone.values()}) == 7
    other = contents(make(tmp_path / "other", seed=1))
    assert not set(other.values()) & set(alone.values())
    script = (
        "from hpc_train.prepare.synthetic_climate.command import ClimateSynthetic, run; "
        "from hpc_train.command_line import main; main(ClimateSynthetic, run, 'prepare')"
    )
    arguments = ["--size", "32", "48", "--train", "3", "--validation", "2", "--test", "1"]
    ended = finish(start_mpi(2, "-c", script, "--output", tmp_path / "ranks", *arguments), timeout=200)
    assert ended.status == 0, ended.output
    assert ended.output.count("train: 3 samples") == 1
    assert contents(tmp_path / "ranks") == alone


def test_moments_are_never_met_twice_and_spread_over_the_seasons():
    moments = [weather.Moment.of(number) for number in range(3 * 365)]
    assert len({moment.name for moment in moments}) == len(moments)
    assert np.bincount([moment.day // 92 for moment in moments[:20]]).min() >= 4


def test_an_interrupted_command_goes_on_and_leaves_no_half_files(tmp_path, monkeypatch, capsys):
    whole = contents(make(tmp_path / "whole"))
    written, make_weather = [], weather.make

    def interrupted(*arguments):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(arguments)
        return make_weather(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(weather, "make", interrupted)
        with pytest.raises(KeyboardInterrupt, match="give the same command again to continue"):
            make(tmp_path)
    folder = tmp_path / "made"
    assert len(list(folder.rglob("*.h5"))) == 2
    # What a killed writer leaves.
    (folder / "train" / ".data-1996-08-15-01-1-abcdefgh.h5").write_bytes(b"half")
    kept = {path: path.stat().st_mtime_ns for path in folder.rglob("data-*.h5")}
    make(tmp_path)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
    assert contents(folder) == whole
    assert "2 of them already there" in capsys.readouterr().out


def refusal(folder, **options):
    with pytest.raises(UserError) as caught:
        make(folder, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_another_set_in_the_folder_is_refused_and_kept(tmp_path):
    folder = make(tmp_path)
    before = contents(folder)
    assert "holds another set (version 1 seed 0 size [32, 48]" in refusal(tmp_path, seed=4)
    assert "data-1996-03-29-02-1.h5, which is not one of the 1 samples" in refusal(tmp_path, train=1)
    (folder / "synthetic-climate.json").write_text("[]")
    assert "synthetic-climate.json: holds no JSON object; empty the folder" in refusal(tmp_path)
    (folder / "synthetic-climate.json").unlink()
    assert "give another --output" in refusal(tmp_path)
    assert contents(folder) == {name: held for name, held in before.items() if name != "synthetic-climate.json"}
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        command.run(ClimateSynthetic(output=tmp_path / "file", size=(32, 48)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (16, 48)}, "--size is 16 48; give at least 32 32"),
        ({"train": -1}, "--train is -1; give 0 or more"),
        ({"train": 0, "validation": 0, "test": 0}, "at least one sample"),
        ({"seed": -1}, "--seed is -1"),
        ({"cyclones": float("nan")}, "--cyclones is nan"),
        ({"rivers": -2.0}, "--rivers is -2.0"),
    ],
)
def test_impossible_options_are_refused_in_a_line(tmp_path, options, message):
    assert message in refusal(tmp_path, **options)
    assert not (tmp_path / "made").exists()


def test_the_comparison_prints_channels_classes_points_and_rules(tmp_path, capsys):
    folder = make(tmp_path, size=(48, 72), train=6, test=3, cyclones=4.0)
    (tmp_path / "points.csv").write_text(
        f"lat,lon,{','.join(CAM5_CHANNELS)},Label\n"
        + "".join(
            f"{lat},10,{','.join(str(lat * 10 + label) for _ in range(16))},{label}\n"
            for lat in (-20, 20)
            for label in range(3)
        )
    )
    capsys.readouterr()
    options = {"data": folder, "points": tmp_path / "points.csv"}
    compare.run(compare.ClimateComparison(**options))
    said = capsys.readouterr().out
    catalogue = Catalogue.open(folder, "train")
    data = np.stack([h5py.File(path)["climate/data"][()] for path in catalogue.files])
    for place, name in enumerate(CAM5_CHANNELS):
        assert f"| {name} | {data[..., place].mean(dtype=np.float64):.4g} |" in said
    labels = np.stack([h5py.File(path)["climate/labels_0"][()] for path in catalogue.files])
    rows = [round((lat + 90) / 180 * 47) for lat in (-20, 20)]
    sea = data[:, rows][..., CAM5_CHANNELS.index("Z1000")] < 400
    values = data[:, rows][..., 0][sea & (labels[:, rows] == 0)]
    assert f"| TMQ | {values.mean(dtype=np.float64):.4g} ± {values.std():.2g} | 0 ± 2e+02 |" in said
    assert "| always background |" in said
    assert "mean IoU" in said
    with pytest.raises(UserError, match=r"nothing\.csv: not a csv file with columns"):
        compare.run(compare.ClimateComparison(data=folder, points=tmp_path / "nothing.csv"))
    (tmp_path / "empty.csv").touch()
    with pytest.raises(UserError, match=r"empty\.csv: not a csv file with columns .* \(there are no rows\)"):
        compare.run(compare.ClimateComparison(data=folder, points=tmp_path / "empty.csv"))
    with pytest.raises(UserError, match="--most is 0"):
        compare.run(compare.ClimateComparison(data=folder, most=0))
    with h5py.File(catalogue.files[2], "r+") as file:
        file["climate/labels_0"][4, 5] = 7
    with pytest.raises(UserError, match=r"has label 7\.0, not one of the 3 classes"):
        compare.run(compare.ClimateComparison(data=folder))
