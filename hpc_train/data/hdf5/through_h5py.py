"""Read rows of any data set through h5py, for those that neither offsets nor our decoders can read."""

import threading
from collections.abc import Callable

import h5py
import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.hdf5.filters import missing_filter


class Hdf5Array:
    """Rows read with h5py, one thread at a time, since HDF5 has one lock.

    Args:
        dataset: the open data set.
        rows: the first axis counts samples.
        select: index of the sample's first axis to take, or None.
        why: the reason for reading it this way.
    """

    rows_together = 1
    quick = False

    def __init__(self, dataset: h5py.Dataset, rows: bool, select: int | None, why: str):
        self._dataset, self._rows, self._select, self._why = dataset, rows, select, why
        if rows and dataset.chunks and dataset.id.get_create_plist().get_nfilters():
            self.rows_together = dataset.chunks[0]
        self._lock = threading.Lock()

    @property
    def description(self) -> str:
        """How it is read, and why."""
        return f"through h5py, one thread at a time ({self._why})"

    def jobs(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray, look) -> list[Callable[[], None]]:
        """One function that makes out[places[i]] the row rows[i] and calls `look` with the new rows."""

        def read() -> None:
            # HDF5 selects rows only in increasing order and once each.
            unique, inverse = np.unique(rows, return_inverse=True)
            part = () if self._select is None else (self._select,)
            with self._lock:
                try:
                    values = self._dataset[(unique, *part)][inverse] if self._rows else self._dataset[part or ()]
                except OSError as error:
                    why = missing_filter(self._dataset) or f"cannot be read: {reason(error)}"
                    raise OSError(f"data set {self._dataset.name.lstrip('/')!r} {why}") from error
            out[places] = values
            look(out[places])

        return [read]
