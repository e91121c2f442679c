"""Whether /dev/shm is large enough for the ranks that MPI starts on a node: if not, they end with SIGBUS."""

import os
from collections.abc import Mapping

from hpc_train.parallel.launcher import GLOO, Launcher
from hpc_train.units import MIB, size

FOLDER = "/dev/shm"
# MPICH's wheel with UCX: 2 ranks fail with 20 MiB and run with 24, and hold 5.4 MB each.
_ALL, _A_RANK = 13 * MIB, 11 * MIB // 2
REMEDY = (
    "containers: docker run --shm-size=1g (Podman alike); a machine of your own: mount -o remount,size=1g /dev/shm; or "
    "start with horovodrun --gloo, which does not use it"
)


def too_small(launcher: Launcher, env: Mapping[str, str] = os.environ, folder: str = FOLDER) -> str | None:
    """What is wrong with the node's shared memory for the ranks of this launch; None where nothing is.

    Args:
        launcher: of this process; ranks that talk by Gloo need no shared memory, nor does one rank alone.
        env: where MPI's launchers say how many ranks a node has; two, where they do not.
        folder: where it is mounted.
    """
    # Open MPI's need is not known.
    if launcher.size == 1 or launcher.name == GLOO or launcher.family == "Open MPI":
        return None
    told = env.get("MPI_LOCALNRANKS") or env.get("OMPI_COMM_WORLD_LOCAL_SIZE") or ""
    ranks = int(told) if told.isdigit() else 2
    try:
        held = os.statvfs(folder)
    except OSError:
        return None  # without it, MPI takes another way
    there, needed = held.f_blocks * held.f_frsize, _ALL + ranks * _A_RANK
    if ranks == 1 or there >= needed:
        return None
    return f"{folder} has {size(there)}, and MPI needs about {size(needed)} for {ranks} ranks on a node"
