"""Trackers follow metrics.jsonl in threads of their own: what they lack is sent, and training never waits for them."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Protocol

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.names import printable
from hpc_train.requirements import pip_install
from hpc_train.tracking.subject import FAILED, FINISHED, LIMITS, STOPPED, Subject, clean

_LONGEST = 300


class Store(Protocol):
    """A tracker that has been reached.

    `last` is the last step that it holds, 0 for none.
    """

    last: int

    def log(self, line: dict) -> None:
        """Add the values of a line of metrics.jsonl at its step."""

    def end(self, status: str) -> None:
        """End the run with FINISHED, STOPPED or FAILED."""


class Follower(threading.Thread):
    """Sends to a tracker the lines that it lacks, now and whenever it is told to look.

    Where that fails it says so once, and asks the tracker anew what it holds when it looks again.

    Args:
        name: the tracker's, for messages.
        reach: makes the connection to it.
        lines: returns all lines of metrics.jsonl.
    """

    def __init__(self, name: str, reach: Callable[[], Store], lines: Callable[[], list[dict]]):
        super().__init__(name=f"hpc-train-track-{name}", daemon=True)
        self.tracker, self._reach, self._lines = name, reach, lines
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._store: Store | None = None
        self.complained = False
        self.start()

    def look(self, status: str = "") -> None:
        """Send what is new, and with a status end the run there; returns at once."""
        self._asked.put(status)

    def run(self) -> None:
        self._send("")
        while not (status := self._asked.get()):
            self._send("")
        self._send(status)

    def _send(self, status: str) -> None:
        try:
            self._store = self._store or self._reach()
            for line in self._lines():
                # An epoch that is done again after a kill has the same step, and the same values.
                if line["step"] > self._store.last:
                    self._store.log(line)
                    self._store.last = line["step"]
            if status:
                self._store.end(status)
        # Whatever a tracker's package raises is no reason to stop.
        except Exception as error:
            self._store = None
            self.complain(f"{type(error).__name__}: {error}")

    def complain(self, why: str) -> None:
        """Say, once, that the tracker does not work."""
        if not self.complained:
            self.complained = True
            text = printable(clean(" ".join(why.split())))
            short = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
            say(
                f"warning: --track {self.tracker}: {short}; training goes on, metrics.jsonl has all values, and the "
                "tracker gets what it lacks when it works again, at the latest at the next start of this run"
            )


def check(track: Sequence[str], benchmark: str) -> None:
    """Check that the packages of the trackers are installed, without importing them.

    Args:
        track: the words of --track.
        benchmark: MLPerf's name for what is trained; empty if it is none of its benchmarks.

    Raises:
        UserError: one is not, or MLPerf has no such benchmark.
    """
    needs = {"mlflow": ["mlflow"], "wandb": ["wandb"]}
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        needs["mlflow"] += ["sqlalchemy", "alembic"]
    for name in track:
        if missing := [package for package in needs.get(name, ()) if find_spec(package) is None]:
            what = f"{missing[0]}, which is not installed (the extra {name} of hpc-train)"
            raise UserError(f"--track {name} needs {what}: {pip_install(name)}")
    if "mlperf" in track and not benchmark:
        raise UserError("--track mlperf writes the log of a benchmark of MLPerf HPC: it is for hpc_train.climate alone")


@contextmanager
def followed(track: Sequence[str], run, log=None) -> Iterator[list[Follower]]:
    """Trackers for the time of a training, which tell how it ended.

    Args:
        track: the words of --track.
        run: a `training.run_folder.Run` that has begun.
        log: MLPerf's, or None.

    Raises:
        UserError: the run's folder cannot be written.
    """
    stores = {"mlflow": _mlflow, "wandb": _wandb}
    names = [name for name in stores if name in track]
    subject = Subject.of(run.path, run.record()) if names else None
    followers = [Follower(name, partial(stores[name], subject), run.metrics) for name in names]
    status = FAILED
    try:
        yield followers
        status = FINISHED
    except (SystemExit, KeyboardInterrupt):
        status = STOPPED
        raise
    finally:
        if log:
            log.end()
        for follower in followers:
            follower.look(status)
        until = time.monotonic() + LIMITS[status]
        for follower in followers:
            follower.join(max(0.0, until - time.monotonic()))
            if follower.is_alive():
                follower.complain(f"no answer within {LIMITS[status]:g} s of the end")


def _mlflow(subject: Subject) -> Store:
    from hpc_train.tracking.mlflow_run import MLflowRun

    return MLflowRun(subject)


def _wandb(subject: Subject) -> Store:
    from hpc_train.tracking.wandb_run import WandbRun

    return WandbRun(subject)
