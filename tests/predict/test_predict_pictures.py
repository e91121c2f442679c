"""`hpc-train predict` on label maps of plain pictures: no degrees, no coastlines, row 0 at the top."""

import json

import h5py
import numpy as np
import pytest

from hpc_train import predict
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError

SHAPE, NAMES = (10, 6), ("glaze", "crack", "hole")


def pictures(channels):
    return np.random.default_rng(1).integers(0, 256, (2, *SHAPE, channels)).astype("u1")


def expected(inputs):
    """What the networks below predict: hole where the first channel is 200 or more, else glaze."""
    return np.where(inputs[..., 0] >= 200, 2, 0)


@pytest.fixture(params=[1, 3])
def trained(request, tmp_path):
    """(folder with a run and shards, inputs); class 2 where the first channel is at least 200, class 1 never."""
    import keras

    channels = request.param
    taken = keras.Input((*SHAPE, channels), dtype="uint8")
    model = keras.Model(taken, keras.layers.Conv2D(3, 1)(keras.ops.cast(taken, "float32")))
    kernel = np.zeros((1, 1, channels, 3))
    kernel[0, 0, 0, 2] = 1
    model.set_weights([kernel, np.array([0.0, -1000.0, -199.5])])
    model.save(tmp_path / "best.keras")
    facts = {"trainer": "tiramisu-small", "classes": 3, "geometry": "picture", "class_names": NAMES}
    (tmp_path / "run.json").write_text(json.dumps({"options": {"class_map": []}, "facts": facts}))
    inputs = pictures(channels)
    write_shards(tmp_path / "data", "test", inputs, expected(inputs).astype("u1"), classes=3, shards=1)
    return tmp_path, inputs


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn; coastlines are not asked for."""
    pytest.importorskip("matplotlib")
    from hpc_train.predict import coastlines, maps
    from hpc_train.predict import pictures as drawn

    def never(west):
        raise AssertionError("coastlines over a picture")

    kept = []
    monkeypatch.setattr(drawn, "save", lambda figure, path: kept.append(figure))
    for module in (coastlines, maps):
        monkeypatch.setattr(module, "coastlines", never)
    return kept


def run(folder, data, **options):
    predict.run(predict.Predict(run=folder, data=data, output=folder / "masks.nc", maps=2, **options))


def test_pictures_are_drawn_as_they_are_with_classes_in_colours(trained, figures, capsys):
    folder, inputs = trained
    run(folder, folder / "data")
    assert len(figures) == 2
    for number, figure in enumerate(figures):
        assert len(figure.axes) == 3
        shown = inputs[number, ..., 0] if inputs.shape[-1] == 1 else inputs[number]
        for axes in figure.axes:
            np.testing.assert_allclose(axes.images[0].get_array(), shown / 255)
            # Row 0 is at the top, and no axis has degrees.
            assert (axes.get_ylim(), axes.get_xlim()) == ((9.5, -0.5), (-0.5, 5.5))
            assert not axes.axison
        assert [axes.get_title() for axes in figure.axes] == ["picture", "true", "predicted"]
        for axes in figure.axes[1:]:
            painted = axes.images[1].get_array()
            np.testing.assert_array_equal(~painted.mask, expected(inputs[number]) == 2)
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["crack", "hole"]
        assert "IoU on this picture: crack none here, hole 1.00" in figure.get_suptitle()
    said = capsys.readouterr().out
    assert "picture of sample 1 in" in said
    assert "hole" in said
    assert not any(name in said for name in ("tc", "background", "assumed"))


def test_masks_of_pictures_have_rows_and_columns_for_axes(trained, figures):
    netCDF4 = pytest.importorskip("netCDF4")
    folder, inputs = trained
    np.save(folder / "new.npy", inputs)
    for data in (folder / "data", folder / "new.npy"):
        run(folder, data, probabilities=True)
        with netCDF4.Dataset(folder / "masks.nc") as file:
            assert file["predicted"].dimensions == ("sample", "y", "x")
            assert file["predicted"].flag_meanings.split() == list(NAMES)
            assert not {"lat", "lon"} & set(file.variables)
            assert file["y"].long_name == "row, counted from the top"
            np.testing.assert_array_equal(file["predicted"][:], expected(inputs))


def test_names_and_geometry_are_taken_from_the_command_line_first(trained, figures, capsys):
    netCDF4 = pytest.importorskip("netCDF4")
    folder, inputs = trained
    np.save(folder / "new.npy", inputs)
    for data in ("data", "new.npy"):
        predict.run(
            predict.Predict(
                run=folder,
                data=folder / data,
                output=folder / "masks.nc",
                class_names=("a", "b", "c"),
                geometry="globe",
            )
        )
        with netCDF4.Dataset(folder / "masks.nc") as file:
            assert file["predicted"].flag_meanings == "a b c"
            np.testing.assert_array_equal(file["lat"][:], np.linspace(-90, 90, 10))
    assert "assumed: a global 10 x 6 grid, from the south" in capsys.readouterr().out
    with pytest.raises(UserError, match="--region is in degrees"):
        run(folder, folder / "data", region=(0.0, 10.0, 0.0, 10.0))


def test_maps_of_which_nothing_is_known_are_taken_for_pictures_and_a_line_says_so(trained, figures, capsys):
    folder, _ = trained
    record = json.loads((folder / "run.json").read_text())
    record["facts"] |= {"geometry": "", "class_names": []}
    (folder / "run.json").write_text(json.dumps(record))
    run(folder, folder / "data")
    said = capsys.readouterr().out
    assert "taken for plain pictures (for global maps give --geometry globe)" in said
    assert "class2" in said


def test_global_maps_of_a_numpy_file_lie_as_those_of_training(trained):
    netCDF4 = pytest.importorskip("netCDF4")
    folder, inputs = trained
    np.save(folder / "new.npy", inputs)
    record = json.loads((folder / "run.json").read_text())
    degrees = {"latitudes": {"first": 67.5, "last": -67.5, "number": 10}, "longitudes": [0, 60, 120, 180, 240, 300]}
    record["facts"] |= {"geometry": "globe", **degrees}
    (folder / "run.json").write_text(json.dumps(record))
    predict.run(predict.Predict(run=folder, data=folder / "new.npy", output=folder / "masks.nc"))
    with netCDF4.Dataset(folder / "masks.nc") as file:
        np.testing.assert_allclose(file["lat"][:], np.linspace(67.5, -67.5, 10))
        np.testing.assert_array_equal(file["lon"][:], np.arange(6) * 60.0)
        assert "assumed" in file["lat"].comment


def test_files_of_one_channel_without_an_axis_for_it_are_predicted_and_ignored_pixels_do_not_count(trained, capsys):
    folder, inputs = trained
    stored = inputs[..., 0] if inputs.shape[-1] == 1 else inputs
    labels = expected(inputs).astype("u1")
    labels[:, :5] = 255
    with h5py.File(folder / "new.h5", "w") as file:
        file["x"], file["y"] = stored, labels
    axis = {"channels": "none"} if inputs.shape[-1] == 1 else {}
    asked = {"run": folder, "data": folder / "new.h5", "inputs": ("x",), "targets": ("y",), **axis}
    with pytest.raises(UserError, match="has label 255"):
        predict.run(predict.Predict(**asked, output=folder / "masks.nc"))
    predict.run(predict.Predict(**asked, output=folder / "masks.nc", ignore_label=255))
    assert "accuracy 1.0000 of 60 pixels, 60 not labelled" in capsys.readouterr().out


def test_a_class_that_is_never_predicted_is_said_by_predict_and_report_with_the_option_that_helps(trained, capsys):
    from hpc_train.report import command

    folder, inputs = trained
    record = json.loads((folder / "run.json").read_text())
    record["options"] |= {"class_weights": "none", "loss": "cross-entropy"}
    (folder / "run.json").write_text(json.dumps(record))
    lines = {"epoch": 1, "step": 1, "loss": 1.0, "learning_rate": 0.1, "samples_per_s": 1.0, "input_wait": 0.0}
    scores = {"val_mean_iou": 0.5, "val_iou_glaze": 1.0, "val_iou_crack": 0.0, "val_iou_hole": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(lines | scores) + "\n")
    command.run(command.ReportRuns((folder,)))
    assert (
        "class crack is never predicted right in validation; give rare classes more weight" in capsys.readouterr().out
    )
    labels = expected(inputs).astype("u1")
    labels[0, 0, :3] = 1
    write_shards(folder / "data", "test", inputs, labels, classes=3, class_names=NAMES, shards=1)
    predict.run(predict.Predict(run=folder, data=folder / "data"))
    line = "note: the class crack is never predicted; give rare classes more weight: train with --class-weights"
    assert line in capsys.readouterr().out
    command.run(command.ReportRuns((folder,)))
    assert line in capsys.readouterr().out


def test_files_without_labels_are_predicted_without_scores(trained, capsys):
    netCDF4 = pytest.importorskip("netCDF4")
    folder, inputs = trained
    record = json.loads((folder / "run.json").read_text())
    record["options"] |= {"inputs": ["x"], "targets": ["y"], "class_names": list(NAMES)}
    (folder / "run.json").write_text(json.dumps(record))
    with h5py.File(folder / "new.h5", "w") as file:
        file["x"] = inputs[..., 0] if inputs.shape[-1] == 1 else inputs
    predict.run(predict.Predict(run=folder, data=folder / "new.h5", output=folder / "masks.nc"))
    with netCDF4.Dataset(folder / "masks.nc") as file:
        np.testing.assert_array_equal(file["predicted"][:], expected(inputs))
        assert "truth" not in file.variables
        assert file["predicted"].flag_meanings.split() == list(NAMES)
    assert "accuracy" not in capsys.readouterr().out


def test_what_is_predicted_where_nothing_is_labelled_is_not_painted(tmp_path, figures):
    from hpc_train.predict.maps import Panel
    from hpc_train.predict.pictures import draw_pictures

    predicted, truth = np.ones(SHAPE, int), np.ones(SHAPE, int)
    truth[:2] = -1
    draw_pictures(tmp_path / "a.png", "a", [Panel("picture", "", np.zeros(SHAPE))], NAMES, predicted, truth)
    classes, unknown = (image.get_array().mask for image in figures[0].axes[2].images[1:])
    np.testing.assert_array_equal(classes, truth < 0)
    np.testing.assert_array_equal(unknown, truth >= 0)
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == ["crack", "hole", "not labelled"]
