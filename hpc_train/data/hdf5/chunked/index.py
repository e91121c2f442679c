"""Where the chunks of an HDF5 data set are in its file, how long they are, and which filters each one skipped.

H5Pset_chunk_opts: https://support.hdfgroup.org/documentation/hdf5/latest/group___d_c_p_l.html
"""

from array import array
from math import prod

import h5py
import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.hdf5.contents import name_of

NEVER_WRITTEN = -1
# A filter mask that skips every filter.
_NO_FILTER = 2**32 - 1
_UNPLACED = "HDF5 does not say where its chunks belong"


class Unclear(Exception):
    """HDF5 lists the chunks of a data set, but not for certain where each belongs."""


def read_index(dataset: h5py.Dataset, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read address, size and filter mask of each chunk, with HDF5.

    Args:
        size: bytes of a decoded chunk.

    Returns:
        Three arrays of the shape of the grid of chunks: addresses, int64, NEVER_WRITTEN for a chunk without bytes;
        stored bytes, int64; filter masks, uint32.

    Raises:
        Unclear: where HDF5 lists the chunks, but not for certain where each belongs.
        OSError: where the index is damaged.
    """
    grid = tuple(-(-extent // step) for extent, step in zip(dataset.shape, dataset.chunks, strict=True))
    # Of each chunk its offset, filter mask, address and size.
    listed = array("q")

    def add(info):
        listed.extend((*info.chunk_offset, info.filter_mask, info.byte_offset, info.size))

    try:
        if hasattr(dataset.id, "chunk_iter"):
            dataset.id.chunk_iter(add)
        else:
            for number in range(dataset.id.get_num_chunks()):
                add(dataset.id.get_chunk_info(number))
    except (OSError, RuntimeError, ValueError, IndexError, OverflowError) as error:
        name = name_of(dataset)
        raise OSError(f"data set {name!r}: its chunk index cannot be read ({reason(error)})") from error
    addresses = np.full(grid, NEVER_WRITTEN, np.int64)
    sizes, masks = np.zeros(grid, np.int64), np.zeros(grid, np.uint32)
    if listed:
        table = np.array(listed).reshape(-1, len(grid) + 3)
        cells = _cells(dataset, table[:, :-3], grid)
        masks[cells], addresses[cells], sizes[cells] = table[:, -3:].T
        if np.count_nonzero(addresses != NEVER_WRITTEN) < len(table):
            raise Unclear(_UNPLACED)
    if has_edge(dataset) and dataset.id.get_create_plist().get_nfilters():
        edge = _edge(dataset, grid)
        if _not_filtered(dataset, np.argwhere(edge & (masks == 0) & (sizes == size))):
            masks[edge] = _NO_FILTER
    return addresses, sizes, masks


def _cells(dataset, offsets: np.ndarray, grid: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """Places in the grid of the chunks at these offsets (chunks, axes).

    HDF5 numbers the chunks of an extensible array with the one axis that grows without limit first, but lists them
    (to 2.0.0) as if that axis had kept its place: every chunk then seems to lie at 0 of the axes ahead of it.
    """
    cells, beyond = np.divmod(offsets, dataset.chunks)
    if beyond.any() or (cells >= grid).any():
        raise Unclear(_UNPLACED)
    if prod(grid) == 1:
        return tuple(cells.T)
    growing = [axis for axis, most in enumerate(dataset.maxshape) if most is None]
    if len(growing) == 1:
        ahead = growing[0]
        several = any(most > step for most, step in zip(dataset.maxshape[:ahead], dataset.chunks, strict=False))
        if several and not cells[:, :ahead].any():
            raise Unclear("HDF5 may list its chunks in another order")
    return tuple(cells.T)


def has_edge(dataset: h5py.Dataset) -> bool:
    """Whether some chunks are only partly filled by the data set."""
    return any(extent % step for extent, step in zip(dataset.shape, dataset.chunks, strict=True))


def _edge(dataset, grid):
    """Which chunks of the grid are only partly filled."""
    edge = np.zeros(grid, bool)
    for axis, (extent, step) in enumerate(zip(dataset.shape, dataset.chunks, strict=True)):
        if extent % step:
            edge[(slice(None),) * axis + (-1,)] = True
    return edge


def _not_filtered(dataset, cells):
    """Whether the chunks at the edge are not filtered, an option of the data set that their masks do not show.

    h5py does not give the option, but HDF5 applies it. So the values that HDF5 reads of one chunk, the first of
    `cells`, which have the length of unfiltered chunks, are compared with its stored bytes.
    """
    if not len(cells):
        return False
    offset = tuple(int(at) * step for at, step in zip(cells[0], dataset.chunks, strict=True))
    place = tuple(
        slice(at, min(at + step, extent))
        for at, step, extent in zip(offset, dataset.chunks, dataset.shape, strict=True)
    )
    try:
        values = dataset[place]
        stored = np.frombuffer(dataset.id.read_direct_chunk(offset)[1], dataset.dtype).reshape(dataset.chunks)
    except (OSError, RuntimeError, ValueError):
        # Filtered, and damaged or with a filter that HDF5 lacks: unfiltered bytes can always be read.
        return False
    return values.tobytes() == stored[tuple(map(slice, values.shape))].tobytes()
