"""Processes that belong together: if one fails, all are ended."""

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from hpc_train.console import say
from hpc_train.errors import UserError

_LAST_LINES = 15
# Seconds to wait until processes end by themselves after one of them has failed, and after SIGTERM.
_FOLLOW, _PATIENCE = 2, 5


def run(commands: Sequence[list[str]], environments: Sequence[dict[str, str]], folder: Path, what: str) -> None:
    """Run one process a rank to its end; rank N's output goes to rank-N.log in `folder`.

    Args:
        commands: argv of each rank.
        environments: all variables of each rank.
        folder: for the logs.
        what: the name of the group, for messages.

    Raises:
        UserError: a rank failed. The last lines of each failed rank's log are printed before.
    """
    processes = []
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for rank, (argv, environment) in enumerate(zip(commands, environments, strict=True)):
            with _log(folder, rank).open("wb") as log:
                # Linux shares busy cores among sessions, and MPI's launchers start each rank in its own session.
                processes.append(
                    subprocess.Popen(argv, env=environment, stdout=log, stderr=log, start_new_session=True)
                )
        while not (failed := _failed(processes)) and any(process.poll() is None for process in processes):
            time.sleep(0.05)
        if failed:
            _wait(processes, _FOLLOW)
            failed = _failed(processes)
    finally:
        _end(processes)
        signal.signal(signal.SIGTERM, before)
    if failed:
        for rank in failed:
            lines = _log(folder, rank).read_text(errors="replace").splitlines()[-_LAST_LINES:]
            say("\n".join([f"rank {rank} of {what}:", *(f"    {line}" for line in lines)]), sys.stderr)
        status = processes[failed[0]].returncode
        raise UserError(
            f"{what}: rank {failed[0]} of {len(commands)} failed, status {status}; its last lines are above"
        )


def _log(folder: Path, rank: int) -> Path:
    return folder / f"rank-{rank}.log"


def _failed(processes: list[subprocess.Popen]) -> list[int]:
    return [rank for rank, process in enumerate(processes) if process.poll()]


def _wait(processes: list[subprocess.Popen], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _end(processes: list[subprocess.Popen]) -> None:
    for process in processes:
        if process.poll() is None:
            process.terminate()
    _wait(processes, _PATIENCE)
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()
