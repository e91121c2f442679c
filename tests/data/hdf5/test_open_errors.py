"""Files and data sets that cannot be read: the reason that HDF5 has, and a step that works."""

import os
import shutil

import h5py
import numpy as np
import pytest

from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError


def refusal(path, name="x"):
    with pytest.raises(UserError) as caught:
        DataOptions(data=path, inputs=(name,)).catalogue()
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


STARTS = {
    "classic NetCDF, not HDF5; convert it with `nccopy -k nc4": b"CDF\x05",
    "HDF4, not HDF5; convert it with `h4toh5convert": b"\x0e\x03\x13\x01",
    "GRIB, not HDF5; convert it with `grib_to_netcdf": b"GRIB",
    "compressed with gzip; unpack it": b"\x1f\x8b\x08",
    "a zip archive; unpack it": b"PK\x03\x04",
    "a page of the web or XML": b"<!DOCTYPE html>",
    "not an HDF5 file; fetch or write it again": b"numbers",
}


@pytest.mark.parametrize("text", STARTS)
def test_other_kinds_of_files_are_named_with_a_way_to_convert_them(tmp_path, text):
    (tmp_path / "a.h5").write_bytes(STARTS[text] + bytes(100))
    assert refusal(tmp_path / "a.h5").startswith(text)


def test_an_empty_and_a_truncated_file_are_called_so(tmp_path):
    (tmp_path / "empty.h5").touch()
    assert refusal(tmp_path / "empty.h5") == "an empty file; fetch or write it again"
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.arange(1000)
    size = os.path.getsize(tmp_path / "a.h5")
    os.truncate(tmp_path / "a.h5", 3000)
    assert refusal(tmp_path / "a.h5") == f"truncated: 3000 of {size} bytes; fetch or write it again"


@pytest.mark.parametrize("swmr", [False, True])
def test_a_file_that_is_open_for_writing_is_no_damaged_one(tmp_path, swmr):
    path, left = tmp_path / "a.h5", tmp_path / "left.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file["x"] = np.zeros((4, 3))
        file.flush()
        if swmr:
            file.swmr_mode = True
        # What a writer that was killed leaves.
        shutil.copy(path, left)
        wanted = "open for writing, or its writer ended without closing it; wait until it is closed, or if nobody"
        assert refusal(path).startswith(wanted)
        assert refusal(left).startswith(wanted)
    assert DataOptions(data=path, inputs=("x",)).catalogue().samples == 4


def test_parts_of_a_file_in_several_are_named_with_the_tool_that_joins_them(tmp_path):
    with h5py.File(tmp_path / "f%d.h5", "w", driver="family", memb_size=4096) as file:
        file["x"] = np.zeros((400, 3))
    for number in range(3):
        assert refusal(tmp_path / f"f{number}.h5").startswith("one part of a family of files; join them with `h5repart")
    with h5py.File(tmp_path / "s", "w", driver="split") as file:
        file["x"] = np.zeros((4, 3))
    for part in "mr":
        assert refusal(tmp_path / f"s-{part}.h5").startswith("one part of a file in several (HDF5's multi or split")
    (tmp_path / "sub.h5").write_bytes(b"stub")
    (tmp_path / "sub.h5.subfile_12_1_of_2").write_bytes(bytes(9))
    for name in ("sub.h5", "sub.h5.subfile_12_1_of_2"):
        assert refusal(tmp_path / name).startswith("written in parts (HDF5's subfiling driver); join them with `h5fuse")


def test_a_filter_that_is_not_installed_is_named_unless_its_chunks_do_without(tmp_path):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2, 3))
    plist.set_filter(32100, h5py.h5z.FLAG_OPTIONAL, ())
    data = np.arange(12.0).reshape(4, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, mask in ((b"x", 0), (b"plain", 1)):
            made = h5py.h5d.create(file.id, name, h5py.h5t.IEEE_F64LE, h5py.h5s.create_simple((4, 3)), plist)
            for row in (0, 2):
                made.write_direct_chunk((row, 0), data[row : row + 2].tobytes(), mask)
    text = refusal(tmp_path / "a.h5")
    assert text.startswith("x needs filter 32100 (")
    assert "HDF5_PLUGIN_PATH" in text
    reader = Reader(DataOptions(data=tmp_path, inputs=("plain",)).catalogue())
    np.testing.assert_array_equal(reader.read(range(4))[0], data)


LINKS = {
    "to a name that is not there": (h5py.SoftLink("/gone/x"), "x is a link to /gone/x, which is not there"),
    "to a file that is missing": (h5py.ExternalLink("gone.h5", "/d"), "x is a link to /d in gone.h5, and there is no "),
    "to a data set that the file lacks": (h5py.ExternalLink("b.h5", "/gone"), "x is a link to /gone in b.h5, which"),
    "to a file that is no HDF5": (h5py.ExternalLink("c.txt", "/d"), "x is a link to /d in c.txt, but "),
    "to itself": (h5py.SoftLink("/x"), "x is a link that goes round in a circle"),
}


@pytest.mark.parametrize("link", LINKS)
def test_a_link_to_nothing_is_named_with_its_target(tmp_path, link):
    target, text = LINKS[link]
    (tmp_path / "c.txt").write_text("no HDF5")
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["d"] = np.zeros(4)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["group/other"] = target, 1
        file["deep"] = h5py.SoftLink("/x")
    assert refusal(tmp_path / "a.h5").startswith(text)
    assert text.removeprefix("x ") in refusal(tmp_path / "a.h5", "deep")
