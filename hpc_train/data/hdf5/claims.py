"""What the shape of a data set claims, held against its file's size before memory is set aside for it."""

from math import prod

import h5py

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
    if dataset.is_virtual or dataset.external or not dataset.shape:
        return None
    # HDF5 opens such a file.
    if dataset.chunks and len(dataset.chunks) != len(dataset.shape):
        return f"its chunks {dataset.chunks} have another number of axes"
    held = dataset.file.id.get_filesize()
    item = dataset.dtype.itemsize
    sample = prod(dataset.shape[1:] if rows else dataset.shape) * item
    claims = {
        "a sample": (sample, _AT_ONCE),
        "a chunk": (prod(dataset.chunks or ()) * item, _AT_ONCE),
        "all of it": (prod(dataset.shape) * item, _IN_ALL),
    }
    pairs = zip(dataset.shape, dataset.chunks, strict=True) if dataset.chunks else ()
    chunks = prod(-(-extent // step) for extent, step in pairs)
    if chunks > max(_CHUNKS, held // _CHUNK_ENTRY):
        return f"it has {chunks} chunks, but its whole file has {size(held)}"
    for what, (claimed, allowed) in claims.items():
        if claimed > max(allowed, _RATIO * held):
            return f"{what} takes {size(claimed)}, but its whole file has {size(held)}"
    return None
