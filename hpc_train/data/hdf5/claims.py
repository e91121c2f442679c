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
    shape, plist = dataset.shape, dataset.id.get_create_plist()
    if not shape or in_other_files(plist):
        return None
    chunk = plist.get_chunk() if plist.get_layout() == h5py.h5d.CHUNKED else ()
    # HDF5 opens such a file.
    if chunk and len(chunk) != len(shape):
        return f"its chunks {chunk} have another number of axes"
    item = dataset.dtype.itemsize
    chunks = prod(-(-extent // step) for extent, step in zip(shape, chunk, strict=True)) if chunk else 0
    claims = {
        f"an index of {chunks} chunks": (chunks * _CHUNK_ENTRY, _CHUNKS * _CHUNK_ENTRY, 1),
        "a sample": (prod(shape[1:] if rows else shape) * item, _AT_ONCE, _RATIO),
        "a chunk": (prod(chunk) * item, _AT_ONCE, _RATIO),
        "all of it": (prod(shape) * item, _IN_ALL, _RATIO),
    }
    for what, (claimed, allowed, ratio) in claims.items():
        # The file's size is asked for only where it matters.
        if claimed > allowed and claimed > ratio * (held := dataset.file.id.get_filesize()):
            return f"{what} takes {size(claimed)}, but its whole file has {size(held)}"
    return None
