"""A measurement for people."""

import math
from collections.abc import Sequence

import numpy as np

from hpc_train.bench.hardware import shared
from hpc_train.bench.throughput.figures import mean_and_error
from hpc_train.console import say
from hpc_train.units import rate


def report(found: dict, work, path) -> None:
    """Print what a measurement file holds, in short; work: `hpc_train.flops.work.Work` of the measurement."""
    ranks, rounds = found["ranks"], len(next(iter(found["rates"].values())))
    say(
        f"{found['trainer']} {found['model']}, {found['parameters']:,} parameters, batch {found['batch_size']} a rank, "
        f"{_count(ranks, 'rank')} with {_count(found['threads'], 'thread')}{' each' * (ranks > 1)}, "
        f"{_count(rounds, 'round')}"
    )
    # Of a step, the rank that is slowest in it.
    say(f"{'':14}{'samples/s':>10}   +- error{'step p50':>11}{'p95':>10}{'p99':>10}")
    for way, values in found["rates"].items():
        mean, error = mean_and_error(values)
        times = "".join(f"{_time(value):>10}" for value in np.percentile(found["steps"][way]["slowest"], (50, 95, 99)))
        rest = "" if way == "input" else work.describe(mean).removeprefix(", ")
        if way in found["input_wait"]:
            rest += f"{', ' * bool(rest)}input wait {np.mean(found['input_wait'][way]):.1%}"
        say(f"{way:14}{rate(mean):>10}{_relative(mean, error):>11} {times}   {rest}".rstrip())
    for name, values in found["ratios"].items():
        say(f"{name:20}{_mean(values, '.3f')}  ({min(values):.3f} to {max(values):.3f})")
    if ranks > 1:
        _communication(found)
    memory = found["peak_memory"]
    gpu = f", {_bytes(max(memory['gpu']))} of its GPU" if memory["gpu"] else ""
    say(f"peak memory of a rank, with the networks of all ways: {_bytes(max(memory['host']))}{gpu}")
    if shared(found["nodes"]):
        say("ranks share cores or GPUs: these figures say nothing about scaling")
    say(f"figures in {path}")


def _communication(found: dict) -> None:
    share, timeline = found["communication"]["share"], found["communication"]["timeline"]
    if share:
        size = _bytes(found["gradient_bytes"])
        say(f"communication: {_mean(share, '.1%')} of a step on the device, for {size} of gradients")
    if timeline:
        shares = {name: stage["wall_share"] for name, stage in timeline["stages"].items()}
        parts = [f"{name} {value:.1%}" for name, value in shares.items() if value >= 0.001]
        say(f"Horovod's timeline of a round: {', '.join(parts)}, idle {timeline['idle']['wall_share']:.1%}")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"


def _mean(values: Sequence[float], form: str) -> str:
    mean, error = mean_and_error(values)
    return f"{mean:{form}}" if math.isnan(error) else f"{mean:{form}} +- {error:{form}}"


def _relative(mean: float, error: float) -> str:
    return "" if math.isnan(error) else f"+- {error / mean:.1%}"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _bytes(number: float) -> str:
    if number < 2**20:
        return f"{number / 2**10:.1f} KiB"
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
