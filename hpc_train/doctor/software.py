"""Python, TensorFlow, Keras and Horovod: are they there, do they load, are they what the suite is made for?"""

import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from hpc_train.doctor.findings import BUILD, Finding
from hpc_train.parallel.quiet import quiet_import

OLDEST, NEWEST = (3, 10), (3, 13)
TENSORFLOW = "2.21"
KERAS = (3, 12)


def python() -> Finding:
    """The interpreter, its environment and its container."""
    inside = container()
    value = f"{platform.python_version()}, {sys.executable}{f', in a container ({inside})' if inside else ''}"
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        return Finding("Python", "wrong", value, "make the environment with Python 3.10 to 3.13")
    return Finding("Python", "ok", value)


def container(env: Mapping[str, str] = os.environ) -> str:
    """The container that this process runs in; empty outside of one."""
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if env.get(name):
            return env[name]
    marks = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman"}
    return next((name for mark, name in marks.items() if os.path.exists(mark)), "")


def tensorflow() -> tuple[Finding, bool]:
    """TensorFlow and Keras, and whether they can be used; loads them."""
    try:
        with quiet_import():
            import keras
            import tensorflow as tf
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name in ("tensorflow", "keras")
        value = f"{error.name} is not installed" if absent else f"does not load: {brief(error)}"
        return Finding("TensorFlow", "wrong", value, "pip install 'hpc-train[cpu]', or [gpu] for GPUs"), False
    return judge_tensorflow(tf.__version__, tf.test.is_built_with_cuda(), keras.__version__, keras.backend.backend())


def judge_tensorflow(version: str, cuda: bool, keras: str, backend: str) -> tuple[Finding, bool]:
    """Whether these versions are what the suite is made for, and whether Horovod can run with them."""
    value = f"{version}, {'CUDA' if cuda else 'CPU'} build; Keras {keras} on {backend}"
    if backend != "tensorflow":
        return Finding("TensorFlow", "wrong", value, "export KERAS_BACKEND=tensorflow"), False
    if tuple(int(part) for part in keras.split(".")[:2]) < KERAS:
        return Finding("TensorFlow", "wrong", value, "pip install 'keras>=3.12'"), True
    if version.rpartition(".")[0] != TENSORFLOW:
        return Finding("TensorFlow", "note", value, f"the suite is made for and tested with {TENSORFLOW}"), True
    return Finding("TensorFlow", "ok", value), True


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


def brief(error: Exception) -> str:
    """An exception in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
