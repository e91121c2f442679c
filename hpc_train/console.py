"""Printing under a launcher and to programs that may stop reading, and the progress line of a command."""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hpc_train.units import size

# Seconds that launchers need to read what a rank printed: when a rank ends with an error, srun may drop the rest.
HEARD = 0.3


def say(text: str, stream=None, end: str = "\n") -> None:
    """Print `text` in one write: launchers put a rank's prefix before each piece that they read."""
    stream = stream or sys.stdout
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # What a terminal cannot show, such as names of files that are no UTF-8, is escaped.
    stream.write((text + end).encode(encoding, "backslashreplace").decode(encoding))
    stream.flush()


def unread() -> bool:
    """Whether stdout is a pipe that nothing reads any more, as before `| head`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def ranks_run() -> bool:
    """Whether ranks are running that must end together: `parallel.failure` handles what leaves the main thread."""
    return sys.excepthook is not sys.__excepthook__ and not getattr(sys.excepthook, "early", False)


def interrupted(stop: KeyboardInterrupt) -> str:
    """What a command says when Ctrl-C ends it: its own text says what is kept, if anything is."""
    return f"\ninterrupted: {str(stop) or 'nothing half-written is left; give the same command again'}"


@contextmanager
def while_read() -> Iterator[None]:
    """End the program when nothing reads its output any more, silently, and at Ctrl-C, with the status of shells.

    Raises:
        BrokenPipeError, KeyboardInterrupt: where ranks are running: `parallel.failure` ends them together.
    """
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        if ranks_run():
            raise
        say(interrupted(stop), sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        if ranks_run() or not unread():
            raise
        # Nothing reads what Python would still write at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


class ProgressLine:
    """Shows the progress of a command: one changing line on a terminal, a new line every ten seconds in a log.

    Args:
        title: begins the line.
        total: number of `unit` to do.
        speak: whether this rank prints anything.
        unit: what is counted.
    """

    def __init__(self, title: str, total: int, speak: bool = True, unit: str = "samples"):
        self.title, self.total, self.speak, self.unit = title, total, speak, unit
        self.done = self.bytes = 0
        self.began = self._shown = time.perf_counter()
        self.terminal = sys.stdout.isatty()

    def add(self, count: int, byte_count: int) -> None:
        """Add `count` finished units, together of `byte_count` bytes."""
        self.done += count
        self.bytes += byte_count
        now = time.perf_counter()
        if self.speak and now - self._shown > (0.2 if self.terminal else 10):
            self._shown = now
            self._show(now - self.began)

    def close(self) -> None:
        """Clear the line of a terminal."""
        if self.speak and self.terminal:
            say(f"\r{'':100}\r", end="")

    def _show(self, seconds: float) -> None:
        share = self.done / self.total
        bar = ("=" * int(20 * share) + ">").ljust(20, ".")[:20]
        left = seconds * (1 - share) / share if share else 0
        text = (
            f"{self.title} [{bar}] {self.done}/{self.total} {self.unit}  {size(self.bytes / seconds)}/s  "
            f"{left:.0f} s left"
        )
        say(f"\r{text:100}" if self.terminal else text, end="" if self.terminal else "\n")
