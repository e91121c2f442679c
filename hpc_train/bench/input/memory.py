"""How much memory reading takes: of the suite's reader over an epoch, of any way for a while."""

import threading
from contextlib import suppress
from pathlib import Path

import psutil

from hpc_train.bench.input.steps import Steps

# Seconds between two looks.
_EVERY = 0.02


def measure(steps: Steps, threads: int, read_ahead: int | None) -> dict[str, int]:
    """Bytes of this process in memory over an epoch of the plan, without the pages of mapped files.

    Returns:
        start: before the first batch, after the first samples have loaded the libraries; first_half, second_half: the
        maximum in each half of the epoch; end: with the loader closed and the last batch gone; epoch: of all samples;
        bound: what the loader's batches may take above `start`.
    """
    count = steps.plan.steps()
    steps.reader.read(next(steps.batches(0, 1)))
    start = resident()
    most = [0, 0]
    loader = steps.loader(0, count, threads, read_ahead)
    done = 0
    for inputs, _ in iter(loader.next, None):
        done += len(inputs)
        half = 2 * done > count
        most[half] = max(most[half], resident())
    loader.close()
    del loader, inputs
    figures = {"start": start, "first_half": most[0], "second_half": most[1], "end": resident()}
    reading = steps.reading(read_ahead)
    epoch = count * reading.group_bytes // reading.together
    return {**figures, "epoch": epoch, "bound": reading.memory(steps.plan.order)}


def resident() -> int:
    """Bytes of this process in memory, without the pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kinds = ("RssAnon:", "RssShmem:")
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kinds))


class Growth:
    """A context that measures by how much this process and its worker processes grow, without pages of files.

    At its end it has `bytes`. What earlier work has left unused in this process is taken first, and does not count.
    """

    def __enter__(self) -> "Growth":
        self._before, self._most = _with_workers(), 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hpc-train-memory", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._most = max(self._most, _with_workers())
        self._ended.set()
        self._thread.join()
        self.bytes = max(0, self._most - self._before)

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self._most = max(self._most, _with_workers())


def _with_workers() -> int:
    return resident() + sum(map(_own_of, psutil.Process().children(recursive=True)))


def _own_of(worker: psutil.Process) -> int:
    """Bytes that a worker has made its own since it was forked, and its part of shared memory."""
    with suppress(OSError):
        lines = Path(f"/proc/{worker.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("Private_Dirty:", "Pss_Shmem:")))
    return 0
