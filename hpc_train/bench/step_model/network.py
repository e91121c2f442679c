"""The cost of an all-reduce, by latency and bandwidth of the links between ranks."""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Algorithm = Literal["ring", "tree"]


@dataclass(frozen=True)
class Link:
    """A message of n bytes takes latency + n * byte_time (Hockney 1994; alpha and beta elsewhere)."""

    latency: float
    """s."""
    byte_time: float
    """s for a byte: 1 / bandwidth."""

    @property
    def bandwidth(self) -> float:
        """Bytes/s; infinite if bytes cost nothing."""
        return 1 / self.byte_time if self.byte_time > 0 else math.inf


@dataclass(frozen=True)
class Network:
    """Nodes with the same number of ranks, equal links between nodes, and equal links within each.

    The algorithms, for n bytes over N ranks:

    ring: 2 (N - 1) messages of n / N bytes one after another (Patarasuk and Yuan 2009). Over several nodes, the ring
        enters and leaves each node once. So for each node 2 messages go between nodes, and the others within; the
        slower link sets the pace of the bytes. Gloo uses a ring, and NCCL used it everywhere before version 2.4.
    tree: recursive halving, then doubling: 2 log2(N) messages and the same number of bytes (Rabenseifner; Thakur et al.
        2005, "Allreduce"). MPI libraries use it for long vectors. If N is no power of two, log2 is rounded up.
    hierarchical: reduce-scatter within each node, all-reduce between nodes by one of the two, all-gather within
        (HOROVOD_HIERARCHICAL_ALLREDUCE). The ranks of a node send their parts between nodes at the same time, over one
        link. MPI's tree over several nodes is assumed to cost the same.
    """

    between: Link
    """Between nodes, for all ranks of a node together."""
    within: Link | None = None
    """Between two ranks of a node; None: as between nodes."""
    ranks_per_node: int = 1
    """On a full node."""
    algorithm: Algorithm = "ring"
    """Between nodes, or over all ranks if they are on one node."""
    hierarchical: bool = False
    """Reduce within nodes before anything goes between them."""
    wait: float = 0.0
    """s that an all-reduce waits for Horovod's next cycle."""

    def allreduce(self, bytes_, ranks: int):
        """Seconds of an all-reduce; 0 on one rank.

        Args:
            bytes_: of the message, a number or an array.
            ranks: how many.
        """
        if ranks == 1:
            return np.zeros_like(bytes_, float)
        within = self.within or self.between
        nodes = math.ceil(ranks / self.ranks_per_node)
        if nodes == 1:
            return _one_level(within, self.algorithm, bytes_, ranks)
        if self.algorithm == "ring" and not self.hierarchical:
            hops, crossing = 2 * (ranks - 1), 2 * nodes if self.ranks_per_node > 1 else 2 * (ranks - 1)
            latency = crossing * self.between.latency + (hops - crossing) * within.latency
            slower = max(self.between.byte_time, within.byte_time if self.ranks_per_node > 1 else 0)
            return latency + hops / ranks * np.asarray(bytes_) * slower
        inside = _one_level(within, self.algorithm, bytes_, self.ranks_per_node)
        return inside + _one_level(self.between, self.algorithm, bytes_, nodes)

    def coordination(self, ranks: int) -> float:
        """Seconds until all ranks know that a tensor is ready on all of them; 0 on one rank.

        In each cycle, Horovod agrees on the tensors that it knows by two small all-reduces of bits, each of log2(N)
        messages (the response cache; `controller.cc`, `mpi_controller.cc` of 0.28). In the first step, and always in
        versions without the cache, every rank sends the name of every tensor to rank 0. This cost, which grows as N, is
        not included.
        """
        if ranks == 1:
            return 0.0
        within = self.within or self.between
        nodes = math.ceil(ranks / self.ranks_per_node)
        local = min(ranks, self.ranks_per_node)
        return self.wait + 2 * (_log2(nodes) * self.between.latency + _log2(local) * within.latency)


def hops(algorithm: Algorithm, ranks: int) -> int:
    """Messages one after another in an all-reduce over ranks with equal links."""
    return 2 * (ranks - 1) if algorithm == "ring" else 2 * _log2(ranks)


def _one_level(link: Link, algorithm: Algorithm, bytes_, ranks: int):
    return hops(algorithm, ranks) * link.latency + 2 * (ranks - 1) / ranks * np.asarray(bytes_) * link.byte_time


def _log2(ranks: int) -> int:
    return (ranks - 1).bit_length()
