"""The network between nodes: the fast cards of this node, and what keeps NCCL, UCX or libfabric from them."""

import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Literal, NamedTuple

from hpc_train.doctor.container import container
from hpc_train.doctor.facts import Network
from hpc_train.doctor.findings import Finding, some

NAME = "network"
ROOT = Path("/")
SLINGSHOT, INFINIBAND, ROCE = "Slingshot", "InfiniBand", "RoCE"
# UCX's names of transports over InfiniBand, and libfabric's providers that are slow or stay inside a node.
_OVER_INFINIBAND = {"ib", "rc", "ud", "dc", "rc_v", "rc_x", "ud_v", "ud_x", "dc_x"}
_OVER_INFINIBAND |= {"rc_verbs", "rc_mlx5", "ud_verbs", "ud_mlx5", "dc_mlx5"}
_SLOW_PROVIDERS = {"tcp", "sockets", "udp", "net", "shm", "sm2", "ofi_rxm", "ofi_rxd"}
_MODULE = "load the site's module for aws-ofi-nccl (start a container with the site's plugin)"
# Prints the file of the first library that opens; in a process of its own, as what is opened here stays.
_OPEN = """
import ctypes, sys
for name in sys.argv[1:]:
    try:
        handle = ctypes.CDLL(name)._handle
    except OSError:
        continue
    entry = ctypes.c_void_p()
    ctypes.CDLL(None).dlinfo(ctypes.c_void_p(handle), 2, ctypes.byref(entry))
    # The second field of `link_map` is the path.
    print(ctypes.cast(entry.value + 8, ctypes.POINTER(ctypes.c_char_p))[0].decode())
    break
"""


@dataclass(frozen=True)
class Card:
    """A card for a fast network that is up."""

    name: str
    kind: str
    numa: int
    """NUMA node; -1 if it has none or it is not known."""
    rate: str = ""


def cards(root: Path = ROOT) -> list[Card]:
    """The node's Slingshot cards, or else those of InfiniBand and RoCE that have an active port."""
    names = {path.name for place in ("sys/class/cxi", "dev") for path in (root / place).glob("cxi[0-9]*")}
    if names:
        return [Card(name, SLINGSHOT, numa_of(root / "sys/class/cxi" / name / "device")) for name in sorted(names)]
    kinds = {"InfiniBand": INFINIBAND, "Ethernet": ROCE}
    found = {}
    for port in (root / "sys/class/infiniband").glob("*/ports/*"):
        kind, card = kinds.get(read(port / "link_layer")), port.parent.parent
        if kind and read(port / "state").startswith("4:"):
            found[card.name] = Card(card.name, kind, numa_of(card / "device"), read(port / "rate").split(" (")[0])
    # Where there are both, the Ethernet cards are for other things.
    fast = [card for card in found.values() if card.kind == INFINIBAND] or list(found.values())
    return sorted(fast, key=lambda card: card.name)


def read(path: Path) -> str:
    """The text of a file of /sys or /proc; empty if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def numa_of(device: Path) -> int:
    """NUMA node of a device of /sys; -1 if it has none or it is not known."""
    return int(read(device / "numa_node") or -1)


def used(here: list[Card], env: Mapping[str, str]) -> tuple[list[Card], str]:
    """The cards that NCCL may use, and the variable that chooses them, as NAME=VALUE; empty if none does."""
    name = "FI_CXI_DEVICE_NAME" if here and here[0].kind == SLINGSHOT else "NCCL_IB_HCA"
    if not (text := env.get(name, "")):
        return here, ""
    chosen = matched(text, {card.name for card in here}, prefix=name == "NCCL_IB_HCA")
    return [card for card in here if card.name in chosen], f"{name}={text}"


def matched(text: str, names: set[str], prefix: bool) -> set[str]:
    """The names that a list in a variable of NCCL, UCX or libfabric means.

    Args:
        text: `a,b`; `^a,b` means all others, and `=a` of NCCL the whole name; of `a:1`, port 1, the name counts.
        names: of interfaces or cards.
        prefix: whether `a` means all names that begin with it.
    """
    others, text = text.startswith("^"), text.removeprefix("^")
    prefix, text = prefix and not text.startswith("="), text.removeprefix("=")
    patterns = [part.split(":")[0] + "*" * prefix for part in text.split(",") if part]
    found = {name for name in names if any(pattern == "all" or fnmatch(name, pattern) for pattern in patterns)}
    return names - found if others else found


def settings(root: Path = ROOT, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The variables, with those that NCCL reads from its files where the environment has none."""
    own = env.get("NCCL_CONF_FILE") or (env["HOME"] + "/.nccl.conf" if env.get("HOME") else "")
    both = dict(env)
    for file in (root / own.lstrip("/"), root / "etc/nccl.conf"):
        for line in read(file).splitlines():
            name, equals, value = line.partition("=")
            if equals and not line.startswith("#"):
                both.setdefault(name, value)
    return both


