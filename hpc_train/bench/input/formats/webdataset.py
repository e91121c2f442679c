"""WebDataset: samples as files in tar archives, read one after the other, with a shuffle buffer."""

from collections.abc import Iterator

import numpy as np

from hpc_train.bench.input.formats.copied import FILE_BYTES
from hpc_train.bench.input.formats.stream import BUFFER, Stream
from hpc_train.bench.input.other_readers import Batch


class WebDataset(Stream):
    """`webdataset.WebDataset`, decoded sample by sample and stacked; worker processes by its `WebLoader`."""

    def write(self) -> None:
        """As `Stream.write`."""
        import webdataset

        pattern = str(self.folder / "%05d.tar")
        # Every worker needs a file of its own.
        most = -(-self.catalogue.samples // self.threads)
        with webdataset.ShardWriter(pattern, most, FILE_BYTES, verbose=0) as writer:
            for number, (sample, target) in enumerate(self.samples()):
                writer.write({"__key__": f"{number:09}", "input": sample, "target": target})

    def read(self, shuffled: bool) -> Iterator[Batch]:
        """As `Stream.read`."""
        import webdataset

        files = [str(path) for path in sorted(self.folder.glob("*.tar"))]
        workers = self.workers if shuffled else 0
        data = webdataset.WebDataset(files, shardshuffle=len(files) if shuffled else False, seed=self.seed)
        if shuffled:
            data = data.shuffle(BUFFER, seed=self.seed)
        data = data.to_tuple("input", "target").map(self._decoded)
        data = data.batched(self.batch_size, _stacked, partial=False).repeat()
        if not workers:
            return iter(data)
        return iter(webdataset.WebLoader(data, batch_size=None, num_workers=workers))

    def _decoded(self, sample: tuple[bytes, bytes]) -> tuple[np.ndarray, np.ndarray]:
        return self.input_of(sample[0]), self.target_of(sample[1])


def _stacked(samples: list) -> Batch:
    inputs, targets = zip(*samples, strict=True)
    return np.stack(inputs), np.stack(targets)
