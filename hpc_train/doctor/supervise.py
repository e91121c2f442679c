"""Runs work that may hang or crash inside a library, in a child process that is watched from outside.

A thread could not watch it: libraries hang with Python's lock held.
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

_PR_SET_PDEATHSIG = 1
# Seconds for libraries to clean up after the work is done.
_FAREWELL = 15


@dataclass(frozen=True)
class _Failed:
    """An exception left the work."""

    text: str


@dataclass(frozen=True)
class Doing:
    """What the work does next, how many seconds that may take, and what would mend it where it fails."""

    what: str
    seconds: float
    remedy: str = "the step that is named fails or waits on some rank; look at what is wrong or printed above"


@dataclass(frozen=True)
class Broken:
    """What cut the work short."""

    text: str
    remedy: str = ""
    known: bool = False
    """Rank 0 knows it without being told: it waits as long, or the launcher ends all."""


class _Terminated(Exception):
    """SIGTERM came: the launcher ends the job."""


def watch(work: Callable[[Callable], None], hear: Callable, quiet: bool = False) -> Broken | None:
    """Run `work(tell)` in a child process; None when it came to its end, else what cut it short.

    Args:
        work: calls `tell` with `Doing` before each step, and with anything else that pickles, for `hear`.
        hear: called in this process with what the work tells, as it is told.
        quiet: hold back what libraries print; of that, the last line is told where the work is cut short.

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
    doing, finished, failed = Doing("starting", 60), False, None
    deadline = time.monotonic() + doing.seconds
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        while receiver.poll(max(0, deadline - time.monotonic())):
            told = receiver.recv()
            if isinstance(told, Doing):
                doing, deadline = told, time.monotonic() + told.seconds
            elif told is None:
                finished = True
                deadline = time.monotonic() + _FAREWELL
            elif isinstance(told, _Failed):
                failed = told
            else:
                hear(told)
        if finished:
            return None
        return Broken(f"{doing.what}: no end of it after {doing.seconds:g} s", doing.remedy, known=True)
    except EOFError:
        # The child has closed its end: it is gone, or is about to be.
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = 0
        if finished and status == 0:
            return None
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
        text = failed.text if failed else f"the process {how}"
    except _Terminated:
        return Broken(f"{doing.what}: stopped from outside (SIGTERM)", known=True)
    finally:
        signal.signal(signal.SIGTERM, before)
        if child:
            _kill(child)
    return Broken(f"{doing.what}: {text}{_last_words(printed) if quiet else ''}", doing.remedy)


def _kill(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    deadline = time.monotonic() + 2
    # A process that waits for a dead file server is not gone before that answers: it is left behind.
    while os.waitpid(child, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
        time.sleep(0.01)


def _last_words(printed: int) -> str:
    """The last line with words in it of what was printed, or nothing."""
    said = os.pread(printed, 2**16, max(0, os.fstat(printed).st_size - 2**16)).decode(errors="replace")
    lines = [" ".join(line.split()) for line in said.splitlines() if any(letter.isalpha() for letter in line)]
    return f" ({lines[-1][:200]})" if lines else ""


def _terminate(*_) -> None:
    raise _Terminated


def _work(work: Callable, sender, printed: int) -> None:
    """The child's life; does not return."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    atexit._clear()  # what was registered so far is for the parent to do
    # Standard output is for what is found: what libraries print goes to standard error.
    os.dup2(printed, 1)
    os.dup2(printed, 2)
    try:
        work(sender.send)
        atexit._run_exitfuncs()
        sender.send(None)
        # MPICH tells its launcher in a handler of C that all is well. Python would go on in the caller of `watch`.
        ctypes.PyDLL(None).exit(0)
    except KeyboardInterrupt:
        pass
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        sender.send(_Failed(f"{text} ({os.path.basename(place.filename)}, line {place.lineno})"))
    finally:
        # Handlers of MPI and Horovod would wait for ranks that never come.
        os._exit(1)
