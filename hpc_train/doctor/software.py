"""Python, TensorFlow, Keras and Horovod: are they there, do they load, are they what the suite is made for?"""

import importlib.metadata
import importlib.util
import os
import platform
import site
import subprocess
import sys
from pathlib import Path

from hpc_train.doctor.container import container
from hpc_train.doctor.findings import Finding, unless_sealed
from hpc_train.parallel.cuda import LIBRARIES
from hpc_train.parallel.quiet import quiet_import
from hpc_train.requirements import BUILD, pip_install, tensorflow_and_horovod


def wanted() -> dict:
    """The versions (`SpecifierSet`) that the installed hpc-train asks for, of `python` and of packages.

    Empty where it is not installed, only found on PYTHONPATH.
    """
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet

        own = importlib.metadata.metadata("hpc-train")
    except ImportError:  # of packaging, or of hpc-train's metadata
        return {}
    requirements = [Requirement(text) for text in own.get_all("Requires-Dist", [])]
    versions = {requirement.name.removesuffix("-cpu"): requirement.specifier for requirement in requirements}
    return {**versions, "python": SpecifierSet(own["Requires-Python"] or "")}


def python() -> Finding:
    """The interpreter, its environment and its container."""
    inside = container()
    value = f"{platform.python_version()}, {sys.executable}{f', in a container ({inside})' if inside else ''}"
    versions = wanted().get("python")
    if versions is not None and not versions.contains(platform.python_version(), prereleases=True):
        return Finding("Python", "wrong", value, f"make the environment with Python {versions}")
    user = Path(site.getusersitepackages())
    if inside and site.ENABLE_USER_SITE and any(user.glob("*.dist-info")):
        how = "export PYTHONNOUSERSITE=1, so that the container's own packages are taken"
        return Finding("Python", "note", f"{value}; packages in {user} come before the container's", how)
    return Finding("Python", "ok", value)


def tensorflow() -> tuple[Finding, bool]:
    """TensorFlow and Keras, and whether they can be used; loads them."""
    try:
        with quiet_import():
            import keras
            import tensorflow as tf
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name in ("tensorflow", "keras")
        value = f"{error.name} is not installed" if absent else f"does not load: {brief(error)}"
        return Finding("TensorFlow", "wrong", value, tensorflow_and_horovod()), False
    cuda = tf.test.is_built_with_cuda()
    return judge_tensorflow(tf.__version__, cuda, keras.__version__, keras.backend.backend(), wanted())


def judge_tensorflow(version: str, cuda: bool, keras: str, backend: str, versions: dict) -> tuple[Finding, bool]:
    """Whether these versions are what the suite is made for (`wanted`), and whether Horovod can run with them."""
    value = f"{version}, {'CUDA' if cuda else 'CPU'} build; Keras {keras} on {backend}"
    if backend != "tensorflow":
        return Finding("TensorFlow", "wrong", value, "export KERAS_BACKEND=tensorflow"), False
    if "keras" in versions and not versions["keras"].contains(keras, prereleases=True):
        return Finding("TensorFlow", "wrong", value, f"pip install 'keras{versions['keras']}'"), True
    if "tensorflow" in versions and not versions["tensorflow"].contains(version, prereleases=True):
        how = f"the suite is made for and tested with {versions['tensorflow']}"
        return Finding("TensorFlow", "note", value, how), True
    return Finding("TensorFlow", "ok", value), True


def cuda() -> Finding | None:
    """Whether the libraries of a TensorFlow for CUDA 12 load, as they do on a node without GPUs too; None for others.

    TensorFlow must be loaded.
    """
    import tensorflow as tf

    if not tf.sysconfig.get_build_info().get("cuda_version", "").startswith("12."):
        return None
    # In a process of its own: what is loaded here would be taken in place of what Horovod and TensorFlow would find.
    asked = "from hpc_train.parallel import cuda; print(*cuda.problems(), sep='\\n')"
    opened = subprocess.run([sys.executable, "-c", asked], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if opened.returncode:
        return judge_cuda([f"the process that opens them ended with status {opened.returncode}"], container())
    return judge_cuda([brief(line) for line in opened.stdout.splitlines() if line], container())


def judge_cuda(problems: list[str], inside: str) -> Finding:
    """What to make of the loader's reasons, which name the library, for those that do not load.

    Args:
        problems: those reasons.
        inside: the container, or empty.
    """
    if not problems:
        return Finding("CUDA", "ok", f"the {len(LIBRARIES)} libraries that TensorFlow and Horovod open are here")
    more = f", nor do {len(problems) - 1} more" if len(problems) > 1 else ""
    how = unless_sealed(inside, f"{pip_install('gpu')}, or load the modules of CUDA 12, cuDNN 9 and NCCL")
    return Finding("CUDA", "wrong", f"a library does not load: {problems[0]}{more}", how)


def horovod_library() -> str | None:
    """Path of Horovod's compiled part for TensorFlow, found without loading it; None where there is none."""
    spec = importlib.util.find_spec("horovod")
    folders = [Path(place) / "tensorflow" for place in (spec.submodule_search_locations or ())] if spec else []
    return next((str(path) for folder in folders for path in folder.glob("mpi_lib*.so")), None)


def horovod() -> tuple[Finding, bool]:
    """Horovod and what it was built with, and whether it loads; TensorFlow must be loaded."""
    if importlib.util.find_spec("horovod") is None:
        return Finding("Horovod", "wrong", "is not installed", BUILD), False
    version = _version("horovod")
    library = horovod_library()
    if library is None:
        return Finding("Horovod", "wrong", f"{version}, built without TensorFlow", BUILD), False
    try:
        with quiet_import():
            import horovod.tensorflow as hvd
    except Exception as error:
        import tensorflow as tf

        value = f"{version} does not load with TensorFlow {tf.__version__}: {brief(error)}"
        return Finding("Horovod", "wrong", value, f"{BUILD} --rebuild"), False
    parts = [("MPI", hvd.mpi_built()), ("Gloo", hvd.gloo_built()), ("NCCL", hvd.nccl_built())]
    built = ", ".join(name for name, there in parts if there) or "nothing to communicate with"
    value = f"{version} with {built}; loads with this TensorFlow"
    if not hvd.mpi_built():
        how = f"only `horovodrun --gloo` can start it; for srun and mpirun: {BUILD}"
        return Finding("Horovod", "note", value, how), True
    return Finding("Horovod", "ok", value), True


def has_nccl() -> bool:
    """Whether the loaded Horovod sums on GPUs with NCCL."""
    import horovod.tensorflow as hvd

    return bool(hvd.nccl_built())


def calm() -> None:
    """Settings for a TensorFlow that only a few small sums are asked of; before it is loaded."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def brief(error: Exception | str) -> str:
    """An exception, or its text, in one line."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
    return " ".join(text.split())[:200]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
