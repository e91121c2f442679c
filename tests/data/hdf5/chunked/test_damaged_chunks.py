"""Chunks whose bytes are damaged: errors that name the place, and nothing worse."""

import os

import h5py
import numpy as np
import pytest
from chunked import FILTERS, read, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_train.data.hdf5.chunked.array import ChunkedArray, ChunkError
from hpc_train.data.hdf5.raw_file import File


def damaged(path, at, flip=0xFF):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ flip]))


@pytest.mark.parametrize("name", ["gzip", "shuffle+gzip", "fletcher32", "shuffle+lzf+fletcher32", "zstd+fletcher32"])
def test_a_flipped_byte_is_an_error_that_names_data_set_and_chunk(tmp_path, name):
    path = tmp_path / "a.h5"
    data = np.random.default_rng(0).integers(0, 50, (4, 30, 30)).astype("<f4")
    with h5py.File(path, "w") as hdf5:
        dataset = hdf5.create_dataset("group/inputs", data=data, chunks=(1, 20, 30), **FILTERS[name])
        chunk = dataset.id.get_chunk_info_by_coord((2, 20, 0))
    for place in np.linspace(0, chunk.size - 1, 12).astype(int):
        damaged(path, chunk.byte_offset + place)
        with h5py.File(path) as hdf5:
            array = ChunkedArray(hdf5["group/inputs"], File(str(path)), True, None)
        with pytest.raises(ChunkError) as caught:
            read(array, [1, 2], [0, 1], 2)
        text = f"data set 'group/inputs', chunk (2, 20, 0) at byte {chunk.byte_offset}: it"
        assert str(caught.value).startswith(text)
        assert (caught.value.dataset, caught.value.chunk) == ("group/inputs", (2, 20, 0))
        damaged(path, chunk.byte_offset + place)
        assert read(array, [1, 2], [0, 1], 2).tobytes() == data[1:3].tobytes()


def test_a_checksum_that_does_not_match_is_called_so(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as hdf5:
        dataset = hdf5.create_dataset("x", data=np.arange(100.0), chunks=(50,), fletcher32=True)
        start = dataset.id.get_chunk_info(1).byte_offset
    damaged(path, start + 17)
    with h5py.File(path) as hdf5:
        array = ChunkedArray(hdf5["x"], File(str(path)), True, None)
    with pytest.raises(ChunkError, match=r"'x', chunk \(50,\) at byte \d+: its fletcher32 checksum does not match"):
        read(array, [60], [0], 1)
    assert read(array, [49], [0], 1) == 49


@pytest.mark.parametrize("name", ["none", "gzip"])
@pytest.mark.parametrize("after_opening", [False, True])
def test_a_file_that_ends_early_is_an_error_that_names_the_chunk(tmp_path, name, after_opening):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as hdf5:
        data = values((4, 100), "<f8", 0, smooth=False)
        last = hdf5.create_dataset("x", data=data, chunks=(1, 100), **FILTERS[name]).id.get_chunk_info(3).byte_offset
    with h5py.File(path) as hdf5:
        if after_opening:
            array = ChunkedArray(hdf5["x"], File(str(path)), True, None)
            os.truncate(path, last + 10)
        else:
            os.truncate(path, last + 10)
            array = ChunkedArray(hdf5["x"], File(str(path)), True, None)
    with pytest.raises(ChunkError, match=r"'x', chunk \(3, 0\) at byte \d+: .* ends at byte"):
        read(array, [3], [0], 1)
    assert read(array, [2], [0], 1).tobytes() == data[2].tobytes()


@pytest.mark.parametrize("name", FILTERS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_garbage_gives_a_chunk_error_or_numbers_but_nothing_else(tmp_path, name, data):
    path = tmp_path / "garbage.h5"
    with h5py.File(path, "w") as hdf5:
        dataset = hdf5.create_dataset("x", (1, 20, 20), "<f4", chunks=(1, 20, 20), **FILTERS[name])
        dataset[()] = values((1, 20, 20), "<f4", 0, smooth=True)
        hdf5.flush()
        _, stored = dataset.id.read_direct_chunk((0, 0, 0))
        stored = bytearray(stored)
        for _ in range(data.draw(st.integers(1, 4))):
            # Headers lie ahead.
            place = data.draw(st.integers(0, len(stored) - 1) | st.integers(0, min(90, len(stored) - 1)))
            stored[place] = data.draw(st.integers(0, 255))
        stored = stored[: data.draw(st.integers(1, len(stored)) | st.just(len(stored)))]
        dataset.id.write_direct_chunk((0, 0, 0), bytes(stored))
        array = ChunkedArray(dataset, File(str(path)), True, None)
    guard = np.full((3, 20, 20), 5, "<f4")
    try:
        for job in array.jobs([0], [1], guard):
            job()
    except ChunkError:
        pass
    assert (guard[[0, 2]] == 5).all()
