"""What does planning cost one rank of many, and how much randomness do blocks cost? hpc-train bench plan

Each order is planned in a fresh process, as the last rank of a run plans it. Measured are the time from the start to
the first batch, the time of a step and the peak memory. Nothing is read, and no other rank is needed.
"""

import json
import math
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hpc_train.console import say
from hpc_train.errors import UserError

SECONDS, MEGABYTES = 1, 200


@dataclass(frozen=True)
class Plan:
    """Measure the planning of one rank of many: time, memory, and the randomness of the order."""

    ranks: int = 27_360
    """Ranks of the imaginary run."""
    samples: int = 100_000_000
    """Training samples of the imaginary data set."""
    batch_size: int = 2
    """Samples in a step on each rank."""
    shuffle: Literal["both", "full", "blocks"] = "both"
    """Order to measure: all samples permuted, or blocks of consecutive samples mixed in windows."""
    block: int = 64
    """Consecutive samples that one read fetches."""
    window: int | None = None
    """Samples that are mixed together; by default those of 16 blocks."""
    steps: int = 500
    """Steps to time, from the first of the epoch on; at most those of an epoch."""
    seed: int = 0
    """Seed of the order."""
    output: Path | None = None
    """JSON file for the figures."""


def run(options: Plan) -> None:
    """Measure and print.

    Raises:
        UserError: options that cannot be used.
    """
    if options.steps < 1 or options.ranks < 1:
        raise UserError("--steps and --ranks must be at least 1")
    if options.output and not options.output.parent.is_dir():
        raise UserError(f"--output {options.output}: the folder {options.output.parent} does not exist; make it first")
    # Report wrong options here, in the process that the user started.
    plans = {shuffle: _plan(options, shuffle) for shuffle in ("full", "blocks") if options.shuffle in (shuffle, "both")}
    figures = {}
    share = options.samples // options.ranks
    say(f"{options.ranks} ranks, {options.samples} samples ({share} a rank), batch {options.batch_size} a rank")
    for shuffle, plan in plans.items():
        figures[shuffle] = {"order": plan.order.as_dict(), **_measure(options, shuffle)}
        _report(options, figures[shuffle])
    if options.output:
        record = {"options": asdict(options), "orders": figures}
        options.output.write_text(json.dumps(record, indent=2, default=str) + "\n")


def _plan(options: Plan, shuffle: str):
    from hpc_train.data.plan import TrainPlan
    from hpc_train.data.plan.order import BlockOrder

    shape = options.samples, options.batch_size, options.ranks, options.seed
    if shuffle == "full":
        return TrainPlan(*shape)
    order = BlockOrder.fit(
        options.samples, options.seed, options.ranks, options.batch_size, block=options.block, window=options.window
    )
    return TrainPlan(*shape, order)


def _measure(chosen: Plan, shuffle: str) -> dict:
    """Figures of one order: the cost of planning, measured in a separate process, and the randomness."""
    from hpc_train.bench.plan.randomness import measure

    code = "import sys; from hpc_train.bench.plan.command import plan_as_a_rank; plan_as_a_rank(*sys.argv[1:])"
    options = json.dumps({**asdict(chosen), "output": None})
    done = subprocess.run([sys.executable, "-c", code, options, shuffle], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process that plans ended with status {done.returncode}: {done.stderr}")
    plan = _plan(chosen, shuffle)
    return {**json.loads(done.stdout), **asdict(measure(plan.order, 0, plan.global_batch, chosen.block))}


def plan_as_a_rank(options: str, shuffle: str) -> None:
    """Plan as the last rank does, and print the cost as JSON. Nothing else runs in its process.

    Args:
        options: a `Plan` as JSON.
        shuffle: full or blocks.
    """
    import time

    begun = time.perf_counter()
    import numpy as np

    chosen = Plan(**json.loads(options))
    _plan(chosen, shuffle)  # the first plan imports the modules
    imported = time.perf_counter()
    plan = _plan(chosen, shuffle)
    rank = plan.size - 1
    plan.indices(0, 0, rank)
    first = time.perf_counter()
    steps = min(chosen.steps, plan.steps())
    laps = []
    for step in range(steps):
        start = time.perf_counter()
        plan.indices(0, step, rank)
        laps.append(time.perf_counter() - start)
    start = time.perf_counter()
    at_once = min(32, steps)
    for step in range(0, steps - at_once + 1, at_once):
        plan.batches(0, step, at_once, rank)
    together = (time.perf_counter() - start) / (steps // at_once * at_once)
    # The peak of this program only: getrusage's also counts the process that started it.
    status = Path("/proc/self/status").read_text().split()
    figures = {
        "import_seconds": imported - begun,
        "first_batch_seconds": first - imported,
        "step_microseconds": float(np.median(laps)) * 1e6,
        "step_microseconds_of_32_at_once": together * 1e6,
        "peak_megabytes": int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6,
    }
    say(json.dumps(figures))


def _report(options: Plan, figures: dict) -> None:
    order = dict(figures["order"])
    ready = figures["import_seconds"] + figures["first_batch_seconds"]
    peak = figures["peak_megabytes"]
    met = "met" if ready < SECONDS and peak < MEGABYTES else "MISSED"
    same = figures["same_block"]
    together = "no such pairs" if math.isnan(same) else f"{same:.2f} x chance"
    say(f"\n{order.pop('shuffle')}: " + ", ".join(f"{name} {value}" for name, value in order.items()))
    say(
        f"  first batch after {figures['first_batch_seconds'] * 1e3:.2f} ms, {ready:.3f} s with the imports; "
        f"peak memory {peak:.0f} MB (under {SECONDS} s and under {MEGABYTES} MB a rank: {met})"
    )
    say(
        f"  a step, median: {figures['step_microseconds']:.0f} us alone, "
        f"{figures['step_microseconds_of_32_at_once']:.0f} us when 32 are planned at once"
    )
    say(f"  mean displacement {figures['displacement']:.4f} of the epoch (uniform: 0.3333)")
    say(f"  neighbours in the files are {figures['neighbours']:.4f} of the epoch apart (uniform: 0.3333)")
    say(f"  pairs of a global batch from one block of {options.block}: {together} (uniform: 1)")
