"""The reader: samples by their numbers to arrays, as jobs for any number of threads."""

from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from math import prod
from typing import Literal

import numpy as np

from hpc_train.data.catalogue.class_map import number_of
from hpc_train.data.catalogue.conventions import Missing
from hpc_train.data.catalogue.file_info import NOT_CONTIGUOUS
from hpc_train.data.catalogue.part import Part
from hpc_train.data.hdf5.access import elsewhere, lies_in, open_hdf5, reason
from hpc_train.data.hdf5.chunked.array import ChunkedArray, reason_not
from hpc_train.data.hdf5.chunked.index import Unclear
from hpc_train.data.hdf5.contents import dataset_at, member, path_at, split_name
from hpc_train.data.hdf5.contiguous import LARGE_SAMPLE, ContiguousArray
from hpc_train.data.hdf5.filters import load_plugins
from hpc_train.data.hdf5.ragged import RaggedArray, read_lengths
from hpc_train.data.hdf5.raw_file import File
from hpc_train.data.hdf5.sources import sources
from hpc_train.data.hdf5.through_h5py import Hdf5Array
from hpc_train.data.sample_checks import all_finite, first_problem
from hpc_train.errors import UserError

How = Literal["auto", "map", "read", "h5py"]
# A mapped file takes two of the 1,024 descriptors that most systems allow a process.
_OPEN_FILES = 128
# A request for more files than this opens them in its jobs; the second number is the most jobs.
_FEW_FILES, _MOST_JOBS = 8, 64


