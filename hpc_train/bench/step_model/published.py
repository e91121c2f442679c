"""Published scaling, predicted from published figures of the machines; nothing is fitted.

Speeds of one GPU, gradients (4 bytes a parameter) and links come from other sources than the efficiencies, except the
FP32 speeds of Kurth et al., which are those of single GPUs. What each row assumes:

* Horovod: Sergeev and Del Balso, "Horovod: fast and easy distributed deep learning in TensorFlow", arXiv 1802.05799,
  2018: servers of 4 Pascal GPUs on 25 Gbit/s with RoCE, batch 64. 90, 90 and 68 % at 512 GPUs are in Horovod's README
  today, 90, 90 and 79 % at 128 GPUs in earlier ones. NCCL 2 made one ring through all GPUs. One P100: "Benchmarks" of
  TensorFlow's documentation (May 2017; synthetic data, batch 64): Inception V3 142 and VGG-16 154 images/s. ResNet-101
  is not in it; its speed is interpolated between ResNet-50 (219) and ResNet-152 (91.8) by GFLOP in a forward pass (7.8
  between 4.1 and 11.5). The fusion buffer had 64 MiB; a larger tensor travels alone. Of VGG-16's gradients 89 % are
  those of its three dense layers, which the backward pass reaches first. Bandwidth is that of the wire, 25 Gbit/s,
  which no protocol reaches; within a server that of PCIe 3, 12 GB/s, which is never the slower one. The paper gives no
  bandwidth for plain TCP, so its lower speed is not predicted.
* Kurth et al., "Exascale Deep Learning for Climate Analytics", SC18: Tiramisu on Piz Daint, one P100 a node, 1.20
  samples/s on one GPU; DeepLabv3+ on Summit, 6 V100 a node, 0.87 samples/s in FP32, lag 1, NCCL within nodes and MPI
  between them; batch 1. The speeds, and lag 1 of that run, are recalled from the paper and not read again for this.
  Parameters are those of this suite's networks. Summit: two EDR ports a node, 25 GB/s; NVLink, 50 GB/s between two
  GPUs. Piz Daint: Aries, 10 GB/s a node (Faanes et al., "Cray Cascade", SC12, recalled).
* Latencies: NCCL's own tuning model (`src/graph/tuning.cc` of version 2.5, ring, protocol Simple): 6.6 us a hop
  through the network, 5.7 us through PCIe, 5.7 us through NVLink (later versions: 9.6 to 14, 5.7 and 3.4); MPI 2 us.
* The slowest GPU: two predictions, one without any spread and one with a standard deviation of 1.5 % in a normal law.
  Sinha et al., "Not All GPUs Are Created Equal" (SC22, arXiv 2208.11035) found that GPUs of one kind in one cluster
  differ by 8 % on average, in five clusters, Summit among them. Taken as the range of the whiskers in a box plot, that
  is 5.4 standard deviations.

What it shows: bandwidth and overlap alone explain Horovod's 90 % to a few points. They do not explain why VGG-16 fell
from 79 to 68 % between 128 and 512 GPUs: a ring moves the same number of bytes through each link at both sizes. On
Summit and Piz Daint the network is so fast that its cost does not show. By this model, what was lost there is waiting:
for the slowest GPU, node or input. `needed` is the spread that would explain the whole loss.
"""

from dataclasses import dataclass

from hpc_train.bench.step_model import spread
from hpc_train.bench.step_model.job import Job
from hpc_train.bench.step_model.network import Link, Network
from hpc_train.units import MIB

SPREAD = 0.015
_PCIE = Link(5.7e-6, 1 / 12e9)

_UBER = Network(Link(6.6e-6, 8 / 25e9), _PCIE, ranks_per_node=4, algorithm="ring")
_PIZ_DAINT = Network(Link(2e-6, 1 / 10e9), algorithm="tree")
_SUMMIT = Network(Link(2e-6, 1 / 25e9), Link(5.7e-6, 1 / 50e9), 6, "tree", hierarchical=True)

_RESNET_101 = 1 / (1 / 219 + (1 / 91.8 - 1 / 219) * (7.8 - 4.1) / (11.5 - 4.1))


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
    return Job(64 / 154, (dense, largest, convolutions), (0.01, 0.02, 1.0))


_HOROVOD = "Sergeev and Del Balso 2018"
_KURTH = "Kurth et al. 2018"
ROWS = (
    Row(_HOROVOD, "Inception V3", 128, 0.90, _fused(64, 142, 23.85e6), _UBER),
    Row(_HOROVOD, "Inception V3", 512, 0.90, _fused(64, 142, 23.85e6), _UBER),
    Row(_HOROVOD, "ResNet-101", 128, 0.90, _fused(64, _RESNET_101, 44.7e6), _UBER),
    Row(_HOROVOD, "ResNet-101", 512, 0.90, _fused(64, _RESNET_101, 44.7e6), _UBER),
    Row(_HOROVOD, "VGG-16", 128, 0.79, _vgg16(), _UBER),
    Row(_HOROVOD, "VGG-16", 512, 0.68, _vgg16(), _UBER),
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
