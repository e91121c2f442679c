"""Apptainer and a driver without a GPU for the tests, and what they know of recipes."""

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
# Where tests/install-apptainer.sh puts it, for CI.
INSTALLED = Path("/opt/apptainer")
COMPILER = shutil.which("cc") or shutil.which("g++")
# For a Python before `mock_driver`.
LIST_GPUS = "from hpc_train.parallel.cuda import list_gpus; print('seen', len(list_gpus()))"


def environment(**changes: str) -> dict[str, str]:
    """This process's variables, with the Apptainer of the tests on PATH where there is none else."""
    env = {**os.environ, **changes}
    if not shutil.which("apptainer", path=env["PATH"]) and (INSTALLED / "environment").is_file():
        for line in (INSTALLED / "environment").read_text().splitlines():
            name, value = line.split("=", 1)
            env[name] = value
        env["PATH"] = f"{INSTALLED / 'bin'}{os.pathsep}{env['PATH']}"
    return env


def missing(*more: str) -> str:
    """Why Apptainer, or one of the programs that building takes, cannot be used here; empty where it can."""
    path = environment()["PATH"] + os.pathsep + "/usr/sbin:/sbin"
    absent = [program for program in ("apptainer", *more) if not shutil.which(program, path=path)]
    return f"no {', '.join(absent)} here (tests/install-apptainer.sh PREFIX brings them to Debian)" if absent else ""


def run(
    *command: str | Path, timeout: float = 120, cwd: str | Path = REPOSITORY, **changes: str
) -> subprocess.CompletedProcess:
    """The ended command, its output in one; `changes` are variables."""
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
            # Builds have much to tidy up.
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(words, process.returncode, output)


def mock_driver(folder: Path) -> None:
    """Put NVIDIA's driver of a machine with a GPU, which does nothing, into a folder for LD_LIBRARY_PATH."""
    source = REPOSITORY / "tests" / "driver.c"
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        subprocess.run([COMPILER, "-x", "c", "-shared", "-fPIC", "-o", folder / name, source], check=True)


def labels(image: Path) -> dict[str, str]:
    """An image's labels."""
    return json.loads(run("apptainer", "inspect", "--json", image).stdout)["data"]["attributes"]["labels"]


def faults(recipe: Path) -> str:
    """What Apptainer finds wrong with a recipe, without building it; empty where it is sound.

    It reads the recipe before it looks at the arguments, so all that it says of a sound one is that there is one too
    many.
    """
    ended = run("apptainer", "build", "--build-arg", "nobodys=1", recipe.with_suffix(".never"), recipe)
    return "" if "unused build args: nobodys" in ended.stdout else ended.stdout
