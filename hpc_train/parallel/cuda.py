"""GPUs as TensorFlow lists them, and the CUDA libraries without which it lists none."""

import ctypes
import importlib.util
from pathlib import Path

# What a TensorFlow for CUDA 12 opens before it takes a GPU, and NCCL, which Horovod is linked with: the wheel of each.
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


def list_gpus() -> list:
    """The GPUs that TensorFlow sees (`tf.config.PhysicalDevice`); takes the place of its own list of them.

    TensorFlow 2.21 opens cuSOLVER from libtensorflow_framework.so.2, whose run path has the folders of all of NVIDIA's
    wheels but that one. So `pip install tensorflow[and-cuda]` alone sees no GPU, and ranks would train on CPUs. A
    library that is loaded already is found wherever it lies. To be called before TensorFlow has listed its devices.
    """
    import tensorflow as tf

    if tf.test.is_built_with_cuda():
        open_library("libcusolver.so.11")
    return tf.config.list_physical_devices("GPU")


def open_library(name: str) -> None:
    """Open one of `LIBRARIES`, first where TensorFlow would find it by itself, then in its wheel, if it is there."""
    for place in (name, _wheels_library(name)):
        if place and not refused(place):
            return


def problems() -> list[str]:
    """Why `LIBRARIES` do not load, a line for each that does not; this process keeps those that do."""
    return [reason for reason in (refused(_wheels_library(name) or name) for name in LIBRARIES) if reason]


def _wheels_library(name: str) -> Path | None:
    """The file of a library in NVIDIA's wheel in this environment; None where there is none."""
    try:
        spec = importlib.util.find_spec(f"nvidia.{LIBRARIES[name]}")
    except ModuleNotFoundError:
        return None
    folders = [Path(folder) / "lib" / name for folder in spec.submodule_search_locations] if spec else []
    return next((path for path in folders if path.is_file()), None)


def refused(library: str | Path) -> str:
    """Why this library does not load, or empty: then it is loaded."""
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return ""
