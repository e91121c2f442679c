"""Python, TensorFlow, Keras and Horovod: are they installed, do they load, are their versions the right ones?"""

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
from hpc_train.parallel.agreement.keras_settings import wanted_backend, wrong_backend
from hpc_train.parallel.cuda import LIBRARIES
from hpc_train.parallel.quiet import quiet_import
from hpc_train.requirements import BUILD, TENSORFLOW, pip_install, release, tensorflow_and_horovod


def wanted() -> dict:
    """The versions of Python and of packages that the installed hpc-train needs.

    Returns:
        A `SpecifierSet` by name (`python`, `keras`, ...). Empty if hpc-train is not installed, only on PYTHONPATH.
    """
    try:
        from packaging.requirements import Requirement
        from packaging.specifiers import SpecifierSet

        own = importlib.metadata.metadata("hpc-train")
    except ImportError:  # no packaging, or no metadata of hpc-train
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
        return Finding("Python", "wrong", value, f"make a new environment with Python {versions}")
    user = Path(site.getusersitepackages())
    if inside and site.ENABLE_USER_SITE and any(user.glob("*.dist-info")):
        how = "export PYTHONNOUSERSITE=1, so that Python loads the container's own packages"
        return Finding("Python", "note", f"{value}; packages in {user} are loaded before the container's", how)
    return Finding("Python", "ok", value)


def tensorflow() -> tuple[Finding, bool]:
    """Load TensorFlow and Keras; the finding, and whether Horovod can run with them."""
    for name in ("tensorflow", "keras"):
        if importlib.util.find_spec(name) is None:
            return Finding("TensorFlow", "wrong", f"{name} is not installed", tensorflow_and_horovod()), False
    try:
        with quiet_import():
            import keras
            import tensorflow as tf
    except Exception as error:
        if (backend := wanted_backend()) != "tensorflow":
            return Finding("TensorFlow", "wrong", wrong_backend(backend), "export KERAS_BACKEND=tensorflow"), False
        return Finding("TensorFlow", "wrong", f"does not load: {brief(error)}", tensorflow_and_horovod()), False
    cuda = tf.test.is_built_with_cuda()
    return judge_tensorflow(tf.__version__, cuda, keras.__version__, keras.backend.backend(), wanted())


def judge_tensorflow(version: str, cuda: bool, keras: str, backend: str, versions: dict) -> tuple[Finding, bool]:
    """Judge the versions of TensorFlow and Keras.

    Args:
        version: of TensorFlow.
        cuda: whether TensorFlow is a CUDA build.
        keras: version of Keras.
        backend: of Keras.
        versions: what the suite needs, from `wanted`.

    Returns:
        The finding, and whether Horovod can run with them.
    """
    value = f"{version}, {'CUDA' if cuda else 'CPU'} build; Keras {keras} on {backend}"
    if backend != "tensorflow":
        return Finding("TensorFlow", "wrong", value, "export KERAS_BACKEND=tensorflow"), False
    if "keras" in versions and not versions["keras"].contains(keras, prereleases=True):
        return Finding("TensorFlow", "wrong", value, f"pip install 'keras{versions['keras']}'"), True
    oldest, newest = TENSORFLOW
    if "tensorflow" in versions and not oldest <= release(version) <= newest:
        tested = " to ".join(".".join(map(str, numbers)) for numbers in TENSORFLOW)
        how = f"this version may work; hpc-train is tested with TensorFlow {tested}"
        return Finding("TensorFlow", "note", value, how), True
    return Finding("TensorFlow", "ok", value), True


def cuda() -> Finding | None:
    """Whether the libraries of a TensorFlow for CUDA 12 load; None for another TensorFlow, which must be loaded.

    They load on a node without GPUs, too.
    """
    import tensorflow as tf

    if not tf.sysconfig.get_build_info().get("cuda_version", "").startswith("12."):
        return None
    # In a process of its own: libraries that this process has loaded would hide those that a fresh one finds.
    code = "from hpc_train.parallel import cuda; print(*cuda.problems(), sep='\\n')"
    opened = subprocess.run([sys.executable, "-c", code], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if opened.returncode:
        return judge_cuda([f"the program that opens them ended with status {opened.returncode}"], container())
    return judge_cuda([brief(line) for line in opened.stdout.splitlines() if line], container())


def judge_cuda(problems: list[str], inside: str) -> Finding:
    """Judge whether CUDA's libraries load.

    Args:
        problems: for each library that does not load the loader's message, which names it.
        inside: the container, or empty.
    """
    if not problems:
        return Finding("CUDA", "ok", f"all {len(LIBRARIES)} libraries that TensorFlow and Horovod open are here")
    more = f"; {len(problems) - 1} more do not load either" if len(problems) > 1 else ""
    how = unless_sealed(inside, f"{pip_install('gpu')}, or load the modules for CUDA 12, cuDNN 9 and NCCL")
    return Finding("CUDA", "wrong", f"a library does not load: {problems[0]}{more}", how)


def horovod_library() -> str | None:
    """Path of Horovod's compiled library for TensorFlow, found without loading it; None if there is none."""
    spec = importlib.util.find_spec("horovod")
    folders = [Path(place) / "tensorflow" for place in (spec.submodule_search_locations or ())] if spec else []
    return next((str(path) for folder in folders for path in folder.glob("mpi_lib*.so")), None)


def horovod() -> tuple[Finding, bool]:
    """Load Horovod; the finding, and whether it can be used. TensorFlow must be loaded."""
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
    built = ", ".join(name for name, there in parts if there) or "neither MPI nor Gloo"
    value = f"{version} with {built}; loads with this TensorFlow"
    if not hvd.mpi_built():
        how = f"without MPI only `horovodrun --gloo` can start it; for srun and mpirun: {BUILD}"
        return Finding("Horovod", "note", value, how), True
    return Finding("Horovod", "ok", value), True


def has_nccl() -> bool:
    """Whether the loaded Horovod sums on GPUs with NCCL."""
    import horovod.tensorflow as hvd

    return bool(hvd.nccl_built())


def calm() -> None:
    """Set variables for a TensorFlow that makes only a few small sums. Call it before TensorFlow is loaded."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def brief(error: Exception | str) -> str:
    """An exception or its text in one line of at most 200 characters."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, Exception) else error
    return " ".join(text.split())[:200]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
