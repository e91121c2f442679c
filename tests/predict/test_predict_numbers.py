"""`hpc-train predict` on runs whose targets are numbers: values, scores and pictures; never classes."""

import csv
import json
import re
import subprocess
import sys

import h5py
import numpy as np
import pytest
from launch import REPOSITORY, environment

from hpc_train.errors import UserError
from hpc_train.predict import Predict, run

LATITUDES = np.linspace(60, -60, 7)
LONGITUDES = np.arange(12) * 30.0


class Made:
    """A run folder with a network and data, both by a test.

    Args:
        path: of the folder.
        model: a Keras model.
        arrays: by name of their data set, in the test split's only file.
        options: as run.json records them.
        facts: likewise.
        attributes: of the data sets.
    """

    def __init__(self, path, model, arrays, options, facts=None, attributes=None):
        self.path, self.data, self.output = path / "run", path / "data", path / "out.h5"
        (self.data / "test").mkdir(parents=True)
        self.path.mkdir()
        with h5py.File(self.data / "test" / "a.nc", "w") as file:
            for name, array in arrays.items():
                file[name] = array
                file[name].attrs.update((attributes or {}).get(name, {}))
        model.save(self.path / "best.keras")
        facts = {"loss": "mean_squared_error", "classes": 0} if facts is None else facts
        (self.path / "run.json").write_text(json.dumps({"options": options, "facts": facts}))

    def predict(self, **options):
        run(Predict(**{"run": self.path, "data": self.data, "output": self.output, **options}))

    def scores(self):
        return json.loads(self.output.with_suffix(".json").read_text())["scores"]


def network(shape, build, dtype="float32"):
    """The Keras model of a function, so that a test knows what it predicts."""
    import keras

    inputs = keras.Input(shape, dtype=dtype)
    return keras.Model(inputs, build(keras.ops, inputs))


def table(said, channel):
    """The figures of one line of the table of scores."""
    (line,) = [line for line in said.splitlines() if line.startswith(f"{channel} ")]
    return [float(figure) for figure in line.split()[-4:]]


@pytest.fixture
def houses(tmp_path):
    """One number for each sample, predicted as (b, 1): the sum of three inputs."""
    draw = np.random.default_rng(0)
    x = draw.normal(size=(300, 3)).astype("float32")
    y = (x.sum(1) + draw.normal(size=300)).astype("float32")
    model = network((3,), lambda ops, x: ops.sum(x, -1, keepdims=True))
    made = Made(tmp_path, model, {"x": x, "y": y}, {"inputs": ["x"], "targets": ["y"], "layout": "auto", "lr": 0.1})
    made.x, made.y = x, y
    return made


