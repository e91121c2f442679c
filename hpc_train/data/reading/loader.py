"""Read-ahead: a pool of threads reads the batches of the next steps into bounded memory and delivers them in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

from hpc_train.data.reading.blocks import Blocks
from hpc_train.data.reading.buffers import Buffers
from hpc_train.data.reading.reader import Reader

Arrays = tuple[np.ndarray, ...]


class Loader:
    """Batches in the order of their plan, read ahead of the step that needs them.

    An error in a thread is raised by the next call, whichever group it belongs to.

    Args:
        reader: reads the samples.
        groups: the plan as int64 arrays (k, b), taken lazily: k steps of b samples, which are read together. Small
            batches are grouped so that each costs little Python.
        threads: threads that read and decode.
        read_ahead: groups in memory or being read, besides the one delivered last.
        block: samples in a block, for plans that mix blocks. A block is read once and kept while the next groups need
            it.
        horizon: the number of these groups.

    Attributes:
        given: sample numbers of the group delivered last, (k, b).
    """

    def __init__(
        self,
        reader: Reader,
        groups: Iterator[np.ndarray],
        threads: int,
        read_ahead: int = 2,
        block: int | None = None,
        horizon: int = 0,
    ):
        self._reader, self._groups, self._read_ahead = reader, iter(groups), read_ahead
        self._buffers = Buffers(keep=read_ahead + 2)
        self._pool = ThreadPoolExecutor(threads, "hpc-train-read")
        self._changed = threading.Condition()
        self._error: Exception | None = None
        self._known: deque[_Group] = deque()
        self._coming: deque[_Group] = deque()
        self._blocks = Blocks(reader, block, self._start, self._submit) if block else None
        self._horizon = horizon if block else 0
        self.given: np.ndarray | None = None

    def __iter__(self) -> Iterator[Arrays]:
        """One batch after the other: an array (b, ...) for each part, as from `Reader.read`."""
        try:
            while True:
                yield from zip(*self.next(), strict=True)
        except StopIteration:
            return
        finally:
            self.close()

    def next(self) -> Arrays:
        """The next group: an array (k, b, ...) for each part; StopIteration after the last one."""
        self._begin()
        if not self._coming:
            raise StopIteration
        group = self._coming.popleft()
        with self._changed:
            self._changed.wait_for(lambda: group.ready or self._error)
            if self._error:
                raise self._error
        self._begin()
        self.given = group.indices.reshape(group.shape)
        return group.arrays

    def close(self) -> None:
        """Stop reading, and drop the groups that are being read."""
        self._fail(RuntimeError("the loader is closed"))
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _begin(self) -> None:
        while len(self._coming) < self._read_ahead:
            while len(self._known) <= self._horizon:
                indices = next(self._groups, None)
                if indices is None:
                    break
                group = _Group(indices)
                if self._blocks:
                    self._blocks.hold(group.indices)
                self._known.append(group)
            if not self._known:
                break
            group = self._known.popleft()
            self._coming.append(group)
            if self._blocks:
                self._blocks.when_here(group.indices, lambda group=group: self._submit(self._assemble, group))
            else:
                self._submit(self._read, group)

    def _read(self, group: "_Group") -> None:
        self._start(group.indices, lambda arrays: self._finish(group, arrays), self._buffers.empty)

    def _assemble(self, group: "_Group") -> None:
        arrays = self._reader.empty(group.indices.size, self._buffers.empty)
        self._blocks.copy(group.indices, *arrays)
        self._blocks.release(group.indices)
        self._finish(group, arrays)

    def _finish(self, group: "_Group", arrays: Arrays) -> None:
        with self._changed:
            group.arrays = tuple(array.reshape(group.shape + array.shape[1:]) for array in arrays)
            group.ready = True
            self._changed.notify_all()

    def _start(self, indices: np.ndarray, done: Callable[[Arrays], None], allocate: Callable) -> None:
        """Read samples with one thread for each job; the thread that ends the last one calls `done`."""
        arrays = self._reader.empty(len(indices), allocate)
        jobs, finish = self._reader.begin(indices, *arrays)

        def end() -> None:
            finish()
            done(arrays)

        left = _Countdown(len(jobs), end)
        for job in jobs[1:]:
            self._submit(left.run, job)
        left.run(jobs[0])

    def _submit(self, function: Callable, *args) -> None:
        # A closed pool takes no more work.
        with suppress(RuntimeError):
            self._pool.submit(self._guarded, function, *args)

    def _guarded(self, function: Callable, *args) -> None:
        if self._error is None:
            try:
                function(*args)
            except Exception as error:
                self._fail(error)

    def _fail(self, error: Exception) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()


class _Group:
    """The samples of some steps, and their arrays once they are read."""

    def __init__(self, indices: np.ndarray):
        self.shape, self.indices = indices.shape, indices.ravel()
        self.ready = False
        self.arrays: Arrays = ()


class _Countdown:
    """Runs jobs; the thread that ends the last one calls `done`."""

    def __init__(self, jobs: int, done: Callable[[], None]):
        self._left, self._done = jobs, done
        self._lock = threading.Lock()

    def run(self, job: Callable[[], None]) -> None:
        job()
        with self._lock:
            self._left -= 1
            last = self._left == 0
        if last:
            self._done()
