"""A measurement from what the ranks of another framework told."""

import os
import time
from pathlib import Path

import numpy as np

from hpc_train.bench.hardware import by_host, shared
from hpc_train.bench.throughput import FORMAT
from hpc_train.bench.throughput.figures import communication_share, mean_and_error, of_steps, ratios
from hpc_train.console import say
from hpc_train.training.run_folder import versions


def measurement(told: dict, ranks: list[dict]) -> dict:
    """All that a measurement file holds, in the format of `bench throughput`.

    Samples lie in memory, so that communication's share is taken from `fit` and `fit alone`.

    Args:
        told: what the command knows: options, data, model, batch_size, ranks, threads, parameters, ...
        ranks: what `scripts.rounds.Job.tell` wrote, one a rank.
    """
    rates, steps = {}, {}
    for way in ranks[0]["seconds"]:
        seconds = np.array([rank["seconds"][way] for rank in ranks])  # (ranks, rounds, steps)
        samples = told["ranks"] * told["batch_size"] * seconds.shape[2]
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
        **told,
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
    """Print what a measurement holds, in short."""
    say(
        f"{found['framework']}, {found['trainer']} {found['model']}, {found['parameters']:,} parameters, batch "
        f"{found['batch_size']} a rank, ranks {found['ranks']}, threads a rank {found['threads']}, "
        f"rounds {len(found['rates']['fit'])}"
    )
    for way, values in found["rates"].items():
        mean, error = mean_and_error(values)
        p50, p95, p99 = 1e3 * np.percentile(found["steps"][way]["slowest"], (50, 95, 99))
        times = f"p50 {p50:.3g}, p95 {p95:.3g}, p99 {p99:.3g} ms"
        say(f"{way:10} {mean:.0f} +- {error:.2g} samples/s; a step on the slowest rank: {times}")
    for name, values in found["ratios"].items():
        mean, error = mean_and_error(values)
        say(f"{name} {mean:.3f} +- {error:.3f}")
    if shared(found["nodes"]):
        say("ranks share cores or GPUs: these figures say nothing about scaling")
    say(f"figures in {path}")
