"""The ways to read a data set that `hpc-train bench input` compares, by their names."""

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import import_module
from pathlib import Path

import numpy as np

from hpc_train.bench.input.encoded import h5py_reader
from hpc_train.bench.input.formats.copied import Copied
from hpc_train.bench.input.other_readers import Batch, TorchLoader
from hpc_train.bench.input.steps import Steps
from hpc_train.data.catalogue import Catalogue
from hpc_train.units import MIB

_PIECE = 4 * MIB
_OPEN_FILES = 256
# Formats with an order of their own: their modules and classes.
STREAMS = {"tfrecord": ("tfrecord", "TfRecord"), "webdataset": ("webdataset", "WebDataset")}
STREAMS |= {"litdata": ("litdata", "LitData")}


@dataclass(frozen=True)
class Way:
    """One way, with one choice of threads and read-ahead."""

    kind: str
    threads: int
    read_ahead: int | None
    deliver: Callable[[int, int], Iterable[Batch]]
    """deliver(epoch, steps): the batches of `steps` steps from the start of an epoch on, read when they are taken."""
    sample_bytes: float
    """Bytes that count for a sample."""
    lead: int = 0
    """Steps until it runs at its steady pace."""
    together: int = 1
    """Steps that it reads at once."""
    copy: Copied | None = None
    """The copy of the samples that it reads."""
    first: Callable[[], Batch] | None = None
    """For a way with an order of its own: the first samples of the data as a batch."""

    @property
    def name(self) -> str:
        """For tables: the kind, with the threads and read-ahead if there is a choice."""
        threads = f" {self.threads}" if self.threads else ""
        return f"{self.kind}{threads}" + (f" ahead {self.read_ahead}" if self.read_ahead else "")


def build(
    kind: str,
    threads: int,
    read_ahead: int | None,
    catalogue: Catalogue,
    steps: Steps,
    opened: tuple[Callable, Callable],
    scratch: Path,
) -> Way:
    """Make one way.

    Args:
        kind: as in --ways.
        threads: how many.
        read_ahead: batches; None takes the number of a trainer.
        catalogue: of the data.
        steps: what to read, and the suite's reader of it.
        opened: two functions of a path: one opens a file for positioned reads, one opens it with h5py.
        scratch: folder for a copy in another format.
    """
    open_file, open_hdf5 = opened
    batch_size, sample_bytes = steps.plan.batch_size, catalogue.sample_bytes
    # After this many steps, every buffer has been used once.
    reading = steps.reading(read_ahead)
    together, lead = reading.together, (reading.groups + 2) * reading.together
    if kind == "copy":
        copy = Copy(catalogue, open_file, threads, reading.memory())
        return Way(kind, threads, None, lambda epoch, count: copy.pieces(count * batch_size), copy.sample_bytes)
    if kind == "arrays":
        return Way(kind, threads, read_ahead, _arrays(steps, threads, read_ahead), sample_bytes, lead, together)
    if kind in ("tf.data", "fit"):
        # `tf.data` has two more batches under way.
        deliver = _tf_data(steps, threads, read_ahead, kind == "fit")
        return Way(kind, threads, read_ahead, deliver, sample_bytes, lead + 2, together)
    if kind in STREAMS:
        module, name = STREAMS[kind]
        stream = getattr(import_module(f"hpc_train.bench.input.formats.{module}"), name)
        copied = stream(catalogue, scratch, threads, batch_size, steps.plan.seed)
        take = lambda epoch, count: copied.batches(count)  # noqa: E731
        # Worker processes have two batches each, TensorFlow as many as it likes.
        return Way(kind, threads, None, take, sample_bytes, 2 * threads + 2, 1, copied, copied.first)
    copied = None
    if kind == "torch":
        read = TorchLoader(catalogue, open_hdf5, threads).batches
        lead = 2 * threads  # its prefetch_factor
    elif kind == "lmdb":
        from hpc_train.bench.input.formats.lmdb import Lmdb

        copied = Lmdb(catalogue, scratch)
        read, lead = copied.batches, 0
    elif kind == "h5py":
        read, lead = h5py_reader(catalogue, open_hdf5).batches, 0
    else:
        # Threads overtake each other at HDF5's lock, so this way is timed from its first batch to its last.
        read, lead = partial(h5py_reader(catalogue, open_hdf5).threaded, threads=threads, read_ahead=read_ahead or 0), 0
    ahead = read_ahead if kind == "h5py-threads" else None
    take = lambda epoch, count: read(steps.batches(epoch, count))  # noqa: E731
    return Way(kind, threads, ahead, take, sample_bytes, lead, copy=copied)


class Copy:
    """The limit: the bytes of the files, as they are stored, into memory.

    For a number of samples it copies the bytes that the files hold for them on average, in the order of the files, from
    the first byte to the last and then from the first again. It makes positioned reads of 4 MiB into memory that is
    used again and again. Nothing is searched, decoded, ordered or checked.

    Args:
        catalogue: of the data.
        open_file: opens a path for positioned reads.
        threads: how many copy.
        buffer_bytes: size of the memory, as large as the reader's batches.
    """

    def __init__(self, catalogue: Catalogue, open_file: Callable, threads: int, buffer_bytes: int):
        self._catalogue, self._threads = catalogue, threads
        self._open = lru_cache(maxsize=_OPEN_FILES)(open_file)
        self.sample_bytes = int(catalogue.sizes.sum()) / catalogue.samples
        self._buffer = np.empty(max(buffer_bytes, threads * _PIECE), np.uint8)

    def pieces(self, samples: int) -> Iterator[Batch]:
        """Copy the bytes of `samples` samples; delivers no batch."""
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


def _arrays(steps: Steps, threads: int, read_ahead: int | None) -> Callable:
    def deliver(epoch: int, count: int) -> Iterator[Batch]:
        return iter(steps.loader(epoch, count, threads, read_ahead))

    return deliver


def _tf_data(steps: Steps, threads: int, read_ahead: int | None, handed: bool) -> Callable:
    from hpc_train.data.tensors.pipeline import Input

    def deliver(epoch: int, count: int) -> Iterable:
        source = Input(steps.reader, threads, read_ahead)
        what = steps.plan, 0, epoch, 0, count
        return (handed and source.handed(*what)) or source.training(*what)

    return deliver
