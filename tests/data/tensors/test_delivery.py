"""What `fit` gets: Keras's names, inputs as targets, real and normalised values, sample weights."""

from dataclasses import dataclass

import h5py
import numpy as np
import pytest
from small_shards import refusal

from hpc_train.data.options import DataOptions, ScaleOptions
from hpc_train.data.plan import TrainPlan
from hpc_train.data.reading.reader import Reader
from hpc_train.data.statistics.command import Stats
from hpc_train.data.statistics.command import run as stats
from hpc_train.parallel.mpi import Alone

pytest.importorskip("tensorflow")

from hpc_train.data.tensors.delivery import Delivery
from hpc_train.data.tensors.pipeline import Input
from hpc_train.training.scaling import scaled, scalings_of

ROWS = 12


@dataclass(frozen=True)
class Options(ScaleOptions, DataOptions):
    """A trainer's data options, with those of scaling."""


@pytest.fixture
def data(tmp_path):
    draw = np.random.default_rng(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = draw.normal(5, 3, (ROWS, 4, 2)).astype("f4")
        file["m"] = draw.integers(0, 9, (ROWS, 3)).astype("i2")
        file["y"] = draw.normal(1e5, 2, (ROWS, 3, 2))
        file["packed"] = draw.integers(-50, 50, (ROWS, 5)).astype("i2")
        file["packed"].attrs.update(scale_factor=0.25, add_offset=100.0)
        file["w"] = draw.random(ROWS).astype("f4")
    return tmp_path


def batch(options, alone=False):
    """All samples in the order of the file, as `fit` gets them."""
    catalogue = options.catalogue("train")
    scalings = scalings_of(options, catalogue, Alone())
    source = Input(Reader(catalogue), deliver=Delivery.of(catalogue, scalings, alone))
    plan = TrainPlan(ROWS, ROWS, 1, 0)
    (given,) = source.training(plan, 0, 0, 0, 1)
    order = np.argsort(plan.indices(0, 0, 0))
    import tensorflow as tf

    return tf.nest.map_structure(lambda tensor: tensor.numpy()[order], given), scaled(catalogue, scalings), scalings


def stored(data, name):
    with h5py.File(data / "a.h5") as file:
        return file[name][()]


def test_named_parts_come_as_dicts_and_the_only_one_as_itself(data):
    options = Options(data=data, inputs=("a=x", "b=m"), targets=("y",), sample_weights="w")
    (inputs, targets, weights), _, _ = batch(options)
    assert list(inputs) == ["a", "b"]
    np.testing.assert_array_equal(inputs["b"], stored(data, "m"))
    np.testing.assert_array_equal(targets, stored(data, "y"))
    np.testing.assert_array_equal(weights, stored(data, "w"))


def test_without_targets_the_inputs_are_the_targets_too(data):
    (inputs, targets), _, _ = batch(Options(data=data, inputs=("x",)))
    np.testing.assert_array_equal(inputs, stored(data, "x"))
    np.testing.assert_array_equal(targets, inputs)
    alone, _, _ = batch(Options(data=data, inputs=("x",)), alone=True)
    np.testing.assert_array_equal(alone, inputs)


def test_a_data_set_may_be_input_and_target(data):
    (inputs, targets), _, _ = batch(Options(data=data, inputs=("x",), targets=("x",)))
    np.testing.assert_array_equal(inputs, targets)


def test_packed_values_are_real_ones(data):
    options = Options(data=data, inputs=("packed",), targets=("packed",))
    (inputs, targets), catalogue, _ = batch(options)
    np.testing.assert_allclose(inputs, stored(data, "packed") * 0.25 + 100, rtol=1e-7)
    np.testing.assert_array_equal(targets, inputs)
    assert [(part.dtype, part.packed) for part in catalogue.parts] == [(np.float32, False)] * 2


@pytest.mark.parametrize("dtype", ["i1", "<i2", ">i4"])
def test_packed_values_without_a_sign_are_real_ones(data, dtype):
    values = np.random.default_rng(0).integers(-128, 128, (ROWS, 5)).astype(dtype)
    with h5py.File(data / "a.h5", "r+") as file:
        for name in ("one", "two"):
            file[name] = values
            file[name].attrs.update({"_Unsigned": "true", "scale_factor": np.float32(0.5), "add_offset": -7.0})
    (inputs, targets), _, _ = batch(Options(data=data, inputs=("one",), targets=("two",)))
    real = values.view(values.dtype.str.replace("i", "u")).astype("f8") * 0.5 - 7
    np.testing.assert_array_equal(inputs, real.astype("f4"))
    np.testing.assert_array_equal(targets, inputs)


@pytest.mark.parametrize("target", ["y", "packed"])
def test_normalised_values_have_mean_0_and_deviation_1_and_come_back(data, target):
    names = {"data": data, "inputs": ("x",), "targets": (target,)}
    stats(Stats(**names))
    (inputs, targets), catalogue, scalings = batch(Options(**names, normalise=("inputs", "targets")))
    real = stored(data, target) * (0.25 if target == "packed" else 1.0) + (100 if target == "packed" else 0)
    # Each number of a vector is a channel of the target.
    axes = (0, 1) if real.ndim == 3 else 0
    for given, values, axis in ((inputs, stored(data, "x"), (0, 1)), (targets, real, axes)):
        expected = (values - values.mean(axis, np.float64)) / values.std(axis, dtype=np.float64)
        np.testing.assert_allclose(given, expected, atol=2e-6)
    np.testing.assert_allclose(scalings["target"].restore(targets), real, rtol=1e-6)
    assert catalogue.target_dtype == np.float32


def test_what_cannot_be_normalised_is_one_line(data):
    def refused(**more):
        options = Options(data=data, inputs=("x",), **more)
        return refusal(scalings_of, options, options.catalogue("train"), Alone())

    assert "statistics.h5: does not exist; --normalise needs" in refused(targets=("y",), normalise=("targets",))
    assert "the targets are class numbers" in refused(targets=("m",), normalise=("targets",))
    stats(Stats(data=data, inputs=("x",), targets=("y",)))
    assert "the inputs are the targets; write --normalise inputs" in refused(normalise=("targets",))
    assert "the statistics have none of the target" in refused(targets=("t=y",), normalise=("targets",))
    assert "statistics of the target are of 2 channels" in refused(targets=("packed",), normalise=("targets",))
