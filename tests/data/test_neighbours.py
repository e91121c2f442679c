"""What stands beside the data sets that are asked for stops no command; and names that are not plain are found."""

import json
import os

import h5py
import numpy as np
import pytest
from small_shards import refusal

from hpc_train.data.fields.grid import read_grid, read_time
from hpc_train.data.inspect.command import Inspect
from hpc_train.data.inspect.command import run as inspect
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack.command import Shard
from hpc_train.data.repack.command import run as shard
from hpc_train.data.statistics.command import Stats
from hpc_train.data.statistics.command import run as stats
from hpc_train.data.verify.command import Verify
from hpc_train.data.verify.command import run as verify

MAPS = np.random.default_rng(0).normal(size=(6, 4, 5)).astype("f4")
LABELS = np.arange(120).reshape(6, 4, 5) % 2


def low_level(name, kind=h5py.h5t.STD_I32LE):
    """Adds a data set with a name of these bytes, or of a type that h5py has no NumPy type for."""
    return lambda file: h5py.h5d.create(file.id, name, kind, h5py.h5s.create_simple((3,)))


def attribute(name, value, of="/"):
    return lambda file: file[of].attrs.__setitem__(name, value)


def time_attribute(file):
    h5py.h5a.create(file.id, b"format", h5py.h5t.UNIX_D32LE, h5py.h5s.create(h5py.h5s.SCALAR))


def unknown_filter(file):
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((2,))
    plist.set_filter(12345, h5py.h5z.FLAG_OPTIONAL, ())
    h5py.h5d.create(file.id, b"odd", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((4,)), plist)


def links(file):
    file["soft"], file["external"] = h5py.SoftLink("/nowhere"), h5py.ExternalLink("no.h5", "/x")
    file["there"], file["back"] = h5py.SoftLink("/back"), h5py.SoftLink("/there")
    file["group/circle"] = file["/"]


def sets(**named):
    return lambda file: [file.create_dataset(name, data=data) for name, data in named.items()]


ODD = {
    "format is a list": attribute("format", ["a", "b"]),
    "format is numbers": attribute("format", np.arange(3)),
    "format is no UTF-8": attribute("format", np.bytes_(b"\xff\xfe")),
    "format is empty": attribute("format", h5py.Empty("f4")),
    "format is of a type that cannot be read": time_attribute,
    "parts are numbers": attribute("parts", np.arange(3)),
    "a text as fill value": attribute("_FillValue", "none", of="other"),
    "an empty scale factor": attribute("scale_factor", h5py.Empty("f4"), of="other"),
    "a sign that is none": attribute("_Unsigned", np.arange(2), of="other"),
    "a name that is no UTF-8": low_level(b"caf\xe9"),
    "a name of two lines": low_level(b"a\nb"),
    "a type that cannot be read": low_level(b"t", h5py.h5t.UNIX_D32LE),
    "a filter that is not there": unknown_filter,
    "links that lead nowhere": links,
    "texts, records, references, nothing": lambda file: sets(
        t=["a"], c=np.zeros(3, "i4,f4"), r=np.array([file.ref], h5py.ref_dtype), e=h5py.Empty("f4")
    )(file),
    "groups with the names of data sets": lambda file: [file.create_group(f"climate/{n}") for n in ("data", "labels")],
    "latitudes that are texts": sets(lat=["a"] * 4, lon=["b"] * 5),
    "times without units that are texts": lambda file: (
        sets(time=np.arange(6))(file),
        attribute("units", [1, 2], "time"),
    ),
}


def damaged(path):
    """Writes over the header of the object `other`."""
    with h5py.File(path) as file:
        at = h5py.h5o.get_info(file["other"].id).addr
    with open(path, "r+b") as raw:
        raw.seek(at)
        raw.write(b"\xde\xad\xbe\xef" * 4)


@pytest.mark.parametrize("odd", [*ODD, "an object that cannot be read"])
def test_what_is_not_asked_for_stops_no_command(tmp_path, odd, capsys):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["y"], file["other"] = MAPS, LABELS, np.zeros(3)
        if odd in ODD:
            ODD[odd](file)
    if odd not in ODD:
        damaged(path)
        # What is asked for is named, with HDF5's reason.
        line = refusal(DataOptions(path, inputs=("other",)).catalogue, "train")
        assert line.startswith(f"{path}: other cannot be opened (")
        assert "object header" in line
    asked = {"data": path, "inputs": ("x",), "targets": ("y",), "classes": 2}
    stats(Stats(**asked, output=tmp_path))
    verify(Verify(**asked))
    shard(Shard(**asked, output=tmp_path / "shards"))
    inspect(Inspect(**asked))
    assert read_grid(str(path), 4, 5).assumed
    assert read_time(str(path), 0, 6) is None
    for name, array in zip(
        "xy", Reader(DataOptions(tmp_path / "shards").catalogue("train")).read(range(6)), strict=True
    ):
        np.testing.assert_array_equal(array, {"x": MAPS, "y": LABELS}[name])
    capsys.readouterr()
    # Where nothing is named, all that can be read is listed.
    inspect(Inspect(path))
    shown = capsys.readouterr().out
    assert "\n  x" in shown
    assert "for example --inputs x --targets y" in shown
    inspect(Inspect(path, json=True))
    names = {entry["name"] for entry in json.loads(capsys.readouterr().out)["splits"][0]["datasets"]}
    assert {"x", "y"} <= names
    assert f"{path}: the layout is unknown; name its data sets" in refusal(DataOptions(path).catalogue, "train")
    assert f"{path}: has no data set 'z'; it has " in refusal(DataOptions(path, inputs=("z",)).catalogue, "train")


