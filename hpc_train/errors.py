"""The exception whose message is for the user."""

import re
from collections.abc import Iterable

from hpc_train.names import printable

# What is wrong stands at the beginning of a message, and what to do at its end.
_BEGINNING, _END = 1200, 700
# What launchers put before the lines of a rank: horovodrun, mpirun -l, srun -l.
_RANK = re.compile(r"(\[\d+\](<std(out|err)>)?:?|\d+:)\s*")


class UserError(Exception):
    """A mistake that the user can fix: one line that says what is wrong, where, and what to do.

    Args:
        message: the line.
        output: lines of another program, to print below it.

    Entry points print it without a traceback and exit non-zero on every rank.
    """

    every_rank = False

    def __init__(self, message: object = "", output: str = ""):
        super().__init__("\n".join([_one_line(str(message)), *output.splitlines()]))

    def agreed(self) -> "UserError":
        """Mark that every rank raises this same error, so that only one of them prints it."""
        self.every_rank = True
        return self


def _one_line(text: str) -> str:
    """The text, shortened in its middle; what files hold that cannot be printed is escaped."""
    text = printable(text)
    return text if len(text) <= _BEGINNING + _END else f"{text[:_BEGINNING]} ... {text[-_END:]}"


def without_rank(line: str) -> str:
    """A line of a job's log, without what its launcher put before it."""
    mark = _RANK.match(line)
    return line[mark.end() :] if mark else line


def errors_in(lines: Iterable[str]) -> list[str]:
    """The lines in which this suite says what went wrong, of a job's log, which may end in other programs' banners."""
    return [text for line in lines if (text := without_rank(line).strip()).startswith("error: ")]
