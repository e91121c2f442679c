"""What a rank knows of itself; gathered over the ranks, so kept small: there may be thousands."""

import os
from dataclasses import dataclass

from hpc_train.parallel.world import World, threads_per_rank


@dataclass(frozen=True)
class Place:
    """A folder or file as one node sees it."""

    path: str
    system: str
    """Type of its file system."""
    problem: str = ""
    """What keeps it from being used."""
    free: int = 0
    """Bytes."""
    held: int = 0
    """Bytes of staged copies that lie there already."""
    locks: str = ""
    """What HDF5's file locking says there: works, held, hangs, or the name of an error."""


@dataclass(frozen=True)
class Facts:
    """One rank."""

    rank: int
    host: str
    local_rank: int
    local_size: int
    visible: list[str] | None
    """What CUDA_VISIBLE_DEVICES lists; None where it is not set."""
    given: int
    """GPUs that Slurm gave on this node."""
    seen: int
    """GPUs that TensorFlow sees."""
    takes: str | None
    """The name of the GPU that this rank takes."""
    bus: str | None
    """PCI bus id of that GPU."""
    problem: str
    """Why it can take none."""
    no_driver: str
    """Why the driver shows none."""
    mask: int
    """Bit k is set where this process may run on CPU k."""
    node_cpus: int
    claimed: int
    """CPUs that Slurm says it gave on this node; 0 where it does not say."""
    threads: int
    data: Place | None = None
    """On the first rank of a node."""
    local: Place | None = None
    """On the first rank of a node."""

    @property
    def cpus(self) -> int:
        """CPUs that this process may run on."""
        return self.mask.bit_count()


def cpu_facts(world: World) -> dict:
    """The fields of `Facts` that are about CPUs."""
    affinity = os.sched_getaffinity(0)
    node = os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return {
        "mask": sum(1 << cpu for cpu in affinity),
        "node_cpus": node,
        "claimed": int(given) if given.isdigit() else 0,
        "threads": threads_per_rank(world.local_size, len(affinity), node),
    }
