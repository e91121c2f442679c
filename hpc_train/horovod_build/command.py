"""`hpc-train build-horovod`: builds Horovod here or takes the wheel built before, installs it, and tests it."""

import importlib.util
import os
import platform
import re
import runpy
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.horovod_build import cache, gpu, patches, source, toolchain, wheel
from hpc_train.horovod_build.prove import prove
from hpc_train.horovod_build.shell import pip
from hpc_train.requirements import check_keras

COMPILER_FLAGS = ("CPPFLAGS", "CFLAGS", "CXXFLAGS", "CUDAFLAGS", "LDFLAGS")


@dataclass(frozen=True)
class BuildHorovod:
    """Build Horovod for this machine's MPI and TensorFlow, install it in this environment, and test it on 2 ranks.

    The MPI is the one of MPICXX, or of `mpicxx` on PATH; without one, the MPICH wheel is installed. Built wheels are
    kept in HPC_TRAIN_CACHE or in your cache folder, and used again if MPI, TensorFlow, compiler and so on are the same.
    """

    gpu: bool = False
    """Build for CUDA GPUs, with NCCL; needs a CUDA toolkit with nvcc."""

    cuda_home: Path | None = None
    """Folder of the CUDA toolkit. Default: CUDA_HOME, or the toolkit of `nvcc` on PATH."""

    nccl_home: Path | None = None
    """Folder of NCCL, with include/nccl.h. Default: NCCL_HOME, NCCL's wheel, or the system's NCCL."""

    cuda_archs: str | None = None
    """Compute capabilities to compile for, such as 80,90. Default: those of V100, A100 and H100."""

    rebuild: bool = False
    """Build again, even if the right Horovod is cached or installed."""


def run(options: BuildHorovod) -> None:
    """Install a Horovod in this environment that has passed its test.

    Raises:
        UserError: something that the build needs is missing, or the build or the test fails.
    """
    tensorflow = toolchain.find_tensorflow()
    check_keras()
    toolchain.check_place()
    found_gpu = _find_gpu(options)
    compiler, compiler_version = toolchain.find_compiler()
    mpi = toolchain.find_mpi()
    parts = key_parts(tensorflow, mpi, compiler_version, found_gpu)
    key = cache.key_of(parts)
    kind = f"CUDA {found_gpu[0].version} with NCCL {found_gpu[1].version}" if found_gpu else "CPU"
    what = f"Horovod {source.HOROVOD} for {tensorflow.name} {tensorflow.version}, {mpi.version}, {kind}"
    if not options.rebuild and installed_key() == key:
        print(f"{what} is already installed in {sys.prefix}")
        return
    print(f"{what} (MPI: {mpi.origin})", flush=True)
    with tempfile.TemporaryDirectory(prefix="hpc-train-horovod-") as folder:
        built = None if options.rebuild else cache.find_wheel(key)
        if built:
            print(f"using the cached wheel {built}", flush=True)
            source.install_requirements()
        else:
            toolchain.check_compiler(compiler)
            toolchain.check_mpi(mpi)
            if found_gpu:
                gpu.check_gpu(found_gpu[0], compiler, tensorflow, found_gpu[2])
            cmake, cmake_version = toolchain.find_cmake()
            source.install_requirements()
            print(
                f"building with {compiler_version}, cmake {cmake_version}, {wheel.jobs()} jobs "
                "(about 3 min on 2 cores) ...",
                flush=True,
            )
            built = wheel.build_wheel(Path(folder), key, tensorflow, mpi, compiler, cmake, found_gpu)
            print(f"cached as {cache.store_wheel(key, built, parts)}", flush=True)
        _proved_record().unlink(missing_ok=True)
        pip("install", "--quiet", "--no-deps", "--force-reinstall", built, what=f"install {built}")
    print("testing it on 2 ranks ...", flush=True)
    print(f"{mpi.version}: {prove(options.gpu)}", flush=True)
    _proved_record().write_text(key)


def _find_gpu(options: BuildHorovod) -> tuple[gpu.Cuda, gpu.Nccl, str] | None:
    if not options.gpu:
        for name in ("cuda_home", "nccl_home", "cuda_archs"):
            if getattr(options, name) is not None:
                option = "--" + name.replace("_", "-")
                raise UserError(f"{option} is for GPU builds only: add --gpu, or leave {option} out")
        return None
    cuda = gpu.find_cuda(options.cuda_home)
    archs = options.cuda_archs or gpu.default_archs(cuda)
    if not re.fullmatch(r"\d{2,3}(,\d{2,3})*", archs):
        raise UserError(f"--cuda-archs {archs} is not a list of compute capabilities: write, for example, 80,90")
    return cuda, gpu.find_nccl(options.nccl_home, cuda), archs


def key_parts(
    tensorflow: toolchain.TensorFlow,
    mpi: toolchain.Mpi,
    compiler_version: str,
    found_gpu: tuple[gpu.Cuda, gpu.Nccl, str] | None,
) -> dict[str, str]:
    """Everything that changes the binary, as readable text."""
    cuda, nccl, archs = found_gpu or (None, None, "")
    return {
        "horovod": source.SDIST_SHA256,
        "patches": patches.digest(),
        "tensorflow": f"{tensorflow.name} {tensorflow.version}",
        # pip's, conda's and a site's own build of one version need not fit the same binary.
        "tensorflow_build": tensorflow.build,
        "python": str(sysconfig.get_config_var("EXT_SUFFIX")),
        "machine": platform.machine(),
        "libc": " ".join(platform.libc_ver()),
        "cpu_flags": toolchain.cpu_flags(),
        "compiler": compiler_version,
        "compiler_flags": " ".join(f"{name}={os.environ.get(name, '')}" for name in COMPILER_FLAGS),
        "mpi": mpi.version,
        # Horovod finds the MPI of a wheel in any environment, but a site's MPI only in its own folder.
        "mpi_place": "" if mpi.wheel else str(mpi.mpicxx),
        "rpath": ";".join([*mpi.rpath, *(nccl.rpath if nccl else ())]),
        "cuda": cuda.version if cuda else "",
        "nccl": nccl.version if nccl else "",
        "cuda_archs": archs,
    }


def installed_key() -> str | None:
    """The key of the Horovod in this environment; None if we did not build it, or it has not passed its test."""
    spec = importlib.util.find_spec("horovod")
    if spec is None or spec.origin is None:
        return None
    module = Path(spec.origin).parent / Path(patches.BUILD_MODULE).name
    key = runpy.run_path(str(module))["KEY"] if module.is_file() else None
    proved = _proved_record()
    return key if proved.is_file() and proved.read_text() == key else None


def _proved_record() -> Path:
    """The file of this environment that names the build which has passed its test here."""
    return Path(sysconfig.get_path("platlib")) / "hpc_train_horovod.proved"
