"""What a network sees of raw data: unpacked, channels last, normalised; by the model itself, also once it is saved."""

import dataclasses

import h5py
import numpy as np
import pytest

from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
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


def seen(catalogue, samples, *statistics, **options):
    """The first layers as a model, and what they make of the samples."""
    keras = pytest.importorskip("keras")
    from hpc_train.models.inputs import network_input

    model = keras.Model(*network_input(catalogue, *statistics, **options))
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


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "u2"])
def test_whole_numbers_without_statistics_become_floating(stored, dtype):
    data = np.random.default_rng(1).integers(0, 2, (3, 4, 5, 2)).astype(dtype)
    got = seen(*stored(data))[1]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, data)


def test_samples_without_channels_are_normalised_as_one(stored):
    data = np.random.default_rng(1).normal(3, 2, size=(3, 40)).astype("f4")
    got = seen(*stored(data), Statistics.of(data))[1]
    np.testing.assert_allclose(got, (data - data.mean()) / data.std(), atol=1e-5)


def test_statistics_of_other_channels_are_refused(stored):
    data = np.zeros((3, 4, 5, 2), "f4")
    with pytest.raises(UserError, match=r"statistics are of 3 channels, but .* has 2"):
        seen(*stored(data), Statistics.of(np.zeros((1, 4, 4, 3), "f4"), channel_axis=2))


NAMES = ("u850", "PS", "rain")


@pytest.fixture
def fields(stored):
    """float32 variables (channels, height, width): a wind, a pressure in Pa, and rain in m/s."""
    draw = np.random.default_rng(2)
    values = (draw.normal(0, 8, (4, 5, 6)), draw.normal(9.6e4, 9e3, (4, 5, 6)), draw.gamma(0.2, 1e-7, (4, 5, 6)))
    data = {name: field.astype("f4") for name, field in zip(NAMES, values, strict=True)}
    catalogue, samples = stored(data)
    return catalogue, samples, np.stack([data[name].astype("f8") for name in NAMES], -1)


@pytest.mark.parametrize("any_size", [False, True])
def test_named_channels_are_normalised_by_their_own_statistics_whatever_the_precision(fields, tmp_path, any_size):
    """Half precision ends at 65504, and Keras's own normalisation replaces deviations below 1e-7 by 1e-7."""
    import keras

    catalogue, samples, values = fields
    chosen = values[..., [2, 1]]
    expected = (chosen - chosen.mean((0, 1, 2))) / chosen.std((0, 1, 2))
    statistics = Statistics.of(values, channel_axis=2)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model, got = seen(catalogue, samples, statistics, fields=("rain", "PS"), any_size=any_size)
    finally:
        keras.config.set_dtype_policy("float32")
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert model.input_shape == (None, 3, None, None) if any_size else (None, 3, 5, 6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    part = samples[:, :, :3, :4] if any_size else samples
    np.testing.assert_array_equal(np.asarray(loaded(part)), got[:, :3, :4] if any_size else got)


def test_without_normalisation_the_chosen_channels_are_as_stored(fields):
    catalogue, samples, values = fields
    _, got = seen(catalogue, samples, Statistics.of(values, channel_axis=2), "none", fields=("PS",))
    np.testing.assert_array_equal(got, values[..., 1:2])


def test_a_channel_that_the_data_or_the_statistics_lack_is_named(fields):
    catalogue, samples, values = fields
    statistics = Statistics.of(values, channel_axis=2)
    with pytest.raises(UserError, match=r"a\.nc: has no channel 'T500' for --fields; it has u850, PS, rain"):
        seen(catalogue, samples, statistics, fields=("T500",))
    squares = statistics.m2.copy()
    squares[1] = np.nan
    lacking = dataclasses.replace(statistics, m2=squares)
    with pytest.raises(UserError, match="the statistics of channel PS lack it; normalise by min-max"):
        seen(catalogue, samples, lacking)
    # A channel that is not taken may lack it.
    assert np.isfinite(seen(catalogue, samples, lacking, fields=("rain", "u850"))[1]).all()
    assert np.isfinite(seen(catalogue, samples, lacking, "min-max")[1]).all()
    turned = dataclasses.replace(statistics, channel_names=("PS", "u850", "rain"))
    with pytest.raises(UserError, match=r"statistics are of the channels PS, u850, rain, but .* has u850, PS, rain"):
        seen(catalogue, samples, turned)
