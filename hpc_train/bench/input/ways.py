"""The ways to read a data set that `hpc-train bench input` compares, by their names."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np

from hpc_train.bench.input.other_readers import Batch, H5py, TorchLoader
from hpc_train.bench.input.steps import Steps
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader

_PIECE = 4 * 2**20
_OPEN_FILES = 256


@dataclass(frozen=True)
class Way:
    """One way, with one choice of threads and read-ahead.

    deliver(epoch, steps): the batches of so many steps from the start of an epoch on, read as they are taken;
    sample_bytes: what is counted for a sample; lead: steps until it runs as it will go on.
    """

    kind: str
    threads: int
    read_ahead: int | None
    deliver: Callable[[int, int], Iterable[Batch]]
    sample_bytes: float
    lead: int = 0

    @property
    def name(self) -> str:
        """For tables: the kind, and the threads and read-ahead where there is a choice."""
        threads = f" {self.threads}" if self.threads else ""
        return f"{self.kind}{threads}" + (f" ahead {self.read_ahead}" if self.read_ahead else "")


def build(kind: str, threads: int, read_ahead: int | None, catalogue: Catalogue, steps: Steps, reader, opened) -> Way:
    """One way; opened: (open a file for positioned reads, open it with h5py)."""
    open_file, open_hdf5 = opened
    batch_size, sample_bytes = steps.plan.batch_size, catalogue.sample_bytes
    # Until every buffer has been used once.
    reading = steps.reading(read_ahead)
    lead = (reading.groups + 2) * reading.together
    if kind == "copy":
        copy = Copy(catalogue, open_file, threads, reading.memory())
        return Way(kind, threads, None, lambda epoch, count: copy.pieces(count * batch_size), copy.sample_bytes)
    if kind == "arrays":
        return Way(kind, threads, read_ahead, _arrays(steps, reader, threads, read_ahead), sample_bytes, lead)
    if kind == "tf.data":
        # `Input` has two more batches on their way to the device.
        return Way(kind, threads, read_ahead, _tf_data(steps, reader, threads, read_ahead), sample_bytes, lead + 2)
    if kind == "torch":
        read = TorchLoader(catalogue, open_hdf5, threads).batches
        lead = 2 * threads  # its prefetch_factor
    elif kind == "h5py":
        read, lead = H5py(catalogue, open_hdf5).batches, 0
    else:
        # Its threads overtake each other at HDF5's lock: only from nothing begun to all done is it clear what was read.
        read, lead = partial(H5py(catalogue, open_hdf5).threaded, threads=threads, read_ahead=read_ahead or 0), 0
    ahead = read_ahead if kind == "h5py-threads" else None
    return Way(kind, threads, ahead, lambda epoch, count: read(steps.batches(epoch, count)), sample_bytes, lead)


class Copy:
    """The ceiling: the files' bytes, as they are stored, into memory.

    For so many samples, as many bytes as the files hold for them on average, in the order of the files, from the
    first byte to the last and then from the first again: positioned reads of 4 MiB, in `threads` threads, into as much
    memory as the reader's batches take, used again and again. Nothing is sought, decoded, ordered or checked.
    """

    def __init__(self, catalogue: Catalogue, open_file: Callable, threads: int, buffer_bytes: int):
        self._catalogue, self._threads = catalogue, threads
        self._open = lru_cache(maxsize=_OPEN_FILES)(open_file)
        self.sample_bytes = int(catalogue.sizes.sum()) / catalogue.samples
        self._buffer = np.empty(max(buffer_bytes, threads * _PIECE), np.uint8)

    def pieces(self, samples: int) -> Iterator[Batch]:
        """Copy; delivers no batch."""
        work = self._ranges(round(samples * self.sample_bytes))
        lock = threading.Lock()

        def copy() -> None:
            while True:
                with lock:
                    file, offset, place, size = next(work, (None, 0, 0, 0))
                if file is None:
                    return
                file.read_into(offset, self._buffer[place : place + size])

        if self._threads == 1:
            copy()
        else:
            with ThreadPoolExecutor(self._threads) as pool:
                for done in [pool.submit(copy) for _ in range(self._threads)]:
                    done.result()
        yield from ()

    def _ranges(self, left: int) -> Iterator[tuple]:
        place = 0
        files = zip(self._catalogue.files, self._catalogue.sizes.tolist(), strict=True)
        for path, file_bytes in itertools.cycle(files):
            file = self._open(path)
            for offset in range(0, file_bytes, _PIECE):
                size = min(_PIECE, file_bytes - offset, left)
                place = place if place + size <= len(self._buffer) else 0
                yield file, offset, place, size
                place, left = place + size, left - size
                if not left:
                    return


def _arrays(steps: Steps, reader: Reader, threads: int, read_ahead: int | None) -> Callable:
    def deliver(epoch: int, count: int) -> Iterator[Batch]:
        return iter(steps.loader(reader, epoch, count, threads, read_ahead))

    return deliver


def _tf_data(steps: Steps, reader: Reader, threads: int, read_ahead: int | None) -> Callable:
    from hpc_train.data.tensors.pipeline import Input

    def deliver(epoch: int, count: int) -> Iterable:
        return Input(reader, threads, read_ahead).training(steps.plan, 0, epoch, 0, count)

    return deliver
