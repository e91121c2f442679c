"""Blocks of consecutive samples, each read once and kept while the next steps need its samples."""

import threading
from collections.abc import Callable

import numpy as np

from hpc_train.data.reading.buffers import Buffers
from hpc_train.data.reading.reader import Reader

# Blocks whose memory is kept for the next ones.
KEPT = 4


class Blocks:
    """The blocks in memory; block k holds the samples from k * block on.

    Args:
        reader: reads the samples.
        block: samples in a block.
        start: start(indices, done, allocate) begins to read samples in the loader's threads.
        submit: submit(function, ...) calls the function in one of these threads.
    """

    def __init__(self, reader: Reader, block: int, start: Callable, submit: Callable):
        self._reader, self._block, self._start, self._submit = reader, block, start, submit
        self._held: dict[int, _Block] = {}
        self._lock = threading.Lock()
        self._buffers = Buffers(KEPT)
        self.reads = 0

    def hold(self, indices: np.ndarray) -> None:
        """Begin to read the missing blocks of these samples; keep all of them until as many calls of `release`."""
        for number in np.unique(indices // self._block).tolist():
            with self._lock:
                block = self._held.get(number)
                new = block is None
                if new:
                    block = self._held[number] = _Block()
                    self.reads += 1
                block.users += 1
            if new:
                self._submit(self._read, number, block)

    def when_here(self, indices: np.ndarray, call: Callable[[], None]) -> None:
        """Call once the blocks of these samples have been read: now, or in the thread that reads the last one."""
        numbers = np.unique(indices // self._block).tolist()
        # One more than the blocks, so that it is not called before all have been checked.
        left = [len(numbers) + 1]

        def arrived() -> None:
            with self._lock:
                left[0] -= 1
                here = left[0] == 0
            if here:
                call()

        for number in numbers:
            with self._lock:
                block = self._held[number]
                waits = block.arrays is None
                if waits:
                    block.waiting.append(arrived)
            if not waits:
                arrived()
        arrived()

    def copy(self, indices: np.ndarray, *arrays: np.ndarray) -> None:
        """Copy the samples `indices`, whose blocks have been read, into the arrays of all parts, in their order."""
        numbers = indices // self._block
        order = np.argsort(numbers, kind="stable")
        for places in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
            number = int(numbers[places[0]])
            rows = indices[places] - number * self._block
            for array, out in zip(self._held[number].arrays, arrays, strict=True):
                out[places] = array[rows]

    def release(self, indices: np.ndarray) -> None:
        """Count one user fewer for the blocks of these samples, and drop those without any."""
        for number in np.unique(indices // self._block).tolist():
            with self._lock:
                block = self._held[number]
                block.users -= 1
                if block.users == 0:
                    del self._held[number]

    def _read(self, number: int, block: "_Block") -> None:
        first = number * self._block
        samples = np.arange(first, min(first + self._block, self._reader.catalogue.samples))

        def done(arrays) -> None:
            with self._lock:
                block.arrays = arrays
                waiting, block.waiting = block.waiting, []
            for call in waiting:
                call()

        self._start(samples, done, self._buffers.empty)


class _Block:
    def __init__(self):
        self.arrays = None
        self.users = 0
        self.waiting: list[Callable[[], None]] = []
