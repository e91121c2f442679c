"""What the doctor finds about the network, in made-up trees of /sys and /dev and with real shared libraries."""

import dataclasses
import os
import subprocess
from pathlib import Path

import images
import pytest

from hpc_train.doctor import network

INTERFACES = ("lo", "eth0", "ib0")
compiled = pytest.mark.skipif(not images.COMPILER, reason="no C compiler here")


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in INTERFACES:
        (root / "sys/class/net" / name).mkdir(parents=True, exist_ok=True)
    return root


def infiniband(root: Path, *numa: int, state: str = "4: ACTIVE", layer: str = "InfiniBand") -> Path:
    """A node with cards mlx5_0, mlx5_1, ... on these NUMA nodes, as the kernel describes them."""
    files = {}
    for number, node in enumerate(numa):
        card = f"sys/class/infiniband/mlx5_{number}"
        port = {"state": f"{state}\n", "rate": "200 Gb/sec (4X HDR)\n", "link_layer": f"{layer}\n"}
        files |= {f"{card}/ports/1/{name}": text for name, text in port.items()}
        files |= {f"{card}/device/numa_node": f"{node}\n", f"dev/infiniband/uverbs{number}": ""}
    return machine(root, files)


def slingshot(root: Path, *numa: int) -> Path:
    """A node with cards cxi0, cxi1, ... on these NUMA nodes."""
    files = {f"sys/class/cxi/cxi{number}/device/numa_node": f"{node}\n" for number, node in enumerate(numa)}
    return machine(root, files | {f"dev/cxi{number}": "" for number in range(len(numa))})


@pytest.fixture
def libraries(tmp_path) -> Path:
    """A folder for LD_LIBRARY_PATH with a libibverbs that opens."""
    folder = tmp_path / "lib"
    folder.mkdir()
    library(folder / "libibverbs.so", "")
    return folder


