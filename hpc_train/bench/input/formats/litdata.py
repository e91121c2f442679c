"""LitData: chunks of some MB, shuffled, and samples shuffled within them."""

import warnings
from collections.abc import Iterator

import numpy as np

from hpc_train.bench.input.formats.copied import FILE_BYTES
from hpc_train.bench.input.formats.stream import Stream
from hpc_train.bench.input.other_readers import Batch


class LitData(Stream):
    """`litdata.StreamingDataset`, decoded sample by sample; worker processes by its `StreamingDataLoader`."""

    def write(self) -> None:
        """As `Stream.write`."""
        from litdata.streaming.cache import Cache

        cache = Cache(str(self.folder), chunk_bytes=FILE_BYTES)
        for number, (sample, target) in enumerate(self.samples()):
            cache[number] = sample, target
        cache.done()
        cache.merge()

    def read(self, shuffled: bool) -> Iterator[Batch]:
        """As `Stream.read`."""
        import litdata

        # An array of bytes that nobody changes need not be writable.
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        data = litdata.StreamingDataset(str(self.folder), shuffle=shuffled, seed=self.seed, transform=self._decoded)
        how = {"batch_size": self.batch_size, "num_workers": self.workers * shuffled, "drop_last": True}
        loader = litdata.StreamingDataLoader(data, **how)
        while True:
            for inputs, targets in loader:
                yield inputs.numpy(), targets.numpy()

    def _decoded(self, sample: tuple[bytes, bytes]) -> tuple[np.ndarray, np.ndarray]:
        return self.input_of(sample[0]), self.target_of(sample[1])