def look(nccl: bool, nodes: int, root: Path = ROOT, env: Mapping[str, str] = os.environ) -> Network:
    """The network as this node sees it.

    Args:
        nccl: whether Horovod sums with NCCL.
        nodes: number of nodes of the job: on one, slow sockets do no harm yet.
        root: the folder that holds sys, dev and etc.
        env: environment variables.
    """
    env, here = settings(root, env), cards(root)
    interfaces = {path.name for path in (root / "sys/class/net").glob("*")}
    kind = here[0].kind if here else ""
    slow: Literal["note", "wrong"] = "wrong" if nodes > 1 else "note"
    takes = f"{_text(here)} is up" if here else "this node has no Slingshot or InfiniBand card that is up"
    problems = []
    if nccl:
        choice = _nccl(here, interfaces, root, env)
        if choice.fails:
            problems.append(Finding(NAME, "wrong", f"NCCL fails: {choice.reason}", choice.how))
        elif choice.reason and kind in (SLINGSHOT, INFINIBAND):
            measured = "; at CSCS that was 5 instead of 123 GB/s" if kind == SLINGSHOT else ""
            value = f"{_text(here)}, but NCCL uses sockets: {choice.reason}{measured}"
            problems.append(Finding(NAME, slow, value, choice.how))
        sockets, plugin = f"sockets ({takes})", f"its plugin {choice.plugin}"
        if choice.plugin and not here:
            takes = f"NCCL: {plugin}, or else {sockets}"
        else:
            by = f", by {plugin}" if choice.plugin else ""
            takes = f"NCCL: {sockets if choice.reason else _text(here) + by}"
    for value, how in [*_absent(here, interfaces, env), *_left_out(here, interfaces, env)]:
        # NCCL's plugin for Slingshot asks libfabric, too.
        too = nccl and kind == SLINGSHOT and value.startswith("FI_PROVIDER")
        problems.append(Finding(NAME, slow if too else "note", value, how))
    return Network(kind, takes, tuple(problems))


def _text(here: list[Card]) -> str:
    rates = sorted({card.rate for card in here if card.rate})
    return f"{here[0].kind} ({some([card.name for card in here])}{': ' if rates else ''}{', '.join(rates)})"


class _Choice(NamedTuple):
    """What NCCL does on this node."""

    plugin: str = ""
    reason: str = ""
    """Why it does not use the cards."""
    how: str = ""
    fails: bool = False


def _nccl(here: list[Card], interfaces: set[str], root: Path, env: Mapping[str, str]) -> _Choice:
    name, chosen = env.get("NCCL_SOCKET_IFNAME", ""), env.get("NCCL_NET", "")
    kind = here[0].kind if here else ""
    if len(name) > 1 and interfaces and not matched(name, interfaces, prefix=True):
        reason = f"NCCL_SOCKET_IFNAME={name} names no interface of this node ({some(sorted(interfaces))})"
        return _Choice("", reason, "unset it, or name the interfaces that connect the nodes", fails=True)
    if chosen.lower() == "ib":
        reason, how = _over_infiniband(here, root, env)
        return _Choice("", reason and f"NCCL_NET=IB, but {reason}", how, fails=bool(reason))
    if chosen.lower() == "socket":
        return _Choice("", "NCCL_NET=Socket is set", "unset NCCL_NET")
    asked = env.get("NCCL_NET_PLUGIN") or "libnccl-net.so"
    names = [name for part in asked.split(",") for name in (part, f"libnccl-net-{part}.so")]
    plugin = "" if asked.lower() == "none" else _opened(names, env)
    content = Path(plugin).read_bytes().lower() if plugin else b""
    if chosen and chosen.lower().encode() + b"\0" not in content:
        lacks = f"the plugin {plugin} has no network of that name" if plugin else f"its plugin ({asked}) does not load"
        return _Choice("", f"NCCL_NET={chosen}, but {lacks}", f"unset NCCL_NET, or {_MODULE}", fails=True)
    if kind == SLINGSHOT and b"libfabric" not in content:
        reason = f"its plugin {plugin} is not the one for OFI" if plugin else f"its OFI plugin ({asked}) does not load"
        how = f"{_MODULE}, or put the folder of libnccl-net-ofi.so on LD_LIBRARY_PATH and export NCCL_NET_PLUGIN=ofi"
        return _Choice("", reason, how)
    if plugin:
        return _Choice(plugin, *(_closed(root, "dev/cxi*") if kind == SLINGSHOT else ()))
    return _Choice("", *_over_infiniband(here, root, env))


