"""The shard format: what is in the files, and which files are read."""

import textwrap

import h5py
import hdf5plugin  # noqa: F401 (h5py reads zstd with it)
import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import REPOSITORY
from shard_contents import contents

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.data.sample_checks import first_outside
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.shards.compression import COMPRESSIONS, Storage
from hpc_train.data.shards.writer import ShardWriter

numbers = st.sampled_from(["u1", "i2", "<u4", "i8", "f2", "<f4", ">f4", "f8"])
shapes = st.lists(st.integers(1, 6), max_size=3).map(tuple)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 30),
    shape=shapes,
    target_shape=st.one_of(st.just(()), shapes),
    dtype=numbers,
    target_dtype=numbers,
    compression=st.sampled_from(COMPRESSIONS),
    chunk_bytes=st.integers(1, 400),
    shards=st.integers(1, 3),
    pieces=st.integers(1, 7),
)
def test_samples_written_in_pieces_are_read_by_h5py_bit_for_bit(
    tmp_path_factory, rows, shape, target_shape, dtype, target_dtype, compression, chunk_bytes, shards, pieces
):
    folder = tmp_path_factory.mktemp("shards")
    draw = np.random.default_rng(rows)
    inputs = draw.integers(0, 100, (rows, *shape)).astype(dtype)
    targets = draw.integers(0, 100, (rows, *target_shape)).astype(target_dtype)
    storage = Storage(compression, chunk_bytes)
    kinds = {"inputs": (shape, inputs.dtype), "targets": (target_shape, targets.dtype)}
    with ShardWriter(folder / "a.h5", rows, kinds, {"classes": 100}, storage) as writer:
        for start in range(0, rows, pieces):
            writer.write(inputs[start : start + pieces], targets[start : start + pieces])
    with h5py.File(folder / "a.h5") as file:
        for name, array in (("inputs", inputs), ("targets", targets)):
            dataset = file[name]
            assert dataset[()].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
            assert dataset.dtype.byteorder in "|<="
            assert dataset.shape == array.shape
            chunked = compression != "none" and (name == "inputs" or array.ndim > 1)
            assert (dataset.chunks is not None) == dataset.fletcher32 == chunked
            if chunked:
                chunk = np.prod(dataset.chunks) * dataset.dtype.itemsize
                assert chunk <= max(chunk_bytes, dataset.dtype.itemsize)
            run = file[f"checksums/{name}"].attrs["rows"]
            little = array.astype(array.dtype.newbyteorder("<"))
            expected = [xxhash.xxh3_64(little[a : a + run].tobytes()).intdigest() for a in range(0, rows, run)]
            assert file[f"checksums/{name}"][()].tolist() == expected
        assert (file.attrs["target_min"], file.attrs["target_max"]) == (targets.min(), targets.max())
    shards = min(shards, rows)
    write_shards(folder, "train", inputs, targets, classes=100, shards=shards, compression=compression)
    got = contents(folder)
    np.testing.assert_array_equal(got[0], inputs)
    np.testing.assert_array_equal(got[1], targets)


def test_chunks_are_of_about_the_size_asked_for():
    # 1 MiB holds 1337 images of 784 bytes; a line of a climate sample has 73,728 bytes, 768 lines make 55 parts.
    assert Storage().chunk_shape((60_000, 28, 28, 1), 1) == (1337, 28, 28, 1)
    assert Storage().chunk_shape((100, 28, 28, 1), 1) == (100, 28, 28, 1)
    assert Storage().chunk_shape((10, 768, 1152, 16), 4) == (1, 14, 1152, 16)
    assert Storage().chunk_shape((10, 16, 768, 1152), 4) == (1, 1, 192, 1152)
    assert Storage(chunk_bytes=8).chunk_shape((10, 3, 5), 4) == (1, 1, 2)


