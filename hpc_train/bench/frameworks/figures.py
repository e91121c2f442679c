"""A measurement from the results of another framework's ranks."""

import math
import os
import time
from pathlib import Path

import numpy as np

from hpc_train.bench.estimate import of_values
from hpc_train.bench.hardware import by_host, shared
from hpc_train.bench.throughput import FORMAT
from hpc_train.bench.throughput.figures import communication_share, of_steps, ratios
from hpc_train.console import say
from hpc_train.training.run_folder import versions


def measurement(known: dict, ranks: list[dict]) -> dict:
    """The content of a measurement's file, in the format of `bench throughput`.

    Samples are in memory, so the share of the communication comes from `fit` and `fit alone`.

    Args:
        known: what the command knows: options, data, model, batch_size, ranks, threads, parameters, ...
        ranks: the files of `scripts.rounds.Job.write`, one for each rank.
    """
    rates, steps = {}, {}
    for way in ranks[0]["seconds"]:
        seconds = np.array([rank["seconds"][way] for rank in ranks])  # (ranks, rounds, steps)
        samples = known["ranks"] * known["batch_size"] * seconds.shape[2]
        rates[way] = (samples / seconds.sum(axis=2).max(axis=0)).tolist()
        each = seconds.reshape(len(ranks), -1)
        steps[way] = {
            "by_rank": [{"rank": rank, **of_steps(mine)} for rank, mine in enumerate(each)],
            "slowest": each.max(axis=0).tolist(),
            "fastest": each.min(axis=0).tolist(),
            "mean": each.mean(axis=0).tolist(),
        }
    seen = ("host", "processor", "gpus")
    nodes = by_host([{name: rank[name] for name in seen} | {"cores": set(rank["cores"])} for rank in ranks])
    gpu_bytes = [rank["gpu_bytes"] for rank in ranks]
    return {
        "benchmark": "throughput",
        "format": FORMAT,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        **known,
        "nodes": nodes,
        "versions": {"hpc-train": versions().get("hpc-train"), **ranks[0]["versions"]},
        "flops_per_sample": None,
        "peak_tflops": None,
        "rates": rates,
        "ratios": ratios(rates),
        "steps": steps,
        "input_wait": {},
        "communication": {"share": communication_share(rates, "fit"), "timeline": None},
        "peak_memory": {
            "host": [rank["host_bytes"] for rank in ranks],
            "gpu": None if None in gpu_bytes else gpu_bytes,
        },
    }


def report(found: dict, path: Path) -> None:
    """Print a short form of a measurement, whose file is `path`."""
    say(
        f"{found['framework']}, {found['trainer']} {found['model']}, {found['parameters']:,} parameters, batch "
        f"{found['batch_size']} a rank, ranks {found['ranks']}, threads a rank {found['threads']}, "
        f"rounds {len(found['rates']['fit'])}"
    )
    for way, values in found["rates"].items():
        p50, p95, p99 = 1e3 * np.percentile(found["steps"][way]["slowest"], (50, 95, 99))
        times = f"p50 {p50:.3g}, p95 {p95:.3g}, p99 {p99:.3g} ms"
        say(f"{way:10} {_mean(values, '.0f', '.2g')} samples/s; a step on the slowest rank: {times}")
    for name, values in found["ratios"].items():
        say(f"{name} {_mean(values, '.3f', '.3f')}")
    if shared(found["nodes"]):
        say("ranks share cores or GPUs: these figures say nothing about scaling")
    say(f"figures in {path}")


def _mean(values: list[float], form: str, error_form: str) -> str:
    found = of_values(values)
    error = math.nan if found.error is None else found.error
    return f"{found.mean:{form}} +- {error:{error_form}}"
