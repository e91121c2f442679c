"""A measurement for people."""

from collections.abc import Sequence

import numpy as np

from hpc_train.bench.comparison import compared
from hpc_train.bench.estimate import Estimate, of_values
from hpc_train.bench.hardware import shared
from hpc_train.console import say
from hpc_train.units import rate


def report(found: dict, work, path) -> None:
    """Print a short form of a measurement.

    Args:
        found: the content of its file.
        work: its `hpc_train.flops.work.Work`.
        path: its file.
    """
    ranks, rounds = found["ranks"], len(next(iter(found["rates"].values())))
    say(
        f"{found['trainer']} {found['model']}, {found['parameters']:,} parameters, batch {found['batch_size']} a rank, "
        f"{_count(ranks, 'rank')} with {_count(found['threads'], 'thread')}{' each' * (ranks > 1)}, "
        f"{_count(rounds, 'round')}"
    )
    # The time of a step is that of its slowest rank.
    say(f"{'':14}{'samples/s':>10}   +- error{'step p50':>11}{'p95':>10}{'p99':>10}")
    for way, values in found["rates"].items():
        found_rate = of_values(values)
        times = "".join(f"{_time(value):>10}" for value in np.percentile(found["steps"][way]["slowest"], (50, 95, 99)))
        rest = "" if way == "input" else work.describe(found_rate.mean).removeprefix(", ")
        if way in found["input_wait"]:
            rest += f"{', ' * bool(rest)}input wait {np.mean(found['input_wait'][way]):.1%}"
        say(f"{way:14}{rate(found_rate.mean):>10}{_relative(found_rate):>11} {times}   {rest}".rstrip())
    for name in found["ratios"]:
        above, below = name.split(" / ")
        say(f"{name:20}{compared(found['rates'][above], found['rates'][below]).text()}")
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
    found = of_values(values)
    return f"{found.mean:{form}}" + (f" +- {found.error:{form}}" if found.error is not None else "")


def _relative(found: Estimate) -> str:
    return "" if found.error is None else f"+- {found.error / found.mean:.1%}"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"


def _bytes(number: float) -> str:
    if number < 2**20:
        return f"{number / 2**10:.1f} KiB"
    return f"{number / 2**30:.2f} GiB" if number >= 2**30 else f"{number / 2**20:.1f} MiB"
