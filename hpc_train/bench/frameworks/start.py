"""The command that starts a process group of another framework, and what it needs."""

import importlib.util
import os
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from hpc_train.bench.frameworks import networks
from hpc_train.errors import UserError

FRAMEWORKS = "pytorch-ddp", "tf.distribute"
_INSTALL = (
    f"make one with `python -m venv peers && peers/bin/pip install -r {Path(__file__).with_name('peers.txt')}` (CPUs: "
    "--index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple) and give "
    "--peers-python peers/bin/python"
)


def command(
    framework: str,
    ranks: int,
    threads: int,
    trainer: str,
    model: str,
    batch_size: int,
    steps: int,
    rounds: int,
    data: Path | str,
    output: Path,
    python: Path | None = None,
) -> tuple[list[str], dict[str, str]]:
    """Make the command of a process group on this machine that measures `framework`.

    Args:
        framework: one of `FRAMEWORKS`.
        ranks: number of processes.
        threads: of each.
        trainer: mnist, resnet or climate.
        model: its network.
        batch_size: samples in a step on each rank.
        steps: counted ones in each round.
        rounds: counted ones.
        data: folder of shards, or other data of `Catalogue.open`.
        output: file for the measurement, in the format of `bench throughput`.
        python: interpreter that has torch; by default this one. tf.distribute always takes this one.

    Returns:
        The command, and variables that it needs besides this process's.

    Raises:
        UserError: the framework lacks the network, the data are not in files, or there is no such interpreter.
    """
    if str(data) == "synthetic":
        raise UserError("--data synthetic: the other frameworks are measured on data in files; name a folder of shards")
    check(framework, trainer, model, python)
    options = {"framework": framework, "trainer": trainer, "model": model, "data": data, "np": ranks}
    options |= {"threads": threads, "batch-size": batch_size, "steps": steps, "rounds": rounds, "output": output}
    options |= {"peers-python": python} if python else {}
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, "-m", "hpc_train.cli", "bench", "frameworks", *words], {}


def check(framework: str, trainer: str, model: str, python: Path | None = None) -> None:
    """Check that `command` can be run.

    Raises:
        UserError: it cannot.
    """
    networks.check(trainer, model)
    interpreter(framework, python)


@lru_cache
def interpreter(framework: str, python: Path | None = None) -> str:
    """Find the Python for the ranks of a framework.

    Raises:
        UserError: there is none, or it lacks torch.
    """
    if framework == "tf.distribute":
        return sys.executable
    if python is None:
        if not importlib.util.find_spec("torch"):
            raise UserError(f"{framework} needs a Python with torch, which {sys.executable} lacks: {_INSTALL}")
        return sys.executable
    # Links stay: a virtual environment's python is a link to the Python that made it.
    path = os.path.abspath(python)
    try:
        tried = subprocess.run([path, "-c", "import torch, numpy"], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--peers-python {python} cannot be started ({error.strerror}): {_INSTALL}") from error
    if tried.returncode:
        why = (tried.stderr.strip().splitlines() or ["no torch"])[-1]
        raise UserError(f"--peers-python {python} cannot import torch and numpy ({why}): {_INSTALL}")
    return path
