"""The command that starts a process group of another framework, and what must be there for it."""

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
    "make one with `python -m venv peers && peers/bin/pip install torch numpy` (CPUs: --index-url "
    "https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple) and give --peers-python "
    "peers/bin/python"
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
    """(argv, variables besides this process's) of a process group on this machine that measures `framework`.

    Args:
        framework: one of `FRAMEWORKS`.
        ranks: processes.
        threads: of each.
        trainer: mnist or resnet.
        model: its network.
        batch_size: samples a step on a rank.
        steps: counted ones a round.
        rounds: counted ones.
        data: folder of shards, or another of `Catalogue.open`.
        output: file for the measurement, in the format of `bench throughput`.
        python: interpreter that has torch; by default this one. tf.distribute takes this one always.

    Raises:
        UserError: no such network there, data that are not in files, or no such interpreter.
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
    """Look whether `command` can be run.

    Raises:
        UserError: it cannot.
    """
    networks.check(trainer, model)
    interpreter(framework, python)


@lru_cache
def interpreter(framework: str, python: Path | None = None) -> str:
    """Path of the Python that the ranks of a framework run in.

    Raises:
        UserError: there is none, or it lacks torch.
    """
    if framework == "tf.distribute":
        return sys.executable
    if python is None:
        if not importlib.util.find_spec("torch"):
            raise UserError(f"{framework} needs a Python with torch, which {sys.executable} lacks: {_INSTALL}")
        return sys.executable
    # Not resolved: a virtual environment's python is a link to the one that it was made with.
    path = os.path.abspath(python)
    try:
        tried = subprocess.run([path, "-c", "import torch, numpy"], capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--peers-python {python} cannot be started ({error.strerror}): {_INSTALL}") from error
    if tried.returncode:
        why = (tried.stderr.strip().splitlines() or ["no torch"])[-1]
        raise UserError(f"--peers-python {python} cannot import torch and numpy ({why}): {_INSTALL}")
    return path
