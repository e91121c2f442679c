"""`hpc-train prepare storm-tracks`: fields and best tracks to shards that know their grid and channels."""

import csv
import os

import h5py
import numpy as np
import pytest
import tyro
from made_up_storms import angle, prepare, refusal, write_fields, write_tracks
from realdata import real_data

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.fields.grid import read_grid
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.prepare.storm_tracks.command import StormTracks, run
from hpc_train.prepare.storm_tracks.great_circle import along_great_circle

netCDF4 = pytest.importorskip("netCDF4")


@pytest.fixture
def folder(tmp_path):
    write_fields(tmp_path / "gfs.nc")
    write_tracks(tmp_path / "tracks.csv")
    return tmp_path


def test_a_map_across_the_date_line_has_longitudes_that_go_on(tmp_path):
    def shift(file):
        file["lon"][:] = (np.arange(72) * 0.5 + 160 + 180) % 360 - 180

    write_fields(tmp_path / "gfs.nc", shift=shift)
    write_tracks(tmp_path / "tracks.csv")
    output = prepare(tmp_path)
    grid = read_grid(Catalogue.open(output, "train").files[0], 37, 72)
    np.testing.assert_array_equal(grid.longitudes, 160 + np.arange(72) * 0.5)
    _, targets = Reader(Catalogue.open(output, "train")).read([0])
    # At 0 h W1 is at 10 N, 178 E.
    assert targets[0, 16, 36] == 1


def test_longitudes_in_no_order_are_refused(folder):
    with netCDF4.Dataset(folder / "gfs.nc", "a") as file:
        file["lon"][3] = 200.0
    assert "gfs.nc: lon runs from 0 to 355, which are not degrees in order" in refusal(prepare, folder)


def test_maps_are_labelled_where_storms_are_and_their_shards_know_grid_and_channels(folder, capsys):
    output = prepare(folder, "--min-wind", 34, splits=("train=2018-09-01..2018-09-02",))
    catalogue = Catalogue.open(output, "train")
    assert (catalogue.channel_names, catalogue.class_names) == (("u10", "v10"), ("background", "tc"))
    inputs, targets = Reader(catalogue).read(np.arange(4))
    assert (inputs.shape, inputs.dtype, targets.dtype) == ((4, 37, 72, 2), np.float32, np.uint8)
    np.testing.assert_allclose(
        inputs[..., 0], np.broadcast_to(1 + 0.05 * np.arange(37 * 72).reshape(37, 72), (4, 37, 72))
    )
    np.testing.assert_allclose(inputs[..., 1], np.broadcast_to(np.arange(4.0)[:, None, None], (4, 37, 72)), atol=0.026)
    with h5py.File(catalogue.files[0]) as file:
        latitudes, longitudes = file["latitude"][:], file["longitude"][:]
        first = netCDF4.num2date(file["time"][:], file["time"].attrs["units"].decode())
    assert [str(time) for time in first] == ["2018-09-01 00:00:00"]
    np.testing.assert_array_equal(latitudes, np.arange(90, -91, -5.0))
    np.testing.assert_array_equal(longitudes, np.arange(0, 360, 5.0))
    # W1 at 0, 3 and 6 h, when its next fix is extratropical; A1 reaches 34 kt at 8 h.
    middle = np.degrees(np.arctan(np.tan(np.radians(10)) / np.cos(np.radians(2))))
    quarter = along_great_circle((20, np.float64(-40)), (20, np.float64(-38)), 0.75)
    for target, place in zip(targets, [(10, 178), (middle, 180), (10, 182), quarter], strict=True):
        wanted = angle(*place, *np.meshgrid(latitudes, longitudes, indexing="ij")) <= 6
        np.testing.assert_array_equal(target, wanted)
    out = capsys.readouterr().out
    assert f"train: 4 maps of (37, 72, 2) float32, 4 with a cyclone, {targets.mean():.3%} of pixels tc, 4 shards" in out
    assert "4 positions of 2 cyclones: W1 70 kt, A1 34 kt" in out
    with open(output / "storms-train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["sample"], row["time"], row["track"]) for row in rows][1:3] == [
        ("1", "2018-09-01T03:00:00", "W1"),
        ("2", "2018-09-01T06:00:00", "W1"),
    ]


