"""The stacks of this process: Python's of all threads, and the native one where a debugger is installed."""

import ctypes
import faulthandler
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from typing import TextIO

# Seconds that a debugger may take to read a process's symbols.
_DEBUGGER = 20
_ANY_PROCESS = ctypes.c_ulong(-1)
_PR_SET_PTRACER = 0x59616D61


def write_python(file: TextIO) -> None:
    """Write Python's stacks of all threads, and the threads' names."""
    for thread in threading.enumerate():
        file.write(f"thread {thread.ident or 0:#018x} is {thread.name}\n")
    file.write("\n")
    file.flush()
    faulthandler.dump_traceback(file)


def native() -> str:
    """The native stack of this process, by py-spy or gdb; empty where neither is there, or none may look."""
    with suppress(OSError, AttributeError):
        # The debugger is a child, and children may not look into their parents by themselves.
        ctypes.CDLL(None).prctl(_PR_SET_PTRACER, _ANY_PROCESS, 0, 0, 0)
    pid = str(os.getpid())
    gdb = ["gdb", "-nx", "-batch", "-p", pid, "-ex", "set pagination off", "-ex", "thread 1", "-ex", "backtrace 60"]
    for command in (["py-spy", "dump", "--native", "--pid", pid], gdb):
        beside = os.path.join(os.path.dirname(sys.executable), command[0])
        program = shutil.which(command[0]) or (beside if os.access(beside, os.X_OK) else None)
        if program is None:
            continue
        # This process stands still while a debugger looks: it can neither read a pipe nor watch the time. A debugger
        # that is killed may leave it so.
        limited = f'timeout -k 5 {_DEBUGGER} "$@"; status=$?; kill -CONT {pid}; exit $status'
        with suppress(OSError), tempfile.TemporaryFile("w+", errors="replace") as output:
            words = ["sh", "-c", limited, "sh", program, *command[1:]]
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL)
            output.seek(0)
            text = output.read()
            if done.returncode == 0 and text:
                return f"{' '.join(command)}\n{text}"
    return ""


def print_at_end() -> None:
    """Let SIGXCPU, which ends a process, print Python's stacks first, without a lock of the interpreter."""
    with suppress(AttributeError, ValueError, OSError):
        faulthandler.register(signal.SIGXCPU, file=sys.__stderr__ or 2, chain=True)
