"""Write one shard in pieces. FORMAT.md describes the file."""

import os
from math import prod
from pathlib import Path

import numpy as np
import xxhash

from hpc_train.data.hdf5.access import fixed_length, open_hdf5
from hpc_train.data.shards.compression import Storage
from hpc_train.data.shards.format import COORDINATES, FORMAT, PAIR, PARTS_VERSION, VERSION
from hpc_train.units import MIB


class ShardWriter:
    """A context that writes one shard whose samples come in pieces, and keeps none of them in memory.

    Leaving the context without an error writes checksums and attributes and syncs the file to disk. After an error
    the file stays unfinished and is not a shard.

    Args:
        path: file to write.
        samples: how many will come.
        kinds: {data set: (shape of one sample, dtype)} of the arrays: "inputs" and "targets", or several, such as
            "inputs/image", and "weights", in this order; dtypes u, i or f, stored little endian.
        attributes: those of the format that are known beforehand.
        storage: a `Storage`, by default without compression.
        coordinates: any of {"latitude": (h,), "longitude": (w,), "time": (samples,)}, in degrees and as datetime64
            in UTC.

    Raises:
        OSError: the file cannot be written.
    """

    def __init__(
        self,
        path,
        samples,
        kinds,
        attributes,
        storage=None,
        coordinates=None,
    ):
        self.path, self.samples, self.attributes = Path(path), samples, attributes
        self.coordinates = coordinates or {}
        storage, ignored = storage or Storage(), attributes.get("ignore_label")
        self._file = open_hdf5(path, "w", **file_options(storage))
        try:
            self._arrays = [
                _Array(self._file, name, (samples, *shape), np.dtype(dtype).newbyteorder("<"), storage, ignored)
                for name, (shape, dtype) in kinds.items()
            ]
        except BaseException:
            self._file.close()
            raise

    def __enter__(self):
        return self

    def write(self, *pieces):
        """Append samples, converted to the shard's dtypes; pieces: (b, ...) of each array."""
        if len({len(piece) for piece in pieces}) > 1:
            numbers = " but ".join(
                f"{len(piece)} {array.name}" for array, piece in zip(self._arrays, pieces, strict=True)
            )
            raise ValueError(numbers)
        for array, piece in zip(self._arrays, pieces, strict=True):
            array.append(piece)
        self._file.check()

    def __exit__(self, kind, error, traceback):
        try:
            if kind is None:
                self._finish()
        finally:
            self._file.close()
        if kind is None:
            sync(self.path)

    def _finish(self):
        if self._arrays[0].rows != self.samples:
            raise ValueError(f"{self.path}: {self._arrays[0].rows} of {self.samples} samples were written")
        for array in self._arrays:
            checksums = self._file.create_dataset(f"checksums/{array.name}", data=array.checksums.values())
            checksums.attrs["rows"] = array.checksums.run
        for name, values in self.coordinates.items():
            values = np.asarray(values)
            values = values.astype("datetime64[s]") if name == "time" else values
            dataset = self._file.create_dataset(name, data=values.astype("<i8" if name == "time" else "<f8"))
            dataset.attrs["units"] = fixed_length(COORDINATES[name])
        low, high = 0, -1
        if self.attributes["classes"]:
            (labels,) = (array for array in self._arrays if array.name.split("/")[0] == "targets")
            low, high = (low, high) if labels.low is None else (int(labels.low), int(labels.high))
        names = [array.name for array in self._arrays]
        version = {"version": VERSION} if names == PAIR else {"version": PARTS_VERSION, "parts": names}
        known = {"format": FORMAT, **version, "target_min": low, "target_max": high}
        set_attributes(self._file, known | self.attributes)


class _Array:
    """One data set, its running checksums and, of targets, the range of what is not ignored."""

    def __init__(self, file, name, shape, dtype, storage, ignored=None):
        self.name, self.dtype, self._ignored = name, dtype, ignored
        self.checksums = Checksums(storage.run(prod(shape[1:]) * dtype.itemsize))
        self.rows, self.low, self.high = 0, None, None
        # Compressing class numbers saves next to nothing, and reading one would decode thousands.
        compressed = name.startswith("inputs") or len(shape) > 1
        creation = storage.creation(shape, dtype.itemsize) if compressed else {}
        self._dataset = file.create_dataset(name, shape, dtype, **creation)

    def append(self, piece):
        piece = np.ascontiguousarray(piece, self.dtype)
        if not len(piece):
            return
        self._dataset[self.rows : self.rows + len(piece)] = piece
        counted = piece if self._ignored is None else piece[piece != self._ignored]
        if self.name.startswith("targets") and counted.size:
            low, high = counted.min(), counted.max()
            self.low = low if self.low is None else min(self.low, low)
            self.high = high if self.high is None else max(self.high, high)
        self.checksums.update(piece)
        self.rows += len(piece)


class Checksums:
    """xxh3_64 of each run of `run` rows of an array that comes in pieces, little endian and C-contiguous."""

    def __init__(self, run: int):
        self.run, self._rows, self._done, self._hash = run, 0, [], xxhash.xxh3_64()

    def update(self, piece: np.ndarray) -> None:
        """Append rows."""
        start = 0
        while start < len(piece):
            stop = min(len(piece), start + self.run - self._rows % self.run)
            self._hash.update(piece[start:stop])
            self._rows += stop - start
            if self._rows % self.run == 0:
                self._close_run()
            start = stop

    def values(self) -> np.ndarray:
        """The checksums, uint64 (runs,); the last run may be short."""
        if self._rows % self.run:
            self._close_run()
            self._rows = 0
        return np.array(self._done, "<u8")

    def _close_run(self):
        self._done.append(self._hash.intdigest())
        self._hash.reset()


def set_attributes(file, attributes):
    """Set root attributes: numbers as they are, strings and lists of strings at fixed length."""
    for name, value in attributes.items():
        file.attrs[name] = value if isinstance(value, (int, float, np.generic)) else fixed_length(value)


def sync(path):
    """Sync a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_options(storage):
    """Arguments of `open_hdf5` for a new shard."""
    # The oldest file format in which all metadata have checksums: in older ones damage can make HDF5 loop forever.
    if storage.compression == "none":
        # Page-aligned data can also be read past the page cache.
        return {"libver": ("v108", "v108"), "alignment_threshold": 4096, "alignment_interval": 4096}
    # A chunk must stay in the cache until all its rows have come.
    return {"libver": ("v110", "v110"), "rdcc_nbytes": 4 * max(MIB, storage.chunk_bytes)}
