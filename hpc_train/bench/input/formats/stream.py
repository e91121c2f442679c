"""Formats that are read in an order of their own: files shuffled, and samples within a buffer or a file."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from hpc_train.bench.input.formats.copied import Copied
from hpc_train.bench.input.other_readers import Batch
from hpc_train.data.catalogue import Catalogue
from hpc_train.errors import UserError

# Samples of a shuffle buffer, where the format has one.
BUFFER = 1000


class Stream(Copied, ABC):
    """Batches of a format without a choice of their order; epochs follow each other.

    Args:
        catalogue: of the samples, which are copied.
        folder: where to make the copy.
        threads: that read and decode; worker processes where the format's package has those, but with one thread the
            process itself, which is faster on one core.
        batch_size: samples in a batch.
        seed: of the order.

    Raises:
        UserError: the copy cannot be written there, or a sample cannot be read.
    """

    def __init__(self, catalogue: Catalogue, folder: Path, threads: int, batch_size: int, seed: int):
        super().__init__(catalogue, folder)
        self.batch_size, self.seed = batch_size, seed
        self.workers = threads if threads > 1 else 0
        self.threads = threads
        try:
            self.write()
        except OSError as error:
            raise UserError(f"--scratch {folder}: the copy cannot be written ({error.strerror or error})") from error

    def batches(self, count: int) -> Iterator[Batch]:
        """The first `count` batches of another order than at the last call."""
        self.seed += 1
        return islice(self.read(shuffled=True), count)

    def first(self) -> Batch:
        """The first samples in the order in which they were written."""
        return next(iter(self.read(shuffled=False)))

    @abstractmethod
    def write(self) -> None:
        """Write all samples into the folder."""

    @abstractmethod
    def read(self, shuffled: bool) -> Iterator[Batch]:
        """Batches without end; if not shuffled, the first one must hold the first samples.

        What reads ahead ends when the iterator is dropped, so that it does not disturb the next measurement.
        """
