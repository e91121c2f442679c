"""Finds what only a GPU build needs: the CUDA toolkit and NCCL."""

import importlib.util
import os
import platform
import re
import shutil
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.horovod_build.shell import output
from hpc_train.horovod_build.toolchain import TensorFlow, relative_rpath

HEADER_FOLDERS = ("include", f"targets/{platform.machine()}-linux/include", "targets/sbsa-linux/include")


@dataclass(frozen=True)
class Cuda:
    """A CUDA toolkit."""

    home: Path
    """Folder that holds bin/nvcc."""
    version: str
    """For example "12.5"."""


@dataclass(frozen=True)
class Nccl:
    """An installed NCCL."""

    include: Path
    """Folder of nccl.h."""
    library: Path
    """The shared library."""
    version: str
    rpath: tuple[str, ...]
    """Its folder, if the system's linker does not look there."""


def find_cuda(given: Path | None = None) -> Cuda:
    """The CUDA toolkit: the given one, else CUDA_HOME's, else that of `nvcc` on PATH, else /usr/local/cuda.

    Raises:
        UserError: there is no toolkit.
    """
    if given is not None:
        homes = [given]
    else:
        homes = [Path(os.environ[name]) for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
        if nvcc := shutil.which("nvcc"):
            homes.append(Path(nvcc).resolve().parent.parent)
        homes.append(Path("/usr/local/cuda"))
    for home in homes:
        # nvcc alone is not enough: on PATH it may be a script that calls the toolkit of another folder.
        if not any((home / folder / "cuda_runtime.h").is_file() for folder in HEADER_FOLDERS):
            continue
        if found := re.search(r"release (\d+\.\d+)", output([home / "bin" / "nvcc", "--version"])[1]):
            return Cuda(home.absolute(), found[1])
    raise UserError(
        f"no CUDA toolkit (bin/nvcc and include/cuda_runtime.h) in {' or '.join(str(home) for home in homes)}: "
        "load its module, or give its folder with --cuda-home (TensorFlow's CUDA wheels bring libraries, "
        "not the compiler; on Debian `containers/nvcc.sh FOLDER` fetches it)"
    )


def find_nccl(given: Path | None = None, cuda: Cuda | None = None) -> Nccl:
    """NCCL: the given one, else NCCL_HOME's, else the wheel's, else the CUDA toolkit's or the system's.

    Raises:
        UserError: there is no NCCL.
    """
    wheel = _nccl_wheel()
    multiarch = f"lib/{sysconfig.get_config_var('MULTIARCH') or 'lib'}"
    if given is not None:
        homes = [given]
    else:
        homes = [Path(os.environ["NCCL_HOME"])] if os.environ.get("NCCL_HOME") else []
        homes += [home for home in (wheel, cuda and cuda.home, Path("/usr"), Path("/usr/local")) if home]
    for home in homes:
        header = home / "include" / "nccl.h"
        libraries = [
            home / folder / name for folder in ("lib", "lib64", multiarch) for name in ("libnccl.so", "libnccl.so.2")
        ]
        library = next((path for path in libraries if path.is_file()), None)
        if not header.is_file() or library is None:
            continue
        numbers = [
            re.search(rf"#define NCCL_{part}\s+(\d+)", header.read_text()) for part in ("MAJOR", "MINOR", "PATCH")
        ]
        version = ".".join(found[1] for found in numbers if found)
        place = relative_rpath(library.parent) if home == wheel else str(library.parent.absolute())
        rpath = () if home == Path("/usr") else (place,)
        return Nccl(header.parent.absolute(), library.absolute(), version, rpath)
    raise UserError(
        f"no NCCL (include/nccl.h and lib/libnccl.so) in {' or '.join(str(home) for home in homes)}: "
        f"`pip install nvidia-nccl-cu{cuda.version.split('.')[0] if cuda else 12}`, or give its folder with --nccl-home"
    )


def _nccl_wheel() -> Path | None:
    """The folder of the NCCL wheel in this environment."""
    try:
        spec = importlib.util.find_spec("nvidia.nccl")
    except ModuleNotFoundError:
        return None
    folders = spec.submodule_search_locations if spec else None
    return Path(next(iter(folders))) if folders else None


def check_gpu(cuda: Cuda, compiler: Path, tensorflow: TensorFlow, archs: str) -> None:
    """Check that TensorFlow has CUDA, and that nvcc works with the compiler and the architectures.

    Raises:
        UserError: one of these is not so.
    """
    if tensorflow.cuda is None:
        raise UserError(
            f"--gpu needs CUDA, but {tensorflow.name} {tensorflow.version} is built without CUDA: `pip uninstall "
            f"{tensorflow.name}`, then `pip install 'tensorflow[and-cuda]=={tensorflow.version}'`"
        )
    if tensorflow.cuda.split(".")[0] != cuda.version.split(".")[0]:
        print(
            f"note: TensorFlow is built for CUDA {tensorflow.cuda}, but this toolkit is {cuda.version}; "
            "if the result does not work, give a matching toolkit with --cuda-home",
            flush=True,
        )
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.cu"
        source.write_text("__global__ void nothing() {}\n")
        targets = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in archs.split(",")]
        code, text = output(
            [cuda.home / "bin" / "nvcc", "-ccbin", compiler, *targets, "-c", source, "-o", Path(folder) / "empty.o"]
        )
    if code:
        errors = [line for line in text.splitlines() if "error" in line.lower() or "fatal" in line.lower()]
        raise UserError(
            f"nvcc {cuda.version} does not compile with {compiler} for --cuda-archs {archs}: "
            f"{(errors or text.splitlines() or ['no output'])[0]}; "
            "set CXX to a compiler that this CUDA supports, or --cuda-archs to architectures that it knows"
        )


def default_archs(cuda: Cuda) -> str:
    """V100, A100 and H100, as far as the toolkit supports them; the newest also as PTX, for later GPUs."""
    major, minor = (int(part) for part in cuda.version.split("."))
    archs = ["70"] if major < 13 else []
    archs += ["80"]
    archs += ["90"] if (major, minor) >= (11, 8) else []
    return ",".join(archs)