def test_numbers_are_scored_as_numbers_and_a_column_is_not_spread_over_a_row(houses, capsys):
    metrics = pytest.importorskip("sklearn.metrics")
    houses.predict()
    wanted = houses.x.sum(1)
    with h5py.File(houses.output) as file:
        assert set(file) == {"predicted", "targets"}
        np.testing.assert_allclose(file["predicted"], wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(file["targets"], houses.y)
    said = capsys.readouterr().out
    t, p = houses.y.astype("float64"), wanted.astype("float64")
    scores = [metrics.root_mean_squared_error(t, p), metrics.mean_absolute_error(t, p), (p - t).mean()]
    np.testing.assert_allclose(table(said, "y"), [*scores, metrics.r2_score(t, p)], rtol=1e-4)
    assert "class" not in said
    assert houses.scores()["y"]["all"]["rmse"] == pytest.approx(scores[0], rel=1e-6)


def test_csv_has_a_line_for_each_sample_and_pictures_are_a_scatter_plot(houses, tmp_path):
    pytest.importorskip("matplotlib")
    houses.predict(output=tmp_path / "p.csv", maps=3, batch_size=7)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert list(rows[0]) == ["sample", "target", "predicted"]
    assert [int(row["sample"]) for row in rows] == list(range(300))
    assert [np.float32(row["target"]) for row in rows] == houses.y.tolist()
    assert [path.name for path in tmp_path.glob("*.png")] == ["p-scatter.png"]


def test_without_targets_it_only_predicts(houses, tmp_path, capsys):
    (tmp_path / "new" / "test").mkdir(parents=True)
    with h5py.File(tmp_path / "new" / "test" / "a.h5", "w") as file:
        file["x"] = houses.x[:5]
    np.save(tmp_path / "x.npy", houses.x[:5])
    for data in (tmp_path / "new", tmp_path / "x.npy"):
        houses.predict(data=data)
        with h5py.File(houses.output) as file:
            assert set(file) == {"predicted"}
            np.testing.assert_allclose(file["predicted"][:].ravel(), houses.x[:5].sum(1), rtol=1e-5)
    assert "RMSE" not in capsys.readouterr().out
    assert not houses.output.with_suffix(".json").exists()


def test_the_command_line_may_name_other_data_sets_than_the_run(houses, tmp_path):
    (tmp_path / "other" / "test").mkdir(parents=True)
    with h5py.File(tmp_path / "other" / "test" / "a.h5", "w") as file:
        file["table"], file["price"] = 2 * houses.x, houses.y
    houses.predict(data=tmp_path / "other", inputs=("table",), targets=("price",))
    with h5py.File(houses.output) as file:
        np.testing.assert_allclose(file["predicted"], 2 * houses.x.sum(1), rtol=1e-5, atol=1e-6)
    assert list(houses.scores()) == ["price"]


def test_shards_of_the_same_data_need_no_names(houses, tmp_path):
    from hpc_train.data.shards.arrays import write_shards

    write_shards(tmp_path / "shards", "test", houses.x, houses.y, classes=0)
    houses.predict(data=tmp_path / "shards")
    with h5py.File(houses.output) as file:
        np.testing.assert_array_equal(file["targets"], houses.y)


def test_an_earlier_run_that_recorded_no_loss_is_told_by_its_data(houses, capsys):
    record = json.loads((houses.path / "run.json").read_text())
    (houses.path / "run.json").write_text(json.dumps({**record, "facts": {}}))
    houses.predict()
    assert "RMSE" in capsys.readouterr().out


def test_data_that_cannot_tell_ask_for_the_classes(houses, tmp_path):
    (houses.path / "run.json").write_text(json.dumps({"options": {}, "facts": {}}))
    np.save(tmp_path / "x.npy", houses.x)
    with pytest.raises(UserError, match="does not say whether the run predicts classes; give --classes"):
        houses.predict(data=tmp_path / "x.npy")
    houses.predict(data=tmp_path / "x.npy", classes=0)
    with h5py.File(houses.output) as file:
        assert set(file) == {"predicted"}


def test_class_numbers_in_named_data_sets_stay_classes(tmp_path, capsys):
    x = np.eye(3, dtype="float32")[np.array([0, 2, 1, 2])]
    model = network((3,), lambda ops, x: 5 * x)
    facts = {"loss": "sparse_categorical_crossentropy", "classes": 0}
    options = {"inputs": ["x"], "targets": ["y"]}
    made = Made(tmp_path, model, {"x": x, "y": np.array([0, 2, 1, 0], "u1")}, options, facts)
    made.predict()
    assert "accuracy 0.7500 of 4 samples" in capsys.readouterr().out
    with h5py.File(made.output) as file:
        assert file["predicted"][:].tolist() == [0, 2, 1, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"targets": ("z",)}, r"predicts z of shape \(1,\), but its target has shape \(2,\); name the right data set"),
        ({"output": "p.nc"}, r"NetCDF holds maps .*latitudes and longitudes, not y \(\); give a name ending in \.h5"),
        ({"probabilities": True}, "--probabilities is for label maps"),
        ({"samples": (300,)}, "--samples 300: .* has samples 0 to 299"),
        ({"maps": 1, "show": ("w",)}, "--show w: no such channel; the channels are y"),
        ({"maps": 1, "region": (0.0, 9.0, 0.0, 9.0)}, "--region is for maps whose file gives their degrees, not for y"),
        ({"inputs": ("z",)}, r"holds samples of \(2,\), but the model takes \(3,\)"),
        ({"targets": ("bad",)}, r"a\.nc: row 4 \(sample 4 of 'test'\) holds NaN or infinity \(nan\) in its target"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line_and_leaves_nothing(houses, tmp_path, change, said):
    with h5py.File(houses.data / "test" / "a.nc", "a") as file:
        file["z"] = np.zeros((300, 2), "float32")
        file["bad"] = np.where(np.arange(300) == 4, np.nan, houses.y)
    before = sorted(tmp_path.iterdir())
    if "output" in change:
        change = {"output": tmp_path / change["output"]}
    with pytest.raises(UserError, match=said) as caught:
        houses.predict(**change)
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.iterdir()) == before


