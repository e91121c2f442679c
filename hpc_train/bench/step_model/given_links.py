"""Links between ranks, from files of `hpc-train bench allreduce --output FILE`."""

import json
from dataclasses import replace
from pathlib import Path

from hpc_train.bench.step_model import solve
from hpc_train.bench.step_model.network import Algorithm, Link, Network
from hpc_train.errors import UserError

# A message so large that latency does not matter, in bytes.
_LARGE = 2.0**30


def network_of(files: tuple[Path, ...], algorithm: Algorithm) -> Network:
    """Make the network from one file, or from two: one for a single node and one for several.

    Bandwidth is Horovod's. Latency is that of the same all-reduce through MPI, if it was measured beside Horovod's:
    Horovod mostly adds the wait for its next cycle, which does not grow with ranks. Without MPI's latency, this wait is
    taken as half a cycle.

    Args:
        files: of `hpc-train bench allreduce`. With one file, more ranks are assumed to be linked like those measured.
        algorithm: of the all-reduce that has this latency and bandwidth.

    Raises:
        UserError: a file is not such a file, or two are of the same kind.
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
    """A network with the same link between all ranks."""
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
