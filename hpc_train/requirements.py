"""The commands that install what hpc-train needs but does not install itself."""

import importlib.metadata
import shlex
from pathlib import Path

# The command that many messages name.
BUILD = "hpc-train build-horovod"


def pip_install(extra: str) -> str:
    """The `pip install` command for the packages of one of hpc-train's extras.

    It names the packages, not `hpc-train[extra]`, which works only where pip's index has hpc-train.

    Args:
        extra: `cpu`, `gpu`, `digits`, `maps` or `port`.
    """
    try:
        from packaging.requirements import Requirement

        requirements = [Requirement(text) for text in importlib.metadata.requires("hpc-train") or ()]
    except ImportError:  # no packaging, or no metadata: a clone on PYTHONPATH
        return shlex.join(["pip", "install", f"{Path(__file__).parents[1]}[{extra}]"])
    wanted = [requirement for requirement in requirements if _belongs(requirement, extra)]
    for requirement in wanted:
        requirement.marker = None
    return shlex.join(["pip", "install", *map(str, wanted)])


def tensorflow() -> str:
    """The command that installs TensorFlow, for CPUs and for GPUs."""
    return f"{pip_install('cpu')} (with GPUs: {pip_install('gpu')})"


def tensorflow_and_horovod() -> str:
    """The commands that install TensorFlow and build Horovod for it, for CPUs and for GPUs."""
    return f"{pip_install('cpu')} && {BUILD} (with GPUs: {pip_install('gpu')} && {BUILD} --gpu)"


def _belongs(requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
