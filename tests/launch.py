"""Starting real ranks from tests."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# Programs that tests start as ranks.
RANKS = REPOSITORY / "tests" / "ranks"
BIN = Path(sys.executable).parent


@dataclass
class Ended:
    """How a launch ended: exit status, standard output and error together."""

    status: int
    output: str


def environment(**extra: str) -> dict[str, str]:
    """This process's environment with the interpreter's own programs first on PATH."""
    path = f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}"
    # More ranks than a workstation has GPUs: the tests run on the CPU.
    return {**os.environ, "PATH": path, "PYTHONUNBUFFERED": "1", "CUDA_VISIBLE_DEVICES": "", **extra}


def ranks_environment() -> dict[str, str]:
    """`environment`, in which ranks find this repository."""
    # The repository comes after what the caller of the tests puts first, such as a Horovod under development.
    before = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    return environment(PYTHONPATH=os.pathsep.join([*before, str(REPOSITORY)]))


def sizes(usual: int, other: int) -> tuple[int, ...]:
    """The numbers of ranks that a test of many checks tries: both with HPC_TRAIN_TEST_RANKS=all (`make test-ranks`)."""
    return (usual, other) if os.environ.get("HPC_TRAIN_TEST_RANKS") == "all" else (usual,)


def start(
    ranks: int,
    *arguments: str,
    cwd: Path = REPOSITORY,
    controller: str | None = None,
    options: tuple[str, ...] = (),
    **kwargs,
):
    """`horovodrun -np RANKS OPTIONS python ARGUMENTS` in the background, in a process group of its own."""
    if not shutil.which("horovodrun", path=environment()["PATH"]):
        pytest.skip("Horovod is not built here: run `hpc-train build-horovod`")
    launcher = ["horovodrun", *([controller] if controller else []), "-np", str(ranks)]
    return start_command([*launcher, *options, sys.executable, *arguments], cwd, **kwargs)


def mpirun() -> str:
    """Path of the mpirun that mpi4py's MPI goes with; skips the test, with the reason, where there is none."""
    pytest.importorskip("mpi4py")
    launcher = shutil.which("mpirun", path=environment()["PATH"])
    if not launcher:
        pytest.skip("no mpirun: pip install mpich")
    return launcher


def start_mpi(ranks: int, *arguments):
    """`mpirun -np RANKS python ARGUMENTS` in the background, in a process group of its own."""
    return start_command([mpirun(), "-np", str(ranks), sys.executable, *map(str, arguments)])


def run_mpi(ranks: int, *arguments, timeout: float = 120) -> subprocess.CompletedProcess:
    """`mpirun -np RANKS python ARGUMENTS`, ended, with its standard output and error apart."""
    command = [mpirun(), "-np", str(ranks), sys.executable, *map(str, arguments)]
    env = ranks_environment()
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout)


def start_command(command: list[str], cwd: Path = REPOSITORY, env: dict[str, str] | None = None, **kwargs):
    """A command in the background, in a process group of its own."""
    return subprocess.Popen(
        command,
        cwd=cwd,
        env=env or ranks_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **kwargs,
    )


def finish(process: subprocess.Popen, timeout: float) -> Ended:
    """Wait for a launch; one that takes longer than `timeout` seconds is killed and fails the test."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        output, _ = process.communicate()
        pytest.fail(f"still running after {timeout} s:\n{output[-3000:]}")
    return Ended(process.returncode, output)


def launch(ranks: int, *arguments: str, timeout: float = 240, **kwargs) -> Ended:
    """`start`, then `finish`."""
    return finish(start(ranks, *arguments, **kwargs), timeout)


def unread(*arguments: str | Path, timeout: float = 60) -> subprocess.CompletedProcess:
    """`python ARGUMENTS` whose output goes into a pipe that nothing reads any more; what it says on stderr."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        command = [sys.executable, *arguments]
        return subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=timeout)
    finally:
        os.close(writer)


def checks_of(script: Path, least: int) -> list[str]:
    """Names of the checks in a script of `ranks/`: functions without arguments, with at least so many underscores."""
    names = re.findall(r"^def (\w+)\(\):", script.read_text(), re.MULTILINE)
    return [name for name in names if name.count("_") >= least]


def outcomes_of(script: Path, ranks: int, folder: Path) -> dict[str, str]:
    """Starts a script of `ranks/` once; returns what failed in each of its checks, or an empty text."""
    path = folder / "outcomes.json"
    ended = launch(ranks, str(script), str(path), timeout=600)
    assert ended.status == 0, ended.output[-3000:]
    return json.loads(path.read_text())
