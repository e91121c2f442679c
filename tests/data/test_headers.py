"""Files with equal headers are described by the first of them: each description is that of a look into the file."""

import h5py
import numpy as np
import pytest

from hpc_train.data.catalogue import inspection
from hpc_train.data.catalogue.inspection import inspect_file
from hpc_train.data.catalogue.layout import Layout
from hpc_train.errors import UserError

X = np.arange(24, dtype="f4").reshape(4, 6)
LAYOUT = Layout("named", ("x",), ("y",), rows=True, channels="last")


def plain(file):
    file["x"], file["y"] = X, np.arange(4)


def with_attribute(name, value):
    def write(file):
        plain(file)
        file["x"].attrs[name] = value

    return write


def of(**options):
    def write(file):
        file["y"] = np.arange(4)
        file.create_dataset("x", **({"shape": X.shape, "dtype": "f4", "data": X} | options))

    return write


def unwritten(file):
    file["y"] = np.arange(4)
    file.create_dataset("x", X.shape, "f4")


def of_24_bits(file):
    file["y"] = np.arange(4)
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_precision(24)
    h5py.h5d.create(file.id, b"x", kind, h5py.h5s.create_simple(X.shape))
    file["x"][...] = X.astype("i4")


def linked(file):
    file["y"] = np.arange(4)
    file["x"] = h5py.ExternalLink("other.h5", "x")


def virtual(file):
    file["y"] = np.arange(4)
    layout = h5py.VirtualLayout(X.shape, "f4")
    layout[...] = h5py.VirtualSource("other.h5", "x", X.shape)
    file.create_virtual_dataset("x", layout)


OTHERS = {
    "behind": lambda file: (file.create_dataset("first", data=np.arange(999)), plain(file)),
    "packed": with_attribute("scale_factor", 0.5),
    "missing": with_attribute("_FillValue", np.float32(3)),
    "attribute of no convention": with_attribute("units", "K"),
    "fill value": of(fillvalue=1e20),
    "big endian": of(dtype=">f4"),
    "24 bits": of_24_bits,
    "chunked": of(chunks=(2, 3)),
    "other chunks": of(chunks=(1, 6)),
    "compressed": of(chunks=(2, 3), compression="gzip"),
    "unwritten": unwritten,
    "external": of(external=[("raw.bin", 0, X.nbytes)]),
    "linked": linked,
    "virtual": virtual,
    "more rows": lambda file: (file.create_dataset("x", data=np.tile(X, (2, 1))), file.create_dataset("y", data=X[0])),
    "text": of(dtype="S4", data=X.astype("S4")),
    "one number": of(shape=(), data=X[0, 0]),
    "no samples": of(shape=(0, 6), data=X[:0]),
}


def described(path):
    """What `inspect_file` says of it."""
    try:
        return inspect_file(str(path), LAYOUT, None)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("other", OTHERS)
def test_a_file_is_described_as_if_it_were_the_first(tmp_path, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    for name, write in (("other", plain), ("one", plain), ("two", plain), ("three", OTHERS[other])):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            write(file)
    paths = [tmp_path / f"{name}.h5" for name in ("one", "three", "two", "three", "one")]
    one_by_one = []
    for path in paths:
        monkeypatch.setattr(inspection, "_known", {})
        one_by_one.append(described(path))
    monkeypatch.setattr(inspection, "_known", {})
    assert list(map(described, paths)) == one_by_one
    assert one_by_one[1] != one_by_one[0] or other == "attribute of no convention"


def test_an_index_in_a_name_is_part_of_it_where_such_a_data_set_exists(tmp_path, monkeypatch):
    monkeypatch.setattr(inspection, "_known", {})
    layout = Layout("named", ("x[0]",), ("y",), rows=True, channels="last")
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["x"], file["y"] = np.zeros((4, 6, 6), "f4"), np.arange(4)
    with h5py.File(tmp_path / "two.h5", "w") as file:
        file["x[0]"], file["y"] = np.zeros((4, 6, 6), "f4"), np.arange(4)
    shapes = [inspect_file(str(tmp_path / f"{name}.h5"), layout, None).common.kinds[0].shape for name in ("one", "two")]
    assert shapes == [(6,), (6, 6)]


def test_equal_headers_are_looked_into_once(tmp_path, monkeypatch):
    looks = []
    real = inspection._inspect
    monkeypatch.setattr(inspection, "_known", {})
    monkeypatch.setattr(
        inspection, "_inspect", lambda file, path, layout: (looks.append(path), real(file, path, layout))[1]
    )
    for name in ("one", "two", "three"):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            plain(file)
        inspect_file(str(tmp_path / f"{name}.h5"), LAYOUT, None)
    assert looks == [str(tmp_path / "one.h5")]
