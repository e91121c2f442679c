"""The reader: samples by their numbers to arrays, as jobs for any number of threads."""

import threading
from collections.abc import Callable
from functools import lru_cache
from math import prod
from typing import Literal

import h5py
import numpy as np

from hpc_train.data.checks import first_not_finite, first_outside
from hpc_train.data.chunks import ChunkedArray, reason_not
from hpc_train.data.contiguous import LARGE_SAMPLE, ContiguousArray
from hpc_train.data.file_info import NOT_CONTIGUOUS
from hpc_train.data.hdf5 import lies_in, open_hdf5, reason
from hpc_train.data.layout import split_name
from hpc_train.data.storage import File
from hpc_train.errors import UserError

How = Literal["auto", "map", "read", "h5py"]
# A mapped file takes two of the 1,024 descriptors that most systems allow a process.
_OPEN_FILES = 128


class Reader:
    """Reads samples of a catalogue by their numbers; one reader serves all threads of a process.

    check: look at what was read, for NaN and infinity in floating inputs and for labels outside the classes.
    how: "auto" takes contiguous data from a map of the file where samples are small and with positioned reads where
    they are large, decodes chunks outside HDF5 where it can, and leaves the rest to h5py; "map" and "read" say how to
    take contiguous data; "h5py" reads all with h5py. open_file: gives a `storage.File` of a path.
    """

    def __init__(self, catalogue, check: bool = True, how: How = "auto", open_file: Callable[[str], File] = File):
        self.catalogue, self.check, self.how, self._open_storage = catalogue, check, how, open_file
        # A file that the cache drops while a thread reads from it is closed when that thread lets go of it.
        self._open = lru_cache(maxsize=_OPEN_FILES)(self._open_file)

    def read(self, indices) -> tuple[np.ndarray, np.ndarray]:
        """(inputs (b, ...), targets (b, ...)) of the b samples in `indices`, in that order, freshly allocated.

        Dtypes are the catalogue's, in native byte order. Raises UserError, which names file and data set, row or
        chunk, when a sample cannot be read or does not pass the check; IndexError for an index outside the split.
        """
        inputs, targets = self.empty(len(indices), np.empty)
        for job in self.jobs(indices, inputs, targets):
            job()
        self.examine(indices, inputs, targets)
        return inputs, targets

    def empty(self, samples: int, allocate: Callable) -> tuple[np.ndarray, np.ndarray]:
        """Arrays for so many samples, made by allocate(shape, dtype)."""
        catalogue = self.catalogue
        return (
            allocate((samples, *catalogue.input_shape), catalogue.input_dtype.newbyteorder("=")),
            allocate((samples, *catalogue.target_shape), catalogue.target_dtype.newbyteorder("=")),
        )

    def jobs(self, indices, inputs: np.ndarray, targets: np.ndarray) -> list[Callable[[], None]]:
        """Functions that together read the samples `indices` into the arrays; for any threads, in any order.

        Opens files that are not open. Every job, like this method, raises UserError for what cannot be read.
        """
        indices = self.catalogue.checked(indices)
        # In the order of the files, so that a file is opened once and read forwards.
        order = np.argsort(indices)
        offsets = self.catalogue.offsets
        numbers = np.searchsorted(offsets, indices[order], side="right") - 1
        jobs = []
        for part in np.split(np.arange(len(order)), np.flatnonzero(np.diff(numbers)) + 1) if len(order) else ():
            number, places = int(numbers[part[0]]), order[part]
            rows = indices[places] - offsets[number]
            named = self._named(number)
            source = named(self._open, number)
            outputs = self._outputs(inputs, targets)
            for array, out in zip(source.arrays, outputs, strict=True):
                made = named(array.jobs, rows, places, out)
                # `source` is kept, with its open file, for as long as a job is.
                jobs += [lambda job=job, named=named, source=source: named(job) for job in made]
        return jobs

    def examine(self, indices, inputs: np.ndarray, targets: np.ndarray) -> None:
        """Look at samples that were read; UserError names file, row and sample of the first that is not as it should.

        Does nothing for a reader made with check=False.
        """
        if not self.check:
            return
        catalogue = self.catalogue
        place, what = first_not_finite(inputs), "holds NaN or infinity"
        if place is None and catalogue.classes and catalogue.layout.targets:
            place = first_outside(targets, catalogue.classes)
            label = f"label {targets[place]}," if place is not None and targets.ndim == 1 else "a label that is"
            what = f"has {label} outside the {catalogue.classes} classes"
        if place is None:
            return
        files, rows = catalogue.locate(indices)
        number, row = int(files[place]), int(rows[place])
        shards = catalogue.layout.name == "shards"
        remedy = "mend it in the source data and run `hpc-train prepare` again" if shards else "mend it or leave it out"
        raise UserError(
            f"{catalogue.files[number]}: row {row} (sample {int(np.asarray(indices)[place])} of "
            f"{catalogue.split!r}) {what}; {remedy}"
        )

    def describe(self, number: int = 0) -> list[str]:
        """How file `number` is read and why so: one line for each data set, in the order of the layout."""
        source = self._named(number)(self._open, number)
        names = self.catalogue.layout.datasets
        return [f"{name}: {array.description}" for name, array in zip(names, source.arrays, strict=True)]

    def samples_together(self, number: int = 0) -> int:
        """How many samples of file `number` must be decoded to get at one of them."""
        return max(array.rows_together for array in self._named(number)(self._open, number).arrays)

    def close(self) -> None:
        """Let go of the open files."""
        self._open.cache_clear()

    def _outputs(self, inputs, targets) -> list[np.ndarray]:
        outputs = []
        for names, array in ((self.catalogue.layout.inputs, inputs), (self.catalogue.layout.targets, targets)):
            outputs += [array] if len(names) == 1 else [array[:, place] for place in range(len(names))]
        return outputs

    def _named(self, number: int):
        path = self.catalogue.files[number]

        def call(function, *args):
            try:
                return function(*args)
            # h5py raises RuntimeError, ValueError and KeyError where metadata are damaged.
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                raise UserError(
                    f"{path}: cannot be read ({reason(error)}); check the file "
                    "system and, if the data changed since the run began, start it again"
                ) from error

        return call

    def _open_file(self, number: int) -> "_Source":
        catalogue = self.catalogue
        file = self._open_storage(catalogue.files[number])
        layout, at, rows = catalogue.layout, catalogue.at[number], int(catalogue.rows[number])
        parts = [split_name(name) for name in layout.datasets]
        if self.how != "h5py" and NOT_CONTIGUOUS not in at and all(select is None for _, select in parts):
            return _Source([self._contiguous(file, place, int(at[place]), rows) for place in range(len(at))])
        hdf5 = open_hdf5(catalogue.files[number])
        arrays = []
        for (name, select), start in zip(parts, at, strict=True):
            dataset = hdf5[name]
            why = "asked for" if self.how == "h5py" else reason_not(dataset)
            if not lies_in(hdf5, dataset):
                why = "a link to another file"
            if start != NOT_CONTIGUOUS and self.how != "h5py":
                shape = dataset.shape[1:] if layout.rows else dataset.shape
                arrays.append(ContiguousArray(name, file, int(start), rows, shape, dataset.dtype, select))
            elif why is None:
                arrays.append(ChunkedArray(dataset, file, layout.rows, select))
            else:
                arrays.append(_Hdf5Array(dataset, layout.rows, select, why))
        if not any(isinstance(array, _Hdf5Array) for array in arrays):
            hdf5.close()
        return _Source(arrays)

    def _contiguous(self, file: File, place: int, at: int, rows: int) -> ContiguousArray:
        # The catalogue knows all of it: HDF5 need not open the file.
        catalogue, layout = self.catalogue, self.catalogue.layout
        if place < len(layout.inputs):
            shape, dtype, stacked = catalogue.input_shape, catalogue.input_dtype, len(layout.inputs) > 1
        else:
            shape, dtype, stacked = catalogue.target_shape, catalogue.target_dtype, len(layout.targets) > 1
        shape = shape[1:] if stacked else shape
        small = prod(shape) * dtype.itemsize < LARGE_SAMPLE
        mapped = self.how == "map" or (self.how == "auto" and small)
        return ContiguousArray(layout.datasets[place], file, at, rows, shape, dtype, mapped=mapped)


class _Source:
    """The open data sets of one file, in the order of the layout."""

    def __init__(self, arrays):
        self.arrays = arrays


class _Hdf5Array:
    """Rows read with h5py, one thread at a time: HDF5 has one lock."""

    rows_together = 1

    def __init__(self, dataset: h5py.Dataset, rows: bool, select: int | None, why: str):
        self._dataset, self._rows, self._select, self._why = dataset, rows, select, why
        if rows and dataset.chunks and dataset._filters:
            self.rows_together = dataset.chunks[0]
        self._lock = threading.Lock()

    @property
    def description(self) -> str:
        """How it is read, and why so."""
        return f"through h5py, one thread at a time ({self._why})"

    def jobs(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray) -> list[Callable[[], None]]:
        """One function that makes out[places[i]] the row rows[i]."""

        def read() -> None:
            # HDF5 selects rows only in increasing order and once each.
            unique, inverse = np.unique(rows, return_inverse=True)
            part = () if self._select is None else (self._select,)
            with self._lock:
                values = self._dataset[(unique, *part)][inverse] if self._rows else self._dataset[part or ()]
            out[places] = values

        return [read]
