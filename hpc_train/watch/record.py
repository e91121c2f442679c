"""What this rank is doing: the phase of its training, its step, and since when nothing has moved."""

import math
import os
import statistics
import sys
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

START, COMPILE, INPUT, STEP, CALLBACKS = "start", "compiling", "input", "step", "callbacks"
VALIDATION, EPOCH_END, CHECKPOINT, END = "validation", "end of the epoch", "checkpoint", "end"
# Seconds that a phase may take: those that a step takes again and again, and those whose length nothing tells.
LEAST, TIMES = 60.0, 20
WITHOUT_END = 1800.0
_UNKNOWN = (START, COMPILE, EPOCH_END, CHECKPOINT, END)
# Files with the code that a training is in.
_TRAINING = ("keras/src/backend/tensorflow/trainer.py", "hpc_train/training/fit.py")
_DEBUGGERS = ("/bdb.py", "/pydevd.py")
# Steps before their median says how long one takes.
_ENOUGH = 3
# Storage that fails over stands still for minutes and then goes on; callbacks write pictures and models.
_BY_DEFAULT = {INPUT: 300.0, CALLBACKS: 600.0}


class Record:
    """Where the main thread is; that thread writes it, others read it.

    `phase` is one of the constants of this module; `step` and `epoch` count from 1 (0 before the first). `began` is
    the time (`time.monotonic`) at which this module was imported or this process forked, `since` that of the last
    movement, `stepped` that at which the last whole step began. `history` holds the last phases as (time.time(),
    phase, step). `marks_input` and `marks_callbacks` say whether waiting for data and callbacks are phases of their
    own, or parts of a step. `waited` gives the seconds for which this rank has waited for others since its last call,
    and `met` is those in which it waited for them outside gradients; `pace` holds the last steps as (seconds, of them
    waiting for others, of them waiting for data). `saved` is the seconds until the last checkpoint was on disk, or
    None.
    """

    def __init__(self) -> None:
        self.phase, self.step, self.epoch = START, 0, 0
        self.began = self.since = time.monotonic()
        self.stepped = 0.0
        self.history: deque[tuple[float, str, int]] = deque(maxlen=64)
        self._steps: deque[float] = deque(maxlen=101)
        self._began: float | None = None
        self.marks_input = self.marks_callbacks = False
        self.waited: Callable[[], float] = lambda: math.nan
        self.pace: deque[tuple[float, float, float]] = deque(maxlen=1024)
        self._before = self._fed = self.met = 0.0
        self.saved: float | None = None
        self._did: tuple[str, ...] = ()
        self._spent: dict[str, float] = defaultdict(float)
        self._entered = self.began

    def enter(self, phase: str) -> None:
        """A phase begins, or goes on with something new."""
        self.since = now = time.monotonic()
        if phase != self.phase:
            self._spent[self.phase] += now - self._entered
            self._entered = now
            self.phase = phase
            self.history.append((time.time(), phase, self.step))

    def spent(self) -> dict[str, float]:
        """The seconds that this process has been in each phase, since `began`."""
        spent = dict(self._spent)
        return spent | {self.phase: spent.get(self.phase, 0.0) + time.monotonic() - self._entered}

    @contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """A phase that is part of another."""
        outer = self.phase
        self.enter(phase)
        try:
            yield
        finally:
            self.enter(outer)

    def begin_step(self, phase: str) -> None:
        """A step of training begins; the time since the one before is that of a step, if both are of one row."""
        now, waited, fed = time.monotonic(), self.waited() + self.met, self._spent.get(INPUT, 0.0)
        self.met = 0.0
        if self._began is not None:
            self._steps.append(now - self._began)
            self.pace.append((now - self._began, waited, fed - self._fed))
        self._began, self._fed = now if phase == STEP else None, fed
        self.step += 1
        self.stepped, self._before = self._before, now
        self.enter(phase)

    def rest(self) -> None:
        """What comes next is not part of a step."""
        self._began = None

    def look(self) -> None:
        """In a phase that nothing else marks, what the main thread has computed or waited for is a movement.

        A phase that an error ended, as Ctrl-C does in a notebook, is none any more.
        """
        if self.phase != START and not _trains():
            self.enter(START)
        if self.phase not in _UNKNOWN:
            self._did = ()
            return
        did = _done_by_main_thread()
        if did != self._did:
            self.since = time.monotonic()
        self._did = did

    def limit(self, hang_after: float | None) -> float:
        """Seconds after which a phase without movement is a hang.

        Args:
            hang_after: what the user gave for steps; None for 20 times their median, and at least a minute.
        """
        if self.phase in _UNKNOWN:
            return max(WITHOUT_END, hang_after or 0.0)
        if hang_after is not None:
            return hang_after
        # A copy, as the main thread may add one.
        steps = list(self._steps)
        if len(steps) < _ENOUGH:
            return WITHOUT_END
        least = max(LEAST, _BY_DEFAULT.get(self.phase, 0.0))
        if self.phase in (STEP, VALIDATION) and not (self.marks_input and self.phase == STEP):
            least = max(least, _BY_DEFAULT[INPUT])
        if not self.marks_callbacks:
            least = max(least, _BY_DEFAULT[CALLBACKS])
        return max(least, TIMES * statistics.median(steps))

    def begin_fit(self) -> None:
        """A `fit` begins: its steps may take another time than those of the one before."""
        self._steps.clear()
        self.pace.clear()
        self.rest()
        self.enter(COMPILE)


def _trains() -> bool:
    """Whether the main thread is in Keras's `fit` or `evaluate`, or in the trainers' own path, and in no debugger."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    trains = False
    while frame is not None:
        if frame.f_code.co_filename.endswith(_DEBUGGERS):
            return False
        trains |= frame.f_code.co_filename.endswith(_TRAINING)
        frame = frame.f_back
    return trains


def _done_by_main_thread() -> tuple[str, ...]:
    """What grows when the main thread computes, or waits for something that ends: a blocked one does neither."""
    with suppress(OSError):
        thread = Path(f"/proc/self/task/{threading.main_thread().native_id}")
        lines = (thread / "status").read_text(errors="replace").splitlines()
        times = (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return *(line for line in lines if "ctxt_switches" in line), *times[11:13]
    return ()


# Of this process.
RECORD = Record()
os.register_at_fork(after_in_child=RECORD.__init__)