def test_the_fingerprint_shows_labels_of_another_radius_but_not_another_number_of_shards(folder):
    found = []
    for radius, shards in (("6", 4), ("6", 2), ("9", 2)):
        output = prepare(folder, "--shards", shards, radius=("--radius-degrees", radius))
        found.append(Catalogue.open(output, "train").fingerprint)
    assert found[0] == found[1] != found[2]
    assert len([name for name in os.listdir(output) if name.endswith(".h5")]) == 2


def test_splits_go_by_date_and_by_file_name_and_what_is_left_is_counted(folder, capsys):
    write_fields(folder / "icon_1.nc", hours=(1, 2))
    output = prepare(folder, "--min-wind", 0, splits=("train=gfs*,other*", "test=icon*"))
    assert [Catalogue.open(output, split).samples for split in ("train", "test")] == [4, 2]
    write_fields(folder / "late.nc", hours=(0,), since="2018-10-01")
    prepare(folder, "--min-wind", 0, splits=("train=2018-09-01",), fields="[gl]*.nc")
    assert "1 of 5 maps are in no split" in capsys.readouterr().err


def add_levels(units, values):
    def change(file):
        file.createDimension("plev", len(values))
        file.createVariable("plev", "f4", ("plev",))[:] = values
        file["plev"].units = units
        wind = file.createVariable("v", "f4", ("time", "plev", "lat", "lon"))
        wind[:] = np.arange(len(values))[:, None, None]

    return change


@pytest.mark.parametrize(
    ("units", "values"), [("Pa", [25000, 50000, 85000]), ("hPa", [250, 500, 850]), ("1", [3, 5, 850])]
)
def test_a_level_is_named_in_hpa_or_in_the_unit_of_the_file(tmp_path, units, values):
    write_fields(tmp_path / "gfs.nc", add=add_levels(units, values), order="south", form="NETCDF3_CLASSIC")
    write_tracks(tmp_path / "tracks.csv")
    output = prepare(tmp_path, "--variables", "v@850", "u10")
    inputs, targets = Reader(Catalogue.open(output, "train")).read([0])
    assert (inputs[0, 0, 0, 0], inputs[0, 0, 1, 1]) == (2, pytest.approx(1.05))
    with h5py.File(output / "train-00000-of-00004.h5") as file:
        latitudes = file["latitude"][:]
    # The file's own order, from south to north: the storm of 10 N is in the upper half.
    assert latitudes[0] == -90
    assert set(latitudes[np.flatnonzero(targets[0].any(axis=1))]) == {5, 10, 15}
    message = refusal(prepare, tmp_path, "--variables", "v")
    assert f"v has 3 levels plev = {values[0]}, {values[1]}, 850" in message.replace("85000", "850")
    assert "has no level 7" in refusal(prepare, tmp_path, "--variables", "v@7")
    assert "no levels; give it without @850" in refusal(prepare, tmp_path, "--variables", "u10@850")


def test_the_axes_of_a_map_may_come_in_any_order_and_a_time_without_dimension(tmp_path):
    with netCDF4.Dataset(tmp_path / "one.nc", "w") as file:
        for name, values in (("longitude", np.arange(0, 360, 10.0)), ("latitude", np.arange(-90, 91, 10.0))):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
        for name, standard, hours in (("reference", "forecast_reference_time", -24), ("valid", "time", 6)):
            time = file.createVariable(name, "i4", ())
            time[:], time.units, time.standard_name = hours, "hours since 2018-09-01", standard
        file.createVariable("u10", "f4", ("longitude", "latitude"))[:] = np.arange(36)[:, None] + np.zeros(19)
    write_tracks(tmp_path / "tracks.csv")
    output = prepare(tmp_path, "--variables", "u10", radius=("--radius-degrees", "12"))
    inputs, targets = Reader(Catalogue.open(output, "train")).read([0])
    np.testing.assert_array_equal(inputs[0, :, :, 0], np.broadcast_to(np.arange(36.0), (19, 36)))
    # At 6 h W1 is at 10 N, 178 W.
    assert targets[0, 10, 18] == 1


