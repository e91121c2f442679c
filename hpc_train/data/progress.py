"""A progress line for commands that go through a data set."""

import sys
import time

from hpc_train.console import say


class Progress:
    """Shows how far a command is: on a terminal one line that changes, in a log a line every ten seconds.

    title: what the line begins with; total: how many `unit` there are; speak: whether this rank shows anything.
    """

    def __init__(self, title: str, total: int, speak: bool = True, unit: str = "samples"):
        self.title, self.total, self.speak, self.unit = title, total, speak, unit
        self.done = self.bytes = 0
        self.began = self._shown = time.perf_counter()
        self.terminal = sys.stdout.isatty()

    def add(self, count: int, size: int) -> None:
        """Tell of so many more, of so many bytes together."""
        self.done += count
        self.bytes += size
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
            f"{self.title} [{bar}] {self.done}/{self.total} {self.unit}  {self.bytes / seconds / 1e6:.0f} MB/s  "
            f"{left:.0f} s left"
        )
        say(f"\r{text:100}" if self.terminal else text, end="" if self.terminal else "\n")
