"""Parts of a build of Horovod that no machine has, for the tests of the builder."""

from pathlib import Path

from hpc_train.horovod_build import gpu, toolchain

TENSORFLOW = toolchain.TensorFlow("tensorflow-cpu", "2.21.0", Path("/tf/include"), None)
SITE_MPI = toolchain.Mpi(
    Path("/opt/mpi/bin/mpicxx"), Path("/opt/mpi/bin/mpirun"), "mpirun (Open MPI) 4.1.4", None, ("/opt/mpi/lib",)
)
CUDA = gpu.Cuda(Path("/opt/cuda"), "12.5")
NCCL = gpu.Nccl(Path("/opt/nccl/include"), Path("/opt/nccl/lib/libnccl.so"), "2.27.3", ("/opt/nccl/lib",))


def program(path: Path, text: str) -> Path:
    """A shell script at `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def replaced(value, **changes):
    """A copy of a dataclass with other values."""
    return type(value)(**{**vars(value), **changes})
