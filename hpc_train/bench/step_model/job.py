"""The work of a rank in a step: it computes, and sends its gradients in buckets."""

import math
from dataclasses import dataclass, replace

import numpy as np

from hpc_train.bench.step_model.network import Network
from hpc_train.units import MIB

# In each layer, the backward pass computes two products of the size of the forward pass's: by inputs, and by weights.
BACKWARD = 2 / 3


@dataclass(frozen=True)
class Job:
    """One step of a rank, as the network sees it.

    The gradients travel in buckets, one all-reduce after another, each as soon as the last gradient of its bucket is
    ready. So only the all-reduces that end after the backward pass make the step longer; the last bucket's always does.
    With lag 1, all buckets are ready when the step begins, and only the part that takes longer than the computation of
    the whole step counts (Kurth et al. 2018, "Gradient lag").

    Two effects are not in the model. An all-reduce takes cores or memory bandwidth from the computation beside it: on
    CPUs, less is hidden. And Horovod joins buckets that are ready at the same time.
    """

    compute: float
    """s of computation, mean over ranks."""
    buckets: tuple[float, ...]
    """Bytes that a rank gives to each all-reduce, in their order."""
    ready: tuple[float, ...]
    """For each bucket, the share of the backward pass after which it is complete."""
    lag: int = 0
    """Steps from a gradient to its use, 0 or 1."""

    @classmethod
    def even(cls, compute: float, bytes_: float, buckets: int = 1, lag: int = 0) -> "Job":
        """Buckets of equal size that are ready at equal distances, for when only their number is known."""
        shares = tuple((number + 1) / buckets for number in range(buckets))
        return cls(compute, (bytes_ / buckets,) * buckets, shares, lag)

    @property
    def bytes(self) -> float:
        """Bytes of all buckets."""
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
        # The bucket that delays the end most begins as soon as it is ready; all after it follow without a pause.
        return max(0.0, float((begin + costs[::-1].cumsum()[::-1]).max()))

    def compressed(self, factor: float) -> "Job":
        """The same job with `factor` times the bytes: 1/2 if float32 gradients travel as float16 or bfloat16."""
        return replace(self, buckets=tuple(factor * size for size in self.buckets))

    def _costs(self, network: Network, ranks: int) -> np.ndarray:
        return network.allreduce(np.asarray(self.buckets, float), ranks) + network.coordination(ranks)


def buckets_of(parameter_bytes: float, bucket_mib: float) -> int:
    """The number of all-reduces in a step: the bytes of the gradients before compression, over those of a bucket."""
    return max(1, math.ceil(parameter_bytes / (bucket_mib * MIB)))
