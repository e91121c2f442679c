"""Printing under a launcher, and for programs that may stop reading."""

import select
import sys

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
