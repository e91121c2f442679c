"""Chunked HDF5 data sets, read outside HDF5: equal to what h5py reads, and errors where bytes are damaged."""

import ctypes
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from chunked import FILTERS, datasets, read, values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_train.data.hdf5.chunked.array import ChunkedArray, ChunkError, reason_not
from hpc_train.data.hdf5.raw_file import File

UNCLEAR = "its chunks at the edge may be unfiltered"


def assert_equals_h5py(path, name, rows, by_rows=True, select=None):
    """Rows, delivered in an order of their own, have h5py's bytes; what was not asked for is left alone."""
    with h5py.File(path) as hdf5:
        dataset = hdf5[name]
        why = reason_not(dataset)
        if why == UNCLEAR:
            # It may say so only of chunks of full length, some of which the data set does not fill.
            assert any(extent % step for extent, step in zip(dataset.shape, dataset.chunks, strict=True))
            assert dataset.id.get_storage_size() % (np.prod(dataset.chunks) * dataset.dtype.itemsize) == 0
            return
        assert why is None
        array = ChunkedArray(dataset, File(str(path)), by_rows, select)
        expected = dataset[()] if by_rows else dataset[()][None]
    if select is not None:
        expected = expected[:, select]
    assert (array.rows, array.sample_shape) == (len(expected), expected.shape[1:])
    assert array.dtype == expected.dtype.newbyteorder("=")
    assert array.dtype.isnative
    samples = len(rows) + 2
    places = np.random.default_rng(len(rows)).permutation(samples)[: len(rows)]
    wanted = np.full((samples, *array.sample_shape), 77, array.dtype)
    # By bytes: a conversion may change the payload of a NaN.
    swapped = expected if expected.dtype.isnative else expected.byteswap().view(array.dtype)
    for row, place in zip(rows, places, strict=True):
        wanted[place] = swapped[row]
    assert read(array, rows, places, samples).tobytes() == wanted.tobytes()
    run = range(len(expected))
    assert read(array, run, run, len(expected)).tobytes() == np.ascontiguousarray(swapped).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("chunks")


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(spec=datasets(), data=st.data())
def test_every_filter_shape_and_type_reads_as_h5py(folder, filters, spec, data):
    path = folder / "a.h5"
    shape = spec["shape"]
    with h5py.File(path, "w") as hdf5:
        dataset = hdf5.create_dataset("deep/x", **spec, **filters, fillvalue=data.draw(st.integers(0, 9)))
        if data.draw(st.booleans(), "written in full"):
            dataset[()] = values(shape, spec["dtype"], data.draw(st.integers(0, 9)), data.draw(st.booleans()))
        else:
            part = tuple(slice(data.draw(st.integers(0, extent - 1)), None) for extent in shape)
            dataset[part] = values(dataset[part].shape, spec["dtype"], 0, True)
    by_rows = data.draw(st.booleans(), "rows")
    sample = shape[1:] if by_rows else shape
    select = data.draw(st.sampled_from([None, *range(sample[0])])) if sample else None
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1 if by_rows else 0), max_size=12))
    assert_equals_h5py(path, "deep/x", rows, by_rows, select)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "|u1"])
def test_chunks_of_many_blocks_read_as_h5py(tmp_path, name, dtype):
    generator = np.random.default_rng(3)
    data = generator.standard_normal((5, 101, 137)).cumsum(axis=-1).astype(dtype)
    data[1] = 0
    data[2] = values(data[2].shape, dtype, 1, smooth=False)
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        hdf5.create_dataset("x", data=data, chunks=(1, 101, 137), **FILTERS[name])
        hdf5.create_dataset("many", data=data, chunks=(3, 50, 137), **FILTERS[name])
    for dataset in ("x", "many"):
        assert_equals_h5py(tmp_path / "a.h5", dataset, [4, 0, 2, 2, 1])


def test_growing_and_shrunk_data_sets_read_as_h5py(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        dataset = hdf5.create_dataset("x", (3, 4), maxshape=(None, None), chunks=(2, 3), dtype=">i4", fillvalue=-5)
        dataset[()] = np.arange(12).reshape(3, 4)
        dataset.resize((9, 7))
        dataset[7, 2:] = 4
        dataset.resize((8, 5))
    assert_equals_h5py(tmp_path / "a.h5", "x", [7, 7, 0, 3, 5])


@pytest.mark.parametrize("time", [h5py.h5d.FILL_TIME_NEVER, h5py.h5d.FILL_TIME_IFSET, h5py.h5d.FILL_TIME_ALLOC])
def test_what_was_never_written_holds_the_fill_value_as_h5py_reads_it(tmp_path, time):
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2, 2))
        plist.set_fill_time(time)
        plist.set_fill_value(np.array(np.frombuffer(b"\1\0\xc0\x7f", "<f4")[0]))
        space = h5py.h5s.create_simple((5, 5))
        h5py.h5d.create(hdf5.id, b"x", h5py.h5t.IEEE_F32BE, space, plist)
    assert_equals_h5py(tmp_path / "a.h5", "x", [0, 4, 4])


