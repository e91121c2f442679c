"""The nodes that a measurement ran on, as its figures record them."""

import os
import platform
import socket
from pathlib import Path


def nodes() -> list[dict]:
    """What the ranks run on, one entry a host, in the order of ranks, on every rank. Collective; after `parallel.init`.

    host: its name; ranks: how many ran there; cores: those that these ranks may use, all together; processor: its
    model; gpus: models of the GPUs that they took.
    """
    import tensorflow as tf

    from hpc_train.parallel.collectives import gather_objects

    taken = tf.config.get_visible_devices("GPU")
    gpus = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in taken]
    mine = {"host": socket.gethostname(), "processor": _processor(), "cores": os.sched_getaffinity(0), "gpus": gpus}
    return by_host(gather_objects(mine, name="hpc_train.bench.nodes"))


def by_host(ranks: list[dict]) -> list[dict]:
    """The entries of `nodes` from what each rank sees: host, processor, cores (a set of their numbers), gpus."""
    found: dict[str, dict] = {}
    for rank in ranks:
        node = found.setdefault(rank["host"], {**rank, "ranks": 0, "cores": set(), "gpus": []})
        node["ranks"] += 1
        node["cores"] |= rank["cores"]
        node["gpus"] += rank["gpus"]
    return [{**node, "cores": len(node["cores"])} for node in found.values()]


def shared(nodes: list[dict]) -> bool:
    """True where ranks share a core or a GPU: their speed then says nothing about scaling."""
    return any(node["ranks"] > node["cores"] or 0 < len(node["gpus"]) < node["ranks"] for node in nodes)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
