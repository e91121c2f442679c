"""Printing under a launcher, and for programs that may stop reading."""

import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Seconds that launchers need to read what a rank has printed: when it ends with an error, srun may drop the rest.
HEARD = 0.3


def say(text: str, stream=None, end: str = "\n") -> None:
    """Print `text` in one write: launchers put a rank's prefix before each piece that they read."""
    stream = stream or sys.stdout
    stream.write(text + end)
    stream.flush()


def unread() -> bool:
    """Whether stdout is a pipe that nothing reads any more, as before `| head`."""
    asked = select.poll()
    asked.register(sys.stdout.fileno(), 0)
    return any(answer & select.POLLERR for _, answer in asked.poll(0))


@contextmanager
def while_read() -> Iterator[None]:
    """A program that ends without a word when nothing reads its output any more, with the status that shells give it.

    Where ranks are up it raises BrokenPipeError: `parallel.failure` ends them together.
    """
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BrokenPipeError:
        if sys.excepthook is not sys.__excepthook__ or not unread():
            raise
        # What Python would still write at its end has no reader either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
