"""Published scaling, predicted from published figures of the machines; nothing is fitted.

Speeds of one GPU, gradients (4 bytes a parameter) and links come from other sources than the efficiencies, except the
FP32 speeds of Kurth et al., which are those of single GPUs. What each row assumes:

* Horovod: Sergeev and Del Balso, "Horovod: fast and easy distributed deep learning in TensorFlow", arXiv 1802.05799,
  2018: servers of 4 Pascal GPUs on 25 Gbit/s with RoCE, batch 64. The efficiencies are those of Horovod's README: 90,
  90 and 68 % at 512 GPUs since May 2018 (commit 8318a898), 90, 90 and 79 % at 128 GPUs before; those at 16 GPUs (RDMA
  and NCCL) and the speed of one GPU are of September 2017 (commit d54e3a88), measured on such servers: Inception V3
  134.4, ResNet-101 119.4, VGG-16 130.9 images/s. NCCL 2 made one ring through all GPUs. The fusion buffer had 64 MiB; a
  larger tensor travels alone. Of VGG-16's gradients 89 % are those of its three dense layers, which the backward pass
  reaches first. Of the wire, a ring of NCCL's gets 86 %: 2.50 s for the 335 million parameters of BERT-Large over 10
  GbE (Horovod's pull request 3608). Within a server PCIe 3, 12 GB/s, is never the slower one.
* Kurth et al., "Exascale Deep Learning for Climate Analytics", SC18: Tiramisu on Piz Daint, one P100 a node, 1.20
  samples/s on one GPU; DeepLabv3+ on Summit, 6 V100 a node, 0.87 samples/s in FP32, lag 1, NCCL within nodes and MPI
  between them; batch 1. The speeds, and lag 1 of that run, are recalled from the paper and not read again for this.
  Parameters are those of this suite's networks. Summit: two EDR ports a node, 25 GB/s; NVLink, 50 GB/s between two
  GPUs. Piz Daint: what Horovod 0.15.1 over MPI exposed there with ResNet-50 on 128 nodes, 232 ms of a step for 102 MB
  (the pages of Sarus, chapter on TensorFlow and Horovod, from its chart): 0.88 GB/s a node, where Aries has 10.
* Latencies: NCCL's own tuning model (`src/graph/tuning.cc` of version 2.5, ring, protocol Simple): 6.6 us a hop
  through the network, 5.7 us through PCIe, 5.7 us through NVLink (later versions: 9.6 to 14, 5.7 and 3.4); MPI 2 us.
* The slowest GPU: two predictions, one without any spread and one with a standard deviation of 1.5 % in a normal law.
  Sinha et al., "Not All GPUs Are Created Equal" (SC22, arXiv 2208.11035) found that GPUs of one kind in one cluster
  differ by 8 % on average, in five clusters, Summit among them. Taken as the range of the whiskers in a box plot, that
  is 5.4 standard deviations.

What it shows: bandwidth, overlap and the slowest GPU explain nine of eleven rows to 0.04. Two are missed:

* VGG-16 fell from 79 to 68 % between 128 and 512 GPUs, where a ring moves the same number of bytes through each link
  and its pieces, 0.8 MB, still take 40 times a hop's latency. No published bandwidth says so much: it would have to
  fall by a sixth between the two sizes. Horovod of that time looked for tensors every 5 ms and reduced what it found by
  itself: fifteen rings in place of three would give 0.68, but then Inception V3 and ResNet-101 would have 0.74 and
  0.69.
* Tiramisu lost 222 ms of a step; the slowest GPU accounts for 46 and the measured all-reduce for 68. Input does not:
  the authors' scripts staged it in memory. Rank 0 of Horovod took a message of every rank for each of 141 tensors,
  whose time nobody published for this size. And 21.0 PF/s are 0.89 of 1.20 samples/s by the 3.7 TF of the scripts'
  network, with four channels, and 0.79 by the 4.19 TF of the one with sixteen.

`needed` is the spread that would explain a whole loss.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from hpc_train.bench.step_model import spread
from hpc_train.bench.step_model.job import Job
from hpc_train.bench.step_model.network import Link, Network
from hpc_train.units import MIB

SPREAD = 0.015
_PCIE = Link(5.7e-6, 1 / 12e9)

_UBER = Network(Link(6.6e-6, 8 / 25e9 / 0.86), _PCIE, ranks_per_node=4, algorithm="ring")
_PIZ_DAINT = Network(Link(2e-6, 1 / 0.88e9), algorithm="tree")
_SUMMIT = Network(Link(2e-6, 1 / 25e9), Link(5.7e-6, 1 / 50e9), 6, "tree", hierarchical=True)


@dataclass(frozen=True)
class Row:
    """One published efficiency."""

    source: str
    network_name: str
    ranks: int
    efficiency: float
    """As published."""
    job: Job
    network: Network


def _fused(samples: int, rate: float, parameters: float, lag: int = 0) -> Job:
    """A step of `samples` at `rate` samples/s, its gradients in buffers of 64 MiB."""
    size = 4 * parameters
    return Job.even(samples / rate, size, -int(-size // (64 * MIB)), lag)


def _vgg16() -> Job:
    # fc8 and fc7, then fc6, then all convolutions. The dense layers have less than 1 % of the operations.
    dense, largest, convolutions = 4 * (4.097e6 + 16.781e6), 4 * 102.765e6, 4 * 14.715e6
    return Job(64 / 130.9, (dense, largest, convolutions), (0.01, 0.02, 1.0))


def _at(*efficiencies: float) -> Iterator[tuple[int, float]]:
    return zip((16, 128, 512), efficiencies, strict=True)


_HOROVOD = "Sergeev and Del Balso 2018"
_KURTH = "Kurth et al. 2018"
ROWS = (
    *(
        Row(_HOROVOD, "Inception V3", ranks, e, _fused(64, 134.4, 23.85e6), _UBER)
        for ranks, e in _at(0.941, 0.90, 0.90)
    ),
    *(Row(_HOROVOD, "ResNet-101", ranks, e, _fused(64, 119.4, 44.7e6), _UBER) for ranks, e in _at(0.914, 0.90, 0.90)),
    *(Row(_HOROVOD, "VGG-16", ranks, e, _vgg16(), _UBER) for ranks, e in _at(0.853, 0.79, 0.68)),
    Row(_KURTH, "Tiramisu", 5300, 0.790, _fused(1, 1.20, 7.505e6), _PIZ_DAINT),
    Row(_KURTH, "DeepLabv3+", 27360, 0.907, _fused(1, 0.87, 43.77e6, lag=1), _SUMMIT),
)


def table() -> list[dict]:
    """Compare the published efficiencies with predictions.

    Returns:
        For each row: source, network, ranks, published; predicted, without spread; nothing_hidden, the same without
        overlap; with_spread, with SPREAD; difference, with_spread less published; needed, the spread with which the
        prediction equals the published value, or None if the prediction is lower without any spread.
    """
    return [_compared(row) for row in ROWS]


def _compared(row: Row) -> dict:
    job, slowest = row.job, spread.factor("normal", row.ranks)
    exposed = job.exposed(row.network, row.ranks)
    waiting = SPREAD * slowest * job.compute
    needed = (job.compute / row.efficiency - job.compute - exposed) / job.compute / slowest
    with_spread = job.compute / (job.compute + waiting + exposed)
    return {
        "source": row.source,
        "network": row.network_name,
        "ranks": row.ranks,
        "published": row.efficiency,
        "predicted": job.compute / (job.compute + exposed),
        "with_spread": with_spread,
        "difference": with_spread - row.efficiency,
        "nothing_hidden": job.compute / (job.compute + job.communication(row.network, row.ranks)),
        "needed": needed if needed >= 0 else None,
    }
