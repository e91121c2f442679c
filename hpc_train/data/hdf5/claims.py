"""What the shape of a data set claims, held against its file's size before memory is set aside for it."""

from math import prod

import h5py

from hpc_train.data.hdf5.access import in_other_files
from hpc_train.units import size

# Deflate makes at most 1032 bytes of one; values that were never written take none.
_RATIO = 1032
_AT_ONCE, _IN_ALL = 2**28, 2**33
# Of chunks: what HDF5 looks up in some seconds. Each that was written has its place and size in the file.
_CHUNKS, _CHUNK_ENTRY = 2**20, 16


def claim_of(dataset: h5py.Dataset, rows: bool) -> str | None:
    """What a data set claims that is hardly in its file; None where it may be. Bytes in other files are not counted.

    Args:
        dataset: the open data set.
        rows: the first axis counts samples.
    """
    shape, chunks = dataset.shape, dataset.chunks or ()
    if not shape or in_other_files(dataset):
        return None
    # HDF5 opens such a file.
    if chunks and len(chunks) != len(shape):
        return f"its chunks {chunks} have another number of axes"
    for what, claimed, ratio in excessive(shape, chunks, dataset.dtype.itemsize, rows):
        if claimed > ratio * (held := dataset.file.id.get_filesize()):
            return f"{what} takes {size(claimed)}, but its whole file has {size(held)}"
    return None


def excessive(shape: tuple[int, ...], chunks: tuple[int, ...], item: int, rows: bool) -> list[tuple[str, int, int]]:
    """(what, bytes, most bytes for one of the file) that a shape claims and that no small file can hold.

    Args:
        shape: of the data set.
        chunks: of as many axes, or () for none.
        item: bytes of a number.
        rows: the first axis counts samples.
    """
    count = prod(-(-extent // step) for extent, step in zip(shape, chunks, strict=True)) if chunks else 0
    claims = (
        (f"an index of {count} chunks", count * _CHUNK_ENTRY, _CHUNKS * _CHUNK_ENTRY, 1),
        ("a sample", prod(shape[1:] if rows else shape) * item, _AT_ONCE, _RATIO),
        ("a chunk", prod(chunks) * item, _AT_ONCE, _RATIO),
        ("all of it", prod(shape) * item, _IN_ALL, _RATIO),
    )
    return [(what, claimed, ratio) for what, claimed, allowed, ratio in claims if claimed > allowed]