class Reader:
    """Reads samples of a catalogue by their numbers. One reader serves all threads of a process.

    Args:
        catalogue: the samples.
        check: check samples for NaN and infinity in floating-point values and for labels outside the classes. Large
            samples are checked once, when they are first read.
        how: "auto" takes contiguous data from a map of the file where samples are small and with positioned reads
            where they are large, decodes chunks outside HDF5 where it can, and reads the rest with h5py; "map" and
            "read" choose one way for contiguous data; "h5py" reads everything with h5py.
        open_file: opens a path as a `raw_file.File`.
        ignore: a stored label that is allowed besides the classes.

    Raises:
        UserError: for encoded images, which `encoded_reader.EncodedReader` reads.
    """

    encoding = ""

    def __init__(self, catalogue, check=True, how: How = "auto", open_file=File, ignore: int | None = None):
        if catalogue.encoding != self.encoding:
            catalogue.stored_only("this command")
        self.catalogue, self.check, self.how, self.open_storage = catalogue, check, how, open_file
        self._ignore, self._ignored = ignore, number_of(ignore, catalogue.labels)
        self._labelled = catalogue.labelled
        # A file that the cache drops while a thread reads from it is closed when that thread releases it.
        self._open = lru_cache(maxsize=_OPEN_FILES)(self._open_file)
        # Checking a sample takes as long as copying it: one bit for each sample records that it has been checked.
        large = check and catalogue.sample_bytes >= LARGE_SAMPLE
        self._looked = np.zeros(-(-catalogue.samples // 8), np.uint8) if large else None

    @property
    def sample_bytes(self) -> int:
        """Bytes of a sample as `read` returns it."""
        return self.catalogue.sample_bytes

    def read(self, indices) -> tuple[np.ndarray, ...]:
        """Read the b samples in `indices`, in that order.

        Returns:
            An array (b, ...) for each of the catalogue's parts (inputs, targets, weights), newly allocated, with their
            dtypes in native byte order.

        Raises:
            UserError: naming file and data set, row or chunk, when a sample cannot be read or fails the check.
            IndexError: for an index outside the split.
        """
        arrays = self.empty(len(indices), np.empty)
        jobs, finish = self.begin(indices, *arrays)
        for job in jobs:
            job()
        finish()
        return arrays

    def empty(self, samples: int, allocate: Callable) -> tuple[np.ndarray, ...]:
        """Arrays for this many samples, one for each part, made by allocate(shape, dtype)."""
        parts = self.catalogue.parts
        return tuple(allocate((samples, *part.shape), part.dtype.newbyteorder("=")) for part in parts)

    def begin(self, indices, *arrays: np.ndarray) -> tuple[list[Callable[[], None]], Callable]:
        """Prepare to read the samples `indices` into the arrays of `empty`; opens files that are not open.

        Returns:
            (jobs, finish): call all jobs, in any threads and order, then finish().

        Raises:
            UserError: for data that cannot be read, also from the jobs; from `finish` for samples that fail the check.
        """
        indices = self.catalogue.checked(indices)
        request = _Request(indices, arrays, self.catalogue.parts, self._labelled)
        # In the order of the files, so that a file is opened once and read forwards.
        order = np.argsort(indices)
        numbers = np.searchsorted(self.catalogue.offsets, indices[order], side="right") - 1
        edges = [0, *(np.flatnonzero(np.diff(numbers)) + 1).tolist(), len(order)]
        parts = [(int(numbers[start]), order[start:stop]) for start, stop in pairwise(edges) if start < stop]
        if len(parts) > _FEW_FILES:
            # A job opens its files and releases them: else one request might hold more than a process may open.
            share = -(-len(parts) // _MOST_JOBS)
            jobs = [partial(self._read_files, parts[k : k + share], request) for k in range(0, len(parts), share)]
        else:
            made = [pair for part in parts for pair in self._jobs(*part, request)]
            jobs = [job for quick, job in made if not quick]
            gathers = [job for quick, job in made if quick]
            jobs += [lambda: [gather() for gather in gathers]] if gathers else []
        return jobs, lambda: self._examine(request)

    def _jobs(self, number: int, places: np.ndarray, request: "_Request") -> list[tuple[bool, Callable[[], None]]]:
        """[(quick, job)] for the samples of one file that belong at `places` of the request."""
        named = self._named(number)
        arrays = named(self._open, number)
        indices = request.indices[places]
        rows = indices - self.catalogue.offsets[number]
        known = self._is_known(indices)
        return [
            (array.quick, partial(named, job))
            for array, (out, look) in zip(arrays, request.outputs, strict=True)
            for job in named(array.jobs, rows, places, out, _nothing if known else look)
        ]

    def _read_files(self, parts: list[tuple[int, np.ndarray]], request: "_Request") -> None:
        for part in parts:
            for _, job in self._jobs(*part, request):
                job()

    def _is_known(self, indices: np.ndarray) -> bool:
        """Whether these samples need no check."""
        if self._looked is None:
            return not self.check
        return bool((self._looked[indices >> 3] >> (indices & 7).astype(np.uint8) & 1).all())

    def _examine(self, request: "_Request") -> None:
        catalogue = self.catalogue
        if catalogue.labels:
            self._number(request)
        if self._is_known(request.indices):
            return
        place, what = None, ""
        for number, (part, values) in enumerate(zip(catalogue.parts, request.arrays, strict=True)):
            labels = values if catalogue.classes and part.role == "target" else None
            found = first_problem(
                values if number in request.suspect else None, labels, catalogue.classes, self._ignored
            )
            if number in request.suspect and not (self._labelled and part.role == "target"):
                found = self._first_absent(part, values, request.indices, found)
            if found[0] is not None and (place is None or found[0] < place):
                plain = part.role == "input" and not part.name
                place, what = found[0], found[1] if plain or labels is not None else f"{found[1]} in its {part.label}"
        if place is None:
            if self._looked is not None:
                bits = np.uint8(1) << (request.indices & 7).astype(np.uint8)
                np.bitwise_or.at(self._looked, request.indices >> 3, bits)
            return
        raise self._bad_sample(request, place, what)

    def _first_absent(self, part: Part, values: np.ndarray, indices: np.ndarray, found: tuple) -> tuple:
        """`found`, as of `first_problem`, or the first row with a missing value if that is earlier."""
        absent = part.absent(values)
        if absent is not None and part.lengths:
            absent &= self.steps(part, indices).reshape(*values.shape[:2], *[1] * (values.ndim - 2))
        rows = [] if absent is None else np.flatnonzero(absent.reshape(len(values), -1).any(axis=1))
        if not len(rows) or (found[0] is not None and found[0] <= rows[0]):
            return found
        row = int(rows[0])
        index = tuple(int(number) for number in np.argwhere(absent[row])[0])
        name = part.datasets[index[0] if len(part.datasets) > 1 else 0]
        return row, f"holds the missing value {values[row][index]} of {name}"

    def _number(self, request: "_Request") -> None:
        """Replace stored labels by the numbers of their classes."""
        stored = np.array(self.catalogue.labels)
        order = np.argsort(stored)
        for part, values in zip(self.catalogue.parts, request.arrays, strict=True):
            if part.role != "target":
                continue
            places = order[np.searchsorted(stored, values, sorter=order).clip(max=len(stored) - 1)]
            wrong = stored[places] != values
            if self._ignore is not None:
                wrong &= values != self._ignore
                places = np.where(values == self._ignore, self._ignored, places)
            if wrong.any():
                place = int(np.argmax(wrong.reshape(len(values), -1).any(axis=1)))
                label = values[place][wrong[place]].ravel()[0] if values.ndim > 1 else values[place]
                raise self._bad_sample(request, place, f"has label {label}, which --label-values does not name")
            values[...] = places

    def _bad_sample(self, request: "_Request", place: int, what: str) -> UserError:
        catalogue = self.catalogue
        files, rows = catalogue.locate(request.indices)
        number, row = int(files[place]), int(rows[place])
        remedy = "fix it or leave it out"
        if catalogue.layout.name == "shards":
            remedy = "fix it in the source data and run `hpc-train prepare` again"
        elif what.startswith("has label"):
            remedy = "give the number of classes (--classes), or the stored labels: --label-values 1..10, or 0 255"
        elif "missing value" in what:
            remedy = "fill it in, leave it out, or delete what says so (_FillValue, missing_value, valid_range, ...)"
        return UserError(
            f"{catalogue.files[number]}: row {row} (sample {int(request.indices[place])} of "
            f"{catalogue.split!r}) {what}; {remedy}"
        )

    def describe(self, number: int = 0) -> list[str]:
        """How file `number` is read, and why: one line for each data set, in the order of the layout."""
        arrays = self._named(number)(self._open, number)
        names = self.catalogue.layout.datasets
        return [f"{name}: {array.description}" for name, array in zip(names, arrays, strict=True)]

    def samples_together(self, number: int = 0) -> int:
        """How many samples of file `number` must be decoded to read one of them."""
        return max(array.rows_together for array in self._named(number)(self._open, number))

    def steps(self, part, indices) -> np.ndarray:
        """Which steps of the sequences of `part` are no padding, bool (b, longest)."""
        place = self.catalogue.layout.datasets.index(part.datasets[0])
        files, rows = self.catalogue.locate(indices)
        lengths = [self._open(int(file))[place].lengths[row] for file, row in zip(files, rows, strict=True)]
        return np.arange(part.shape[0]) < np.array(lengths)[:, None]

    def close(self) -> None:
        """Release the open files."""
        self._open.cache_clear()

    def _named(self, number: int):
        path = self.catalogue.files[number]

        def call(function, *args):
            try:
                return function(*args)
            # h5py raises RuntimeError, ValueError and KeyError where metadata are damaged.
            except (OSError, RuntimeError, ValueError, KeyError) as error:
                raise UserError(
                    f"{path}: cannot be read ({reason(error)}); check the file system; if the data changed since the "
                    "run began, start the run again"
                ) from error

        return call

    def _open_file(self, number: int) -> list:
        """The open data sets of a file, in the order of the layout; they keep the file open."""
        catalogue = self.catalogue
        file = self.open_storage(catalogue.files[number])
        layout, at, rows = catalogue.layout, catalogue.at[number], int(catalogue.rows[number])
        names = layout.datasets
        plain = not catalogue.sequence_lengths and all(split_name(name)[1] is None for name in names)
        if self.how != "h5py" and NOT_CONTIGUOUS not in at and plain:
            # The catalogue has all that is needed: HDF5 need not open the file.
            shapes = self._stored_shapes()
            return [
                self._contiguous(name, file, int(start), rows, *shape, None)
                for name, start, shape in zip(names, at, shapes, strict=True)
            ]
        hdf5, through = open_hdf5(catalogue.files[number]), False
        arrays = []
        of = {part.datasets[0]: part for part in catalogue.parts if part.lengths}
        dtypes = [dtype for _, dtype in self._stored_shapes()]
        for name, start, dtype in zip(names, at, dtypes, strict=True):
            dataset, select = dataset_at(hdf5, name)
            if dataset is None:
                raise KeyError(f"{name} is not there")
            why = "asked for" if self.how == "h5py" else reason_not(dataset)
            if elsewhere(hdf5, dataset):
                # HDF5 would take what is missing as the fill value.
                sources(hdf5, path_at(hdf5, name))
                why = why if lies_in(hdf5, dataset) else "a link to another file"
            if start != NOT_CONTIGUOUS and self.how != "h5py":
                shape = dataset.shape[1:] if layout.rows else dataset.shape
                number = len(dataset) if name in of else rows
                arrays.append(self._contiguous(name, file, int(start), number, shape, dtype, select))
            else:
                arrays.append(_chunked(dataset, file, layout.rows, select, dtype, why))
                through |= isinstance(arrays[-1], Hdf5Array)
            if part := of.get(name):
                arrays[-1] = RaggedArray(arrays[-1], read_lengths(member(hdf5, part.lengths), dataset), part.shape[0])
        if not through:
            hdf5.close()
        return arrays

    def _stored_shapes(self) -> list[tuple[tuple[int, ...], np.dtype]]:
        """Shape and dtype of a sample in each data set, where none takes an index."""
        shapes = []
        for part in self.catalogue.parts:
            number = len(part.datasets)
            shapes += [(part.shape[1:] if number > 1 else part.stored_shape, part.dtype)] * number
        return shapes

    def _contiguous(self, name, file: File, at: int, rows: int, shape, dtype, select) -> ContiguousArray:
        small = prod(shape) * dtype.itemsize < LARGE_SAMPLE
        mapped = self.how == "map" or (self.how == "auto" and small)
        return ContiguousArray(name, file, at, rows, shape, dtype, select, mapped)


def _chunked(dataset, file: File, rows: bool, select: int | None, dtype, why: str | None):
    """The array of a data set that is not contiguous; why: the reason to read it through h5py, or None."""
    if why is None:
        try:
            return ChunkedArray(dataset, file, rows, select, dtype)
        except Unclear as unclear:
            why = str(unclear)
    load_plugins()
    return Hdf5Array(dataset, rows, select, why)


class _Request:
    """Samples that are read together.

    Attributes:
        outputs: for each data set its place in the arrays, and a function that checks values that have just been read.
        suspect: numbers of the parts that hold a value that is not finite, or that stands for none.
    """

    def __init__(self, indices: np.ndarray, arrays: tuple[np.ndarray, ...], parts, labels: bool):
        self.indices, self.arrays = indices, arrays
        self.outputs: list[tuple[np.ndarray, Callable]] = []
        self.suspect: set[int] = set()
        for number, (part, array) in enumerate(zip(parts, arrays, strict=True)):
            several = len(part.datasets)
            whole = array[..., 0] if part.added else array
            places = [whole] if several == 1 else [array[:, place] for place in range(several)]
            # Not a bound method: in a circle the arrays would wait for the garbage collector.
            look = partial(_look, self.suspect, number) if part.dtype.kind == "f" else _nothing
            looks = [look] * several
            if part.missing and not (labels and part.role == "target"):
                looks = [partial(_look_closely, self.suspect, number, each) for each in part.missing]
            self.outputs += zip(places, looks, strict=True)


def _look(suspect: set[int], number: int, values: np.ndarray) -> None:
    """Add the number to `suspect` if a value is not finite."""
    if not all_finite(values):
        suspect.add(number)


def _look_closely(suspect: set[int], number: int, missing: Missing, values: np.ndarray) -> None:
    """Add the number to `suspect` if a value is not finite, or stands for none."""
    if not all_finite(values) or missing.among(values):
        suspect.add(number)


def _nothing(values: np.ndarray) -> None:
    """Check nothing."""
