"""Where the time of a run went, added up over its starts."""

import os
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TypedDict

import psutil

from hpc_train.units import span
from hpc_train.watch import record

QUEUE, STARTUP, TRAINING, EPOCHS, LOST = "queue", "start-up", "training", "end of epochs", "lost"
INPUT_WAIT, CHECKPOINTS = "input wait", "checkpoints"
# What the phases of a rank are called here; those that are missing keep their names.
_NAMES = {
    record.START: STARTUP,
    record.STEP: TRAINING,
    record.INPUT: INPUT_WAIT,
    record.CHECKPOINT: CHECKPOINTS,
    record.EPOCH_END: EPOCHS,
}
USEFUL = (TRAINING, record.VALIDATION)
# What a start is there for, with what it cannot do without.
OF_EPOCHS = (*USEFUL, INPUT_WAIT, record.CALLBACKS)
# The order in which they are shown.
PARTS = (
    QUEUE,
    STARTUP,
    record.COMPILE,
    TRAINING,
    INPUT_WAIT,
    record.VALIDATION,
    CHECKPOINTS,
    record.CALLBACKS,
    EPOCHS,
    record.END,
    LOST,
)
# From the batch script (slurm/job.sh).
_BEGINS = "HPC_TRAIN_JOB_BEGINS"
# A training of 30,000 years has other troubles.
_MOST = 1e12


class Times(TypedDict):
    """What a start has spent."""

    seconds: dict[str, float]
    """By part."""
    first: int
    """Steps of earlier starts that are not made again."""
    step: int
    """Steps that are on disk."""
    at: float
    """When this was known, in seconds of the clock."""
    ended: bool
    """Whether nothing is known to follow."""


class Account:
    """The time of one start of a run, on rank 0.

    Args:
        step: steps of earlier starts that are not made again.
    """

    def __init__(self, step: int):
        self._first = step
        spent = record.RECORD.spent()
        # A process may train again and again, as a notebook does.
        again = set(spent) != {record.START}
        self._earlier, self._before = (spent, {}) if again else ({}, _of_job())

    def now(self, step: int, ended: bool = False) -> Times:
        """What this start has spent until now.

        Args:
            step: the steps of the run that are on disk.
            ended: whether nothing that is not on disk will follow.
        """
        seconds = dict(self._before)
        for phase, spent in record.RECORD.spent().items():
            name = _NAMES.get(phase, phase)
            seconds[name] = seconds.get(name, 0.0) + spent - self._earlier.get(phase, 0.0)
        seconds = {name: round(value, 1) for name, value in seconds.items()}
        return {"seconds": seconds, "first": self._first, "step": step, "at": time.time(), "ended": ended}


def lost(times: Times, step: int, heard: float | None) -> Times:
    """What a start has spent when it is known that it was killed, or that its last steps are made again.

    Args:
        times: as `Account.now` gave them last.
        step: where the next start goes on.
        heard: the last time at which it gave a sign of life, in the clock of its storage; None where that is not known.
    """
    seconds = dict(times["seconds"])
    gone = 0.0 if times["ended"] or heard is None else max(0.0, heard - times["at"])
    if step < times["step"]:
        again = min(1.0, (times["step"] - step) / max(1, times["step"] - times["first"]))
        for name in USEFUL:
            part = again * seconds.get(name, 0.0)
            gone += part
            seconds[name] = seconds.get(name, 0.0) - part
    seconds[LOST] = seconds.get(LOST, 0.0) + gone
    known = {name: round(value, 1) for name, value in seconds.items()}
    return {"seconds": known, "first": times["first"], "step": step, "at": times["at"], "ended": True}


def added(starts: Sequence[dict]) -> dict[str, float]:
    """The seconds of all starts by part, in the order of `PARTS`.

    Args:
        starts: of run.json; those of an earlier version have no times.
    """
    every = [start["times"]["seconds"] for start in starts if "times" in start]
    sums = {name: sum(one.get(name, 0.0) for one in every) for name in PARTS}
    return {name: value for name, value in sums.items() if 0.05 <= value < _MOST}


def in_short(starts: Sequence[dict]) -> str:
    """How much of a run's time was useful, in a line; "" where it is not known."""
    seconds = added(starts)
    queue = seconds.pop(QUEUE, 0.0)
    total = sum(seconds.values())
    if not total:
        return ""
    useful = sum(seconds.get(name, 0.0) for name in USEFUL) / total
    known = sum("times" in start for start in starts)
    waited = f", after {span(queue)} in the queue" if queue >= 1 else ""
    costs = sorted(((value, name) for name, value in seconds.items() if name not in USEFUL), reverse=True)
    named = ", ".join(f"{name} {value / total:.1%}" for value, name in costs[:3] if value >= 0.001 * total)
    return (
        f"useful {useful:.1%} of {span(total)} in {known} start{'s' * (known > 1)}{waited}"
        f"{f' ({named})' if named else ''}"
    )


def _of_job() -> dict[str, float]:
    """Seconds in the queue, and from the job's start to the import of the watch, by part."""
    began = time.time() - (time.monotonic() - record.RECORD.began)
    submitted, started = _slurm_times()
    process = min(psutil.Process().create_time(), began)
    first = min(started, process) if started else process
    parts = {STARTUP: began - first}
    return parts | ({QUEUE: max(0.0, started - submitted)} if submitted and started else {})


def _slurm_times() -> tuple[float, float]:
    """When Slurm took this job, and started it (the last time that it did).

    0 where it does not say, and where other programs of the job came before.
    """
    job = os.environ.get("SLURM_JOB_ID", "")
    if os.environ.get(_BEGINS) != "yes" or not job.isdigit():
        return 0.0, 0.0
    ask = ["squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%V %S"]
    with suppress(OSError, subprocess.TimeoutExpired, ValueError):
        said = subprocess.run(ask, capture_output=True, text=True, timeout=10).stdout.split()
        submitted, started = (time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S")) for text in said[:2])
        return submitted, started
    return 0.0, 0.0
