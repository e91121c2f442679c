"""The example of next-step weather, on small made-up maps."""

import importlib.util
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from launch import REPOSITORY, environment, launch

EXAMPLE = REPOSITORY / "examples" / "next_step_weather.py"
HEIGHT, WIDTH = 8, 12


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("next_step_weather", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def weather(example, tmp_path_factory):
    """Six-hourly maps of one month and three-hourly ones of the next, which drift east; with a gap in the second."""
    folder = tmp_path_factory.mktemp("weather")
    hours = np.concatenate([np.arange(0, 36, 6), 720 + np.arange(0, 30, 3), [762, 765, 768]])
    draw = np.random.default_rng(0).integers(-200, 200, (2, HEIGHT, WIDTH)).astype("i2")
    with h5py.File(folder / "gfs.nc", "w") as file:
        for name, values in zip(("u10", "v10"), draw, strict=True):
            file[name] = np.stack([np.roll(values, hour // 3, 1) for hour in hours])
            file[name].attrs.update(scale_factor=0.05, add_offset=0.0)
        file["time"], file["lat"], file["lon"] = hours, np.linspace(70, -70, HEIGHT), np.arange(WIDTH) * 30.0
        file["time"].attrs["units"] = "hours since 2018-09-01 00:00:00"
    example.prepare(folder / "gfs.nc", folder / "weather")
    return folder, draw * 0.05


def test_pairs_are_six_hours_apart_and_do_not_cross_the_gap(weather):
    folder, winds = weather
    for split, times in (("train", [*range(726, 748, 3), 768]), ("test", range(6, 36, 6))):
        with h5py.File(folder / "weather" / split / "winds.h5") as file:
            assert file["time"][()].tolist() == list(times)
            for place, hour in enumerate(times):
                np.testing.assert_allclose(file["u10_later"][place], np.roll(winds[0], hour // 3, 1), rtol=1e-6)
                np.testing.assert_allclose(file["u10"][place], np.roll(winds[0], hour // 3 - 2, 1), rtol=1e-6)


def test_the_network_begins_at_persistence_and_knows_no_seam(example):
    from types import SimpleNamespace

    model = example.build(SimpleNamespace(input_shape=(2, HEIGHT, WIDTH)))
    draw = np.random.default_rng(1)
    x = draw.normal(size=(1, 2, HEIGHT, WIDTH)).astype("float32")
    np.testing.assert_allclose(model.predict_on_batch(x), x, rtol=1e-6)
    model.set_weights([draw.normal(size=weight.shape) for weight in model.get_weights()])
    turned = model.predict_on_batch(np.roll(x, 5, -1))
    np.testing.assert_allclose(turned, np.roll(model.predict_on_batch(x), 5, -1), rtol=1e-3, atol=1e-2)


def test_two_ranks_train_and_the_forecast_is_compared_with_persistence(weather):
    folder, winds = weather
    data = ["--data", "weather", "--inputs", "u10", "v10", "--targets", "u10_later", "v10_later", "--channels", "first"]
    recipe = ["--batch-size", "1", "--base-batch", "2", "--epochs", "1", "--optimizer", "adam", "--run", "run"]
    ended = launch(2, str(EXAMPLE), *data, *recipe, cwd=folder)
    assert ended.status == 0, ended.output
    predict = ["-m", "hpc_train.cli", "predict", "run", "--data", "weather", "--which", "last"]
    for command in (predict, [str(EXAMPLE), "compare", "weather", "run/predictions.json"]):
        env = environment(PYTHONPATH=str(REPOSITORY))
        ended = subprocess.run([sys.executable, *command], cwd=folder, env=env, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    scores = json.loads((folder / "run" / "predictions.json").read_text())["scores"]["target"]
    line = next(line for line in ended.stdout.splitlines() if line.startswith("v10"))
    rmse, persistence = map(float, line.split()[1:3])
    moved = np.stack([np.roll(winds[1], hour // 3, 1) for hour in range(0, 36, 6)])
    assert persistence == pytest.approx(np.sqrt(np.mean((moved[1:] - moved[:-1]) ** 2)), abs=1e-4)
    assert rmse == pytest.approx(scores["rmse"][1], abs=1e-4)
