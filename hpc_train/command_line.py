"""Command lines from dataclasses: a field is an option, its docstring the help; errors name the nearest option."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from hpc_train import requirements
from hpc_train.console import ranks_run, while_read
from hpc_train.errors import UserError
from hpc_train.files.whole import explain
from hpc_train.help import page as help_page
from hpc_train.parallel.launcher import detect
from hpc_train.parallel.world import exit_usage, exit_when_read


def parse(options: type, prog: str, args: Sequence[str] | None = None):
    """Read the command line into a dataclass; a mistake ends every rank with status 2, and one of them prints why.

    Args:
        options: the dataclass, or a union of them for sub-commands.
        prog: the command as the user types it, for help and errors.
        args: the words of the command line; None takes those of this process.

    Returns:
        An instance of `options`.
    """
    if detect().rank == 0:
        try:
            return _read(options, prog, args)
        except SystemExit as end:
            exit_when_read(end.code)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            return _read(options, prog, args)
        except SystemExit:
            # Launchers kill the other ranks when the first rank ends: let rank 0 print first.
            time.sleep(3)
            raise


def _read(options: type, prog: str, args: Sequence[str] | None):
    words = list(sys.argv[1:] if args is None else args)
    if help_page.wanted(words):
        help_page.show(options, prog, words)
        sys.exit(0)
    import tyro

    # Their values begin with dashes, as options do.
    for at in [at for at, word in enumerate(words[:-1]) if word in ("--sbatch", "--scheduler-options")][::-1]:
        words[at : at + 2] = [f"{words[at]}={words[at + 1]}"]
    return tyro.cli(options, prog=prog, args=words)


@while_read()
def main(options: type, run: Callable, prog: str, args: Sequence[str] | None = None) -> None:
    """Read the command line and run the command; a user's mistake becomes one line and a non-zero exit.

    Args:
        options: see `parse`.
        run: called with the options.
        prog: see `parse`.
        args: see `parse`.
    """
    try:
        run(parse(options, prog, args))
    except UserError as error:
        if ranks_run():
            raise  # the ranks are running: parallel.failure ends them together
        exit_usage(f"error: {error}")
    except OSError as error:
        line = explain(error)
        if ranks_run() or not line:
            raise
        exit_usage(f"error: {line}")
    except ModuleNotFoundError as error:
        if ranks_run() or not (line := requirements.not_installed(error)):
            raise
        exit_usage(f"error: {line}")
