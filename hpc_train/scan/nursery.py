"""The process that starts a scan's trials: it imports TensorFlow once, and each trial is a copy of it.

`python -m hpc_train.scan.nursery` reads a line of JSON for each thing to do, and prints one for each that happened. No
thread of TensorFlow runs before a trial begins, and no GPU is touched, so that the copy (a fork) is as good as a new
process. When its input ends, because the scan has ended in whatever way, trials stop at a checkpoint. When it is killed
itself, the system kills the trials with it.
"""

import contextlib
import ctypes
import json
import os
import random
import runpy
import select
import signal
import sys
import time
from pathlib import Path

import psutil

from hpc_train.errors import UserError

# Seconds for trials to stop at a checkpoint; whoever takes them over waits a little longer for their run folder.
_LAST = 10.0
_PARENT_DIED = 1  # PR_SET_PDEATHSIG
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _Nursery:
    """Starts trials, passes signals on, and says how each ended."""

    def __init__(self):
        self.children: dict[int, str] = {}
        self.deadline: float | None = None
        self._pid = os.getpid()
        self._input, self._rest = sys.stdin.fileno(), b""
        # Nothing else may print between the lines for the scan.
        self._output = os.dup(1)
        os.dup2(2, 1)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._woken, self._pipe = reader, (reader, writer)

    def say(self, **what) -> None:
        # Where nothing listens any more, the input ends too.
        with contextlib.suppress(BrokenPipeError):
            os.write(self._output, f"{json.dumps(what)}\n".encode())

    def serve(self) -> dict | None:
        """Do what is asked; returns what to run in the process of a trial, and None at the end."""
        while self.deadline is None or self.children:
            watched = [self._woken, *([self._input] if self.deadline is None else [])]
            wait = None if self.deadline is None else max(0.2, self.deadline - time.monotonic())
            ready = select.select(watched, [], [], wait)[0]
            if self._woken in ready:
                os.read(self._woken, 4096)
                self._reap()
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self._signal_all(signal.SIGKILL)
            if self._input in ready:
                for line in self._lines():
                    if trial := self._do(json.loads(line)):
                        return trial
        return None

    def _lines(self) -> list[bytes]:
        read = os.read(self._input, 65536)
        if not read:
            self.deadline = time.monotonic() + _LAST
            self._signal_all(signal.SIGUSR1)
            return []
        *lines, self._rest = (self._rest + read).split(b"\n")
        return lines

    def _do(self, asked: dict) -> dict | None:
        if "signal" in asked:
            for pid, key in self.children.items():
                if key == asked["key"]:
                    _kill(pid, asked["signal"])
            return None
        # A signal that comes before the copy can take it waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._become(asked)
            return asked
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        self.children[pid] = asked["key"]
        return None

    def _become(self, trial: dict) -> None:
        """Make of this process, a copy, the process of a trial."""
        ctypes.CDLL(None, use_errno=True).prctl(_PARENT_DIED, signal.SIGKILL)
        if os.getppid() != self._pid:
            os._exit(128 + signal.SIGKILL)
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, *_SIGNALS):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        for descriptor in (self._output, *self._pipe):
            os.close(descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        try:
            log = os.open(trial["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            os.chdir(trial["folder"])
        except OSError:
            os._exit(os.EX_IOERR)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(log)
        os.environ.update(trial["variables"])
        os.sched_setaffinity(0, trial["cores"])
        # As in a new process; the suite's trainers set their seeds.
        random.seed()
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                pid = ended.si_pid
                # What a trial has started ends with it: the next one needs its GPU. The number is still its own.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                if key := self.children.pop(pid, None):
                    self.say(ended=key, status=status)

    def _signal_all(self, number: int) -> None:
        for pid in self.children:
            _kill(pid, number)


def _kill(pid: int, number: int) -> None:
    """Send a signal to a trial: SIGKILL to all of its processes, others to those that are ready for it."""
    with contextlib.suppress(ProcessLookupError):
        if number == signal.SIGKILL:
            os.killpg(pid, number)
    for one in [pid] if number == signal.SIGKILL else _ready_for(pid, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, number)


def _ready_for(pid: int, number: int) -> list[int]:
    """The process of a trial; where it is a launcher that the signal would end, those of its ranks that handle it."""
    if _handles(pid, number):
        return [pid]
    with contextlib.suppress(psutil.NoSuchProcess):
        below = [one.pid for one in psutil.Process(pid).children(recursive=True) if _handles(one.pid, number)]
        return below or [pid]
    return []


def _handles(pid: int, number: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False


def _run(trial: dict) -> None:
    """Run a trial in this process, as `python PROGRAM WORDS` would."""
    program, words = trial["program"], trial["words"]
    sys.orig_argv[:] = [sys.executable, *program, *words]
    if trial["launcher"]:
        launcher = trial["launcher"]
        os.execvp(launcher[0], [*launcher, *sys.orig_argv])
    elif program[0] == "-m":
        sys.argv[:] = [program[1], *words]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv[:] = [*program, *words]
        sys.path.insert(0, str(Path(program[0]).absolute().parent))
        runpy.run_path(program[0], run_name="__main__")


def _prepare() -> None:
    """Import what trials need; nothing of it may start threads or look at a GPU."""
    import importlib

    from hpc_train.parallel.start import import_libraries

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import_libraries()
    for name in ("fit", "callbacks", "assembly"):
        importlib.import_module(f"hpc_train.training.{name}")


def main() -> dict | None:
    """Serve until the input ends; returns a trial in the process that shall run it."""
    for number in _SIGNALS:
        # They are for the scan, which says here what to do.
        signal.signal(number, signal.SIG_IGN)
    nursery = _Nursery()
    began = time.monotonic()
    try:
        if "--launcher" not in sys.argv:
            _prepare()
    except UserError as error:
        nursery.say(failed=str(error))
        return None
    nursery.say(ready=time.monotonic() - began)
    return nursery.serve()


if __name__ == "__main__":
    # Outside of every function: a trial is the main module of its process, as it would be without a nursery.
    if found := main():
        _run(found)
