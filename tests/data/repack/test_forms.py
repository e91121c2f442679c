"""`hpc-train shard` brings files of several types, byte orders and packings into one form, where that is exact."""

import h5py
import numpy as np
import pytest
from shard_contents import contents
from small_shards import refusal

from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack.command import Shard, run
from hpc_train.data.verify.command import Verify
from hpc_train.data.verify.command import run as verify

PACKED = {"scale_factor": 0.5, "add_offset": -3.0}
# Types of the files, the attributes of the last one, and the type of the result.
FORMS = {
    "byte orders": (["<i2", ">i2"], {}, "<i2"),
    "sizes": (["u1", "<i2", ">i4"], {}, "<i4"),
    "signs": (["u2", "i2"], {}, "<i4"),
    "whole and not": (["i2", "f4"], {}, "<f4"),
    "32 bits and floats": (["i4", "f4"], {}, "<f8"),
    "precisions": (["<f2", ">f4", "<f8"], {}, "<f8"),
    "packings": (["i2", "i2"], PACKED, "<f4"),
    "packed and doubles": (["f8", "i2"], PACKED, "<f8"),
    "fill values": (["i2", "i2"], {"_FillValue": np.int16(-99)}, "<i2"),
    "signs by attribute": (["u1", "<i2"], {"_Unsigned": "true"}, "<u2"),
}


def write(folder, dtypes, attributes, split="train"):
    """A file of each type, with attributes in the last; returns the real values of all."""
    (folder / split).mkdir(parents=True, exist_ok=True)
    values = []
    for number, dtype in enumerate(dtypes):
        stored = np.random.default_rng(number).integers(0, 100, (5, 3)).astype(dtype)
        own = attributes if number == len(dtypes) - 1 else {}
        with h5py.File(folder / split / f"{number}.h5", "w") as file:
            file["x"], file["y"] = stored, np.arange(5) % 2
            file["x"].attrs.update(own)
        values.append(stored.astype("f8") * own.get("scale_factor", 1) + own.get("add_offset", 0))
    return np.concatenate(values)


@pytest.mark.parametrize("case", FORMS)
def test_files_of_several_forms_become_shards_of_one(tmp_path, case):
    dtypes, attributes, result = FORMS[case]
    values = write(tmp_path / "in", dtypes, attributes)
    asked = {"data": tmp_path / "in", "inputs": ("x",), "targets": ("y",), "classes": 2}
    line = refusal(DataOptions(**asked).catalogue, "train")
    assert line.endswith("; leave it out, or convert the files to one form with `hpc-train shard`")
    for name, seed in (("plain", None), ("shuffled", 3)):
        run(Shard(**asked, output=tmp_path / name, shuffle_seed=seed))
        verify(Verify(tmp_path / name))
    catalogue = DataOptions(tmp_path / "plain").catalogue("train")
    assert catalogue.input_dtype == np.dtype(result)
    inputs, targets = Reader(catalogue).read(range(len(values)))
    np.testing.assert_array_equal(inputs, values)
    np.testing.assert_array_equal(targets, np.tile(np.arange(5) % 2, len(dtypes)))
    shuffled = contents(tmp_path / "shuffled")[0]
    assert (shuffled != values).any()
    np.testing.assert_array_equal(np.sort(shuffled, axis=0), np.sort(values, axis=0))


def test_splits_of_several_types_get_one_type_and_labels_keep_theirs(tmp_path):
    values = {split: write(tmp_path / "in", [dtype], {}, split) for split, dtype in (("train", "u1"), ("test", ">f4"))}
    with h5py.File(tmp_path / "in" / "test" / "0.h5", "r+") as file:
        del file["y"]
        file["y"] = np.arange(5, dtype="u1") % 2
    run(Shard(tmp_path / "in", inputs=("x",), targets=("y",), classes=2, output=tmp_path / "out"))
    for split, labels in (("train", "i8"), ("test", "u1")):
        catalogue = DataOptions(tmp_path / "out").catalogue(split)
        assert (catalogue.input_dtype, catalogue.target_dtype) == (np.dtype("f4"), np.dtype(labels))
        np.testing.assert_array_equal(Reader(catalogue).read(range(5))[0], values[split])


def test_types_that_no_type_holds_and_shapes_that_differ_are_refused(tmp_path):
    write(tmp_path / "in", ["i8", "f4"], {})
    options = Shard(tmp_path / "in", inputs=("x",), targets=("y",), classes=2, output=tmp_path / "out")
    assert "the input is float32 and int64 in different files, and no type holds all of these" in refusal(run, options)
    with h5py.File(tmp_path / "in" / "train" / "1.h5", "r+") as file:
        del file["x"]
        file["x"] = np.zeros((5, 4), "i8")
    line = refusal(run, options)
    assert line == f"{tmp_path}/in/train/1.h5: input shape is (4,), but (3,) in {tmp_path}/in/train/0.h5; leave it out"