def library(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    source = f'const char *in_it = "{text}";'
    command = [images.COMPILER, "-x", "c", "-shared", "-fPIC", "-o", file, "-"]
    subprocess.run(command, input=source, text=True, check=True)


def found(root: Path, nccl: bool = True, nodes: int = 2, **env: str) -> list[tuple[str, str, str]]:
    findings = network.judge({"node1": network.look(nccl, nodes, root, env)})
    assert all(finding.what == "network" and "\n" not in finding.line for finding in findings)
    return [(finding.verdict, finding.value, finding.remedy) for finding in findings]


def only(findings: list[tuple[str, str, str]], verdict: str, *words: str) -> str:
    """The remedy of the only finding, which has this verdict and these words."""
    assert len(findings) == 1, findings
    assert findings[0][0] == verdict, findings
    assert all(word in findings[0][1] for word in words), findings
    assert bool(findings[0][2]) == (verdict != "ok"), findings
    return findings[0][2]


def test_without_a_fast_card_nothing_is_wrong(tmp_path):
    root = machine(tmp_path, {})
    only(found(root, nccl=False), "ok", "no Slingshot or InfiniBand card")
    only(found(root), "ok", "NCCL: sockets")
    # A card whose port is down is not used.
    only(found(infiniband(tmp_path, 0, state="1: DOWN")), "ok", "NCCL: sockets")
    assert network.cards(tmp_path) == []
    # Nor is one that is not there missed: what keeps others from it says nothing.
    only(found(root, NCCL_IB_DISABLE="1", UCX_TLS="tcp", FI_PROVIDER="tcp", NCCL_NET="Socket"), "ok", "NCCL: sockets")


@compiled
def test_an_infiniband_card_that_nccl_takes_is_ok(tmp_path, libraries):
    root = infiniband(tmp_path, 0, 1)
    found_there = found(root, LD_LIBRARY_PATH=str(libraries))
    only(found_there, "ok", "NCCL: InfiniBand (mlx5_0, mlx5_1: 200 Gb/sec)")
    for choice in ("mlx5_1", "mlx5", "=mlx5_0:1", "^mlx5_0"):
        only(found(root, LD_LIBRARY_PATH=str(libraries), NCCL_IB_HCA=choice, NCCL_NET="IB"), "ok", "NCCL: InfiniBand")
    only(found(root, nccl=False), "ok", "InfiniBand (mlx5_0, mlx5_1: 200 Gb/sec) is up")


@compiled
@pytest.mark.parametrize(
    ("env", "words", "remedy"),
    [
        ({"NCCL_IB_DISABLE": "1"}, "NCCL_IB_DISABLE=1 is set", "NCCL_IB_DISABLE=0"),
        ({"NCCL_NET": "Socket"}, "NCCL_NET=Socket is set", "unset NCCL_NET"),
        ({"NCCL_IB_HCA": "mlx5_7"}, "NCCL_IB_HCA=mlx5_7 leaves them out", "unset NCCL_IB_HCA"),
        ({"NCCL_IB_HCA": "^mlx5"}, "NCCL_IB_HCA=^mlx5 leaves them out", "unset NCCL_IB_HCA"),
        ({"NCCL_IB_HCA": "=mlx5"}, "NCCL_IB_HCA==mlx5 leaves them out", "unset NCCL_IB_HCA"),
    ],
)
def test_variables_that_make_nccl_use_sockets_are_wrong_on_several_nodes(tmp_path, libraries, env, words, remedy):
    root, env = infiniband(tmp_path, 0), {**env, "LD_LIBRARY_PATH": str(libraries)}
    assert remedy in only(found(root, **env), "wrong", "InfiniBand (mlx5_0", "NCCL uses sockets", words)
    only(found(root, nodes=1, **env), "note", words)
    # Without NCCL its variables change nothing.
    only(found(root, nccl=False, **env), "ok", "InfiniBand")
    # On RoCE sockets may well be meant.
    only(found(infiniband(tmp_path, 0, layer="Ethernet"), **env), "ok", "NCCL: sockets (RoCE")


@compiled
def test_nccls_files_are_read_where_the_environment_says_nothing(tmp_path, libraries):
    root = machine(infiniband(tmp_path, 0), {"etc/nccl.conf": "# the site's\nNCCL_IB_DISABLE=1\n\nNCCL_DEBUG=WARN\n"})
    only(found(root, LD_LIBRARY_PATH=str(libraries)), "wrong", "NCCL_IB_DISABLE=1 is set")
    only(found(root, LD_LIBRARY_PATH=str(libraries), NCCL_IB_DISABLE="0"), "ok", "NCCL: InfiniBand")
    machine(tmp_path, {"home/me/.nccl.conf": "NCCL_IB_DISABLE=0"})
    only(found(root, LD_LIBRARY_PATH=str(libraries), HOME="/home/me"), "ok", "NCCL: InfiniBand")


@compiled
def test_a_container_without_the_devices_or_the_library_is_wrong(tmp_path, libraries, monkeypatch):
    root, env = infiniband(tmp_path, 0), {"LD_LIBRARY_PATH": str(libraries)}
    device = root / "dev/infiniband/uverbs0"
    device.unlink()
    monkeypatch.setattr(network, "container", lambda: "")
    assert "administrator" in only(found(root, **env), "wrong", "there is no /dev/infiniband/uverbs*")
    monkeypatch.setattr(network, "container", lambda: "image.sif")
    assert "--contain" in only(found(root, **env), "wrong", "there is no /dev/infiniband/uverbs*")
    device.mkdir()  # what not even root may open to write
    only(found(root, **env), "wrong", "/dev/infiniband/uverbs0 does not open (Is a directory)")
    device.rmdir()
    device.touch(0o000)
    if os.geteuid():
        only(found(root, **env), "wrong", "/dev/infiniband/uverbs0 does not open (Permission denied)")
    for name in ("libibverbs.so", "libibverbs.so.1"):
        (libraries / name).write_text("no library")
    assert "rdma-core" in only(found(root, **env), "wrong", "libibverbs.so.1 does not load")
    # Where sockets are forbidden, NCCL does not fall back to them.
    only(found(root, nodes=1, NCCL_NET="IB", **env), "wrong", "NCCL fails: NCCL_NET=IB, but libibverbs")


@compiled
def test_slingshot_without_the_plugin_for_ofi_is_wrong(tmp_path):
    root, folder = slingshot(tmp_path, 0, 1), tmp_path / "plugins"
    env = {"LD_LIBRARY_PATH": str(folder)}
    found_there = found(root, **env)
    remedy = only(found_there, "wrong", "Slingshot (cxi0, cxi1), but NCCL uses sockets", "5 instead of 123 GB/s")
    assert "aws-ofi-nccl" in remedy
    only(found(root, nodes=1, **env), "note", "(libnccl-net.so) does not load")
    only(found(root, nccl=False, **env), "ok", "Slingshot (cxi0, cxi1) is up")
    # NVIDIA's containers come with a plugin for InfiniBand.
    library(folder / "libnccl-net.so", "IBext_v9")
    only(found(root, **env), "wrong", f"its plugin {folder}/libnccl-net.so is not the one for OFI")
    library(folder / "libnccl-net-ofi.so", "AWS Libfabric")
    only(found(root, NCCL_NET_PLUGIN="ofi", **env), "ok", "(cxi0, cxi1), by its plugin", "/libnccl-net-ofi.so")
    only(found(root, NCCL_NET_PLUGIN=f"{folder}/libnccl-net-ofi.so", **env), "ok", "by its plugin")
    (folder / "libnccl-net.so").unlink()
    only(found(root, **env), "wrong", "(libnccl-net.so) does not load")
    (folder / "libnccl-net.so").symlink_to("libnccl-net-ofi.so")
    only(found(root, **env), "ok", f"by its plugin {folder}/libnccl-net.so")
    assert "NCCL_NET" in only(found(root, NCCL_NET="Socket", **env), "wrong", "NCCL_NET=Socket is set")
    only(found(root, NCCL_NET_PLUGIN="none", **env), "wrong", "(none) does not load")
    only(found(root, NCCL_NET="IB", **env), "wrong", "NCCL fails", "no InfiniBand card")
    for device in root.glob("dev/cxi*"):
        device.unlink()
    only(found(root, **env), "wrong", "there is no /dev/cxi*")


@compiled
def test_a_network_that_no_plugin_has_makes_nccl_fail(tmp_path):
    root, folder = slingshot(tmp_path, 0), tmp_path / "plugins"
    env = {"LD_LIBRARY_PATH": str(folder)}
    only(found(root, nodes=1, NCCL_NET="AWS Libfabric", **env), "wrong", "NCCL fails", "does not load")
    plain = machine(tmp_path / "plain", {})
    only(found(plain, NCCL_NET="AWS Libfabric", **env), "wrong", "NCCL fails")
    library(folder / "libnccl-net.so", "AWS Libfabric")
    # Clouds have networks of their own, of which only their plugin knows.
    for choice in ({}, {"NCCL_NET": "AWS Libfabric"}):
        only(found(plain, **env, **choice), "ok", f"NCCL: its plugin {folder}/libnccl-net.so, or else sockets")
    for name in ("AWS Libfabric", "aws libfabric"):
        only(found(root, NCCL_NET=name, **env), "ok", "NCCL: Slingshot")
    # The quotes that a script put around the name are part of it.
    only(found(root, NCCL_NET="'AWS Libfabric'", **env), "wrong", "has no network of that name")


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"UCX_TLS": "tcp"}, "UCX_TLS=tcp keeps UCX from InfiniBand (mlx5_0"),
        ({"UCX_TLS": "sm,self"}, "UCX_TLS=sm,self keeps"),
        ({"UCX_TLS": "^ib"}, "UCX_TLS=^ib keeps"),
        ({"UCX_NET_DEVICES": "eth0"}, "UCX_NET_DEVICES=eth0 keeps"),
        ({"UCX_NET_DEVICES": "mlx5_3:1"}, "UCX_NET_DEVICES=mlx5_3:1 names nothing that this node has"),
        ({"FI_PROVIDER": "tcp"}, "FI_PROVIDER=tcp keeps libfabric from InfiniBand (mlx5_0"),
        ({"FI_PROVIDER": "sockets,shm"}, "FI_PROVIDER=sockets,shm keeps"),
        ({"FI_PROVIDER": "^verbs"}, "FI_PROVIDER=^verbs keeps"),
        ({"FI_TCP_IFACE": "ib7"}, "FI_TCP_IFACE=ib7 names nothing that this node has (eth0, ib0, lo)"),
        ({"FI_VERBS_IFACE": "hsn"}, "FI_VERBS_IFACE=hsn names nothing"),
    ],
)
def test_variables_that_keep_mpi_from_infiniband_are_worth_a_note(tmp_path, env, words):
    assert f"unset {next(iter(env))}" in only(found(infiniband(tmp_path, 0), nccl=False, **env), "note", words)


