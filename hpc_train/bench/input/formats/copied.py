"""A copy of all samples in another format, for the time of a measurement."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hpc_train.bench.input.encoded import pixels
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.encoded_reader import open_reader
from hpc_train.errors import UserError

# Samples that are read, or written, at once.
TOGETHER = 256
# Bytes of a file of a format that has several.
FILE_BYTES = 64 * 2**20


class Copied:
    """Samples in a folder of their own, which goes with `close`, or with this object.

    A sample is two strings of bytes: that of its input, an array or a JPEG file, and that of its target.

    Args:
        catalogue: of the samples.
        folder: where to make the copy.

    Raises:
        UserError: it cannot be made there.
    """

    def __init__(self, catalogue: Catalogue, folder: Path):
        self.catalogue = catalogue
        try:
            self._made = tempfile.TemporaryDirectory(prefix="hpc-train-copy-", dir=folder)
        except OSError as error:
            raise UserError(f"--scratch {folder}: no folder can be made there ({error.strerror})") from error
        self.folder = Path(self._made.name)

    def samples(self) -> Iterator[tuple[bytes, bytes]]:
        """All samples in their order."""
        reader, count = open_reader(self.catalogue, check=False), self.catalogue.samples
        for first in range(0, count, TOGETHER):
            arrays = reader.read(np.arange(first, min(first + TOGETHER, count)))
            for sample, target in zip(*arrays, strict=True):
                yield sample if isinstance(sample, bytes) else sample.tobytes(), target.tobytes()

    def input_of(self, value) -> np.ndarray:
        """The input that these bytes hold; a JPEG file is decoded with Pillow."""
        return pixels(value) if self.catalogue.encoding else _array(value, self.catalogue.parts[0])

    def target_of(self, value) -> np.ndarray:
        """The target that these bytes hold."""
        return _array(value, self.catalogue.parts[1])

    def close(self) -> None:
        """Remove the copy."""
        self._made.cleanup()

    @property
    def bytes_on_disk(self) -> int:
        """What the copy takes."""
        # A sparse file has a size that it does not take.
        return sum(512 * os.stat(path).st_blocks for path in self.folder.rglob("*") if path.is_file())


def _array(value, part) -> np.ndarray:
    return np.frombuffer(value, part.dtype.newbyteorder("=")).reshape(part.shape)