def test_each_component_of_a_vector_has_its_scores_and_a_constant_one_no_r2(tmp_path, capsys):
    x = np.random.default_rng(1).normal(size=(40, 2)).astype("float32")
    y = np.stack([x[:, 0] + 1, np.full(40, 3.0, "float32")], 1)
    made = Made(tmp_path, network((2,), lambda ops, x: x), {"x": x, "y": y}, {"inputs": ["x"], "targets": ["y"]})
    made.predict(batch_size=9, output=tmp_path / "out.csv")
    said = capsys.readouterr().out
    assert table(said, "y[0]")[:3] == pytest.approx([1, 1, -1], rel=1e-5)
    (line,) = [line for line in said.splitlines() if line.startswith("y[1] ")]
    assert line.split()[-1] == "-"
    assert "R2 is undefined" in said
    made.output = tmp_path / "out.csv"
    assert made.scores()["y"]["r2"][1] is None
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header == "sample,y[0] target,y[0] predicted,y[1] target,y[1] predicted"


@pytest.fixture
def winds(tmp_path):
    """Next winds, packed as two data sets, on a grid with times; the network persists in real values."""
    draw = np.random.default_rng(2)
    winds = draw.integers(-400, 400, (9, 2, 7, 12)).astype("i2")
    now, later = winds[:-1], winds[1:]
    arrays = {"u": now[:, 0], "v": now[:, 1], "u_next": later[:, 0], "v_next": later[:, 1]}
    arrays |= {"lat": LATITUDES, "lon": LONGITUDES, "time": np.arange(8) * 6}
    packed = {"scale_factor": 0.05, "add_offset": 1.0, "units": "m s-1"}
    attributes = {**dict.fromkeys(("u", "v", "u_next", "v_next"), packed)}
    attributes["time"] = {"units": "hours since 2018-09-01 00:00:00"}
    options = {"inputs": ["u", "v"], "targets": ["u_next", "v_next"], "channels": "first"}
    model = network((2, 7, 12), lambda ops, x: 0.05 * ops.cast(x, "float32") + 1, "int16")
    made = Made(tmp_path, model, arrays, options, attributes=attributes)
    made.now, made.later = now * 0.05 + 1, later * 0.05 + 1
    return made


def test_packed_targets_are_compared_and_written_as_real_values_on_their_grid(winds, tmp_path, capsys):
    netCDF4 = pytest.importorskip("netCDF4")
    pytest.importorskip("matplotlib")
    winds.output = tmp_path / "out.nc"
    winds.predict(maps=2, batch_size=3)
    with netCDF4.Dataset(winds.output) as file:
        assert file.Conventions == "CF-1.8"
        np.testing.assert_array_equal(file["lat"][:], LATITUDES)
        np.testing.assert_allclose(file["u_next_truth"][:], winds.later[:, 0], rtol=1e-6)
        np.testing.assert_allclose(file["v_next_predicted"][:], winds.now[:, 1], rtol=1e-5)
        assert file["v_next_predicted"].units == "m s-1"
        assert file["v_next_predicted"].dimensions == ("sample", "lat", "lon")
        assert netCDF4.num2date(file["time"][1], file["time"].units).isoformat() == "2018-09-01T06:00:00"
    error = winds.now - winds.later
    scores = winds.scores()["target"]
    np.testing.assert_allclose(scores["rmse"], np.sqrt((error**2).mean((0, 2, 3))), rtol=1e-5)
    np.testing.assert_allclose(scores["bias"], error.mean((0, 2, 3)), rtol=1e-3)
    away = winds.later.mean(0)
    weight = np.cos(np.radians(LATITUDES))[:, None]
    p, t = winds.now - away, winds.later - away
    wanted = [(weight * p * t)[:, i].sum() for i in (0, 1)]
    wanted /= np.sqrt([(weight * p * p)[:, i].sum() * (weight * t * t)[:, i].sum() for i in (0, 1)])
    np.testing.assert_allclose(scores["acc"], wanted, rtol=1e-5)
    assert scores["channels"] == ["u_next", "v_next"]
    said = capsys.readouterr().out
    assert re.search("ACC: .*cosine of latitude, against the mean of the evaluated targets", said)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["out-00000.png", "out-00007.png"]