def _over_infiniband(here: list[Card], root: Path, env: Mapping[str, str]) -> tuple[str, str]:
    """Why NCCL by itself does not use InfiniBand or RoCE here, and what to do; empty if it does."""
    disabled, (chosen, variable) = env.get("NCCL_IB_DISABLE", "0"), used(here, env)
    if not here or here[0].kind == SLINGSHOT:
        return "this node has no InfiniBand card that is up", "unset NCCL_NET"
    if disabled.isdigit() and int(disabled):
        return f"NCCL_IB_DISABLE={disabled} is set", "export NCCL_IB_DISABLE=0"
    if not chosen:
        return f"{variable} leaves them out", "unset NCCL_IB_HCA"
    if not _opened([env.get("NCCL_IBVERBS_LIB", ""), "libibverbs.so", "libibverbs.so.1"], env):
        return "libibverbs.so.1 does not load", "install rdma-core (Debian: libibverbs1 ibverbs-providers)"
    return _closed(root, "dev/infiniband/uverbs*")


def _closed(root: Path, pattern: str) -> tuple[str, str]:
    """Why none of these devices opens, and what to do; empty if one does."""
    reason = f"there is no /{pattern}"
    for path in sorted(root.glob(pattern)):
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
            return "", ""
        except OSError as error:
            reason = f"/{path.relative_to(root)} does not open ({error.strerror})"
    folder = "/" + os.path.dirname(pattern)
    if container():
        return reason, f"start the container with the devices of {folder} (Docker: --device; Apptainer: no --contain)"
    return reason, f"ask the administrator why the devices in {folder} are closed to you"


def _absent(here: list[Card], interfaces: set[str], env: Mapping[str, str]) -> list[tuple[str, str]]:
    """Variables of UCX and libfabric that name only interfaces or cards that are not there, and what to do."""
    names = {card.name for card in here}
    lists = dict.fromkeys(("FI_TCP_IFACE", "FI_SOCKETS_IFACE", "FI_VERBS_IFACE"), interfaces)
    lists["UCX_NET_DEVICES"] = interfaces | names
    if here and here[0].kind == SLINGSHOT:
        lists["FI_CXI_DEVICE_NAME"] = names
    return [
        (f"{name}={env[name]} names nothing that this node has ({some(sorted(there))})", f"unset {name}")
        for name, there in lists.items()
        if interfaces and env.get(name) and not matched(env[name], there, prefix=name == "FI_VERBS_IFACE")
    ]


def _left_out(here: list[Card], interfaces: set[str], env: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Variables that keep MPI by UCX or libfabric from the fast cards, and what to do."""
    own = {SLINGSHOT: "cxi", INFINIBAND: "verbs"}.get(here[0].kind if here else "")
    providers, transports = env.get("FI_PROVIDER", ""), env.get("UCX_TLS", "all")
    listed = {*providers.removeprefix("^").lower().replace(";", ",").split(",")}
    if own and providers and (own in listed if providers.startswith("^") else listed <= _SLOW_PROVIDERS):
        yield f"FI_PROVIDER={providers} keeps libfabric from {_text(here)}", f"unset FI_PROVIDER, or let it be {own}"
    if own != "verbs":
        return
    names, devices = {card.name for card in here}, env.get("UCX_NET_DEVICES", "all")
    if (found := matched(devices, interfaces | names, prefix=False)) and not found & names:
        yield f"UCX_NET_DEVICES={devices} keeps UCX from {_text(here)}", "unset UCX_NET_DEVICES"
    listed = {part.split(":")[0].lstrip("\\") for part in transports.removeprefix("^").split(",")}
    if "ib" in listed if transports.startswith("^") else not listed & {"all", *_OVER_INFINIBAND}:
        yield f"UCX_TLS={transports} keeps UCX from {_text(here)}", "unset UCX_TLS, or let it have ib"


def _opened(names: list[str], env: Mapping[str, str]) -> str:
    """The file of the first of these libraries that the dynamic linker opens; empty if none does."""
    command = [sys.executable, "-I", "-S", "-c", _OPEN, *filter(None, names)]
    ended = subprocess.run(command, env={**os.environ, **env}, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    return ended.stdout.strip()


def judge(networks: dict[str, Network]) -> list[Finding]:
    """What is wrong with the network, each problem once with the nodes that have it; or what the nodes take.

    Args:
        networks: the network as each node sees it, by the node's name.
    """
    nodes, kinds = defaultdict(list), defaultdict(list)
    for host, network in networks.items():
        kinds[network.kind].append(host)
        for problem in network.problems:
            nodes[problem].append(host)
    if nodes:
        everywhere = len(networks)
        where = {problem: "" if len(hosts) == everywhere else f"{some(hosts)}: " for problem, hosts in nodes.items()}
        return [replace(problem, value=where[problem] + problem.value) for problem in nodes]
    takes = [networks[hosts[0]].takes for hosts in kinds.values()]
    if len(kinds) == 1:
        return [Finding(NAME, "ok", takes[0])]
    value = "; ".join(f"{some(hosts)}: {one}" for hosts, one in zip(kinds.values(), takes, strict=True))
    how = "ask the administrator why the nodes differ, or leave the slow ones out (sbatch --exclude)"
    return [Finding(NAME, "wrong" if takes[0].startswith("NCCL") else "note", f"the nodes differ: {value}", how)]
