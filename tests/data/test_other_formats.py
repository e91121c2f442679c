"""Files of other formats: GRIB is named with the way to convert it, ICON's NetCDF is read as it is."""

import h5py
import numpy as np
import pytest
from realdata import real_data

from hpc_train.data.fields.geometry import grid_of
from hpc_train.data.inspect import command as inspect
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.doctor.storage import bytes_of
from hpc_train.errors import UserError
from hpc_train.prepare.storm_tracks.fields import FieldFile

# Editions 1 and 2, and one behind the heading of a bulletin.
STARTS = (
    b"GRIB\x00\x00\x48\x01",
    b"GRIB\xff\xff\x00\x02",
    b"\x01\r\r\n342\r\r\nHTXA01 KWBC 010000\r\r\nGRIB\x00\x00\x48\x01",
)


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("name", ["a.grib2", "a.nc", "a"])
def test_grib_is_named_by_its_bytes_with_the_way_to_convert_it(tmp_path, start, name):
    path = tmp_path / name
    path.write_bytes(start + bytes(100) + b"7777")
    for opened in (
        lambda: inspect.inspect(inspect.Inspect(data=path), "train"),
        lambda: inspect.inspect(inspect.Inspect(data=tmp_path), "train"),
        lambda: DataOptions(path, inputs=("x",), targets=("y",)).catalogue("train"),
        lambda: FieldFile(str(path), ("u10",)),
        lambda: bytes_of(path),
        lambda: bytes_of(tmp_path),
    ):
        with pytest.raises(UserError, match=rf"{name}: GRIB, not HDF5.*grib_to_netcdf.*cfgrib") as raised:
            opened()
        assert "\n" not in str(raised.value)


def test_a_file_that_only_mentions_grib_is_no_grib(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=0) as file:
        file["GRIB"] = np.zeros(3)
    with pytest.raises(UserError, match="layout is unknown"):
        DataOptions(tmp_path / "a.h5").catalogue("train")


def test_icon_is_read_as_it_is():
    path = real_data("icon_global_1deg") / "icon_2021072400.nc"
    catalogue = DataOptions(path, inputs=("u850", "v850"), targets=("q850",)).catalogue("train")
    assert (catalogue.samples, catalogue.input_shape, catalogue.channel_names) == (21, (2, 181, 360), ("u850", "v850"))
    assert grid_of(catalogue).geometry == "globe"
    inputs, targets = Reader(catalogue).read([20, 0])
    with h5py.File(path) as file:
        for row, number in enumerate((20, 0)):
            np.testing.assert_array_equal(inputs[row], np.stack([file[name][number] for name in ("u850", "v850")]))
            np.testing.assert_array_equal(targets[row], file["q850"][number])
        scale, offset = (float(np.ravel(file["u850"].attrs[name])[0]) for name in ("scale_factor", "add_offset"))
    assert catalogue.packing[0] == (scale, offset)
    with FieldFile(str(path), ("u850", "v850")) as field:
        wind = field.read(0)
        assert len(field.times) == 21
    np.testing.assert_allclose(wind[..., 0], inputs[1, 0] * scale + offset, rtol=1e-6)
    assert np.abs(wind).max() < 120
