"""`hpc-train doctor --launch`: does the launcher start one job of N ranks? Needs only mpi4py, and about a second."""

from collections.abc import Callable

from hpc_train.doctor import mpi, software
from hpc_train.doctor.findings import Finding, Lost, plural
from hpc_train.doctor.supervise import Doing
from hpc_train.parallel.launcher import GLOO, Launcher, right_launch, wrong_size


def examine(launcher: Launcher, seconds: float, send: Callable) -> None:
    """Join the other ranks through MPI and count them; the launcher's rank 0 sends the finding."""
    if launcher.name == GLOO:
        send(Finding("launch", "ok", f"{launcher.name} started {plural(launcher.size, 'rank')} without MPI"))
        return
    send(Doing("loading mpi4py", seconds))
    try:
        import mpi4py

        mpi4py.rc.initialize = mpi4py.rc.finalize = False
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        how = "load your site's MPI module, or pip install mpich"
        send(Lost(Finding("launch", "wrong", f"mpi4py finds no MPI: {reason}", how)))
        return
    ours = mpi.loaded()
    family = ours.family if ours else None
    how = f"start with {right_launch(family)}"
    send(Doing(f"MPI_Init of {family or 'an unknown MPI'} under {launcher.name or 'no launcher'}", seconds, how))
    MPI.Init_thread(MPI.THREAD_MULTIPLE)
    send(Doing("MPI_Barrier over the ranks", seconds))
    MPI.COMM_WORLD.Barrier()
    size = MPI.COMM_WORLD.size
    if launcher.rank == 0:
        library = software.horovod_library()
        send(Doing("finding the MPI that Horovod is linked with", seconds))
        horovods = mpi.horovods(library) if library else None
        send(judge(launcher, size, ours, horovods))
    send(Doing("MPI_Finalize", seconds))
    MPI.Finalize()


def judge(launcher: Launcher, size: int, ours: mpi.Mpi | None, horovods: mpi.Mpi | None) -> Finding:
    """Judge whether MPI found all ranks that the launcher started, and whether Horovod uses the same MPI.

    Args:
        launcher: the launcher, as the environment describes it.
        size: number of ranks in MPI's world.
        ours: the MPI of mpi4py, which counted them.
        horovods: the MPI that Horovod is linked with, or None.
    """
    family = ours.family if ours else None
    if problem := wrong_size(launcher, size, family):
        return Finding("launch", "wrong", *problem)
    if ours and horovods and ours.family != horovods.family:
        how = f"start with {right_launch(horovods.family)} and export MPI4PY_LIBMPI={horovods.path}"
        return Finding("launch", "wrong", f"mpi4py uses {ours}, but Horovod uses {horovods}", how)
    by = f", started by {launcher.name}" if launcher.name else ", no launcher"
    return Finding("launch", "ok", f"{plural(size, 'rank')}{by}{f', {ours}' if ours else ''}")
