"""What a rank does in a step: computing, and handing over its gradients in buckets."""

import math
from dataclasses import dataclass, replace

import numpy as np

from hpc_train.bench.step_model.network import Network

# The backward pass computes two products of the forward pass's size in each layer: by inputs, and by weights.
BACKWARD = 2 / 3


@dataclass(frozen=True)
class Job:
    """One step of a rank, as the network sees it.

    The gradients go in buckets, one all-reduce after another, each as soon as the last gradient in it is there. So of
    the all-reduces only those count that end after the backward pass, the last bucket's at least. With lag 1 all
    buckets are there when the step begins, and what takes longer than the whole step's computation counts (Kurth et
    al. 2018, "Gradient lag"). That the all-reduce takes cores or memory bandwidth from the computation beside it is not
    modelled: on CPUs that share them, less is hidden. Nor is that Horovod joins buckets that are ready at once.
    """

    compute: float
    """s of computation, mean over ranks."""
    buckets: tuple[float, ...]
    """Bytes that a rank sends into each all-reduce, in their order."""
    ready: tuple[float, ...]
    """For each bucket, the share of the backward pass after which it is complete."""
    lag: int = 0
    """Steps from a gradient to its use, 0 or 1."""

    @classmethod
    def even(cls, compute: float, bytes_: float, buckets: int = 1, lag: int = 0) -> "Job":
        """Buckets of one size that are ready at even distances: where only their number is known."""
        shares = tuple((number + 1) / buckets for number in range(buckets))
        return cls(compute, (bytes_ / buckets,) * buckets, shares, lag)

    @property
    def bytes(self) -> float:
        """Of all buckets."""
        return sum(self.buckets)

    def communication(self, network: Network, ranks: int) -> float:
        """Seconds of all all-reduces of a step, hidden or not."""
        return float(self._costs(network, ranks).sum())

    def exposed(self, network: Network, ranks: int) -> float:
        """Seconds by which all-reduces make a step longer than its computation."""
        costs = self._costs(network, ranks)
        if self.lag:
            return max(0.0, float(costs.sum()) - self.compute)
        begin = (np.asarray(self.ready) - 1) * BACKWARD * self.compute
        # A bucket and all after it go without a pause, after the bucket that held them up most.
        return max(0.0, float((begin + costs[::-1].cumsum()[::-1]).max()))

    def compressed(self, factor: float) -> "Job":
        """The same with `factor` times the bytes: 1/2 where float32 gradients travel as float16 or bfloat16."""
        return replace(self, buckets=tuple(factor * size for size in self.buckets))

    def _costs(self, network: Network, ranks: int) -> np.ndarray:
        return network.allreduce(np.asarray(self.buckets, float), ranks) + network.coordination(ranks)


def buckets_of(parameter_bytes: float, bucket_mib: float) -> int:
    """All-reduces of a step: gradients, in the type that they have before they are compressed, by the bucket's size."""
    return max(1, math.ceil(parameter_bytes / (bucket_mib * 2**20)))
