"""Affinity: are a rank's CPUs, its GPU and the network cards on the same NUMA node?"""

import os
from collections.abc import Mapping
from pathlib import Path

from hpc_train.doctor import network
from hpc_train.doctor.facts import Facts, Numa
from hpc_train.doctor.findings import Finding

NAME = "affinity"


def look(bus: str | None, mask: int, root: Path = network.ROOT, env: Mapping[str, str] = os.environ) -> Numa:
    """The NUMA nodes of this rank's CPUs and GPU, and whether NCCL uses the card nearest to the GPU.

    Args:
        bus: PCI bus id of the GPU, or None.
        mask: bit k is set if this process may run on CPU k.
        root: the folder that holds sys.
        env: environment variables.
    """
    nodes = {
        int(folder.name.removeprefix("node")): _cpus(network.read(folder / "cpulist"))
        for folder in (root / "sys/devices/system/node").glob("node[0-9]*")
    }
    own = tuple(sorted(node for node, cpus in nodes.items() if cpus & mask))
    gpu = network.numa_of(root / "sys/bus/pci/devices" / bus.lower()) if bus else -1
    if not nodes.get(gpu):  # not known, or a node of memory alone, to which no rank can be bound
        return Numa(own)
    here = network.cards(root)
    chosen, variable = network.used(here, network.settings(root, env))
    near = [card.name for card in here if card.numa == gpu]
    left_out = f"{variable} leaves out {near[0]}" if near and not {card.name for card in chosen} & {*near} else ""
    return Numa(own, gpu, left_out)


def _cpus(text: str) -> int:
    """The mask of a list of CPUs, such as `0-7,64-71`."""
    ranges = [part.split("-") for part in text.split(",") if part]
    return sum((1 << int(last) + 1) - (1 << int(first)) for first, *_, last in ranges)


def judge(everybody: list[Facts]) -> Finding | None:
    """Judge whether each rank's CPUs are near its GPU; None if no rank has a GPU whose NUMA node is known."""
    placed = [facts for facts in everybody if facts.numa.gpu >= 0 and facts.numa.cpus]
    if not placed:
        return None
    if far := [facts for facts in placed if facts.numa.gpu not in facts.numa.cpus]:
        first = far[0]
        cpus = ", ".join(map(str, first.numa.cpus))
        value = (
            f"ranks with no CPU on their GPU's NUMA node: {len(far)} of {len(everybody)}, first rank {first.rank} on "
            f"{first.host} (CPUs on NUMA node {cpus}, GPU {first.bus} on {first.numa.gpu})"
        )
        mates = sorted((facts for facts in everybody if facts.host == first.host), key=lambda facts: facts.local_rank)
        nodes = ",".join(str(max(facts.numa.gpu, 0)) for facts in mates)
        return Finding(NAME, "note", value, f"srun --cpu-bind=map_ldom:{nodes} on whole nodes, or mpirun -bind-to none")
    if far := [facts for facts in placed if facts.numa.left_out]:
        value = f"{far[0].numa.left_out}, the network card on the NUMA node of rank {far[0].rank}'s GPU"
        return Finding(NAME, "note", value, "unset it: by itself NCCL takes the card nearest to each GPU")
    return Finding(NAME, "ok", "each rank has CPUs on its GPU's NUMA node")
