"""The nodes of a measurement, as its file records them."""

import os
import platform
import socket
from pathlib import Path


def nodes() -> list[dict]:
    """Describe the hosts that the ranks run on. Collective; call it after `parallel.init`.

    Returns:
        One entry for each host, in the order of the ranks, the same on every rank. host: its name; ranks: how many run
        there; cores: how many cores these ranks may use together; processor: its model; gpus: the models of the GPUs
        that these ranks took.
    """
    import tensorflow as tf

    from hpc_train.parallel.collectives import gather_objects

    taken = tf.config.get_visible_devices("GPU")
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in taken]
    mine = {"host": socket.gethostname(), "processor": _processor(), "cores": os.sched_getaffinity(0), "gpus": gpus}
    return by_host(gather_objects(mine, name="hpc_train.bench.nodes"))


def by_host(ranks: list[dict]) -> list[dict]:
    """Make the entries of `nodes`.

    Args:
        ranks: what each rank sees: host, processor, cores (a set of their numbers) and gpus.
    """
    found: dict[str, dict] = {}
    for rank in ranks:
        node = found.setdefault(rank["host"], {**rank, "ranks": 0, "cores": set(), "gpus": []})
        node["ranks"] += 1
        node["cores"] |= rank["cores"]
        node["gpus"] += rank["gpus"]
    return [{**node, "cores": len(node["cores"])} for node in found.values()]


def shared(nodes: list[dict]) -> bool:
    """Whether ranks share a core or a GPU. Then their speed says nothing about scaling."""
    return any(node["ranks"] > node["cores"] or 0 < len(node["gpus"]) < node["ranks"] for node in nodes)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
