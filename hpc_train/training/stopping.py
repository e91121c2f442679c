"""Stopping on request: a signal to any rank lets all of them stop before one and the same step."""

import os
import signal
import threading
import time

import numpy as np

from hpc_train.parallel.world import World

# What the batch shell is told: not finished, start me again (sysexits.h).
UNFINISHED = os.EX_TEMPFAIL
_SIGNALS = (signal.SIGUSR1, signal.SIGTERM)


class Stopped(Exception):
    """Every rank leaves training here, and a checkpoint holds what has been done; its text names the signals."""


class Requests:
    """The requests to stop that reach this process: SIGUSR1 from now on, SIGTERM while it trains.

    Slurm sends the first some time before the time limit, the second before a pre-emption and by `scancel`. But SIGTERM
    is also how launchers end the ranks that wait for a dead one: a rank that hangs in a step obeys it.
    """

    def __init__(self):
        self.received: set[int] = set()
        self._step: float | None = None
        self._longest = 5.0
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python's own handlers wait for the main thread, which may hang in a collective; this pipe does not.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGUSR1, _leave_to_the_pipe)
        threading.Thread(target=self._listen, args=(reader,), name="hpc-train-signals", daemon=True).start()

    def train(self) -> None:
        """From now on SIGTERM is a request as well."""
        # Both: an MPI that has started since may have a use of its own for SIGUSR1.
        for number in _SIGNALS:
            signal.signal(number, _leave_to_the_pipe)

    def step(self) -> None:
        """A step begins that takes no longer than others did."""
        self.rest()
        self._step = time.monotonic()

    def rest(self) -> None:
        """What comes now may take its time: a checkpoint, the end of an epoch, a first step that compiles."""
        if self._step is not None:
            self._longest = max(self._longest, time.monotonic() - self._step)
        self._step = None

    def _listen(self, reader: int) -> None:
        while received := os.read(reader, 1):
            if received[0] in _SIGNALS:
                self.received.add(received[0])
            if received[0] == signal.SIGTERM:
                threading.Thread(target=self._end_in_a_step, daemon=True).start()

    def _end_in_a_step(self) -> None:
        while (step := self._step) is None or time.monotonic() - step < 2 * self._longest:
            time.sleep(0.2)
        os._exit(128 + signal.SIGTERM)


class Agreement:
    """Tells all ranks of a request before the same step, at the price of one small collective about every second.

    Steps of one kind share one: the time of a step sets how many go by between two questions.
    """

    def __init__(self, requests: Requests, world: World, seconds: float = 1.0):
        self.requests, self.world, self.seconds = requests, world, seconds
        self._interval = self._left = 1
        self._busy, self._before = 0.0, None

    def begin(self) -> None:
        """A row of steps begins; what lay before it does not count as a step's time."""
        self._before = None
        self.requests.rest()

    def signals(self) -> str:
        """The signals that any rank has received, "" without one; every rank calls it before every step. Collective."""
        from hpc_train.parallel.collectives import sum_arrays

        now = time.monotonic()
        if self._before is not None:
            self.requests.step()
            self._busy += now - self._before
        self._before = now
        self._left -= 1
        if self._left:
            return ""
        # Rank 0's clock sets the number of steps to the next question; it grows slowly, as the first steps compile.
        wanted = self._interval * self.seconds / max(self._busy, 1e-6)
        steps = min(max(1, int(wanted)), 2 * self._interval) if self.world.is_root else 0
        received = [float(number in self.requests.received) for number in _SIGNALS]
        *counts, steps = sum_arrays([np.array([*received, steps])], "hpc_train.stop")[0]
        self._interval = self._left = int(steps)
        self._busy = 0.0
        names = " and ".join(number.name for number, count in zip(_SIGNALS, counts, strict=True) if count)
        if names:
            self.requests.rest()
        return names


def _leave_to_the_pipe(number, frame) -> None:
    """Python asks for a handler before it writes to the pipe."""