@pytest.mark.parametrize(
    "env",
    [
        {"UCX_TLS": "rc,cuda"},
        {"UCX_TLS": "all"},
        {"UCX_TLS": "^tcp"},
        {"UCX_TLS": "ud_x,sm,self"},
        {"UCX_NET_DEVICES": "mlx5_0:1"},
        {"UCX_NET_DEVICES": "mlx5_[0-3]:1"},
        {"UCX_NET_DEVICES": "^eth0"},
        {"UCX_NET_DEVICES": "all"},
        {"FI_PROVIDER": "verbs;ofi_rxm"},
        {"FI_PROVIDER": "mlx"},
        {"FI_PROVIDER": "^tcp"},
        {"FI_TCP_IFACE": "ib0"},
        {"FI_VERBS_IFACE": "ib"},
    ],
)
def test_variables_that_leave_infiniband_in_say_nothing(tmp_path, env):
    only(found(infiniband(tmp_path, 0), nccl=False, **env), "ok", "InfiniBand")


def test_slingshot_needs_libfabrics_provider(tmp_path):
    root = slingshot(tmp_path, 0)
    for provider in ("tcp", "^cxi", "tcp;ofi_rxm"):
        assert "cxi" in only(found(root, nccl=False, FI_PROVIDER=provider), "note", f"FI_PROVIDER={provider} keeps")
    for provider in ("cxi", "lnx", "^tcp"):
        only(found(root, nccl=False, FI_PROVIDER=provider), "ok", "Slingshot")
    only(found(root, nccl=False, FI_CXI_DEVICE_NAME="cxi4"), "note", "FI_CXI_DEVICE_NAME=cxi4 names nothing")
    only(found(root, nccl=False, FI_CXI_DEVICE_NAME="cxi0,cxi1", UCX_TLS="tcp"), "ok", "Slingshot")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("ib0", True),
        ("ib", True),
        ("hsn,ib", True),
        ("=ib0", True),
        ("^docker,lo", True),
        ("ib1", False),
        ("=ib", False),
        ("hsn0", False),
        ("^lo,eth,ib", False),
    ],
)
def test_interfaces_are_named_to_nccl_by_their_beginnings(tmp_path, text, good):
    findings = found(machine(tmp_path, {}), nodes=1, NCCL_SOCKET_IFNAME=text)
    only(findings, *(("ok",) if good else ("wrong", f"NCCL_SOCKET_IFNAME={text} names no interface", "eth0, ib0, lo")))
    only(found(tmp_path, nccl=False, NCCL_SOCKET_IFNAME=text), "ok")


def test_a_problem_of_many_nodes_is_said_once(tmp_path):
    bad = network.look(False, 4, infiniband(tmp_path, 0), {"UCX_TLS": "tcp"})
    good = dataclasses.replace(bad, problems=())
    everywhere = network.judge({f"node{number}": bad for number in range(4)})
    assert [finding.value for finding in everywhere] == [bad.problems[0].value]
    some = network.judge({f"node{number}": bad if number else good for number in range(6)})
    assert [finding.value for finding in some] == [f"node1, node2, node3 and 2 more: {bad.problems[0].value}"]


def test_nodes_with_unlike_cards_are_told_apart(tmp_path):
    up, down = infiniband(tmp_path / "up", 0), infiniband(tmp_path / "down", 0, state="2: INIT")
    places = {f"node{number}": network.look(False, 3, down if number == 2 else up, {}) for number in (1, 2, 3)}
    (finding,) = network.judge(places)
    assert finding.verdict == "note"
    assert "node1, node3: InfiniBand (mlx5_0: 200 Gb/sec) is up; node2: this node has no" in finding.value
