"""Links between ranks, from what `hpc-train bench allreduce --output FILE` measured."""

import json
from dataclasses import replace
from pathlib import Path

from hpc_train.bench.step_model import solve
from hpc_train.bench.step_model.network import Algorithm, Link, Network
from hpc_train.errors import UserError

# A message whose time latency does not matter to.
_LARGE = 2.0**30


def network_of(files: tuple[Path, ...], algorithm: Algorithm) -> Network:
    """The network of one file, or of two: within one node and over several.

    Bandwidth is Horovod's. Latency is that of the same all-reduce through MPI where it was measured beside Horovod's;
    what Horovod adds, most of it waiting for its next cycle, does not grow with ranks. Without MPI's, half a cycle is
    taken for that wait.

    Args:
        files: of `hpc-train bench allreduce`. Of one file, more ranks are taken to be linked as those that it measured.
        algorithm: whose latency and bandwidth these are.

    Raises:
        UserError: a file is none, or two are of the same kind.
    """
    found = {len(one["nodes"]) > 1: one for one in map(_read, files)}
    if len(found) < len(files) or len(files) > 2:
        raise UserError("--allreduce: give one file, or two: one measured on one node and one on several")
    network = Network(Link(0, 0), algorithm=algorithm)
    if False in found:
        network = _single(found[False], network)
    if True not in found:
        return network
    if False not in found:
        return _single(found[True], network)
    one = found[True]
    network = replace(network, within=network.between, ranks_per_node=-(-one["ranks"] // len(one["nodes"])))
    return _measured(one, network, lambda link: replace(network, between=link))


def _single(one: dict, network: Network) -> Network:
    """All ranks linked alike."""
    return _measured(one, network, lambda link: replace(network, between=link))


def _measured(one: dict, network: Network, made) -> Network:
    ranks, ways = one["ranks"], one["ways"]
    whole = ways["Horovod"]["fit"]
    beside = ways.get("MPI") if ways["Horovod"]["library"] == "MPI" else None
    bare = beside["fit"]["latency"] if beside else whole["latency"] - one["cycle_time"] / 2
    latency = min(max(bare, 0.0), whole["latency"])
    points = [0.0, _LARGE]

    def times(link: Link):
        return made(link).allreduce(points, ranks)

    start = Link(max(latency, 1e-6), max(whole["byte_time"], 1e-12))
    target = [latency + size * whole["byte_time"] for size in points]
    network = made(solve.links(times, target, start))
    return replace(network, wait=max(0.0, whole["latency"] - latency - network.coordination(ranks)))


def _read(path: Path) -> dict:
    try:
        found = json.loads(path.read_bytes())
        if found["benchmark"] != "allreduce" or found["ranks"] < 2 or not found["nodes"]:
            raise ValueError("not of this benchmark")
        fits = [way["fit"] for way in found["ways"].values()]
        if not all(fit["latency"] >= 0 and fit["byte_time"] >= 0 for fit in fits) or found["cycle_time"] < 0:
            raise ValueError("a latency or bandwidth below 0")
        found["ways"]["Horovod"]["library"]
    except OSError as error:
        raise UserError(f"--allreduce {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"--allreduce {path}: no figures of `hpc-train bench allreduce --output FILE` in it ({error})"
        ) from error
    return found
