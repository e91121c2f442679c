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
    shape, steps, item = dataset.shape or (), dataset.chunks or (), dataset.dtype.itemsize
    # HDF5 opens such a file.
    if steps and len(steps) != len(shape):
        return f"its chunks {steps} have another number of axes"
    claims = {
        "a sample": (prod(shape[1:] if rows else shape) * item, _AT_ONCE),
        "a chunk": (prod(steps) * item if steps else 0, _AT_ONCE),
        "all of it": (prod(shape) * item, _IN_ALL),
    }
    chunks = prod(-(-extent // step) for extent, step in zip(shape, steps or shape, strict=True))
    # Of most files no more needs to be asked.
    if chunks <= _CHUNKS and all(claimed <= allowed for claimed, allowed in claims.values()):
        return None
    if dataset.is_virtual or dataset.external:
        return None
    held = dataset.file.id.get_filesize()
    if chunks > max(_CHUNKS, held // _CHUNK_ENTRY):
        return f"it has {chunks} chunks, but its whole file has {size(held)}"
    for what, (claimed, allowed) in claims.items():
        if claimed > max(allowed, _RATIO * held):
            return f"{what} takes {size(claimed)}, but its whole file has {size(held)}"
    return None
