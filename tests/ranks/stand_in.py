"""A stand-in for a trainer, without TensorFlow, that takes a second. The first argument names what it does."""

import os
import signal
import sys
import time
from pathlib import Path

# Under mpirun, Slurm's variable has the number of the node's proxy, so it comes last.
RANK = next(name for name in ("PMI_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID") if name in os.environ)
rank = int(os.environ[RANK])


def where(run: Path) -> None:
    """Print each rank's place and the GPU that it would take."""
    from mpi4py import MPI

    from hpc_train.parallel.world import World, choose_gpu

    node = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
    world = World(MPI.COMM_WORLD.rank, MPI.COMM_WORLD.size, node.rank, node.size, 0, 1)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    gpu = visible[choose_gpu(len(visible), world)] or "none"
    # Under PBS and LSF the tests' nodes have no name of their own.
    host = os.environ.get("SLURMD_NODENAME", "a node")
    lines = MPI.COMM_WORLD.gather(f"rank {world.rank} of {world.size} local {node.rank} on {host} takes GPU {gpu}")
    if world.rank == 0:
        print("\n".join(lines))


def unfinished(run: Path) -> None:
    """Ask to be run again at once; if PROGRESS is set, with a newer checkpoint each time until this restart."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or os.environ.get("RESTART", "0"))
    if rank:
        return
    print(f"this is attempt {restarts}", flush=True)
    if os.environ.get("PROGRESS"):
        if restarts == int(os.environ["PROGRESS"]):
            return
        (run / "checkpoints").mkdir(exist_ok=True)
        (run / "checkpoints" / f"step-{restarts:09d}.h5").touch()
    time.sleep(0.5)
    sys.exit(os.EX_TEMPFAIL)


def bug(run: Path) -> None:
    """Fail on one rank while the others work."""
    # Hydra ends the others only where they have started MPI.
    from mpi4py import MPI  # noqa: F401

    if rank == 1:
        print("error: the planted bug", flush=True)
        # srun loses what a task wrote in the last instant before it failed (about one time in eight).
        time.sleep(0.5)
        # Without MPI's end, at which it would wait for the others.
        os._exit(1)
    time.sleep(600)


def deaf(run: Path) -> None:
    """Ignore all signals, as if stuck in a system call. The second start ends well."""
    from mpi4py import MPI

    if os.environ.get("SLURM_RESTART_COUNT", "0") != "0":
        total = MPI.COMM_WORLD.allreduce(1)
        if rank == 0:
            print(f"the second start of {total} ranks", flush=True)
        return
    for number in (signal.SIGUSR1, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    time.sleep(600)


if __name__ == "__main__":
    {f.__name__: f for f in (where, unfinished, bug, deaf)}[sys.argv[1]](Path(sys.argv[sys.argv.index("--run") + 1]))
