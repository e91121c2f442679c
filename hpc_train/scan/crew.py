"""The trials that run on this node: a slot with GPUs and cores for each, and the process that starts them."""

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpc_train.errors import UserError, errors_in, without_rank
from hpc_train.parallel import cuda
from hpc_train.parallel.launcher import alone
from hpc_train.scan.study import DONE, KILLED, STOPPED, WRONG, Trial
from hpc_train.training.stopping import UNFINISHED

# What shells add to the number of a signal.
_BY_SIGNAL = 128
# How often the process that starts trials may be killed before it is ready.
_DEATHS = 5
# How messages begin that are about the storage or another scan process, and not about a trial.
_STORAGE, _BUSY = ("cannot write ", "cannot read or write "), " is being written by "
_FULL = tuple(map(os.strerror, (errno.ENOSPC, errno.EDQUOT)))


@dataclass(frozen=True)
class Slot:
    """A place for a trial on this node.

    Args:
        number: from 0.
        cores: the CPUs that it may use.
        gpus: names of its GPUs, as in CUDA_VISIBLE_DEVICES; None on nodes without GPUs.
    """

    number: int
    cores: tuple[int, ...]
    gpus: tuple[str, ...] | None = None

    @property
    def variables(self) -> dict[str, str]:
        """What shows a trial its GPUs alone."""
        return {} if self.gpus is None else {"CUDA_VISIBLE_DEVICES": ",".join(self.gpus)}


@dataclass
class Running:
    """A trial in a slot."""

    number: int
    turn: int
    slot: Slot
    folder: Path
    began: float = field(default_factory=time.time)
    asked: bool = False
    """To stop."""
    printed: int = 0
    """Bytes of its log from earlier starts."""

    @property
    def key(self) -> str:
        """Its name in messages."""
        return f"{self.number}/{self.turn}"

    def prepared(self) -> float | None:
        """When its training began: it then writes run.json."""
        with contextlib.suppress(OSError):
            written = (self.folder / "run.json").stat().st_mtime
            # The clock of the storage may differ a little.
            return written if written > self.began - 1 else None
        return None


