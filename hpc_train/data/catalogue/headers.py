"""The headers of a file's data sets: of files with equal ones, only the first is looked into.

Reading a header takes a few calls of HDF5's own functions; a description takes twice as long as opening the file.
"""

from typing import NamedTuple

import h5py

from hpc_train.data.catalogue.conventions import conventions_of
from hpc_train.data.catalogue.layout import Layout
from hpc_train.data.hdf5.contents import UNREADABLE, id_at
from hpc_train.files.hdf5 import excessive

_OWN_STORAGE = (h5py.h5d.COMPACT, h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED)


class Header(NamedTuple):
    """All that the description of a data set depends on, except for where its bytes begin.

    Args:
        shape, chunks: its axes; without chunks, ().
        type: HDF5's own description of the type of its numbers.
        filters: (number, parameters); all are available.
        storage: HDF5's kind of layout.
        written: some of it is stored.
        taken: index of a sample's first axis that the name asks for.
    """

    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    type: bytes
    filters: tuple[tuple[int, tuple[int, ...]], ...]
    storage: int
    written: bool
    taken: int | None


def headers_of(file: h5py.File, layout: Layout) -> tuple[tuple[Header, ...], tuple[int, ...]] | None:
    """(headers, byte offsets) of the layout's data sets; the offset is -1 for what is not one run of bytes.

    None where a description depends on more: attributes, fill values, lengths, other files, and sizes that are held
    against the file's own.
    """
    if any(place.lengths for place in layout.places):
        return None
    here, headers, offsets = h5py.h5f.get_name(file.id), [], []
    try:
        for name in layout.datasets:
            held, index = id_at(file, name)
            header = _header(held, index, layout.rows) if held else None
            if held is None or header is None or h5py.h5f.get_name(held) != here:
                return None
            headers.append(header)
            offset = held.get_offset() if header.written and not header.chunks else None
            offsets.append(-1 if offset is None else offset)
    except UNREADABLE:
        return None
    return tuple(headers), tuple(offsets)


def _header(held: h5py.h5d.DatasetID, index: int | None, rows: bool) -> Header | None:
    plist, kind, shape = held.get_create_plist(), held.get_type(), held.shape
    storage = plist.get_layout()
    if not shape or storage not in _OWN_STORAGE or plist.get_external_count():
        return None
    if conventions_of(held) or plist.fill_value_defined() == h5py.h5d.FILL_VALUE_USER_DEFINED:
        return None
    chunks = plist.get_chunk() if storage == h5py.h5d.CHUNKED else ()
    # Numbers and parameters.
    filters = tuple((held[0], held[2]) for held in map(plist.get_filter, range(plist.get_nfilters())))
    if not all(h5py.h5z.filter_avail(number) for number, _ in filters) or excessive(
        shape, chunks, kind.get_size(), rows
    ):
        return None
    return Header(shape, chunks, kind.encode(), filters, storage, bool(held.get_storage_size()), index)