def test_names_that_are_no_utf8_are_read_and_shown_as_a_shell_takes_them(tmp_path, capsys):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, chunks in ((b"caf\xe9", None), (b"gr\xfcn", (2, 3))):
            plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            if chunks:
                plist.set_chunk(chunks)
            made = h5py.h5d.create(file.id, name, h5py.h5t.STD_I32LE, h5py.h5s.create_simple((6, 3)), plist)
            h5py.Dataset(made)[...] = np.arange(18).reshape(6, 3)
    inspect(Inspect(path))
    assert r"caf\xe9" in capsys.readouterr().out
    # Python's own form of such words of a command line.
    asked = {"data": path, "inputs": ("one=caf\udce9", "two=gr\udcfcn")}
    for array in Reader(DataOptions(**asked).catalogue("train")).read([5, 0]):
        assert array.tolist() == [[15, 16, 17], [0, 1, 2]]
    verify(Verify(**asked))
    stats(Stats(**asked, output=tmp_path))
    inspect(Inspect(**asked))


def test_a_name_that_ends_in_an_index_is_the_data_set_of_that_name_if_there_is_one(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["x"], file["x[1]"], file["only[0]"] = MAPS, MAPS[:, 0] + 5, np.arange(6)
        file.create_dataset("chunked[2]", data=MAPS, chunks=(2, 4, 5), compression="gzip")
    expected = {"x[1]": MAPS[:, 0] + 5, "x[2]": MAPS[:, 2], "only[0]": np.arange(6), "chunked[2]": MAPS}
    expected |= {"chunked[2][3]": MAPS[:, 3]}
    for name, values in expected.items():
        asked = {"data": path, "inputs": (name,)}
        np.testing.assert_array_equal(Reader(DataOptions(**asked).catalogue("train")).read(range(6))[0], values)
        verify(Verify(**asked))
        inspect(Inspect(**asked))
    assert "asks for index 7 of a sample of shape (4, 5)" in refusal(DataOptions(path, inputs=("x[7]",)).catalogue)
    assert "has no data set 'none'" in refusal(DataOptions(path, inputs=("none[7]",)).catalogue)


@pytest.mark.parametrize("name", ["data.mat", "scan.nxs", "cells.h5ad", "spikes.nwb"])
def test_hdf5_files_of_other_suffixes_give_a_hint_that_works(tmp_path, name):
    # MATLAB's files begin with a block of their own.
    with h5py.File(tmp_path / name, "w", userblock_size=512 if name.endswith(".mat") else 0) as file:
        file["x"] = MAPS
    (tmp_path / "about.txt").write_text("")
    asked = {"inputs": ("x",)}
    line = refusal(DataOptions(tmp_path, **asked).catalogue, "train")
    pattern = f"{tmp_path}/*{name[name.index('.') :]}"
    assert f"but {name} is HDF5; give a quoted pattern of such names: --data '{pattern}'" in line
    np.testing.assert_array_equal(Reader(DataOptions(pattern, **asked).catalogue("train")).read(range(6))[0], MAPS)
    (tmp_path / name).write_text("")
    assert "is HDF5" not in refusal(DataOptions(tmp_path, **asked).catalogue, "train")


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a folder"])
def test_what_is_no_file_is_named_and_not_waited_for(tmp_path, kind):
    odd = tmp_path / "a.h5"
    {"a pipe": os.mkfifo, "a device": lambda path: path.symlink_to("/dev/zero"), "a folder": os.mkdir}[kind](odd)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["x"] = MAPS
    line = f"{odd}: is no file but a pipe or a device; leave it out"
    if kind == "a folder":
        line = f"{odd}: cannot be read (Is a directory); check the path and its permissions"
    for options in (DataOptions(tmp_path), DataOptions(tmp_path, inputs=("x",))):
        assert refusal(options.catalogue, "train") == line
    if kind != "a folder":
        assert "is no file but a pipe or a device" in refusal(DataOptions(odd).catalogue, "train")
    assert "1 thing is broken" in refusal(verify, Verify(tmp_path, inputs=("x",)))
