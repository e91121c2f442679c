"""LMDB, a key-value store in one file: what people copy small samples into for random access."""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from hpc_train.bench.input.encoded import pixels
from hpc_train.bench.input.other_readers import Batch
from hpc_train.data.reading.encoded_reader import open_reader
from hpc_train.errors import UserError

_TOGETHER = 256


class Lmdb:
    """Batches sample by sample from an LMDB of the same samples, which goes with this object.

    A value is the bytes of an array, or a JPEG file, decoded with Pillow; they are stacked, without worker processes.

    Args:
        catalogue: of the samples, which are copied.
        folder: where; up to three times the bytes of the samples must be free.

    Raises:
        UserError: it cannot be written there, or a sample cannot be read.
    """

    def __init__(self, catalogue, folder: Path):
        import lmdb

        self._catalogue = catalogue
        self._folder = tempfile.TemporaryDirectory(prefix="hpc-train-lmdb-", dir=folder)
        reader = open_reader(catalogue, check=False)
        # Of the address space only. Pages are whole, and a large value has some of its own.
        size = 4 * int(catalogue.sizes.sum()) + (1 << 30)
        try:
            self._store = lmdb.open(self._folder.name, map_size=size, readahead=False, sync=False)
            self._copy(catalogue, reader)
        except lmdb.Error as error:
            raise UserError(
                f"--scratch {folder}: LMDB cannot write its copy there ({error}); it takes up to three times the "
                "bytes of the samples"
            ) from error
        self._inputs, self._targets = catalogue.parts

    def _copy(self, catalogue, reader) -> None:
        for first in range(0, catalogue.samples, _TOGETHER):
            arrays = reader.read(np.arange(first, min(first + _TOGETHER, catalogue.samples)))
            with self._store.begin(write=True) as writing:
                for number, (sample, target) in enumerate(zip(*arrays, strict=True), first):
                    writing.put(b"x%d" % number, sample if isinstance(sample, bytes) else sample.tobytes())
                    writing.put(b"y%d" % number, target.tobytes())

    def batches(self, indices: Iterable[np.ndarray]) -> Iterator[Batch]:
        """One batch after the other."""
        for chosen in indices:
            with self._store.begin(buffers=not self._catalogue.encoding) as reading:
                inputs = np.stack([self._input(reading.get(b"x%d" % number)) for number in chosen])
                targets = np.stack([_array(reading.get(b"y%d" % number), self._targets) for number in chosen])
            yield inputs, targets

    def _input(self, value) -> np.ndarray:
        return pixels(value) if self._catalogue.encoding else _array(value, self._inputs)


def _array(value, part) -> np.ndarray:
    return np.frombuffer(value, part.dtype.newbyteorder("=")).reshape(part.shape)
