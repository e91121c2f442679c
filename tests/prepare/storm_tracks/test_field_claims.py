"""Headers of classic NetCDF files, held against the files' sizes before the NetCDF library believes them."""

import struct

import netCDF4
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.errors import UserError
from hpc_train.prepare.storm_tracks.classic import problem_of
from hpc_train.prepare.storm_tracks.fields import FieldFile

FORMATS = ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"]


def write(path, kind="NETCDF3_CLASSIC", types=("f4",), records=2):
    with netCDF4.Dataset(path, "w", format=kind) as file:
        for name, length in (("time", None), ("lat", 3), ("lon", 5)):
            file.createDimension(name, length)
        file.title = "odd"
        file.createVariable("time", "f8", ("time",)).units = "hours since 2000-01-01"
        for name, units in (("lat", "degrees_north"), ("lon", "degrees_east")):
            file.createVariable(name, "f4", (name,)).units = units
        file["lat"][:], file["lon"][:] = np.arange(3), np.arange(5)
        for number, dtype in enumerate(types):
            file.createVariable(f"u{number}", dtype, ("time", "lat", "lon"))[:records] = np.ones((records, 3, 5))
        file["time"][:records] = np.arange(records)
    return path.read_bytes()


@given(kind=st.sampled_from(FORMATS), types=st.lists(st.sampled_from(["i1", "i2", "i4", "f4", "f8"]), max_size=3),
       records=st.integers(0, 3))  # fmt: skip
def test_whole_files_have_no_problem_and_cut_ones_have(tmp_path_factory, kind, types, records):
    path = tmp_path_factory.mktemp("cut") / "a.nc"
    raw = write(path, kind, types, records)
    assert problem_of(str(path)) is None
    # The last record may be padded by up to three bytes.
    for length in (9, len(raw) // 2, len(raw) - 4):
        path.write_bytes(raw[:length])
        assert "truncated" in problem_of(str(path))


CLAIMS = {
    # A record has 8 bytes of time and 60 of the map.
    "records": (4, 2**28, rf"its header needs {68 * 2**28 // 1000}\d{{3}}"),
    "dimensions": (12, 2**28, "its header claims a list of 268435456"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_header_that_claims_more_than_the_file_holds_is_one_line(tmp_path, case):
    at, claimed, expected = CLAIMS[case]
    path = tmp_path / "a.nc"
    raw = bytearray(write(path))
    raw[at : at + 4] = struct.pack(">I", claimed)
    path.write_bytes(raw)
    with pytest.raises(UserError, match=expected) as caught:
        FieldFile(str(path), ["u0"])
    assert str(caught.value).startswith(f"{path}: truncated")


def test_a_map_that_the_file_can_hardly_hold_is_one_line(tmp_path):
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, length, units in (("time", 1, "hours since 2000-01-01"), ("lat", 2**16, "degrees_north"),
                                    ("lon", 2**16, "degrees_east")):  # fmt: skip
            file.createDimension(name, length)
            file.createVariable(name, "f4", (name,), chunksizes=(1,)).units = units
        file.createVariable("u", "f4", ("time", "lat", "lon"), chunksizes=(1, 256, 256))
    with pytest.raises(UserError, match="a map takes 17179869184 bytes, more than 268435456"):
        FieldFile(str(path), ["u"])
