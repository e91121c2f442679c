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
    """This process's place among the ranks; made once at start by `parallel.init` and handed down."""

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
    """This node's name: the host's, or what HPC_TRAIN_NODE says."""
    return os.environ.get("HPC_TRAIN_NODE") or socket.gethostname()


def exit_when_read(status: int) -> None:
    """End with `status`, under a launcher after it has read what was printed."""
    if detect().size != 1:
        time.sleep(HEARD)
    sys.exit(status)


def exit_usage(message: str) -> None:
    """End with status 2 for a mistake made before the ranks know each other, with the message on one of them."""
    if detect().rank:
        # Where rank 0 made the same mistake, the launcher ends this rank before it speaks.
        time.sleep(3)
    say(message, sys.stderr)
    exit_when_read(2)


def choose_gpu(visible: int, world: World) -> int | None:
    """The index, among the GPUs this process sees, of the one this rank takes; None without GPUs.

    Slurm may show a rank the GPUs of the whole node (then the local rank picks) or only its own.

    Raises:
        UserError: several GPUs are visible, but fewer than the node has ranks.
    """
    if visible <= 1:
        return 0 if visible else None
    if visible < world.local_size:
        raise UserError(
            f"more ranks than GPUs: node {world.node} runs {world.local_size} ranks and shows {visible} GPUs; "
            f"start at most {visible} ranks a node"
        )
    return world.local_rank


def shared_gpus(owners: list[tuple[int, str, str]]) -> str | None:
    """Describe the first GPU that several ranks hold, or None.

    Args:
        owners: (rank, host, PCI bus id) of every rank that has a GPU.
    """
    holders: dict[tuple[str, str], list[int]] = {}
    for rank, host, bus in owners:
        holders.setdefault((host, bus), []).append(rank)
    for (host, bus), ranks in holders.items():
        if len(ranks) > 1:
            return (
                f"more ranks than GPUs: ranks {', '.join(map(str, ranks))} share GPU {bus} on {host}; "
                "start one rank a GPU"
            )
    return None


def threads_per_rank(local_size: int, affinity: int, node_cores: int, env: Mapping[str, str] = os.environ) -> int:
    """How many cores this rank may keep busy, so that the ranks of a node share them.

    Args:
        local_size: ranks on this node.
        affinity: cores this process may run on.
        node_cores: cores of the node.
        env: where Slurm says what the job was given.
    """
    given = env.get("SLURM_CPUS_ON_NODE", "")
    total = min(node_cores, int(given)) if given.isdigit() else node_cores
    per_task = env.get("SLURM_CPUS_PER_TASK", "")
    if per_task.isdigit():
        # A task may also be a launcher of all the node's ranks, which then share what it was given.
        return max(1, min(affinity, int(per_task), total // local_size))
    # A set no larger than a fair share was bound to this rank alone; a larger one is everybody's.
    bound = affinity * local_size <= total
    return max(1, affinity if bound else affinity // local_size)
