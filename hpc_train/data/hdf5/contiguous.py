"""Read rows of a contiguous data set by byte offset: from a map of the file, or with positioned reads."""

from collections.abc import Callable
from math import prod

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.hdf5.raw_file import File

# A sample of this size or more is one request to the file system; smaller ones are cheaper from a map of the file.
LARGE_SAMPLE = 64 * 2**10
# A large read is split into pieces of this size, so that several threads share it.
_PIECE = 8 * 2**20
_GATHER_ROWS = 4096


class ContiguousArray:
    """Rows of one contiguous data set.

    Args:
        name: name of the data set, for messages.
        file: the file that holds it.
        at: byte offset of its first row.
        rows: number of rows.
        row_shape: shape of a row as stored.
        dtype: as stored.
        select: index of the row's first axis to take; None for whole rows.
        mapped: gather from a map in memory instead of reading.

    Raises:
        OSError: when the file ends before the data.
    """

    rows_together = 1

    def __init__(self, name: str, file: File, at: int, rows: int, row_shape, dtype, select=None, mapped=False):
        self.name, self.file, self.rows, self.dtype = name, file, rows, np.dtype(dtype)
        row_bytes = prod(row_shape) * self.dtype.itemsize
        self._end = at + rows * row_bytes
        self._check(file.size)
        self.sample_shape = tuple(row_shape) if select is None else tuple(row_shape)[1:]
        self._bytes = prod(self.sample_shape) * self.dtype.itemsize
        self._start = at + (select or 0) * self._bytes
        self._stride = row_bytes
        memory = file.map() if mapped else None
        self._map = None
        if memory is not None:
            whole = np.frombuffer(memory, self.dtype, rows * prod(row_shape), at).reshape(rows, *row_shape)
            self._map = whole if select is None else whole[:, select]
            self._memory = memory

    @property
    def quick(self) -> bool:
        """Whether jobs are so cheap that several should run as one."""
        return self._map is not None

    @property
    def description(self) -> str:
        """How it is read, and why."""
        if self._map is not None:
            return f"contiguous, {self._bytes} bytes a sample: gathered from a map of the file in memory"
        return f"contiguous, {self._bytes} bytes a sample: positioned reads into the batch, in threads"

    def jobs(
        self, rows: np.ndarray, places: np.ndarray, out: np.ndarray, look: Callable[[np.ndarray], None]
    ) -> list[Callable[[], None]]:
        """Functions that together make out[places[i]] the row rows[i], for any threads, in any order.

        Args:
            rows: int64 (k,), sorted.
            places: int64 (k,).
            out: (b, *sample_shape) in native byte order, each out[i] C-contiguous.
            look: called with each piece of `out` once it is read, while it is still in the processor's cache.
        """
        if self._map is not None:
            ends = range(0, len(rows), _GATHER_ROWS)
            return [
                lambda part=slice(end, end + _GATHER_ROWS): self._gather(rows[part], places[part], out, look)
                for end in ends
            ]
        together = self._stride == self._bytes and out.flags.c_contiguous
        joined = (np.diff(rows) == 1) & (np.diff(places) == 1) & together
        starts = np.flatnonzero(np.concatenate([[True], ~joined]))
        runs = [
            (int(rows[start]), int(places[start]), stop - start)
            for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True)
        ]
        if self._bytes >= LARGE_SAMPLE or len(runs) == 1:
            return [job for run in runs for job in self._pieces(*run, out, look)]
        # Small rows that are not neighbours: several in one job, since a job has its own cost.
        share = -(-len(runs) // 64)
        return [
            lambda some=runs[k : k + share]: [job() for run in some for job in self._pieces(*run, out, look)]
            for k in range(0, len(runs), share)
        ]

    def _gather(self, rows, places, out, look) -> None:
        # Where a file has shrunk, reading the map beyond its end would kill the process with SIGBUS.
        self._check(self.file.size_now())
        if self.dtype.isnative and (np.diff(places) == 1).all():
            values = out[places[0] : places[-1] + 1]
            np.take(self._map, rows, axis=0, out=values, mode="clip")
        else:
            values = np.take(self._map, rows, axis=0).astype(out.dtype, copy=False)
            out[places] = values
        look(values)

    def _pieces(self, row: int, place: int, count: int, out, look) -> list[Callable[[], None]]:
        values = out[place : place + count] if count > 1 else out[place : place + 1]
        target = values.reshape(-1)
        per_piece = max(1, _PIECE // self.dtype.itemsize)
        offset = self._start + row * self._stride

        def read(start: int) -> None:
            part = target[start : start + per_piece]
            try:
                self.file.read_into(offset + start * self.dtype.itemsize, part.view(np.uint8))
            except OSError as error:
                raise OSError(f"data set {self.name!r}: {reason(error)}") from error
            if not self.dtype.isnative:
                part.byteswap(inplace=True)
            look(part)

        return [lambda start=start: read(start) for start in range(0, len(target), per_piece)]

    def _check(self, size: int) -> None:
        if size < self._end:
            raise OSError(f"data set {self.name!r}: the file ends at byte {size}, but its data end at byte {self._end}")
