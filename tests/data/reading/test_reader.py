"""The reader of shards of arrays."""

import fcntl
import os
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_shards import CLASSES, SHARD, refusal, samples, write_small

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.file_info import NOT_CONTIGUOUS
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards


@pytest.fixture
def folder(tmp_path):
    """22 train samples in 4 shards and 6 test samples in 2."""
    return write_small(tmp_path)


@pytest.mark.parametrize("index", [-1, 22])
def test_reading_outside_the_split_is_an_error_of_the_program(folder, index):
    with pytest.raises(IndexError, match=r"not in \[0, 22\)"):
        Reader(Catalogue.open(folder, "train")).read([0, index])


def compress(folder):
    inputs, targets = samples(22)
    edges = [0, 5, 11, 16, 22]
    for shard in range(4):
        rows = slice(edges[shard], edges[shard + 1])
        with h5py.File(folder / f"train-0000{shard}-of-00004.h5", "r+") as file:
            for name, array in (("inputs", inputs), ("targets", targets)):
                del file[name]
                file.create_dataset(name, data=array[rows], chunks=True, compression="gzip")


@pytest.fixture(params=["contiguous", "compressed"])
def either(request, folder):
    """The folder with contiguous shards, then with compressed ones."""
    if request.param == "compressed":
        compress(folder)
    catalogue = Catalogue.open(folder, "train")
    assert ((catalogue.at == NOT_CONTIGUOUS) == (request.param == "compressed")).all()
    return folder


@settings(deadline=None, max_examples=30)
@given(wanted=st.lists(st.integers(0, 21), max_size=30))
def test_reader_gives_samples_in_the_order_asked(tmp_path_factory, wanted):
    inputs, targets = samples(22)
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, "train", inputs, targets, classes=CLASSES, shards=4)
    for change in (lambda folder: None, compress):
        change(folder)
        got_inputs, got_targets = Reader(Catalogue.open(folder, "train")).read(np.array(wanted, np.int64))
        np.testing.assert_array_equal(got_inputs, inputs[wanted])
        np.testing.assert_array_equal(got_targets, targets[wanted])


def test_reader_returns_arrays_of_the_callers_own(either):
    reader = Reader(Catalogue.open(either, "train"))
    first, labels = reader.read([3, 4])
    first[:], labels[:] = 0, 0
    np.testing.assert_array_equal(reader.read([3, 4])[0], samples(22)[0][3:5])
    np.testing.assert_array_equal(reader.read([3, 4])[1], samples(22)[1][3:5])


def test_reader_serves_many_threads(either, monkeypatch):
    monkeypatch.setattr("hpc_train.data.reading.reader._OPEN_FILES", 2)
    inputs, targets = samples(22)
    reader = Reader(Catalogue.open(either, "train"))
    batches = [np.random.default_rng(k).integers(0, 22, 16) for k in range(200)]
    with ThreadPoolExecutor(8) as pool:
        for wanted, (got_inputs, got_targets) in zip(batches, pool.map(reader.read, batches), strict=True):
            np.testing.assert_array_equal(got_inputs, inputs[wanted])
            np.testing.assert_array_equal(got_targets, targets[wanted])


def test_reader_keeps_few_files_open(folder, monkeypatch):
    monkeypatch.setattr("hpc_train.data.reading.reader._OPEN_FILES", 2)
    reader = Reader(Catalogue.open(folder, "train"))
    before = len(os.listdir("/proc/self/fd"))
    reader.read(np.arange(22))
    # One for the file and one for its map.
    assert len(os.listdir("/proc/self/fd")) - before == 2 * 2


def test_catalogue_and_reader_ask_for_no_file_lock(either):
    with open(either / SHARD, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        Reader(Catalogue.open(either, "train")).read([5, 6])


def test_a_shard_that_vanishes_before_it_is_read(either):
    reader = Reader(Catalogue.open(either, "train"))
    (either / SHARD).unlink()
    reader.read([0, 4, 11])
    message = refusal(reader.read, [0, 5])
    assert message.startswith(f"{either / SHARD}: cannot be read (No such file or directory)")


def shrink(folder):
    """Cut the shard two bytes behind the beginning of its inputs; returns its new size."""
    with h5py.File(folder / SHARD) as file:
        inputs = file["inputs"].id
        begins = inputs.get_offset() or inputs.get_chunk_info(0).byte_offset
    os.truncate(folder / SHARD, begins + 2)
    return begins + 2


def test_a_shard_that_shrinks_before_it_is_read(either):
    reader = Reader(Catalogue.open(either, "train"))
    shrink(either)
    message = refusal(reader.read, [5])
    assert message.startswith(f"{either / SHARD}: cannot be read (")


def test_a_shard_that_shrinks_after_it_was_read(folder):
    reader = Reader(Catalogue.open(folder, "train"))
    reader.read([5])
    size = shrink(folder)
    assert f"the file ends at byte {size}, but its data end at byte" in refusal(reader.read, [5])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_reader_names_file_row_and_sample_that_are_not_finite(tmp_path, value):
    inputs, targets = samples(12, np.float32)
    write_shards(tmp_path, "train", inputs, targets, classes=CLASSES, shards=2)
    path = tmp_path / "train-00001-of-00002.h5"
    with h5py.File(path, "r+") as file:
        file["inputs"][3, 0, 0, 0] = value
    catalogue = Catalogue.open(tmp_path, "train")
    message = refusal(Reader(catalogue).read, [1, 9, 2])
    assert message.startswith(f"{path}: row 3 (sample 9 of 'train') holds NaN or infinity (")
    assert "hpc-train prepare" in message
    Reader(catalogue).read([1, 8, 10])
    assert not np.isfinite(Reader(catalogue, check=False).read([9])[0]).all()


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_reader_names_file_row_and_sample_whose_label_is_outside(either, label):
    with h5py.File(either / SHARD, "r+") as file:
        file["targets"][2] = label
    reader = Reader(Catalogue.open(either, "train"))
    message = refusal(reader.read, [0, 7])
    assert f"{SHARD}: row 2 (sample 7 of 'train') has label {label}, outside the 5 classes" in message
    assert Reader(reader.catalogue, check=False).read([7])[1] == label
