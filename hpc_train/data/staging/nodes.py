"""Which rank copies which file to which nodes."""

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hpc_train.data.staging.manifest import Source
from hpc_train.parallel.mpi import Alone
from hpc_train.parallel.world import node_name

# Opening, renaming and recording a file costs as much as copying this many bytes.
_FILE_COST = 2**16


@dataclass(frozen=True)
class Nodes:
    """Where the ranks are."""

    name: str
    """Name of this rank's node."""
    mine: int
    """Number of this rank's node; nodes are numbered in the order of their first ranks."""
    local: int
    """Number of this rank among those of its node."""
    ranks: list[int]
    """Number of ranks on each node."""


def find_nodes(comm) -> Nodes:
    """Group the ranks by HPC_TRAIN_NODE, or by host name where that is not set. Collective."""
    name = node_name()
    names = comm.allgather(name)
    ranks = Counter(names)
    return Nodes(name, list(ranks).index(name), names[: comm.rank].count(name), list(ranks.values()))


def deal(sizes: Sequence[int], count: int) -> np.ndarray:
    """Deal files to `count` takers: the largest first, each to the taker with the fewest bytes so far.

    Returns:
        The taker of each file, int (files,).
    """
    loads = [(0, taker) for taker in range(count)]
    takers = np.zeros(len(sizes), int)
    for number in np.argsort(-np.asarray(sizes, np.int64), kind="stable"):
        load, taker = loads[0]
        takers[number] = taker
        heapq.heapreplace(loads, (load + int(sizes[number]) + _FILE_COST, taker))
    return takers


class Share:
    """The files that this rank helps to copy.

    Attributes:
        lane: communicator of the ranks that copy the same files: one of each node that lacks any; the caller frees it.
        sources: the lane's files.
        owners: for each file, the rank of the lane that reads it.
        wanted: for each file, whether this node lacks it.
    """

    def __init__(self, sources: list[Source], lacking: np.ndarray, part: bool, nodes: Nodes, comm):
        """Deal the files; collective.

        Args:
            sources: all files.
            lacking: (files,) bool: whether this node needs each file.
            part: every file is for one node only, so each rank is a lane by itself.
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
        # Owners are numbered across the nodes first, so that many nodes read even when there are few files.
        owners = deal(sizes, lanes * len(takers))
        largest_first = np.argsort(-sizes, kind="stable")
        own = largest_first[owners[largest_first] // max(1, len(takers)) == nodes.local]
        self.sources = [sources[i] for i in chosen[own]]
        self.owners = (owners[own] % max(1, len(takers))).tolist()
        self.wanted = lacking[chosen[own]].tolist()
