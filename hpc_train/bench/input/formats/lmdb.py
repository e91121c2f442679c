"""LMDB, a key-value store in one file: what people copy small samples into for random access."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from hpc_train.bench.input.formats.copied import TOGETHER, Copied
from hpc_train.bench.input.other_readers import Batch
from hpc_train.errors import UserError


class Lmdb(Copied):
    """Batches sample by sample, in the order that is asked for, stacked without worker processes.

    Args:
        catalogue: of the samples, which are copied.
        folder: where; up to three times the bytes of the samples must be free.

    Raises:
        UserError: it cannot be written there, or a sample cannot be read.
    """

    def __init__(self, catalogue, folder: Path):
        import lmdb

        super().__init__(catalogue, folder)
        # Of the address space only. Pages are whole, and a large value has some of its own.
        size = 4 * int(catalogue.sizes.sum()) + (1 << 30)
        try:
            self._store = lmdb.open(str(self.folder), map_size=size, readahead=False, sync=False)
            samples = enumerate(self.samples())
            for some in iter(lambda: list(islice(samples, TOGETHER)), []):
                with self._store.begin(write=True) as writing:
                    for number, (sample, target) in some:
                        writing.put(b"x%d" % number, sample)
                        writing.put(b"y%d" % number, target)
        except lmdb.Error as error:
            raise UserError(
                f"--scratch {folder}: LMDB cannot write its copy there ({error}); it takes up to three times the "
                "bytes of the samples"
            ) from error

    def batches(self, indices: Iterable[np.ndarray]) -> Iterator[Batch]:
        """One batch after the other."""
        for chosen in indices:
            with self._store.begin(buffers=not self.catalogue.encoding) as reading:
                inputs = np.stack([self.input_of(reading.get(b"x%d" % number)) for number in chosen])
                targets = np.stack([self.target_of(reading.get(b"y%d" % number)) for number in chosen])
            yield inputs, targets
