"""What a rank knows about itself. All ranks' facts are gathered, so they are small: there may be thousands of ranks."""

import os
from dataclasses import dataclass

from hpc_train.doctor.findings import Finding
from hpc_train.parallel.world import World, threads_per_rank


@dataclass(frozen=True)
class Place:
    """A folder or file as one node sees it."""

    path: str
    system: str
    """Type of its file system."""
    problem: str = ""
    """Why it cannot be used."""
    free: int = 0
    """Free bytes."""
    held: int = 0
    """Bytes of staged copies that are there already."""
    locks: str = ""
    """Result of trying HDF5's file lock: works, held, hangs, or the name of an error."""


@dataclass(frozen=True)
class Network:
    """The network as one node sees it."""

    kind: str
    """Of its fast cards; empty without one."""
    takes: str
    """The network that would be taken, in words."""
    problems: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Numa:
    """Where a rank is on its node."""

    cpus: tuple[int, ...] = ()
    """NUMA nodes of the CPUs that it may run on."""
    gpu: int = -1
    """NUMA node of its GPU; -1 if not known."""
    left_out: str = ""
    """The variable that keeps NCCL from the card on that NUMA node, in words."""


@dataclass(frozen=True)
class Facts:
    """One rank."""

    rank: int
    host: str
    local_rank: int
    local_size: int
    visible: list[str] | None
    """The GPUs in CUDA_VISIBLE_DEVICES; None if it is not set."""
    given: int
    """GPUs that Slurm gave on this node."""
    seen: int
    """GPUs that TensorFlow sees."""
    takes: str | None
    """The name of the GPU that this rank takes."""
    bus: str | None
    """PCI bus id of that GPU."""
    problem: str
    """Why it can take no GPU."""
    no_driver: str
    """Why the driver shows no GPU."""
    mask: int
    """Bit k is set if this process may run on CPU k."""
    node_cpus: int
    claimed: int
    """CPUs that Slurm says it gave on this node; 0 if it does not say."""
    threads: int
    data: Place | None = None
    """Set on the first rank of a node."""
    local: Place | None = None
    """Set on the first rank of a node."""
    network: Network | None = None
    """Set on the first rank of a node."""
    numa: Numa = Numa()
    driver: str = ""
    """Version of the NVIDIA driver."""
    driver_cuda: int = 0
    """The newest CUDA that the driver knows, 1000 x major + 10 x minor; 0 if it shows no GPU."""

    @property
    def cpus(self) -> int:
        """CPUs that this process may run on."""
        return self.mask.bit_count()


def cpu_facts(world: World) -> dict:
    """The fields of `Facts` about CPUs."""
    affinity = os.sched_getaffinity(0)
    node = os.cpu_count() or 1
    given = os.environ.get("SLURM_CPUS_ON_NODE", "")
    return {
        "mask": sum(1 << cpu for cpu in affinity),
        "node_cpus": node,
        "claimed": int(given) if given.isdigit() else 0,
        "threads": threads_per_rank(world.local_size, len(affinity), node),
    }
