"""Stopping on request: a signal to any rank makes all ranks stop before the same step."""

import os
import signal
import threading
import time
from collections.abc import Callable

import numpy as np

from hpc_train.parallel.world import World
from hpc_train.watch.record import RECORD

# Exit status for the batch script: not finished, start this again (sysexits.h).
UNFINISHED = os.EX_TEMPFAIL
_SIGNALS = (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT)
# Seconds in which more SIGINTs are one Ctrl-C: it reaches ranks from the terminal, and again from their launcher.
_ONE_PRESS = 1.0


class Stopped(Exception):
    """Every rank leaves the training here, with a checkpoint of all steps made; the text names the signals."""


class Requests:
    """The requests to stop that reach this process: SIGUSR1 from now on, SIGTERM and SIGINT while it trains.

    Slurm sends SIGUSR1 some time before the time limit, SIGTERM before a pre-emption and by `scancel`. But launchers
    also send SIGTERM to end ranks that wait for a dead one: so a rank that hangs in a step ends. SIGINT is a user's
    Ctrl-C; a second one ends the process at once. `asked` is called by another thread at the first request.
    """

    def __init__(self):
        self.asked: Callable[[], None] = lambda: None
        self.received: set[int] = set()
        self._step: float | None = None
        self._longest = 5.0
        self._pressed: float | None = None
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Python's own handlers wait for the main thread, which may hang in a collective; a pipe does not wait.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGUSR1, _leave_to_the_pipe)
        threading.Thread(target=self._listen, args=(reader,), name="hpc-train-signals", daemon=True).start()

    def train(self) -> None:
        """Treat SIGTERM and SIGINT as requests too, from now on."""
        # All signals: an MPI that has started in between may have taken SIGUSR1 for itself.
        for number in _SIGNALS:
            signal.signal(number, _leave_to_the_pipe)

    def step(self) -> None:
        """Note that a step begins; it should take no longer than the steps before."""
        self.rest()
        self._step = time.monotonic()

    def rest(self) -> None:
        """Note that slow work begins: a checkpoint, the end of an epoch, a first step that compiles."""
        if self._step is not None:
            self._longest = max(self._longest, time.monotonic() - self._step)
        self._step = None

    def _listen(self, reader: int) -> None:
        while received := os.read(reader, 1):
            if received[0] in _SIGNALS:
                first = not self.received
                self.received.add(received[0])
                if first:
                    # It may write, and storage may hang.
                    threading.Thread(target=self.asked, daemon=True).start()
            if received[0] == signal.SIGTERM:
                threading.Thread(target=self._end_in_a_step, daemon=True).start()
            if received[0] == signal.SIGINT:
                now = time.monotonic()
                self._pressed = now if self._pressed is None else self._pressed
                if now - self._pressed > _ONE_PRESS:
                    os._exit(128 + signal.SIGINT)

    def _end_in_a_step(self) -> None:
        while (step := self._step) is None or time.monotonic() - step < 2 * self._longest:
            time.sleep(0.2)
        os._exit(128 + signal.SIGTERM)


class Agreement:
    """Makes all ranks learn of a request before the same step, by one small collective about every second.

    Steps of one kind share an agreement: the time of a step sets the number of steps between two collectives.

    Args:
        requests: of this process.
        world: the ranks.
        seconds: between two collectives.
    """

    def __init__(self, requests: Requests, world: World, seconds: float = 1.0):
        self.requests, self.world, self.seconds = requests, world, seconds
        self._interval = self._left = 1
        self._busy = 0.0
        self._before: float | None = None

    def begin(self) -> None:
        """Begin a row of steps; the time before it does not count as part of a step."""
        self._before = None
        self.requests.rest()

    def signals(self) -> str:
        """Names of the signals that any rank has received, or ""; call it before every step. Collective."""
        from hpc_train.parallel.collectives import sum_arrays

        now = time.monotonic()
        if self._before is not None:
            self.requests.step()
            self._busy += now - self._before
        self._before = now
        self._left -= 1
        if self._left:
            return ""
        # Rank 0's clock sets the number of steps to the next collective; it grows slowly, as the first steps compile.
        wanted = self._interval * self.seconds / max(self._busy, 1e-6)
        steps = min(max(1, int(wanted)), 2 * self._interval) if self.world.is_root else 0
        received = [float(number in self.requests.received) for number in _SIGNALS]
        asked = time.monotonic()
        *counts, steps = sum_arrays([np.array([*received, steps])], "hpc_train.stop")[0]
        RECORD.met += time.monotonic() - asked
        self._interval = self._left = int(steps)
        self._busy = 0.0
        names = " and ".join(number.name for number, count in zip(_SIGNALS, counts, strict=True) if count)
        if names:
            self.requests.rest()
        return names


def _leave_to_the_pipe(number, frame) -> None:
    """Do nothing: Python writes a signal to the pipe only if the signal has a handler."""
