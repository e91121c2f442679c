"""Who this process is among the ranks, and what it may use of its node. No Horovod, no TensorFlow."""

import os
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from hpc_train.console import HEARD, say
from hpc_train.errors import UserError
from hpc_train.parallel.launcher import detect


@dataclass(frozen=True)
class World:
    """This process's place among the ranks; `parallel.init` makes it once at start."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    node: int = 0
    nodes: int = 1

    @property
    def is_root(self) -> bool:
        """True on the one rank that prints and writes."""
        return self.rank == 0


def node_name() -> str:
    """This node's name: HPC_TRAIN_NODE where it is set, else the host's."""
    return os.environ.get("HPC_TRAIN_NODE") or socket.gethostname()


def exit_when_read(status: int) -> None:
    """End with `status`; under a launcher, wait until it has read what was printed."""
    if detect().size != 1:
        time.sleep(HEARD)
    sys.exit(status)


def exit_usage(message: str) -> None:
    """End with status 2 for a mistake before the ranks know each other; one of them prints the message."""
    if detect().rank:
        # Where rank 0 made the same mistake, the launcher ends this rank before it prints.
        time.sleep(3)
    say(message, sys.stderr)
    exit_when_read(2)


def choose_gpu(visible: int, world: World) -> int | None:
    """The index of this rank's GPU among those that the process sees; None without GPUs.

    Slurm may show a rank all GPUs of the node (then its local rank is the index) or only its own.

    Raises:
        UserError: several GPUs are visible, but fewer than the node has ranks.
    """
    if visible <= 1:
        return 0 if visible else None
    if visible < world.local_size:
        raise UserError(
            f"more ranks than GPUs: node {world.node} runs {world.local_size} ranks and shows {visible} GPUs; "
            f"start at most {visible} ranks on a node"
        )
    return world.local_rank


def shared_gpus(owners: list[tuple[int, str, str]]) -> str | None:
    """Look for a GPU that several ranks hold.

    Args:
        owners: (rank, host, PCI bus id) of every rank that has a GPU.

    Returns:
        The error message for the first one found, or None.
    """
    holders: dict[tuple[str, str], list[int]] = {}
    for rank, host, bus in owners:
        holders.setdefault((host, bus), []).append(rank)
    for (host, bus), ranks in holders.items():
        if len(ranks) > 1:
            return (
                f"more ranks than GPUs: ranks {', '.join(map(str, ranks))} share GPU {bus} on {host}; "
                "start one rank for each GPU"
            )
    return None


def threads_per_rank(local_size: int, affinity: int, node_cores: int, env: Mapping[str, str] = os.environ) -> int:
    """The number of cores that this rank may keep busy, so that the ranks of a node share them.

    Args:
        local_size: ranks on this node.
        affinity: cores this process may run on.
        node_cores: cores of the node.
        env: the environment, in which Slurm says what it gave to the job.
    """
    given = env.get("SLURM_CPUS_ON_NODE", "")
    total = min(node_cores, int(given)) if given.isdigit() else node_cores
    per_task = env.get("SLURM_CPUS_PER_TASK", "")
    if per_task.isdigit():
        # A task may also be a launcher of all ranks of the node, which then share its cores.
        return max(1, min(affinity, int(per_task), total // local_size))
    # A set no larger than a fair share was bound to this rank alone; all ranks share a larger one.
    bound = affinity * local_size <= total
    return max(1, affinity if bound else affinity // local_size)
