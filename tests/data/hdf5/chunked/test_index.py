"""Where chunks are, by every kind of index that HDF5 has, full, partly written, grown and shrunk."""

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t

from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError

SHAPE, CHUNK, ANY = (4, 6, 8), (2, 2, 2), None
# libver, the chunk, the largest shape, whether space is taken at once.
INDICES = {
    "v1 B-tree": ("earliest", CHUNK, SHAPE, False),
    "v1 B-tree that grows along its last axis": ("v108", CHUNK, (4, 6, ANY), False),
    "single": ("latest", SHAPE, SHAPE, False),
    "implicit": ("latest", CHUNK, SHAPE, True),
    "fixed array": ("latest", CHUNK, SHAPE, False),
    "fixed array for more": ("latest", CHUNK, (8, 7, 20), False),
    "extensible array along axis 0": ("latest", CHUNK, (ANY, 6, 8), False),
    "extensible array along axis 1": ("latest", CHUNK, (4, ANY, 8), False),
    "extensible array along axis 2": ("latest", CHUNK, (4, 6, ANY), False),
    "extensible array along axis 1 for more": ("v110", CHUNK, (8, ANY, 20), False),
    "extensible array, one chunk ahead": ("latest", (4, 2, 2), (4, ANY, 8), False),
    "v2 B-tree": ("latest", CHUNK, (ANY, ANY, ANY), False),
    "v2 B-tree along two axes": ("latest", CHUNK, (ANY, 6, ANY), False),
}
WRITTEN = {
    "all": (slice(None),) * 3,
    "the end": (slice(2, None), slice(4, None), slice(2, None)),
    "the middle": (slice(None), slice(2, 3), slice(3, 5)),
    "one chunk ahead": (slice(0, 2), slice(2, 6), slice(0, 8)),
    "one number": (slice(3, 4), slice(0, 1), slice(0, 1)),
}


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("filters", [{}, {"compression": "gzip"}], ids=["plain", "gzip"])
@pytest.mark.parametrize("index", INDICES)
def test_numbers_are_those_of_h5py_whatever_the_index(tmp_path, index, filters, written):
    libver, chunk, most, early = INDICES[index]
    numbers = np.arange(1, 1 + np.prod(SHAPE), dtype="<i4").reshape(SHAPE)
    plist = h5p.create(h5p.DATASET_CREATE)
    plist.set_chunk(chunk)
    if filters:
        plist.set_deflate(1)
    if early:
        plist.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    with h5py.File(tmp_path / "a.h5", "w", libver=(libver, "latest")) as file:
        space = h5s.create_simple(SHAPE, tuple(h5s.UNLIMITED if extent is ANY else extent for extent in most))
        dataset = h5py.Dataset(h5d.create(file.id, b"x", h5t.STD_I32LE, space, plist))
        dataset[WRITTEN[written]] = numbers[WRITTEN[written]]
        grown = tuple(9 if extent is ANY else extent for extent in most)
        dataset.resize(grown)
        dataset.resize(tuple(min(pair) for pair in zip(grown, (3, 5, 7), strict=True)) if written == "all" else SHAPE)
        expected = dataset[()]
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["x"], expected)
    reader = Reader(DataOptions(data=tmp_path, inputs=("x",)).catalogue())
    np.testing.assert_array_equal(reader.read(range(len(expected)))[0], expected)


def test_a_part_written_along_an_axis_that_grows_is_in_its_place(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        file.create_dataset("x", (4, 600), "i4", chunks=(2, 100), maxshape=(4, None))[2:, :100] = 7
    (got,) = Reader(DataOptions(data=tmp_path, inputs=("x",)).catalogue()).read(range(4))
    assert got[2:, :100].tolist() == [[7] * 100] * 2
    assert got.sum() == 7 * 200


def test_contiguous_numbers_that_use_some_of_their_bits_are_read_as_hdf5_reads_them(tmp_path):
    kind = h5t.STD_U32LE.copy()
    kind.set_precision(25)
    kind.set_offset(7)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = h5d.create(file.id, b"x", kind, h5s.create_simple((4, 3)))
        dataset.write(h5s.ALL, h5s.ALL, np.arange(12, dtype="u4").reshape(4, 3))
    reader = Reader(DataOptions(data=tmp_path, inputs=("x",)).catalogue())
    assert reader.read([3, 0])[0].tolist() == [[9, 10, 11], [0, 1, 2]]
    assert reader.describe() == ["x: through h5py, one thread at a time (its type is not a plain uint32)"]


@pytest.mark.parametrize("chunked", [False, True])
def test_bfloat16_is_read_as_float32(tmp_path, chunked):
    kind, plist = h5t.IEEE_F32LE.copy(), h5p.create(h5p.DATASET_CREATE)
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    if chunked:
        plist.set_chunk((2, 3))
    bits = np.arange(0x3F80, 0x3F80 + 12, dtype="<u2").reshape(4, 3)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        h5d.create(file.id, b"x", kind, h5s.create_simple((4, 3)), plist).write(h5s.ALL, h5s.ALL, bits, kind)
    (got,) = Reader(DataOptions(data=tmp_path, inputs=("x",)).catalogue()).read(range(4))
    np.testing.assert_array_equal(got, (bits.astype("<u4") << 16).view("<f4"))


def test_what_was_never_written_behind_a_user_block_is_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file.create_dataset("x", (4, 3), "i4", fillvalue=-5)
    assert Reader(DataOptions(data=tmp_path, inputs=("x",)).catalogue()).read([1])[0].tolist() == [[-5] * 3]


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        (np.longdouble, "x holds float128, numbers beyond 64 bits; store it as float64"),
        ("c8", "x holds complex64, not numbers; choose another data set, or store the real and the imaginary parts"),
        (h5py.string_dtype(), "x holds text, not numbers; choose another data set"),
        ("S4", "x holds text, not numbers; choose another data set"),
        ([("a", "i4")], "x holds compound values, not numbers; choose another data set"),
        (h5py.vlen_dtype("i4"), "x holds sequences of variable length, not numbers; choose another data set"),
        (h5py.opaque_dtype("M8[s]"), "x holds opaque bytes, not numbers; choose another data set"),
        (h5py.ref_dtype, "x holds references, not numbers; choose another data set"),
    ],
)
def test_types_that_are_no_numbers_are_named_when_the_file_is_opened(tmp_path, dtype, text):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", (4,), dtype)
    with pytest.raises(UserError) as caught:
        DataOptions(data=tmp_path, inputs=("x",)).catalogue()
    assert str(caught.value).startswith(f"{tmp_path / 'a.h5'}: {text}")