def test_contiguous_arrays_begin_at_a_page(tmp_path):
    paths = write_shards(tmp_path, "train", np.zeros((100, 50, 50)), np.zeros(100, "i8"), classes=1, shards=3)
    for path in paths:
        with h5py.File(path) as file:
            assert file["inputs"].id.get_offset() % 4096 == 0


def test_compressed_files_have_checksums_on_the_index_of_their_chunks(tmp_path):
    write_shards(tmp_path, "train", np.zeros((9, 50)), np.zeros((9, 50)), classes=1, shards=1, compression="zstd")
    raw = (tmp_path / "train-00000-of-00001.h5").read_bytes()
    # HDF5's file format specification: superblock version 3, object headers "OHDR"; no "TREE", whose nodes have none.
    assert raw[8] == 3
    assert b"OHDR" in raw
    assert b"TREE" not in raw


def test_an_unfinished_shard_is_not_a_shard(tmp_path):
    def write_half(path, then):
        kinds = {"inputs": ((2,), "f4"), "targets": ((), "u1")}
        with ShardWriter(path, 4, kinds, {"classes": 3}) as writer:
            writer.write(np.zeros((2, 2)), np.zeros(2))
            then()

    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "a.h5", lambda: 1 / 0)
    with pytest.raises(ValueError, match="2 of 4 samples"):
        write_half(tmp_path / "b.h5", lambda: None)
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name) as file:
            assert "format" not in file.attrs


def read_all(folder):
    catalogue = Catalogue.open(folder, "train")
    return Reader(catalogue).read(np.arange(catalogue.samples))


def test_shards_written_as_the_description_of_the_format_shows_are_read(tmp_path, monkeypatch):
    text = (REPOSITORY / "hpc_train" / "data" / "shards" / "FORMAT.md").read_text()
    code = textwrap.dedent(text.split("## Writing one\n\n")[1].split("\n\n`alignment")[0])
    monkeypatch.chdir(tmp_path)
    images, labels = np.random.default_rng(0).random((10, 4, 4, 2), "f4"), np.arange(10, dtype="u1") % 3
    exec(code, {"images": images, "labels": labels})
    got = read_all(tmp_path)
    np.testing.assert_array_equal(got[0], images)
    np.testing.assert_array_equal(got[1], labels)


def test_shards_of_version_1_are_read(tmp_path):
    inputs, targets = np.random.default_rng(0).random((10, 3)), np.arange(10) % 3
    for path in write_shards(tmp_path, "train", inputs, targets, classes=3, shards=2):
        with h5py.File(path, "r+") as file:
            del file["checksums"], file.attrs["channels"]
            file.attrs["version"] = 1
    np.testing.assert_array_equal(read_all(tmp_path)[0], inputs)
    np.testing.assert_array_equal(read_all(tmp_path)[1], targets)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_targets_may_be_values_instead_of_class_labels(tmp_path, compression):
    draw = np.random.default_rng(0)
    inputs, targets = draw.random((10, 3)), draw.normal(size=(10, 4, 2))
    write_shards(tmp_path, "train", inputs, targets, classes=0, shards=2, compression=compression)
    assert Catalogue.open(tmp_path, "train").classes == 0
    np.testing.assert_array_equal(read_all(tmp_path)[1], targets)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (np.array([0, 2, 1]), None),
        (np.array([0, 3, 1]), 1),
        (np.array([0.0, 2.0]), None),
        (np.array([0.0, 0.5]), 1),
        (np.array([0.0, 1.0, np.nan]), 2),
        (np.array([0.0, -np.inf]), 1),
        (np.array([[[0, 1], [2, 2]], [[0, 1], [-1, 2]]], np.int8), 1),
        (np.array([[0.0, 1.0], [1.0, 1.25]], np.float16), 1),
        (np.array([200, 2], np.uint8), 0),
        (np.zeros((0, 3)), None),
    ],
)
def test_labels_outside_the_classes_are_found_in_any_shape_and_type(targets, expected):
    assert first_outside(targets, 3) == expected