def test_targets_are_not_unpacked_for_training_shapes_that_differ(winds):
    with pytest.raises(UserError, match=r"predicts u_next of shape \(2, 7, 12\), but its target has shape \(7, 12\)"):
        winds.predict(targets=("u_next",))


def test_the_difference_has_a_scale_that_is_even_about_zero_and_truth_and_prediction_share_theirs(
    tmp_path, monkeypatch
):
    pytest.importorskip("matplotlib")
    from hpc_train.data.fields.grid import Grid
    from hpc_train.predict.numbers import pictures

    kept = []
    monkeypatch.setattr(pictures, "save", lambda figure, path: kept.append(figure))
    draw = np.random.default_rng(0)
    truth = draw.normal(size=(7, 12))
    panel = pictures.Panel("u", "m s-1", truth + 2, truth)
    pictures.draw_maps(tmp_path / "a.png", "winds", [panel], Grid(LATITUDES, LONGITUDES))
    left, middle, right = (axes.collections[0] for axes in kept[0].axes[:3])
    assert left.get_clim() == middle.get_clim()
    assert right.get_clim() == pytest.approx((-2, 2))
    # Rows rise to the north; those of the file fall.
    np.testing.assert_array_equal(left.get_array(), truth[::-1])
    np.testing.assert_allclose(right.get_array(), 2)


@pytest.mark.parametrize(
    ("shape", "drawn"),
    [((6, 2), "series"), ((6, 5), "image"), ((4, 6, 5), "volume"), ((3, 4, 6, 2), "volumes"), ((20,), "vector")],
)
def test_samples_of_any_shape_are_predicted_and_drawn(tmp_path, shape, drawn):
    pytest.importorskip("matplotlib")
    x = np.random.default_rng(3).normal(size=(5, *shape)).astype("float32")
    made = Made(
        tmp_path, network(shape, lambda ops, x: x[..., None] * 2), {"x": x}, {"inputs": ["x"], "targets": ["x"]}
    )
    made.predict(samples=(3,), batch_size=2)
    with h5py.File(made.output) as file:
        np.testing.assert_array_equal(file["predicted"], 2 * x)
    assert made.scores()["x"]["all"]["rmse"] == pytest.approx(np.sqrt(np.mean(np.float64(x) ** 2)), rel=1e-6)
    assert (tmp_path / "out-00003.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_without_targets_reconstructs_its_inputs(tmp_path):
    x = np.random.default_rng(4).normal(size=(5, 4, 4, 1)).astype("float32")
    made = Made(tmp_path, network((4, 4, 1), lambda ops, x: x + 1), {"x": x}, {"inputs": ["x"], "targets": []})
    made.predict()
    assert made.scores()["x"]["bias"] == pytest.approx([1], rel=1e-6)


def test_several_outputs_are_written_by_name(tmp_path):
    import keras

    x = np.random.default_rng(5).normal(size=(5, 3)).astype("float32")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, {"twice": 2 * inputs, "sum": keras.ops.sum(inputs, -1)})
    np.save(tmp_path / "x.npy", x)
    made = Made(
        tmp_path, model, {"x": x}, {"inputs": ["x"], "targets": ["x"]}, {"loss": {"twice": "mean_squared_error"}}
    )
    made.predict(data=tmp_path / "x.npy")
    with h5py.File(made.output) as file:
        np.testing.assert_array_equal(file["predicted/twice"], 2 * x)
        np.testing.assert_allclose(file["predicted/sum"], x.sum(1), rtol=1e-5)
    with pytest.raises(UserError, match=r"has the targets x, but the model's outputs are .*twice"):
        made.predict()


