"""Runs other programs, and pip in this environment."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from hpc_train.errors import UserError


def output(command: Sequence[str | Path], timeout: float = 60, **options) -> tuple[int, str]:
    """Run a program.

    Args:
        command: the program and its arguments.
        timeout: seconds after which it is killed.
        options: more of `subprocess.run`.

    Returns:
        Its exit code, and its stdout and stderr together. 127 and the reason if it cannot start or takes too long.
    """
    try:
        done = subprocess.run(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            **options,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stdout.strip()


def last_lines(text: str, count: int = 8) -> str:
    """The last `count` lines of `text` that are not empty."""
    return "\n".join([line for line in text.splitlines() if line.strip()][-count:])


def first_on_path(*names: str) -> Path | None:
    """The first of `names` that can be run. This environment's bin folder comes before PATH."""
    folders = [str(Path(sys.prefix) / "bin"), *os.environ.get("PATH", "").split(os.pathsep)]
    for name in names:
        for folder in folders:
            path = Path(folder) / name
            if folder and path.is_file() and os.access(path, os.X_OK):
                return path
    return None


def pip(*arguments: str | Path, what: str, timeout: float = 900) -> None:
    """Run pip in this environment.

    Args:
        arguments: of pip.
        what: what pip shall do, for the message.
        timeout: seconds after which pip is killed.

    Raises:
        UserError: pip fails; the message has its last lines.
    """
    code, text = output([sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments], timeout)
    if code and "No module named pip" in text:
        raise UserError("this Python environment has no pip: run `python -m ensurepip`, then try again")
    if code:
        raise UserError(f"pip could not {what}: {last_lines(text, 3)}")
