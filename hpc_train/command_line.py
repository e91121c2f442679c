"""Command lines from dataclasses: a field is an option, its docstring the help; a typo is told the nearest."""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence

from hpc_train import help_page, requirements
from hpc_train.console import while_read
from hpc_train.errors import UserError
from hpc_train.parallel.launcher import detect
from hpc_train.parallel.world import exit_usage, exit_when_read


def parse(options: type, prog: str, args: Sequence[str] | None = None):
    """Read the command line into `options`; a mistake ends every rank with status 2 and one of them says why."""
    if detect().rank == 0:
        try:
            return _read(options, prog, args)
        except SystemExit as end:
            exit_when_read(end.code)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            return _read(options, prog, args)
        except SystemExit:
            # Launchers kill the rest when the first rank ends: rank 0 speaks first.
            time.sleep(3)
            raise


def _read(options: type, prog: str, args: Sequence[str] | None):
    words = sys.argv[1:] if args is None else args
    if help_page.wanted(words):
        help_page.show(options, prog, words)
        sys.exit(0)
    import tyro

    return tyro.cli(options, prog=prog, args=args)


@while_read()
def main(options: type, run: Callable, prog: str, args: Sequence[str] | None = None) -> None:
    """Parse, run, and turn a user's mistake into one line and a non-zero exit."""
    try:
        run(parse(options, prog, args))
    except UserError as error:
        if sys.excepthook is not sys.__excepthook__:
            raise  # the ranks are up: parallel.failure ends them together
        exit_usage(f"error: {error}")
    except ModuleNotFoundError as error:
        if error.name not in ("tensorflow", "keras") or sys.excepthook is not sys.__excepthook__:
            raise
        exit_usage(f"error: no usable TensorFlow here ({error}): {requirements.tensorflow_and_horovod()}")
    except KeyboardInterrupt:
        if sys.excepthook is not sys.__excepthook__:
            raise
        sys.exit(130)
