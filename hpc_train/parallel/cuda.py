"""The GPUs that a process is given and that TensorFlow lists, and the CUDA libraries that TensorFlow needs for that."""

import ctypes
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

# Libraries that a TensorFlow for CUDA 12 opens before it takes a GPU, and NCCL, which Horovod links: the wheel of each.
LIBRARIES = {
    "libcudart.so.12": "cuda_runtime",
    "libcublas.so.12": "cublas",
    "libcublasLt.so.12": "cublas",
    "libcufft.so.11": "cufft",
    "libcusolver.so.11": "cusolver",
    "libcusparse.so.12": "cusparse",
    "libcudnn.so.9": "cudnn",
    "libnccl.so.2": "nccl",
}


def visible(env: Mapping[str, str] = os.environ) -> list[str] | None:
    """The GPUs in CUDA_VISIBLE_DEVICES; None where it is not set: then all GPUs of the node are visible."""
    text = env.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    # CUDA ignores an impossible name and all that follow it.
    good = [name for name in names if name.isdigit() or name.startswith(("GPU-", "MIG-"))]
    return names[: next((i for i, name in enumerate(names) if name not in good), len(names))]


def given(env: Mapping[str, str] = os.environ) -> int:
    """The number of GPUs of this node that Slurm gave to the job or step; 0 where it does not say."""
    if env.get("SLURM_GPUS_ON_NODE", "").isdigit():
        return int(env["SLURM_GPUS_ON_NODE"])
    listed = env.get("SLURM_STEP_GPUS") or env.get("SLURM_JOB_GPUS") or ""
    return len([name for name in listed.split(",") if name])


def offered(env: Mapping[str, str] = os.environ) -> int:
    """The number of GPUs that this process could take by Slurm and CUDA_VISIBLE_DEVICES; 0 where neither names any."""
    shown = visible(env)
    return given(env) if shown is None else len(shown)


def list_gpus() -> list:
    """The GPUs that TensorFlow sees (`tf.config.PhysicalDevice`); call it before TensorFlow has listed its devices.

    It replaces `tf.config.list_physical_devices`: TensorFlow 2.21 opens cuSOLVER from libtensorflow_framework.so.2,
    whose run path names NVIDIA's wheels of all other libraries, but not that one. So `pip install
    tensorflow[and-cuda]` alone sees no GPU, and ranks would train on CPUs. A library that is loaded already is found
    wherever it is.
    """
    import tensorflow as tf

    if tf.test.is_built_with_cuda():
        open_library("libcusolver.so.11")
    return tf.config.list_physical_devices("GPU")


def open_library(name: str) -> None:
    """Open one of `LIBRARIES`: first where TensorFlow itself would find it, then in its wheel, if there is one."""
    for place in (name, _wheels_library(name)):
        if place and not refused(place):
            return


def problems() -> list[str]:
    """Why `LIBRARIES` do not load, a line for each that does not; those that do stay loaded in this process."""
    return [reason for reason in (refused(_wheels_library(name) or name) for name in LIBRARIES) if reason]


def _wheels_library(name: str) -> Path | None:
    """The file of a library in NVIDIA's wheel in this environment; None where there is none."""
    try:
        spec = importlib.util.find_spec(f"nvidia.{LIBRARIES[name]}")
    except ModuleNotFoundError:
        return None
    folders = (spec and spec.submodule_search_locations) or ()
    return next((path for folder in folders if (path := Path(folder, "lib", name)).is_file()), None)


def refused(library: str | Path) -> str:
    """Load a library; returns why it does not load, or an empty text."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""