def test_filters_that_a_chunk_was_written_without_are_not_undone(tmp_path):
    data = np.arange(40, dtype="<f4").reshape(4, 10)
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        dataset = hdf5.create_dataset("x", (4, 10), "<f4", chunks=(1, 10), compression="gzip", shuffle=True)
        dataset[0] = data[0]
        dataset.id.write_direct_chunk((1, 0), data[1].tobytes(), filter_mask=0b11)
        shuffled = data[2].view(np.uint8).reshape(10, 4).T.tobytes()
        dataset.id.write_direct_chunk((2, 0), shuffled, filter_mask=0b10)
    assert_equals_h5py(tmp_path / "a.h5", "x", [2, 1, 0, 3])


def with_plain_edges(path, shape, chunks, filters, data):
    """A data set `x` of int32 whose chunks at the edge are stored unfiltered: an option that h5py does not set."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(chunks)
    filters(plist)
    library = ctypes.CDLL(h5py.h5p.__file__)
    library.H5Pset_chunk_opts.argtypes = [ctypes.c_int64, ctypes.c_uint]
    # H5D_CHUNK_DONT_FILTER_PARTIAL_CHUNKS
    assert library.H5Pset_chunk_opts(plist.id, 2) == 0
    with h5py.File(path, "w") as hdf5:
        space = h5py.h5s.create_simple(shape, (h5py.h5s.UNLIMITED,) * len(shape))
        h5py.h5d.create(hdf5.id, b"x", h5py.h5t.STD_I32LE, space, plist).write(h5py.h5s.ALL, h5py.h5s.ALL, data)


def gzip(plist):
    plist.set_shuffle()
    plist.set_deflate(4)


def gzip_and_checksum(plist):
    gzip(plist)
    plist.set_fletcher32()


def shuffle_and_checksum(plist):
    plist.set_shuffle()
    plist.set_fletcher32()


def bitshuffle_lz4(plist):
    plist.set_filter(32008, h5py.h5z.FLAG_OPTIONAL, (0, 2))


@pytest.mark.parametrize("filters", [gzip, gzip_and_checksum, shuffle_and_checksum, bitshuffle_lz4])
@pytest.mark.parametrize(
    ("shape", "chunks"), [((25, 7), (10, 4)), ((20, 7), (10, 4)), ((5, 3), (10, 4)), ((25,), (10,))]
)
def test_chunks_at_the_edge_that_are_stored_unfiltered_read_as_h5py(tmp_path, filters, shape, chunks):
    with_plain_edges(tmp_path / "a.h5", shape, chunks, filters, np.arange(np.prod(shape), dtype="<i4").reshape(shape))
    assert_equals_h5py(tmp_path / "a.h5", "x", [4, 0, *range(shape[0])])
    assert_equals_h5py(tmp_path / "a.h5", "x", [0], by_rows=False)


def test_h5py_reads_chunks_at_the_edge_that_may_or_may_not_be_filtered(tmp_path):
    data = np.arange(175, dtype="<i4").reshape(25, 7)
    with_plain_edges(tmp_path / "plain.h5", data.shape, (10, 4), lambda plist: plist.set_shuffle(), data)
    with h5py.File(tmp_path / "shuffled.h5", "w") as hdf5:
        hdf5.create_dataset("x", data=data, chunks=(10, 4), shuffle=True)
        hdf5.create_dataset("bits", data=data, chunks=(10, 4), **FILTERS["bitshuffle"])
        hdf5.create_dataset("whole", data=data, chunks=(5, 7), shuffle=True)
        assert [reason_not(hdf5[name]) for name in ("x", "bits", "whole")] == [UNCLEAR, UNCLEAR, None]
    with h5py.File(tmp_path / "plain.h5") as hdf5:
        assert reason_not(hdf5["x"]) == UNCLEAR


def test_filtered_chunks_at_the_edge_beside_one_as_long_as_an_unfiltered_one_read_as_h5py(tmp_path):
    draw = np.random.default_rng(0)
    blocks = (draw.integers(0, 2**12, (2, 10), "<i4") for _ in range(10_000))
    # Compressed to the length that it had.
    block, stored = next((b, z) for b in blocks if len(z := zlib.compress(b.tobytes())) == b.nbytes)
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        for name, content, mask in (("compressed", stored, 0), ("left out", block.tobytes(), 1)):
            dataset = hdf5.create_dataset(name, (4, 17), "<i4", chunks=(2, 10), compression="gzip")
            dataset[()] = np.arange(68).reshape(4, 17)
            dataset.id.write_direct_chunk((0, 10), content, mask)
    for name in ("compressed", "left out"):
        assert_equals_h5py(tmp_path / "a.h5", name, [0, 1, 2, 3])


def test_a_damaged_chunk_at_the_edge_that_is_as_long_as_an_unfiltered_one_stays_damaged(tmp_path):
    data = np.random.default_rng(0).integers(0, 9, (4, 10), "<i4")
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        dataset = hdf5.create_dataset("x", (3, 10), "<i4", maxshape=(None, 10), chunks=(2, 10), compression="gzip")
        dataset[:2] = data[:2]
        dataset.id.write_direct_chunk((2, 0), data[2:].tobytes())
        with pytest.raises(ChunkError, match=r"chunk \(2, 0\).*does not decode"):
            read(ChunkedArray(dataset, File(hdf5.filename), True, None), [2], [0], 1)


def test_only_the_wanted_bytes_of_uncompressed_chunks_are_fetched(tmp_path):
    class Counting(File):
        fetched = 0

        def read_into(self, offset, buffer):
            self.fetched += memoryview(buffer).nbytes
            super().read_into(offset, buffer)

    data = values((8, 2, 200, 200), ">f4", 0, smooth=False)
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        dataset = hdf5.create_dataset("x", data=data, chunks=data.shape)
        hdf5.flush()
        file = Counting(str(tmp_path / "a.h5"))
        array = ChunkedArray(dataset, file, True, 1)
    out = read(array, [6, 1], [0, 1], 2)
    assert out.tobytes() == data[[6, 1], 1].byteswap().tobytes()
    assert file.fetched == out.nbytes


def test_reading_takes_no_memory_that_grows_with_the_request(tmp_path):
    data = np.arange(64 * 64 * 256, dtype="<f4").reshape(64, 64, 256)
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        dataset = hdf5.create_dataset("x", data=data, chunks=(4, 33, 256), compression="gzip", shuffle=True)
        hdf5.flush()
        array = ChunkedArray(dataset, File(hdf5.filename), True, None)
    out = np.empty((64, 64, 256), "<f4")
    jobs = array.jobs(np.arange(64)[::-1], np.arange(64), out)
    # A thread of its own starts without buffers.
    with ThreadPoolExecutor(1) as pool:
        tracemalloc.start()
        pool.submit(lambda: [job() for job in jobs]).result()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert out.tobytes() == data[::-1].tobytes()
    assert peak < 4 * (4 * 33 * 256 * 4)


def test_what_is_not_decoded_here_has_a_reason(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        create = hdf5.create_dataset
        create("contiguous", (4,), "<f4")
        create("scaled", (4, 4), "<i4", chunks=(2, 4), scaleoffset=3)
        create("compound", (4,), [("a", "<i4")], chunks=(2,))
        create("text", (4,), h5py.string_dtype(), chunks=(2,))
        create("bool", (4,), bool, chunks=(2,))
        create("twice", (4, 4), "<i4", chunks=(2, 4), compression="gzip")
        layout = h5py.VirtualLayout((4, 4), "<i4")
        layout[:] = h5py.VirtualSource(hdf5["twice"])
        hdf5.create_virtual_dataset("virtual", layout)
        create("outside", (4,), "<f4", external=[("b.raw", 0, 16)])
        narrow = h5py.h5t.STD_I32LE.copy()
        narrow.set_precision(20)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        plist.set_chunk((2,))
        h5py.h5d.create(hdf5.id, b"narrow", narrow, h5py.h5s.create_simple((4,)), plist)
        plist.set_deflate(1)
        plist.set_filter(32015, 0, (3,))
        h5py.h5d.create(hdf5.id, b"double", h5py.h5t.STD_I32LE, h5py.h5s.create_simple((4,)), plist)
        reasons = {name: reason_not(hdf5[name]) for name in hdf5}
    assert reasons == {
        "contiguous": "not chunked",
        "scaled": "filter scaleoffset is not decoded here",
        "compound": "its type is [('a', '<i4')]",
        "text": "its type is object",
        "bool": "its type is bool",
        "twice": None,
        "virtual": "a virtual data set",
        "outside": "its bytes are in external files",
        "narrow": "its type is not a plain int32",
        "double": "filter zstd is not decoded here",
    }


def test_a_file_with_a_user_block_is_left_to_h5py(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as hdf5:
        assert reason_not(hdf5.create_dataset("x", (4,), "<f4", chunks=(2,))) == "its file has a user block"


def test_it_says_how_it_reads(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        packed = hdf5.create_dataset("x", (64, 28, 28), "u1", chunks=(16, 28, 28), shuffle=True, compression="gzip")
        plain = hdf5.create_dataset("y", (64,), "i8", chunks=(16,))
        file = File(hdf5.filename)
        descriptions = [ChunkedArray(dataset, file, True, None).description for dataset in (packed, plain)]
    assert descriptions == [
        "chunks (16, 28, 28) of 12.25 KiB, shuffle + gzip: fetched by offset, decoded in threads",
        "chunks (16,) of 128 bytes, uncompressed: read by offset",
    ]


def test_rows_and_indices_outside_are_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as hdf5:
        dataset = hdf5.create_dataset("x", (4, 3), "<f4", chunks=(2, 2))
        file = File(hdf5.filename)
        array = ChunkedArray(dataset, file, True, None)
        with pytest.raises(ValueError, match=r"'x', samples of shape \(3,\): no index 3"):
            ChunkedArray(dataset, file, True, 3)
    for row in (-1, 4):
        with pytest.raises(IndexError, match=r"'x': rows must lie in \[0, 4\)"):
            array.jobs([row], [0], np.empty((1, 3), "<f4"))
