"""Runs work that may hang or crash inside a library in a child process, and watches that process.

A thread could not watch it: a library that hangs may hold Python's lock.
"""

import atexit
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection

from hpc_train.errors import errors_in

_PR_SET_PDEATHSIG = 1
# Seconds that libraries have to clean up after the work is done.
_FAREWELL = 15


@dataclass(frozen=True)
class _Failed:
    """The work raised an exception."""

    text: str


@dataclass(frozen=True)
class Doing:
    """The step that the work begins, how many seconds it may take, and what to do if it fails."""

    what: str
    seconds: float
    remedy: str = "this step failed, or it waits for another rank: read the lines above"


@dataclass(frozen=True)
class Broken:
    """Why the work stopped before its end."""

    text: str
    remedy: str = ""
    known: bool = False
    """Whether rank 0 knows it, too: it waits as long, or the launcher ends all ranks."""


class _Terminated(Exception):
    """SIGTERM came: the launcher ends the job."""


@dataclass
class _Progress:
    """How far the work is."""

    step: Doing = Doing("starting", 60)
    finished: bool = False
    failed: str = ""
    """The exception that the work raised."""

    def follow(self, receiver: Connection, receive: Callable) -> None:
        """Take what the child sends, until a step takes too long.

        Raises:
            EOFError: the child has closed its end of the pipe: it has ended, or ends now.
        """
        deadline = time.monotonic() + self.step.seconds
        while receiver.poll(max(0, deadline - time.monotonic())):
            message = receiver.recv()
            if isinstance(message, Doing):
                self.step, deadline = message, time.monotonic() + message.seconds
            elif message is None:
                self.finished, deadline = True, time.monotonic() + _FAREWELL
            elif isinstance(message, _Failed):
                self.failed = message.text
            else:
                receive(message)


def watch(work: Callable[[Callable], None], receive: Callable, quiet: bool = False) -> Broken | None:
    """Run `work(send)` in a child process.

    Args:
        work: calls `send` with `Doing` before each step, and with anything else that can be pickled, for `receive`.
        receive: called in this process with everything else that the work sends.
        quiet: do not show what libraries print; if the work stops early, the result holds the last line of it.

    Returns:
        None if the work came to its end, else why it did not.

    Raises:
        KeyboardInterrupt: Ctrl-C; the child has ended.
    """
    receiver, sender = Pipe(duplex=False)
    printed = os.memfd_create("printed") if quiet else 2
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        receiver.close()
        _work(work, sender, printed)
    sender.close()
    progress = _Progress()
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        progress.follow(receiver, receive)
        step = progress.step
        late = Broken(f"{step.what}: not finished after {step.seconds:g} s", step.remedy, known=True)
        return None if progress.finished else late
    except EOFError:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = 0
        if progress.finished and status == 0:
            return None
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        text = progress.failed or f"the process {how}"
    except _Terminated:
        return Broken(f"{progress.step.what}: stopped from outside (SIGTERM)", known=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        if child:
            _kill(child)
    return Broken(f"{progress.step.what}: {text}{_last_line(printed) if quiet else ''}", progress.step.remedy)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 2
    # A process that waits for a dead file server ends only when that answers. Do not wait for it longer than this.
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)


def _last_line(printed: int) -> str:
    """The last error that was printed, else the last line with words in it, or nothing."""
    text = os.pread(printed, 2**16, max(0, os.fstat(printed).st_size - 2**16)).decode(errors="replace")
    written = text.splitlines()
    lines = [" ".join(line.split()) for line in errors_in(written) or written if any(map(str.isalpha, line))]
    return f" ({lines[-1][:200]})" if lines else ""


def _terminate(*_) -> None:
    raise _Terminated


def _work(work: Callable, sender, printed: int) -> None:
    """What the child does; it does not return."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    atexit._clear()  # handlers registered so far belong to the parent
    # Standard output is for the findings: what libraries print goes to standard error.
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    try:
        work(sender.send)
        atexit._run_exitfuncs()
        sender.send(None)
        # `exit` of C runs the handler in which MPICH tells its launcher that all is well. A Python exit would return to
        # the caller of `watch`.
        ctypes.PyDLL(None).exit(0)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        sender.send(_Failed(f"{text} ({os.path.basename(place.filename)}, line {place.lineno})"))
    finally:
        # Without the handlers of MPI and Horovod, which would wait for ranks that never come.
        os._exit(1)