def test_predictions_that_are_not_finite_are_said(tmp_path, capsys):
    x = np.array([[1.0], [-1.0]], "float32")
    made = Made(tmp_path, network((1,), lambda ops, x: ops.log(x)), {"x": x}, {"inputs": ["x"], "targets": ["x"]})
    made.predict()
    assert "note: 1 predictions hold NaN or infinity" in capsys.readouterr().err


def test_report_leaves_predictions_of_numbers_alone(houses):
    from hpc_train.report.runs.confusion import load_confusion

    houses.predict(output=houses.path / "predictions.h5")
    assert load_confusion(houses.path) is None


def test_layers_of_ones_own_come_from_a_script(tmp_path):
    import keras

    script = tmp_path / "mine.py"
    script.write_text(
        "import keras\n\n\n@keras.saving.register_keras_serializable('mine')\nclass Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n        return 2 * x\n"
    )
    space = {}
    exec(script.read_text(), space)
    inputs = keras.Input((2,))
    x = np.ones((3, 2), "float32")
    made = Made(tmp_path, keras.Model(inputs, space["Twice"]()(inputs)), {"x": x}, {"inputs": ["x"], "targets": ["x"]})
    del keras.saving.get_custom_objects()["mine>Twice"]
    with pytest.raises(UserError, match=r"best\.keras cannot be loaded .*give it with --script") as caught:
        made.predict()
    assert "\n" not in str(caught.value)
    made.predict(script=script)
    assert made.scores()["x"]["bias"] == pytest.approx([1, 1])


def test_a_regression_is_trained_and_predicted_on_named_data_sets_that_only_training_names(tmp_path):
    """The script is that of docs/own-model.md."""
    text = (REPOSITORY / "docs" / "own-model.md").read_text()
    (script,) = [
        block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if block.startswith("# mine.py")
    ]
    (tmp_path / "mine.py").write_text(script)
    draw = np.random.default_rng(6)
    for split, samples in (("train", 256), ("test", 64)):
        (tmp_path / "data" / split).mkdir(parents=True)
        x = draw.normal(size=(samples, 3)).astype("float32")
        with h5py.File(tmp_path / "data" / split / "a.h5", "w") as file:
            file["x"], file["y"] = x, (x @ [1.0, -2.0, 0.5] + 0.1 * draw.normal(size=samples)).astype("float32")
    train = ["-m", "hpc_train.fit", "mine.py:build", "--data", "data", "--inputs", "x", "--targets", "y"]
    train += ["--loss", "mse", "--metrics", "mae", "--epochs", "4", "--run", "run", "--build-args", "units=16"]
    predict = ["-m", "hpc_train.cli", "predict", "run", "--data", "data", "--which", "last"]
    said = []
    for command in (train, predict):
        env = environment(PYTHONPATH=str(REPOSITORY))
        ended = subprocess.run([sys.executable, *command], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        said.append(ended.stdout)
    # Of three columns: 4 numbers each to normalise them, 16 units, and one number.
    assert f"mine: {4 * 3 + 4 * 16 + 17} parameters" in said[0]
    facts = json.loads((tmp_path / "run" / "run.json").read_text())["facts"]
    assert (facts["loss"], facts["classes"]) == ("mean_squared_error", 0)
    assert facts["build_args"] == {"units": 16}
    last = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    rmse, mae, *_ = table(ended.stdout, "y")
    assert rmse == pytest.approx(last["val_loss"] ** 0.5, rel=1e-4)
    assert mae == pytest.approx(last["val_mae"], rel=1e-4)
