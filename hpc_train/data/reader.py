"""The reader: bytes of samples to arrays, in any number of threads."""

import mmap
import os
import threading
from functools import lru_cache
from math import prod

import numpy as np

from hpc_train.data.catalogue import NOT_CONTIGUOUS
from hpc_train.data.shards import first_not_finite, first_outside, open_hdf5, reason
from hpc_train.errors import UserError

_OPEN_FILES = 256


class Reader:
    """Reads samples of a catalogue by their indices; one reader serves all threads of a process.

    check: look at what was read, for NaN and infinity in floating inputs and for labels outside the classes.
    """

    def __init__(self, catalogue, check=True):
        self.catalogue = catalogue
        self.check = check
        # A file that the cache drops while a thread reads from it is closed when that thread lets go of it.
        self._open = lru_cache(maxsize=_OPEN_FILES)(self._open_file)

    def read(self, indices):
        """(inputs (b, ...), targets (b,)) of the b samples in `indices`, in that order, freshly allocated.

        Dtypes are the catalogue's, in native byte order. Raises UserError, which names file, row and sample,
        when a sample cannot be read or does not pass the check; IndexError for an index outside the split.
        """
        catalogue = self.catalogue
        files, rows = catalogue.locate(indices)
        inputs = np.empty((len(rows), *catalogue.input_shape), catalogue.input_dtype)
        targets = np.empty(len(rows), catalogue.target_dtype)
        # In the order of the files, so that a file is opened once and read forwards.
        order = np.lexsort((rows, files))
        for places in np.split(order, np.flatnonzero(np.diff(files[order])) + 1) if len(order) else ():
            number = int(files[places[0]])
            try:
                self._open(number).read(rows[places], places, inputs, targets)
            except (OSError, RuntimeError) as error:
                raise UserError(
                    f"{catalogue.files[number]}: cannot be read ({reason(error)}); check the file "
                    "system and, if the shards changed since the run began, start it again"
                ) from error
        inputs = inputs.astype(inputs.dtype.newbyteorder("="), copy=False)
        targets = targets.astype(targets.dtype.newbyteorder("="), copy=False)
        if self.check:
            self._check(files, rows, inputs, targets)
        return inputs, targets

    def _open_file(self, number):
        catalogue = self.catalogue
        inputs_at, targets_at = int(catalogue.inputs_at[number]), int(catalogue.targets_at[number])
        if NOT_CONTIGUOUS in (inputs_at, targets_at):
            return _Hdf5File(catalogue.files[number])
        return _MappedFile(
            catalogue.files[number],
            int(catalogue.rows[number]),
            (inputs_at, catalogue.input_shape, catalogue.input_dtype),
            (targets_at, (), catalogue.target_dtype),
        )

    def _check(self, files, rows, inputs, targets):
        place = first_not_finite(inputs)
        what = "holds NaN or infinity"
        if place is None:
            place = first_outside(targets, self.catalogue.classes)
            if place is None:
                return
            what = f"has label {targets[place]}, outside the {self.catalogue.classes} classes"
        number, row = int(files[place]), int(rows[place])
        sample = int(self.catalogue.offsets[number]) + row
        raise UserError(
            f"{self.catalogue.files[number]}: row {row} (sample {sample} of {self.catalogue.split!r}) {what}"
            "; mend it in the source data and run `hpc-train prepare` again"
        )


class _MappedFile:
    """Rows copied from a map of the file in memory, by known byte offsets.

    One copy a batch, not one call a row: each call would give up Python's lock and wait to get it back.
    """

    def __init__(self, path, samples, *arrays):
        self._end = max(at + samples * np.dtype(dtype).itemsize * prod(shape) for at, shape, dtype in arrays)
        with open(path, "rb") as file:
            self._check_size(os.fstat(file.fileno()).st_size)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._arrays = [
            np.frombuffer(self._map, dtype, samples * prod(shape), at).reshape(samples, *shape)
            for at, shape, dtype in arrays
        ]

    def read(self, rows, places, *outputs):
        """Copy the sorted `rows` of inputs and targets into outputs[...][places]."""
        # Beyond the end of a file that has shrunk, touching the map would kill the process with SIGBUS.
        self._check_size(self._map.size())
        for array, output in zip(self._arrays, outputs, strict=True):
            output[places] = array[rows]

    def _check_size(self, size):
        if size < self._end:
            raise OSError(f"it ends at byte {size}, but its data at {self._end}")


class _Hdf5File:
    """Rows read with h5py, for data sets that are chunked, compressed or otherwise not one run of bytes."""

    def __init__(self, path):
        self._file = open_hdf5(path)
        self._lock = threading.Lock()

    def read(self, rows, places, *outputs):
        """Copy the sorted `rows` of inputs and targets into outputs[...][places]."""
        # HDF5 selects rows only in increasing order and once each.
        unique, inverse = np.unique(rows, return_inverse=True)
        with self._lock:
            for name, output in zip(("inputs", "targets"), outputs, strict=True):
                output[places] = self._file[name][unique][inverse]
