"""Runs other programs, and pip in this environment, which changes nothing that is installed already."""

import importlib.metadata
import os
import re
import subprocess
import sys
import tempfile
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
    if code and (conflict := re.search(r"The conflict is caused by:\n((?:\s+\S.*\n)+)", text)):
        causes = "; ".join(line.strip() for line in conflict[1].splitlines())
        raise UserError(f"pip could not {what} and leave the other packages as they are: {causes}")
    if code:
        raise UserError(f"pip could not {what}: {last_lines(text, 3)}")


def install(*requirements: str, what: str) -> None:
    """Install packages; all others that can be imported here keep their version, wherever they lie.

    Args:
        requirements: as on pip's command line.
        what: see `pip`.

    Raises:
        UserError: pip fails, or would have to change another package.
    """
    asked = {_normal(re.split(r"[^\w.-]", text)[0]) for text in requirements}
    with tempfile.TemporaryDirectory(prefix="hpc-train-pip-") as folder:
        constraints = Path(folder) / "installed.txt"
        pinned = (f"{name}=={version}\n" for name, version in installed().items() if name not in asked)
        constraints.write_text("".join(pinned))
        pip("install", "--constraint", constraints, *requirements, what=what)


def installed() -> dict[str, str]:
    """The version of each package that can be imported here, by its normal name: the first on the path counts."""
    from packaging.version import InvalidVersion, Version

    found: dict[str, str] = {}
    for package in importlib.metadata.distributions():
        name, version = package.metadata["Name"], package.metadata["Version"]
        try:
            found.setdefault(_normal(name), str(Version(version)))
        except (InvalidVersion, TypeError):
            continue  # left over from a removal, or not by pip: pip cannot pin it
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
