"""Who brings which file to which nodes."""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc_train.data.staging.manifest import Source
from hpc_train.parallel.mpi import Alone
from hpc_train.parallel.world import node_name

# A file costs as much as these bytes, whatever its size: to open, to rename, to record.
_FILE_COST = 2**16


@dataclass(frozen=True)
class Nodes:
    """Where the ranks are."""

    name: str
    """Of this rank's node."""
    mine: int
    """This rank's node among the nodes, which are numbered by their first ranks."""
    local: int
    """This rank among those of its node."""
    ranks: list[int]
    """How many ranks each node has."""


def find_nodes(comm) -> Nodes:
    """Group the ranks by HPC_TRAIN_NODE, or else by host name. Collective."""
    name = node_name()
    names = comm.allgather(name)
    ranks = Counter(names)
    return Nodes(name, list(ranks).index(name), names[: comm.rank].count(name), list(ranks.values()))


def deal(sizes: Sequence[int], count: int) -> np.ndarray:
    """For each file one of `count` takers, the largest first, each to who has the fewest bytes so far."""
    loads = [(0, taker) for taker in range(count)]
    takers = np.zeros(len(sizes), int)
    for number in np.argsort(-np.asarray(sizes, np.int64), kind="stable"):
        load, taker = loads[0]
        takers[number] = taker
        heapq.heapreplace(loads, (load + int(sizes[number]) + _FILE_COST, taker))
    return takers


class Share:
    """What this rank does about the files that nodes lack.

    Attributes:
        lane: communicator of the ranks that move the same files: one of each node that lacks any; to be freed.
        sources: the lane's files.
        owners: for each of them, the rank of the lane that reads it.
        wanted: for each of them, whether this node lacks it.
    """

    def __init__(self, sources: list[Source], lacking: np.ndarray, part: bool, nodes: Nodes, comm):
        """Deal the files; collective.

        Args:
            sources: all files.
            lacking: (files,) bool: which of them this node is to get.
            part: every file is for one node alone, so each rank is a lane by itself.
            nodes: where the ranks are.
            comm: all ranks.
        """
        if part:
            self.lane, wanted, takers = Alone(), lacking, {nodes.mine}
        else:
            wanted = comm.allreduce(lacking, op=np.logical_or)
            takers = {node for node in comm.allgather(nodes.mine if lacking.any() else None) if node is not None}
        lanes = min((nodes.ranks[node] for node in takers), default=0)
        inside = nodes.mine in takers and nodes.local < lanes
        if not part:
            self.lane = comm.Split(nodes.local if inside else lanes, comm.rank)
        chosen = np.flatnonzero(wanted) if inside else np.zeros(0, int)
        sizes = np.array([sources[i].size for i in chosen], np.int64)
        # Owners are numbered nodes first, so that few files, too, are read by many nodes.
        owners = deal(sizes, lanes * len(takers))
        largest_first = np.argsort(-sizes, kind="stable")
        own = largest_first[owners[largest_first] // max(1, len(takers)) == nodes.local]
        self.sources = [sources[i] for i in chosen[own]]
        self.owners = (owners[own] % max(1, len(takers))).tolist()
        self.wanted = lacking[chosen[own]].tolist()
