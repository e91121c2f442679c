"""Apptainer for the tests, checks of recipes, and a driver that claims to have a GPU."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

from launch import REPOSITORY

CONTAINERS = REPOSITORY / "containers"
SMALL = REPOSITORY / "tests" / "small.def"
# The folder into which CI installs it with tests/install-apptainer.sh.
INSTALLED = Path("/opt/apptainer")
COMPILER = shutil.which("cc") or shutil.which("g++")
# Python code to run with `mock_driver`.
LIST_GPUS = "from hpc_train.parallel.cuda import list_gpus; print('seen', len(list_gpus()))"


def environment(**changes: str) -> dict[str, str]:
    """This process's variables; without an Apptainer on PATH, with the one of the tests."""
    env = {**os.environ, **changes}
    if not shutil.which("apptainer", path=env["PATH"]) and (INSTALLED / "environment").is_file():
        for line in (INSTALLED / "environment").read_text().splitlines():
            name, value = line.split("=", 1)
            env[name] = value
        env["PATH"] = f"{INSTALLED / 'bin'}{os.pathsep}{env['PATH']}"
    return env


def missing(*more: str) -> str:
    """Which programs are missing to run Apptainer, or to build images; empty if none is."""
    path = environment()["PATH"] + os.pathsep + "/usr/sbin:/sbin"
    absent = [program for program in ("apptainer", *more) if not shutil.which(program, path=path)]
    return f"no {', '.join(absent)} here (on Debian tests/install-apptainer.sh PREFIX installs them)" if absent else ""


def run(
    *command: str | Path, timeout: float = 120, cwd: str | Path = REPOSITORY, **changes: str
) -> subprocess.CompletedProcess:
    """Run a command to its end.

    Args:
        command: the program and its arguments.
        timeout: seconds after which it is ended.
        cwd: the folder to run it in.
        changes: environment variables.

    Returns:
        The command, with stdout and stderr together in `stdout`.
    """
    words = [str(word) for word in command]
    with subprocess.Popen(
        words,
        env=environment(**changes),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            # A build needs time to clean up.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, process.returncode, output)


def mock_driver(folder: Path) -> None:
    """Put a copy of NVIDIA's driver that claims to have a GPU, and does nothing, into a folder for LD_LIBRARY_PATH."""
    source = REPOSITORY / "tests" / "driver.c"
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        subprocess.run([COMPILER, "-x", "c", "-shared", "-fPIC", "-o", folder / name, source], check=True)


def labels(image: Path) -> dict[str, str]:
    """The labels of an image."""
    return json.loads(run("apptainer", "inspect", "--json", image).stdout)["data"]["attributes"]["labels"]


def faults(recipe: Path) -> str:
    """What Apptainer finds wrong with a recipe, without building it; empty if nothing is wrong.

    Apptainer reads the recipe before it checks the arguments. So if the recipe is sound, it complains only about the
    unknown argument.
    """
    ended = run("apptainer", "build", "--build-arg", "nobodys=1", recipe.with_suffix(".never"), recipe)
    return "" if "unused build args: nobodys" in ended.stdout else ended.stdout
