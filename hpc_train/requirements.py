"""What hpc-train needs but does not install itself: the commands that install it, and the oldest Keras."""

import importlib.metadata
import importlib.util
import re
import shlex
from pathlib import Path

from hpc_train.errors import UserError

# The command that many messages name.
BUILD = "hpc-train build-horovod"
# The oldest Keras whose optimizers and trainer the layer knows; setup.cfg asks pip for it, a site's Keras may be older.
KERAS = (3, 12)
# The oldest and the newest TensorFlow of `make test-versions`; Keras 3 works with none that is older.
TENSORFLOW = ((2, 16), (2, 21))


def check_keras() -> None:
    """Check, without importing it, that the Keras of this environment, if there is one, is not too old.

    Raises:
        UserError: it is too old.
    """
    spec = importlib.util.find_spec("keras")
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    version = _version_in(folder / "src" / "version.py") or _version_in(folder / "__init__.py")
    if version and release(version) < KERAS:
        oldest = ".".join(map(str, KERAS))
        raise UserError(
            f"Keras {version} in {folder.parent} is too old: hpc-train needs {oldest} or newer, which works with "
            f"TensorFlow 2.16 and newer: `pip install 'keras>={oldest}'` in an environment of your own"
        )


def release(version: str) -> tuple[int, ...]:
    """The first two numbers of a version: (2, 17) of "2.17.0+nv25.2"."""
    return tuple(map(int, re.findall(r"\d+", version)[:2]))


def _version_in(file: Path) -> str | None:
    found = re.search(r'^__version__ = "(\d+\.\d+[^"]*)"', file.read_text() if file.is_file() else "", re.MULTILINE)
    return found and found[1]


def pip_install(extra: str) -> str:
    """The `pip install` command for the packages of one of hpc-train's extras.

    It names the packages, not `hpc-train[extra]`, which works only where pip's index has hpc-train.

    Args:
        extra: `cpu`, `gpu`, `digits`, `maps`, `port` or `tables`.
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


def not_installed(error: ModuleNotFoundError) -> str | None:
    """The line about a package that hpc-train needs and that is not installed; None for any other module."""
    module = error.name or ""
    if module in ("tensorflow", "keras"):
        return f"no usable TensorFlow here ({error}): {tensorflow_and_horovod()}"
    package = {"PIL": "pillow", "yaml": "pyyaml"}.get(module, module)
    try:
        needs = importlib.metadata.requires("hpc-train") or ()
    except importlib.metadata.PackageNotFoundError:  # a clone on PYTHONPATH
        return None
    if not any(re.match(r"[\w.-]+", text)[0] == package for text in needs):  # type: ignore[index]
        return None
    return f"{module}, which hpc-train needs, is not installed here: pip install {package}"


def _belongs(requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