def slots(ranks: int, at_once: int = 0) -> list[Slot]:
    """The slots of this node: one for each GPU, or for each core where there are none.

    Args:
        ranks: of a trial; it has as many GPUs.
        at_once: how many slots there shall be; 0 for as many as fit.

    Raises:
        UserError: not one trial fits.
    """
    gpus, cores = _gpus(), sorted(os.sched_getaffinity(0))
    fit = (len(gpus) if gpus else len(cores)) // ranks
    if not fit and (gpus or ranks > 1):
        has = f"{len(gpus)} GPUs" if gpus else f"{len(cores)} cores"
        raise UserError(f"--ranks-per-trial {ranks}: a trial runs on one node, and this one has {has}; give fewer")
    if gpus and at_once > fit:
        raise UserError(f"--at-once {at_once}: this node has GPUs for {fit} trials at once; give at most that")
    count = at_once or max(1, fit)
    found = []
    for number in range(count):
        own = cores[number * len(cores) // count : (number + 1) * len(cores) // count] or cores
        shown = tuple(gpus[number * ranks : (number + 1) * ranks]) if gpus else None
        found.append(Slot(number, tuple(own), shown))
    return found


def described(places: Sequence[Slot]) -> str:
    """The slots in words."""
    first = places[0]
    cores = f"{len(first.cores)} core{'s' * (len(first.cores) > 1)}"
    has = cores if first.gpus is None else f"{len(first.gpus)} GPU{'s' * (len(first.gpus) > 1)} and {cores}"
    return f"{len(places)} trial{'s' * (len(places) > 1)} at once on {socket.gethostname()}, each with {has}"


def _gpus() -> list[str]:
    """Names of the GPUs that this process may use."""
    shown = cuda.visible()
    if shown is not None:
        return shown
    if count := cuda.given():
        return [str(number) for number in range(count)]
    with contextlib.suppress(OSError, subprocess.TimeoutExpired):
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
        return [str(number) for number in range(sum(line.startswith("GPU ") for line in listed.stdout.splitlines()))]
    return []


class Crew:
    """Runs trials in the slots of this node.

    Args:
        places: the slots.
        folder: where trials run.
        log: file for what the process that starts them prints.
        launcher: words that start the ranks of a trial; empty for one rank.
    """

    def __init__(self, places: Sequence[Slot], folder: Path, log: Path, launcher: Sequence[str] = ()):
        self.slots, self.folder, self.log, self.launcher = places, folder, log, list(launcher)
        self.running: dict[str, Running] = {}
        self.import_seconds: float | None = None
        self._rest, self._deaths = b"", 0
        self._start()

    @property
    def ready(self) -> bool:
        """Whether trials can be started."""
        return self.import_seconds is not None

    @property
    def descriptor(self) -> int:
        """What becomes readable when something has happened."""
        assert self._process.stdout
        return self._process.stdout.fileno()

    def free(self) -> list[Slot]:
        """The slots without a trial."""
        taken = {one.slot for one in self.running.values()}
        return [slot for slot in self.slots if slot not in taken]

    def begin(self, trial: Trial, turn: int, slot: Slot, program: list[str], words: list[str]) -> None:
        """Start a trial in a free slot.

        Args:
            trial: it.
            turn: of the claim.
            slot: where.
            program: what follows `python`.
            words: of its command line.
        """
        log = trial.folder / "log.txt"
        one = Running(trial.number, turn, slot, trial.folder, printed=log.stat().st_size if log.exists() else 0)
        self.running[one.key] = one
        self._send(
            key=one.key,
            program=program,
            words=words,
            launcher=self.launcher,
            log=str(log.absolute()),
            variables=slot.variables,
            cores=slot.cores,
            folder=str(self.folder),
        )

    def stop(self, one: Running) -> None:
        """Ask a trial, once, to stop at a checkpoint."""
        if not one.asked:
            one.asked = True
            self._send(key=one.key, signal=int(signal.SIGUSR1))

    def ended(self) -> list[tuple[Running, str, str, int]]:
        """Trials that have ended since the last call: each with how, why, and its status.

        Raises:
            UserError: trials cannot be started at all.
        """
        read = os.read(self.descriptor, 65536)
        if not read:
            return self._lost()
        *lines, self._rest = (self._rest + read).split(b"\n")
        found = []
        for said in map(json.loads, lines):
            if "failed" in said:
                raise UserError(said["failed"])
            if "ready" in said:
                self.import_seconds = said["ready"]
            else:
                one = self.running.pop(said["ended"])
                found.append((one, *_outcome(one, said["status"]), said["status"]))
        return found

    def close(self) -> None:
        """End all that runs, at a checkpoint if that is quick."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        if not self.ready:
            # Its import cannot be interrupted, and it has no trial.
            self._process.kill()
        self._process.wait()

    def _start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "hpc_train.scan.nursery", *(["--launcher"] if self.launcher else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=alone(),
                # Ctrl-C in a terminal is for the scan, which stops the trials.
                start_new_session=True,
            )

    def _lost(self) -> list[tuple[Running, str, str, int]]:
        """The process that starts trials was killed, and its trials with it; there is a new one."""
        status = self._process.wait()
        self._deaths = 0 if self.ready else self._deaths + 1
        if status >= 0 or self._deaths == _DEATHS:
            raise UserError(f"trials cannot be started: their process ended with status {status}; read {self.log}")
        lost = [(one, KILLED, "the process that starts trials was killed", status) for one in self.running.values()]
        self.running, self.import_seconds, self._rest = {}, None, b""
        self._start()
        return lost

    def _send(self, **what) -> None:
        assert self._process.stdin
        # If it has been killed, its output tells.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(f"{json.dumps(what)}\n".encode())
            self._process.stdin.flush()


def _outcome(one: Running, status: int) -> tuple[str, str]:
    """(how a trial has ended, why), by its status and what it printed."""
    if status == 0:
        return DONE, ""
    if one.asked:
        return STOPPED, ""
    if status == UNFINISHED:
        return KILLED, f"stopped by itself with status {UNFINISHED}"
    if status == os.EX_IOERR:
        return STOPPED, f"cannot write {one.folder / 'log.txt'}, or enter the folder in which the scan was started"
    number = -status if status < 0 else status - _BY_SIGNAL
    said = _last_word(one.folder / "log.txt", one.printed)
    if 0 < number < signal.NSIG and not said.startswith("error: "):
        hint = " (out of memory?)" if number == signal.SIGKILL else ""
        return KILLED, f"ended by {signal.Signals(number).name}{hint}"
    reason = said.removeprefix("error: ") or f"status {status}"
    if reason.startswith(_STORAGE) or _BUSY in reason or any(text in reason for text in _FULL):
        return STOPPED, reason
    return WRONG, reason


def _last_word(log: Path, begin: int) -> str:
    """The last error that a trial printed after so many bytes of its log, else its last line."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(begin, log.stat().st_size - 16384))
            printed = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    lines = [line for line in (without_rank(text).strip() for text in printed) if line]
    return (errors_in(lines) or lines or [""])[-1][:500]
