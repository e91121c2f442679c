"""What a network sees of raw data: unpacked, channels last, normalised; by the model itself, also once it is saved."""

import h5py
import numpy as np
import pytest

from hpc_train.data.options import DataOptions
from hpc_train.data.reader import Reader
from hpc_train.data.statistics import Statistics
from hpc_train.errors import UserError


@pytest.fixture
def stored(tmp_path):
    """A function that writes one file of samples and gives the catalogue and the samples as they are read."""

    def write(data, **attributes):
        with h5py.File(tmp_path / "a.nc", "w") as file:
            names = tuple(data) if isinstance(data, dict) else ("x",)
            for name, values in data.items() if isinstance(data, dict) else [("x", data)]:
                file[name] = values
                file[name].attrs.update(attributes.get(name, {}))
        catalogue = DataOptions(data=tmp_path, inputs=names).catalogue("train")
        return catalogue, Reader(catalogue).read(np.arange(catalogue.samples))[0]

    return write


def seen(catalogue, samples, *statistics):
    """What the first layers make of the samples, before and after saving."""
    keras = pytest.importorskip("keras")
    from hpc_train.models.inputs import network_input

    model = keras.Model(*network_input(catalogue, *statistics))
    return model, np.asarray(model(samples))


@pytest.mark.parametrize("how", ["mean-std", "min-max"])
def test_packed_variables_become_normalised_channels_at_the_end(stored, tmp_path, how):
    import keras

    draw = np.random.default_rng(0)
    packed = {name: draw.integers(-9000, 9000, (5, 6, 7)).astype("i2") for name in "uvq"}
    packing = {"u": (0.05, 10.0), "v": (-0.5, 0.0), "q": (1.0, 101325.0)}
    attributes = {name: {"scale_factor": scale, "add_offset": offset} for name, (scale, offset) in packing.items()}
    catalogue, samples = stored(packed, **attributes)
    values = np.stack([packed[name] * packing[name][0] + packing[name][1] for name in "uvq"], -1)
    low, high, mean, std = (f(values, axis=(0, 1, 2)) for f in (np.min, np.max, np.mean, np.std))
    expected = (values - mean) / std if how == "mean-std" else (values - low) / (high - low)
    model, got = seen(catalogue, samples, Statistics.of(values, channel_axis=2), how)
    assert model.input_shape == (None, 3, 6, 7)
    assert model.inputs[0].dtype == "int16"
    np.testing.assert_allclose(got, expected, atol=2e-5)
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(np.asarray(keras.models.load_model(tmp_path / "model.keras")(samples)), got)


def test_channels_that_are_last_and_not_packed_are_taken_as_they_are(stored):
    data = np.random.default_rng(1).normal(size=(3, 4, 5, 2)).astype("f4")
    np.testing.assert_array_equal(seen(*stored(data))[1], data)


def test_samples_without_channels_are_normalised_as_one(stored):
    data = np.random.default_rng(1).normal(3, 2, size=(3, 40)).astype("f4")
    got = seen(*stored(data), Statistics.of(data))[1]
    np.testing.assert_allclose(got, (data - data.mean()) / data.std(), atol=1e-5)


def test_statistics_of_other_channels_are_refused(stored):
    data = np.zeros((3, 4, 5, 2), "f4")
    with pytest.raises(UserError, match="statistics are of 3 channels, the data have 2"):
        seen(*stored(data), Statistics.of(np.zeros((1, 4, 4, 3), "f4"), channel_axis=2))
