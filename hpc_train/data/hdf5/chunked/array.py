"""Read chunked HDF5 data sets by offset and decode them outside the HDF5 library, which has one lock."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise, product
from math import prod

import h5py
import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.hdf5.chunked.codec_buffers import ROOM, Damaged, expect_size, scratch
from hpc_train.data.hdf5.chunked.index import NEVER_WRITTEN, has_edge, read_index
from hpc_train.data.hdf5.chunked.request import Request
from hpc_train.data.hdf5.contents import name_of
from hpc_train.data.hdf5.filters import filter_names
from hpc_train.data.hdf5.number_types import is_plain
from hpc_train.data.hdf5.raw_file import File

_SHUFFLE, _BITSHUFFLE = 2, 32008
# Reading this many bytes more costs less than one more read.
_WORTH_A_READ = 64 * 2**10
_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "bytes": 1}


class ChunkError(OSError):
    """A chunk that cannot be read.

    Args:
        dataset: name of the data set.
        chunk: offset of the chunk's first element in the data set.
        at: byte offset in the file.
        why: what is wrong.
    """

    def __init__(self, dataset: str, chunk: tuple[int, ...], at: int, why: str):
        super().__init__(f"data set {dataset!r}, chunk {chunk} at byte {at}: {why}")
        self.dataset, self.chunk = dataset, chunk


def reason_not(dataset: h5py.Dataset) -> str | None:
    """Why ChunkedArray cannot read this data set, or None when it can."""
    if dataset.is_virtual:
        return "a virtual data set"
    if dataset.external:
        return "its bytes are in external files"
    dtype = dataset.dtype
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        return f"its type is {dtype}"
    if not is_plain(dataset):
        return f"its type is not a plain {dtype}"
    if not dataset.chunks:
        return "not chunked"
    # HDF5 releases differ in whether the addresses of chunks include it.
    if dataset.file.userblock_size:
        return "its file has a user block"
    filters = _filters(dataset)
    if not filters:
        return None
    from hpc_train.data.hdf5.chunked.codecs import unsupported

    place = unsupported(filters)
    if place is not None:
        return f"filter {filter_names(dataset)[place]} is not decoded here"
    # Without a checksum or a change of length, the bytes do not show whether they were filtered.
    if all(map(_only_reorders, filters)) and has_edge(dataset):
        return "its chunks at the edge may be unfiltered"
    return None


class ChunkedArray:
    """Samples of a chunked data set for which `reason_not` is None. HDF5 is used at construction only.

    Args:
        dataset: the open data set.
        file: the same file, for reads by offset.
        rows: the first axis counts samples; else the whole data set is one sample.
        select: take only this index of the sample's first axis, and drop that axis.
        dtype: of the numbers, where they are meant to have another sign than the data set's.

    Raises:
        ValueError: when there is no such index.
        Unclear: when HDF5 does not say for certain where the chunks are; it can read them itself.
        OSError: when the chunk index is damaged.
    """

    def __init__(self, dataset: h5py.Dataset, file: File, rows: bool, select: int | None, dtype=None):
        self.name = name_of(dataset)
        self._file = file
        self._by_rows = rows
        self._stored = dtype or dataset.dtype
        self.dtype = self._stored.newbyteorder("=")
        self._shape = dataset.shape if rows else (1, *dataset.shape)
        self._chunk = dataset.chunks if rows else (1, *dataset.chunks)
        self._strides = tuple(self._stored.itemsize * prod(self._chunk[axis + 1 :]) for axis in range(len(self._chunk)))
        self._bytes = self._strides[0] * self._chunk[0]
        self._select = select
        if select is not None and not (len(self._shape) > 1 and 0 <= select < self._shape[1]):
            raise ValueError(f"data set {self.name!r}, samples of shape {self._shape[1:]}: no index {select}")
        self.rows = self._shape[0]
        self.sample_shape = self._shape[1:] if select is None else self._shape[2:]
        self._axes = [self._pieces(axis) for axis in range(1, len(self._shape))]
        self._fill = _fill_value(dataset, dataset.dtype.newbyteorder("=")).view(self.dtype)
        filters = _filters(dataset)
        self._pipeline = None
        if filters:
            from hpc_train.data.hdf5.chunked.codecs import Pipeline

            self._pipeline = Pipeline(filters, self._bytes)
        # Rows that are decoded together, whether they were requested or not.
        self.rows_together = self._chunk[0] if filters else 1
        self.quick = False
        index = read_index(dataset, self._bytes)
        self._addresses, self._sizes, self._masks = index if rows else (table[None] for table in index)
        names = " + ".join(filter_names(dataset))
        how = f"{names}: fetched by offset, decoded in threads" if names else "uncompressed: read by offset"
        self.description = f"chunks {dataset.chunks} of {_in_words(self._bytes)}, {how}"

    def jobs(
        self, rows: np.ndarray, places: np.ndarray, out: np.ndarray, look: Callable[[np.ndarray], None] | None = None
    ) -> list[Callable[[], None]]:
        """Functions that read the chunks, one for each.

        Args:
            rows: integers (n,), which may repeat.
            places: integers (n,): out[places[i]] becomes the row rows[i].
            out: (b, *sample_shape) of `dtype`, each out[i] C-contiguous.
            look: called with each piece of `out` once it is read, while it is still in the processor's cache.

        Returns:
            Functions for any threads, in any order; they raise ChunkError.
        """
        rows, places = np.asarray(rows), np.asarray(places)
        if rows.size and not (rows.min() >= 0 and rows.max() < self.rows):
            raise IndexError(f"data set {self.name!r}: rows must lie in [0, {self.rows})")
        order = np.lexsort((places, rows))
        numbers, rows = np.divmod(rows[order], self._chunk[0])
        places = places[order]
        jobs = []
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(numbers)]
        for start, stop in pairwise(edges):
            if start == stop:
                continue
            request = Request(rows[start:stop], places[start:stop])
            for pieces in product(*self._axes):
                cell = (int(numbers[start]), *(number for number, _, _ in pieces))
                inside = tuple(inside for _, inside, _ in pieces)
                part = out[(slice(None), *(outside for _, _, outside in pieces if outside is not None))]
                jobs.append(partial(self._read, cell, inside, request, part, look))
        return jobs

    def _pieces(self, axis):
        """[(number of the chunk along the axis, part of the chunk to take, where it goes in the sample)]"""
        extent, step = self._shape[axis], self._chunk[axis]
        if axis == 1 and self._select is not None:
            number, inside = divmod(self._select, step)
            return [(number, slice(inside, inside + 1), None)]
        return [
            (start // step, slice(0, min(step, extent - start)), slice(start, min(start + step, extent)))
            for start in range(0, extent, step)
        ]

    def _read(self, cell, inside, request, part, look):
        """Read the requested rows of one chunk. part: (b, ...), the region of the output that the chunk covers."""
        address, size, mask = (int(table[cell]) for table in (self._addresses, self._sizes, self._masks))
        if address == NEVER_WRITTEN:
            for _, count, place in request.runs:
                part[place : place + count] = self._fill
                if look:
                    look(part[place : place + count])
            return
        try:
            if address + size > self._file.size:
                raise Damaged(f"it ends at byte {address + size}, but the file ends at byte {self._file.size}")
            if self._pipeline is None:
                expect_size(size, self._bytes)
                self._read_plain(address, inside, request, part)
            else:
                self._read_filtered(address, size, mask, inside, request, part)
        except (OSError, Damaged) as error:
            offset = tuple(number * step for number, step in zip(cell, self._chunk, strict=True))
            chunk = offset if self._by_rows else offset[1:]
            raise ChunkError(self.name, chunk, address, reason(error)) from error
        for _, count, place in request.runs if look else ():
            look(part[place : place + count])

    def _read_filtered(self, address, size, mask, inside, request, part):
        stored = scratch("stored", size)
        self._file.read_into(address, stored[ROOM:])
        target = self._whole_chunk(request, part)
        decoded = self._pipeline.decode(stored, mask, target)
        if target is None:
            chunk = decoded.view(self._stored).reshape(self._chunk)
            request.copy(self._without_selected(chunk[(slice(None), *inside)]), 0, part)

    def _whole_chunk(self, request, part):
        """The memory of the output as bytes, if the decoded chunk goes there unchanged; else None."""
        if len(request.runs) > 1 or not self._stored.isnative:
            return None
        _, count, place = request.runs[0]
        target = part[place : place + count]
        if target.nbytes != self._bytes or not target.flags.c_contiguous:
            return None
        return target.reshape(-1).view(np.uint8)

    def _read_plain(self, address, inside, request, part):
        """Read only the requested rows, or the bytes between them as well where that saves many reads."""
        extents = [piece.stop - piece.start for piece in inside]
        strides = self._strides[1:]
        begin = sum(piece.start * stride for piece, stride in zip(inside, strides, strict=True))
        end = begin + sum((extent - 1) * stride for extent, stride in zip(extents, strides, strict=True))
        end += self._stored.itemsize
        contiguous = end - begin == prod(extents) * self._stored.itemsize
        row = self._strides[0]
        first, last = int(request.rows[0]), int(request.rows[-1])
        together = (last - first) * row + end - begin <= len(request.runs) * _WORTH_A_READ
        for piece in [request] if together or len(request.runs) == 1 else request.split():
            first, count, place = piece.runs[0]
            target = part[place : place + count]
            alone = len(piece.runs) == 1 and contiguous and (count == 1 or end - begin == row)
            if alone and target.flags.c_contiguous:
                self._file.read_into(address + first * row + begin, target.reshape(-1).view(np.uint8))
                if not self._stored.isnative:
                    target.byteswap(inplace=True)
                continue
            count = int(piece.rows[-1]) - first + 1
            buffer = scratch("stored", (count - 1) * row + end - begin)
            self._file.read_into(address + first * row + begin, buffer[ROOM:])
            source = np.ndarray((count, *extents), self._stored, buffer, ROOM, self._strides)
            piece.copy(self._without_selected(source), first, part)

    def _without_selected(self, rows):
        return rows if self._select is None else rows[:, 0]


def _filters(dataset):
    plist = dataset.id.get_create_plist()
    return [(number, values) for number, _, values, _ in map(plist.get_filter, range(plist.get_nfilters()))]


def _only_reorders(filter_):
    number, values = filter_
    return number == _SHUFFLE or (number == _BITSHUFFLE and (len(values) < 5 or values[4] == 0))


def _fill_value(dataset, dtype):
    fill = np.zeros((), dtype)
    plist = dataset.id.get_create_plist()
    # As in h5py: zeros where HDF5 would leave the memory unchanged.
    undefined = plist.fill_value_defined() == h5py.h5d.FILL_VALUE_UNDEFINED
    if not undefined and plist.get_fill_time() != h5py.h5d.FILL_TIME_NEVER:
        plist.get_fill_value(fill)
    return fill


def _in_words(size):
    unit = next(unit for unit in ("GiB", "MiB", "KiB", "bytes") if size >= _UNITS[unit])
    return f"{size / _UNITS[unit]:.4g} {unit}"
