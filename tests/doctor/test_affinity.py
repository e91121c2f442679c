"""What the doctor finds about ranks, GPUs and network cards on the NUMA nodes of made-up machines."""

import dataclasses
from pathlib import Path

import pytest
from test_doctor_ranks import rank
from test_network import infiniband, machine, slingshot

from hpc_train.doctor import affinity, network
from hpc_train.doctor.facts import Facts, Numa

# A node as Perlmutter's: four NUMA nodes of 16 cores with two threads each, and the GPUs in reverse order.
CORES = {node: f"{16 * node}-{16 * node + 15},{64 + 16 * node}-{64 + 16 * node + 15}" for node in range(4)}
BUSES = {"0000:03:00.0": 3, "0000:41:00.0": 2, "0000:82:00.0": 1, "0000:C1:00.0": 0}


def node(root: Path) -> Path:
    files = {f"sys/devices/system/node/node{number}/cpulist": f"{cpus}\n" for number, cpus in CORES.items()}
    files |= {f"sys/bus/pci/devices/{bus.lower()}/numa_node": f"{numa}\n" for bus, numa in BUSES.items()}
    return machine(root, files | {"sys/devices/system/node/online": "0-3\n"})


def mask(*cpus: int) -> int:
    return sum(1 << cpu for cpu in cpus)


def ranks(root: Path, masks: list[int], nodes: int = 1, **env: str) -> list[Facts]:
    """Four ranks on each of these nodes, each with a GPU of its own, in the order of the bus ids."""
    return [
        rank(number, nodes, 4 * nodes, bus=bus, numa=affinity.look(bus, masks[number % 4], root, env))
        for number in range(4 * nodes)
        for bus in [list(BUSES)[number % 4]]
    ]


@pytest.mark.parametrize(
    "masks",
    [
        [mask(*range(48, 64)), mask(*range(32, 48)), mask(*range(16, 32)), mask(*range(16))],  # as LUMI's masks
        [mask(127), mask(100), mask(16), mask(0)],  # the second thread of a core is on its NUMA node
        [(1 << 128) - 1] * 4,  # not bound
    ],
)
def test_ranks_with_cpus_near_their_gpus_are_ok(tmp_path, masks):
    found = affinity.judge(ranks(node(tmp_path), masks))
    assert (found.verdict, found.remedy) == ("ok", "")


def test_ranks_far_from_their_gpus_are_noted_once_with_the_option_that_puts_them_near(tmp_path):
    masks = [mask(*range(16 * number, 16 * number + 16)) for number in range(4)]
    found = affinity.judge(ranks(node(tmp_path), masks, nodes=2))
    assert found.verdict == "note"
    assert found.value == (
        "ranks with no CPU on their GPU's NUMA node: 8 of 8, first rank 0 on node1 "
        "(CPUs on NUMA node 0, GPU 0000:03:00.0 on 3)"
    )
    assert "srun --cpu-bind=map_ldom:3,2,1,0 " in found.remedy
    # Ranks 1 and 2 are where they should be.
    masks[1], masks[2] = masks[2], masks[1]
    found = affinity.judge(ranks(node(tmp_path), masks))
    assert "NUMA node: 2 of 4, first rank 0 " in found.value
    assert "map_ldom:3,2,1,0 " in found.remedy


def test_nothing_is_said_where_nothing_is_known(tmp_path):
    root, anywhere = node(tmp_path), mask(0)
    assert affinity.look(None, anywhere, root, {}) == Numa((0,))
    assert affinity.judge([rank(0)]) is None
    assert affinity.judge([rank(0, bus="0000:03:00.0", numa=affinity.look(None, anywhere, root, {}))]) is None
    machine(root, {"sys/bus/pci/devices/0000:05:00.0/numa_node": "-1\n"})
    assert affinity.look("0000:05:00.0", anywhere, root, {}).gpu == -1
    assert affinity.look("0000:99:00.0", anywhere, root, {}).gpu == -1
    assert affinity.look("0000:03:00.0", anywhere, tmp_path / "absent", {}) == Numa()
    # GH200 and others have NUMA nodes of memory alone: no CPU is near these.
    machine(root, {"sys/devices/system/node/node4/cpulist": "\n", "sys/bus/pci/devices/0000:06:00.0/numa_node": "4\n"})
    assert affinity.look("0000:06:00.0", anywhere, root, {}).gpu == -1


@pytest.mark.parametrize(
    ("make", "choice", "card"),
    [(infiniband, {"NCCL_IB_HCA": "=mlx5_0"}, "mlx5_1"), (slingshot, {"FI_CXI_DEVICE_NAME": "cxi0"}, "cxi1")],
)
def test_a_variable_that_leaves_out_the_card_nearest_to_a_gpu_is_noted(tmp_path, make, choice, card):
    masks = [(1 << 128) - 1] * 4
    root = make(node(tmp_path), 3, 1)
    assert affinity.judge(ranks(root, masks)).verdict == "ok"
    found = affinity.judge(ranks(root, masks, **choice))
    name, value = next(iter(choice.items()))
    assert (found.verdict, found.value.startswith(f"{name}={value} leaves out {card}, ")) == ("note", True)
    assert "rank 2's GPU" in found.value
    # The cores matter more.
    far = dataclasses.replace(rank(0, 1, 4), bus="0000:03:00.0", numa=affinity.look("0000:03:00.0", 1, root, choice))
    assert "map_ldom" in affinity.judge([far]).remedy


def test_the_numa_node_of_a_card_is_read_from_its_device(tmp_path):
    assert [card.numa for card in network.cards(infiniband(tmp_path / "ib", 3, -1))] == [3, -1]
    assert [card.numa for card in network.cards(slingshot(tmp_path / "cxi", 2))] == [2]
