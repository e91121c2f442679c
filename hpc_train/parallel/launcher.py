"""Which launcher started this process, and what it announced: read from the environment alone; what it left open.

Inside a Slurm step the step's variables do not always describe the ranks. MPICH's and Open MPI's mpirun start one proxy
a node through srun, and the ranks inherit SLURM_NTASKS, SLURM_STEP_NUM_TASKS and SLURM_PROCID of their proxy. So the
variables of the innermost launcher come first, and Slurm's step counts only where srun itself started the ranks.
"""

import contextlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass

MPICH, OPEN_MPI = "MPICH", "Open MPI"
GLOO = "horovodrun --gloo"
# What launchers tell a rank, by how the names begin.
_OF_A_RANK = (
    *("OMPI_", "PALS_", "PMI_", "PMIX_", "MPI_LOCAL", "SLURM_STEP_", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"),
    *("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_", "HOROVOD_CROSS_", "HOROVOD_GLOO_", "HOROVOD_HOSTNAME"),
    *("HOROVOD_CONTROLLER", "HOROVOD_CPU_OPERATIONS", "HPC_TRAIN_JOB_BEGINS"),
)


@dataclass(frozen=True)
class Launcher:
    """Who started this process, and as which rank."""

    name: str
    """As a user would write it; empty without a launcher."""
    family: str | None
    """The MPI whose ranks it starts; None where it starts any."""
    size: int
    """Ranks announced; 0 where the launcher does not say."""
    rank: int
    local_rank: int | None
    """None where the launcher does not say."""
    kept_out: bool = False
    """Whether a container hides from this process what the launcher announced."""


def detect(env: Mapping[str, str] = os.environ) -> Launcher:
    """The innermost launcher that left its mark in `env`."""

    def number(name: str) -> int | None:
        return int(env[name]) if env.get(name, "").isdigit() else None

    rank = number("HOROVOD_RANK")
    if rank is not None and (size := number("HOROVOD_SIZE")):
        return Launcher(GLOO, None, size, rank, number("HOROVOD_LOCAL_RANK"))
    if size := number("OMPI_COMM_WORLD_SIZE"):
        local = number("OMPI_COMM_WORLD_LOCAL_RANK")
        return Launcher("Open MPI's mpirun", OPEN_MPI, size, number("OMPI_COMM_WORLD_RANK") or 0, local)
    rank = number("PALS_RANKID")
    if rank is not None:
        return Launcher("PALS's mpiexec", MPICH, number("PMI_SIZE") or 0, rank, number("PALS_LOCAL_RANKID"))
    size, local = number("PMI_SIZE"), number("MPI_LOCALRANKID")
    if size and local is not None:
        # Hydra, which MPICH, Intel MPI and MVAPICH share.
        return Launcher("MPICH's mpirun", MPICH, size, number("PMI_RANK") or 0, local)
    if tasks := number("SLURM_STEP_NUM_TASKS"):
        name = f"srun --mpi={_protocol(env)}"
        return Launcher(name, None, tasks, number("SLURM_PROCID") or 0, number("SLURM_LOCALID"))
    if size:
        return Launcher("a PMI launcher", None, size, number("PMI_RANK") or 0, None)
    rank = number("PMIX_RANK")
    if rank is not None:
        return Launcher("a PMIx launcher", None, 0, rank, None)
    return Launcher("", None, 1, 0, 0)


def alone(env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process that is no rank of the launcher that started this one; the job's stays."""
    return {name: value for name, value in env.items() if not name.startswith(_OF_A_RANK)}


def keep_sockets() -> None:
    """Keep this process's sockets from the programs that it starts: a launcher's own, and MPI's, are open for them."""
    for name in os.listdir("/proc/self/fd"):
        # One of them is the list itself, which is closed by now.
        with contextlib.suppress(OSError):
            if int(name) > 2 and stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                os.set_inheritable(int(name), False)


def right_launch(family: str | None) -> str:
    """The commands that start ranks of this family of MPI."""
    if family == MPICH:
        return "`srun --mpi=pmi2`, or MPICH's own mpirun inside the job"
    if family == OPEN_MPI:
        return "`srun --mpi=pmix`, or Open MPI's own mpirun inside the job"
    return "`srun --mpi=pmi2` (MPICH), `srun --mpi=pmix` (Open MPI), or that MPI's own mpirun inside the job"


def wrong_size(launcher: Launcher, size: int, family: str | None = None) -> tuple[str, str] | None:
    """Compare the number of ranks with what the launcher announced.

    Args:
        launcher: what the environment announces.
        size: ranks that found each other.
        family: of the MPI that they run on, where it is known.

    Returns:
        What is wrong and what to do; None where `size` is as announced.
    """
    if launcher.size in (0, size):
        return None
    if launcher.kept_out and size == 1:
        what = f"{launcher.name} started {launcher.size} processes, but the container keeps its variables from them"
        how = "start the container without --cleanenv and --containall, which remove the variables that ranks need"
        return f"{what}: each is a job of size 1", how
    if size == 1:
        what = f"{launcher.name} started {launcher.size} processes, but each is a job of size 1"
        return (
            f"{what}: {family or 'this MPI'} does not recognise this launcher",
            f"start with {right_launch(family)}",
        )
    what = f"{launcher.name} announced {launcher.size} rank{'s' * (launcher.size != 1)}, but the world has {size}"
    return what, "look for a second launcher inside the first, and for exported variables of another launcher"


def _protocol(env: Mapping[str, str]) -> str:
    if env.get("SLURM_MPI_TYPE"):
        return env["SLURM_MPI_TYPE"]
    if "PMIX_RANK" in env:
        return "pmix"
    return "pmi2" if "PMI_FD" in env or "PMI_SIZE" in env else "none"
