"""Models that save_model writes: a process with nothing but Keras loads them."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops
from launch import environment

from hpc_train.losses import SmoothedCrossEntropy
from hpc_train.metrics import SegmentationScores
from hpc_train.parallel import DistributedOptimizer
from hpc_train.parallel.saving import save_model

INPUTS = np.random.default_rng(2).normal(size=(8, 4)).astype("float32")
LOAD = """
import json, sys, keras, numpy as np
inputs, found = np.load(sys.argv[1]), {}
for path in sys.argv[2:]:
    model = keras.saving.load_model(path)
    found[path] = {
        "out": np.asarray(model(inputs)).tolist(), "metrics": (model.get_compile_config() or {}).get("metrics"),
        "loss": str(model.loss), "optimizer": type(getattr(model, "optimizer", None)).__name__,
    }
assert not any(name.startswith(("horovod", "hpc_train")) for name in sys.modules)
print(json.dumps(found))
"""


def a_function(true, predicted):
    return ops.mean(ops.abs(true - predicted), axis=-1)


class Unregistered(keras.metrics.MeanSquaredError):
    pass


@keras.saving.register_keras_serializable("tests")
class Registered(keras.losses.MeanSquaredError):
    pass


def network(loss="mse", metrics=None, optimizer="adam"):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.compile(optimizer, loss, metrics=metrics)
    return model


MODELS = {
    "own_metrics": lambda: network(metrics=["mae", a_function, lambda true, predicted: true, Unregistered()]),
    "own_loss": lambda: network(a_function),
    "registered_loss": lambda: network(Registered(), ["mae"]),
    "averaging": lambda: network(optimizer=DistributedOptimizer(keras.optimizers.AdamW(0.01, clipnorm=1.0))),
    "of_this_package": lambda: network(SmoothedCrossEntropy(0.1), [SegmentationScores(3)]),
    "function_of_keras": lambda: network(keras.losses.mean_squared_error, [keras.metrics.mean_absolute_error]),
    "uncompiled": lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]),
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    models = {name: make() for name, make in MODELS.items()}
    np.save(folder / "inputs.npy", INPUTS)
    paths = {name: folder / f"{name}.keras" for name in models}
    for name, model in models.items():
        save_model(model, paths[name])
    command = [sys.executable, "-c", LOAD, str(folder / "inputs.npy"), *map(str, paths.values())]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment(PYTHONPATH=""))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: (models[name], found[str(paths[name])]) for name in models}


@pytest.mark.parametrize("name", MODELS)
def test_plain_keras_loads_the_same_model(loaded, name):
    model, found = loaded[name]
    np.testing.assert_allclose(found["out"], model(INPUTS), rtol=1e-6)


def test_metrics_that_keras_knows_stay_with_optimizer_and_loss(loaded):
    _, found = loaded["own_metrics"]
    assert (found["metrics"], found["loss"], found["optimizer"]) == (["mae"], "mse", "Adam")


def test_an_averaging_optimizer_is_saved_as_the_one_inside(loaded):
    assert loaded["averaging"][1]["optimizer"] == "AdamW"


@pytest.mark.parametrize("name", ["own_loss", "registered_loss"])
def test_a_loss_that_keras_does_not_know_leaves_the_model_uncompiled(loaded, name):
    _, found = loaded[name]
    assert found["loss"] == "None"


def test_what_is_left_out_is_named_once(tmp_path, capsys):
    model = MODELS["own_metrics"]()
    for _ in range(2):
        save_model(model, tmp_path / "model.keras")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    for part in ("metric a_function", "metric a lambda", "metric Unregistered"):
        assert part in said[0]


def test_layers_of_ones_own_are_named(tmp_path, capsys):
    class Mine(keras.layers.Dense):
        pass

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Mine(3, activation=a_function_of_one)(inputs))
    save_model(model, tmp_path / "model.keras")
    assert "custom_objects for Mine" in capsys.readouterr().out
    own = {"Mine": Mine, "a_function_of_one": a_function_of_one}
    again = keras.saving.load_model(tmp_path / "model.keras", custom_objects=own)
    np.testing.assert_array_equal(again(INPUTS), model(INPUTS))


def test_operations_of_keras_need_nothing_when_loaded(tmp_path, capsys):
    inputs = keras.Input((4,))
    save_model(keras.Model(inputs, keras.ops.exp(inputs) + 1.0), tmp_path / "model.keras")
    assert not capsys.readouterr().out
    assert keras.saving.load_model(tmp_path / "model.keras")(INPUTS).shape == INPUTS.shape


def a_function_of_one(x):
    return x * 2


def test_weights_are_kept_where_the_architecture_cannot_be_written(tmp_path, capsys):
    class Unwritable(keras.layers.Dense):
        def get_config(self):
            raise NotImplementedError("no config")

    model = keras.Sequential([keras.Input((4,)), Unwritable(3)])
    save_model(model, tmp_path / "model.keras")
    assert "its weights" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["model.weights.h5"]
    other = keras.Sequential([keras.Input((4,)), Unwritable(3)])
    other.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(other(INPUTS), model(INPUTS))


def test_metrics_of_several_outputs_keep_their_places(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(1, name=name)(inputs) for name in "ab"])
    model.compile("sgd", ["mse", "mse"], metrics=[a_function, "mae"])
    save_model(model, tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    got = again.evaluate(INPUTS, [INPUTS[:, :1]] * 2, verbose=0, return_dict=True)
    assert "b_mae" in got
    assert "a_mae" not in got
