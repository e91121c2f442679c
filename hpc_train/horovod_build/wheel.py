"""Compiles the patched source into a wheel."""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.horovod_build import patches
from hpc_train.horovod_build.cache import cache_folder
from hpc_train.horovod_build.diagnose import explain
from hpc_train.horovod_build.gpu import Cuda, Nccl
from hpc_train.horovod_build.source import unpack_sdist
from hpc_train.horovod_build.toolchain import Mpi, TensorFlow, cpu_flags

BYTES_PER_JOB = 2 << 30


def jobs() -> int:
    """How many compilers may run at once: one for each core of this process, if each has 2 GB of memory."""
    memory = [int(size) * 1024 for size in re.findall(r"MemAvailable:\s+(\d+)", _read("/proc/meminfo"))]
    memory += [int(size) for size in re.findall(r"^\d+$", _read("/sys/fs/cgroup/memory.max"))]
    cores = len(os.sched_getaffinity(0))
    return max(1, min([cores, *(size // BYTES_PER_JOB for size in memory)]))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def build_environment(
    source: Path,
    tensorflow: TensorFlow,
    mpi: Mpi,
    compiler: Path,
    cmake: Path,
    gpu: tuple[Cuda, Nccl, str] | None,
) -> dict[str, str]:
    """The variables that Horovod's build reads, without the caller's own HOROVOD_… and CMAKE_….

    Args:
        source: folder of the source.
        tensorflow: the TensorFlow to build for.
        mpi: the MPI to link with.
        compiler: the C++ compiler.
        cmake: the cmake.
        gpu: toolkit, NCCL and architectures ("80,90"); None for a CPU build.
    """
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HOROVOD_", "CMAKE_")) and name not in ("MAKEFLAGS", "MFLAGS")
    }
    external = tensorflow.include / "external"
    includes = [external / "highwayhash", external / "farmhash_archive" / "src", source / "compat"]
    env |= {
        "PATH": os.pathsep.join([str(mpi.mpicxx.parent), env.get("PATH", os.defpath)]),
        "MPICXX": str(mpi.mpicxx),
        "CXX": str(compiler),
        "MAKEFLAGS": f"-j{jobs()}",
        "HOROVOD_CMAKE": str(cmake),
        "HOROVOD_BUILD_ARCH_FLAGS": cpu_flags(),
        "HOROVOD_WITH_TENSORFLOW": "1",
        "HOROVOD_WITHOUT_PYTORCH": "1",
        "HOROVOD_WITHOUT_MXNET": "1",
        "HOROVOD_WITH_MPI": "1",
        "HOROVOD_WITH_GLOO": "1",
        # Gloo asks for CMake 2.8, which CMake 4 refuses.
        "CMAKE_POLICY_VERSION_MINIMUM": "3.5",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CPLUS_INCLUDE_PATH": os.pathsep.join([*map(str, includes), *filter(None, [env.get("CPLUS_INCLUDE_PATH")])]),
        "HPC_TRAIN_RPATH": ";".join([*mpi.rpath, *(gpu[1].rpath if gpu else ())]),
    }
    return env | _gpu_environment(source, env["PATH"], *gpu) if gpu else env


def _gpu_environment(source: Path, path: str, cuda: Cuda, nccl: Nccl, archs: str) -> dict[str, str]:
    link = source / "nccl"
    link.mkdir()
    # NCCL's wheel has libnccl.so.2 only; the linker asks for libnccl.so.
    (link / "libnccl.so").symlink_to(nccl.library)
    return {
        # For some of its flags Horovod asks the nvcc on PATH, not the one of its CUDA home.
        "PATH": os.pathsep.join([str(cuda.home / "bin"), path]),
        "HOROVOD_GPU_OPERATIONS": "NCCL",
        "HOROVOD_CUDA_HOME": str(cuda.home),
        "HOROVOD_BUILD_CUDA_CC_LIST": archs,
        "HOROVOD_NCCL_LINK": "SHARED",
        "HOROVOD_NCCL_INCLUDE": str(nccl.include),
        "HOROVOD_NCCL_LIB": str(link),
    }


def build_wheel(
    folder: Path,
    key: str,
    tensorflow: TensorFlow,
    mpi: Mpi,
    compiler: Path,
    cmake: Path,
    gpu: tuple[Cuda, Nccl, str] | None,
) -> Path:
    """Build the wheel.

    Args:
        folder: an empty folder to work in.
        key: the key of the build.
        tensorflow: the TensorFlow to build for.
        mpi: the MPI to link with.
        compiler: the C++ compiler.
        cmake: the cmake.
        gpu: toolkit, NCCL and architectures; None for a CPU build.

    Returns:
        The wheel, in `folder`.

    Raises:
        UserError: the build fails; the message has its first error.
    """
    source = unpack_sdist(folder)
    patches.apply(source, key, None if mpi.wheel else mpi.mpirun)
    env = build_environment(source, tensorflow, mpi, compiler, cmake, gpu)
    log = cache_folder() / "logs" / f"horovod-{key}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    options = ("--verbose", "--no-deps", "--no-build-isolation", "--no-cache-dir", "--wheel-dir", str(folder / "dist"))
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", *options, str(source)]
    started = time.monotonic()
    code = _run_logged(command, env, folder, log)
    wheels = list((folder / "dist").glob("horovod-*.whl"))
    if code or len(wheels) != 1:
        raise UserError(explain(log.read_text(errors="replace"), log))
    print(f"built in {time.monotonic() - started:.0f} s (log: {log})", flush=True)
    return wheels[0]


def _run_logged(command: list[str], env: dict[str, str], folder: Path, log: Path) -> int:
    """Run `command` with its output in `log`. On a terminal, show how many percent make has done."""
    with (
        # Another build of the same key must not write into this log.
        tempfile.NamedTemporaryFile("w", dir=log.parent, prefix=f".{log.name}.", delete=False) as lines,
        subprocess.Popen(
            command,
            env=env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
    ):
        for line in process.stdout or ():
            lines.write(line)
            if sys.stdout.isatty() and (share := re.match(r"\s*\[\s*(\d+)%\]", line)):
                print(f"\r{share[1]:>3} %", end="\r", flush=True)
    Path(lines.name).rename(log)
    return process.returncode
