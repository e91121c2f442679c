"""Running one job on this machine. None of its processes outlives it."""

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from hpc_train.errors import errors_in

# A variable in the environment of all processes of a job, to find them by: launchers start new sessions.
_MARK = "HPC_TRAIN_STUDY_JOB"
_PATIENCE = 10
_CHATTER = re.compile(r"(\[\d+\] ?)?(I0000 |WARNING: All log messages before absl::InitializeLog)")


def run(argv: list[str], environment: dict[str, str], log: Path, timeout: float) -> int | None:
    """Run a command to its end. However this ends, all its processes on this machine end, too.

    Args:
        argv: the command.
        environment: its variables besides those of this process.
        log: file for both of its streams.
        timeout: seconds after which it is ended.

    Returns:
        Its status; None if it took too long.

    Raises:
        OSError: there is no such command, or the log cannot be written.
    """
    mark = uuid.uuid4().hex
    with log.open("wb") as stream:
        process = subprocess.Popen(
            argv,
            # Without it, TensorFlow would fill the last lines of the log, where an error should be.
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, **environment, _MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            # Ctrl-C in a terminal goes to this process only, which ends the job.
            start_new_session=True,
        )
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            with _deaf():
                _end(process, mark)


def last_lines(log: Path, count: int = 5) -> list[str]:
    """The errors in the last part of a log; without any, its last lines but those of TensorFlow's start."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 65536))
            text = stream.read().decode(errors="replace")
    except OSError:
        return []
    lines = text.splitlines()
    if errors := errors_in(lines):
        return list(dict.fromkeys(errors))[-count:]
    return [line.rstrip()[:300] for line in lines if line.strip() and not _CHATTER.match(line)][-count:]


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """A context in which SIGTERM and SIGHUP end this process as Ctrl-C does: it cleans up before it ends."""

    def end(number, _):
        raise SystemExit(128 + number)

    earlier = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


@contextmanager
def _deaf() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    earlier = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def _end(process: subprocess.Popen, mark: str) -> None:
    left = _members(mark)
    if not left:
        return
    # The launcher goes first: it knows its ranks, also those on other machines.
    process.terminate()
    psutil.wait_procs(left, _PATIENCE)
    # More than once: a process may have started another one just before it was killed.
    for _ in range(5):
        left = _members(mark)
        if not left:
            break
        for one in left:
            with suppress(psutil.NoSuchProcess):
                one.kill()
        psutil.wait_procs(left, 1)
    process.wait()


def _members(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_MARK) == mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found