def mask(file):
    file["v10"][2, 3, 4] = np.ma.masked


def noleap(file):
    file["time"].calendar = "noleap"


def plain_time(file):
    del file["time"].units


def plain_rows(file):
    file.renameVariable("lat", "y")


@pytest.mark.parametrize(
    ("change", "arguments", "words"),
    [
        (None, {"fields": "none*.nc"}, ["none*.nc: no such file"]),
        (None, {"arguments": ["--variables", "u10", "w10"]}, ["gfs.nc: no variable 'w10'; it has u10, v10"]),
        (None, {"arguments": ["--variables", "u10", "u10"]}, ["--variables has a name twice"]),
        (None, {"splits": ["train=2019"]}, ["train: no map is in it, and the maps are of 2018-09-01T00:00:00"]),
        (None, {"splits": ["train=2018", "test=gfs*"]}, ["2018-09-01T00:00:00 is in train and test"]),
        (None, {"arguments": ["--min-wind", "99"]}, ["no cyclone of 99 kt or more", "4 maps of train"]),
        (None, {"arguments": ["--min-wind", "-1"]}, ["--min-wind is -1"]),
        (None, {"radius": ["--radius-degrees", "2"]}, ["may fall between the points", "at least 3.54 degrees"]),
        (None, {"radius": ["--radius-km", "300", "--radius-degrees", "3"]}, ["give one of them"]),
        (None, {"arguments": ["--shards", "9"]}, ["4 samples do not fill 9 shards"]),
        (mask, {}, ["gfs.nc: v10 has missing values or NaN at 2018-09-01T06:00:00"]),
        (noleap, {}, ["gfs.nc: time", "calendar noleap"]),
        (plain_time, {}, ["gfs.nc: no time"]),
        (plain_rows, {}, ["gfs.nc: u10('time', 'lat', 'lon') has no 1-D latitude"]),
    ],
)
def test_what_cannot_be_labelled_is_refused_in_a_line_and_nothing_is_written(folder, change, arguments, words):
    if change:
        write_fields(folder / "gfs.nc", change=change)
    message = refusal(prepare, folder, *arguments.pop("arguments", ()), **arguments)
    assert all(word in message for word in words), message
    assert not (folder / "out").exists()


def test_files_that_are_no_netcdf_or_of_another_grid_or_another_time_are_named(folder):
    write_fields(folder / "more.nc", columns=36)
    assert f"{folder / 'more.nc'}: lon is not that of {folder / 'gfs.nc'}" in refusal(prepare, folder)
    (folder / "more.nc").write_text("no NetCDF")
    assert f"{folder / 'more.nc'}: cannot be read as NetCDF" in refusal(prepare, folder)
    write_fields(folder / "gfs.nc", since="2021-09-01")
    message = refusal(prepare, folder, fields="gfs.nc", splits=["train=2021"])
    assert (
        "tracks.csv: has fixes of 2018-09-01T00:00:00 to 2018-09-03T12:00:00, but the maps of train are of 2021"
        in message
    )


def test_a_list_of_storms_that_cannot_be_written_is_named_with_what_to_do(folder):
    listed = folder / "out" / "storms-train.csv"
    listed.mkdir(parents=True)
    message = refusal(prepare, folder)
    assert message == f"cannot write {listed}: Is a directory; prepare again with another --output"


def test_a_missing_netcdf_library_is_named(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "netCDF4", None)
    assert "pip install netCDF4" in refusal(prepare, folder)


def test_channel_names_come_from_the_shards_or_from_the_layout(tmp_path):
    inputs, targets = np.zeros((4, 3, 5, 2), "f4"), np.zeros((4, 3, 5), "u1")
    write_shards(tmp_path / "plain", "train", inputs, targets, classes=2)
    assert Catalogue.open(tmp_path / "plain", "train").channel_names == ()
    grid = {"latitude": [-1, 0, 1], "longitude": np.arange(5)}
    for folder in ("named", "other"):
        names = ("u", "v") if folder == "named" else ("u", "w")
        paths = write_shards(
            tmp_path / folder, "train", inputs, targets, classes=2, shards=2, channel_names=names, coordinates=grid
        )
    assert Catalogue.open(tmp_path / "named", "train").channel_names == ("u", "v")
    with h5py.File(paths[0]) as file:
        assert (file["latitude"].dtype, file["longitude"][:].tolist()) == (np.dtype("<f8"), [0, 1, 2, 3, 4])
    os.replace(paths[1], tmp_path / "named" / paths[1].name)
    assert "(channel names differs)" in refusal(Catalogue.open, tmp_path / "named", "train")
    with h5py.File(paths[0], "r+") as file:
        file.attrs["channel_names"] = ["u", "v", "w"]
    message = refusal(Catalogue.open, paths[0], "train")
    assert f"{paths[0]}: 3 channel_names (u, v, w) for 2 channels" in message
    with pytest.raises(ValueError, match="channel names"):
        write_shards(tmp_path / "bad", "train", inputs, targets, classes=2, channel_names=("u",))

    with h5py.File(tmp_path / "cam5.h5", "w") as file:
        file["climate/data"], file["climate/labels_0"] = np.zeros((3, 5, 16), "f4"), np.zeros((3, 5), "f4")
    assert DataOptions(data=tmp_path / "cam5.h5").catalogue().channel_names[:3] == ("TMQ", "U850", "V850")
    with h5py.File(tmp_path / "climatenet.h5", "w") as file:
        for name in ("LABELS", "PSL", "TMQ"):
            file[name] = np.zeros((1, 3, 5) if name != "LABELS" else (3, 5), "f4")
    assert DataOptions(data=tmp_path / "climatenet.h5").catalogue().channel_names == ("TMQ", "PSL")
    layers = DataOptions(data=tmp_path / "cam5.h5", inputs=("climate/data[0]", "climate/data[1]"), samples="files")
    assert layers.catalogue().channel_names == ("climate/data[0]", "climate/data[1]")


def test_the_gfs_maps_of_2018_have_the_storms_that_were_counted_apart(tmp_path, capsys):
    gfs, tracks = (
        real_data("gfs_wind_1deg") / "gfs_wind10m_2018.nc",
        real_data("ibtracs") / "ibtracs_jtwc_2010on.csv.gz",
    )
    arguments = ["--fields", str(gfs), "--variables", "u10", "v10", "--tracks", str(tracks), "--radius-degrees", "3"]
    arguments += ["--splits", "train=2018-09", "test=2018-10", "--statuses", "any", "--output", str(tmp_path / "out")]
    run(tyro.cli(StormTracks, args=arguments))
    catalogues = [Catalogue.open(tmp_path / "out", split) for split in ("train", "test")]
    assert [catalogue.samples for catalogue in catalogues] == [21, 80]
    positions = []
    for split in ("train", "test"):
        with open(tmp_path / "out" / f"storms-{split}.csv", newline="") as file:
            positions += [(row["time"], row["track"]) for row in csv.DictReader(file) if row["track"]]
    # A plain loop over the csv, linear between neighbouring fixes, finds as many; the nearest fix within 3 hours, of
    # 34 kt or more, would give 344 positions in 93 maps.
    assert (len(positions), len({time for time, _ in positions})) == (337, 92)
    labelled = sum(Reader(catalogue).read(np.arange(catalogue.samples))[1].sum(dtype=int) for catalogue in catalogues)
    assert labelled / (101 * 181 * 360) == pytest.approx(0.00164, abs=1e-5)
    assert "2018280N18273 130 kt" in capsys.readouterr().out
