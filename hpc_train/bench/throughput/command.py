"""How fast does a trainer train, and what bounds it? horovodrun -np 2 hpc-train bench throughput mnist --data shards

It trains in several ways, which take turns in the same processes, round after round:

    fit           the trainer's `fit`: files, reader, averaged gradients, and the callbacks that act in each step of a
                  run. Left out are TensorBoard and checkpoints, which act after an epoch, and the check whether to
                  stop, which the ranks make once a second
    unwatched     only with `--ways fit unwatched`: the same without what looks for hangs and slow ranks in each step
    fit alone     the same without Horovod: every rank trains for itself, all at the same time (the machine's limit)
    device        `fit` on one batch that stays on the device: no input
    device alone  the same without the all-reduce: computation only
    input         the batches are read and delivered, and nothing is computed
    bare          mnist only: a hand-written loop, arrays in memory, one grouped all-reduce, nothing else
    bare alone    the loop without its all-reduce

Throughput is over all ranks, by the slowest rank's clock: the mean of the rounds, with its standard error. The time of
a step is that of its slowest rank. The first steps of a round and the first round are not counted. If several ranks run
on MPI, one more round follows under Horovod's timeline.

The function that prepares a training prepares data, network and optimizer. The learning rate is small and constant; it
makes no difference to a step. Peak memory is that of all ways together, which hold two networks. With
`--ways fit device` it is that of a training.
"""

import os
import shlex
import sys
import time
from dataclasses import replace

from hpc_train.bench.throughput import FORMAT
from hpc_train.bench.throughput.options import BenchOptions, Throughput
from hpc_train.bench.throughput.timeline import record, start_mpi
from hpc_train.files.json_file import write_json
from hpc_train.training.options import check

__all__ = ["Throughput", "run"]


def run(benchmark: BenchOptions) -> None:
    """Measure, print and write. Collective.

    Raises:
        UserError: options or data that cannot be used.
    """
    benchmark.check_bench()
    names = benchmark.measured_ways()
    options = benchmark.of_trainer()
    task = benchmark.MODULE.task(options)
    check(options)
    from hpc_train import parallel

    again = benchmark.timeline and start_mpi()
    world = parallel.init(options.seed, options.threads, options.deterministic, keras_defaults=True)
    from hpc_train.bench import hardware
    from hpc_train.bench.throughput.fit import reading_errors
    from hpc_train.bench.throughput.peaks import peak
    from hpc_train.bench.throughput.report import report
    from hpc_train.bench.throughput.ways import make_ways
    from hpc_train.flops.work import Work
    from hpc_train.training.assembly import assemble
    from hpc_train.training.run_folder import Run

    nodes = hardware.nodes()
    if options.peak_tflops is None and nodes[0]["gpus"]:
        options = replace(options, peak_tflops=peak(nodes[0]["gpus"][0], options.precision))
    assembly = assemble(options, task, world)
    output = benchmark.output
    with parallel.agree(world):
        if world.is_root and not output:
            output = Run.new_path(f"throughput-{task.name}") / "throughput.json"
    with reading_errors(assembly.feed):
        ways = make_ways(names, options, task, assembly, world)
        measured = _measure(benchmark, ways, assembly, world)
    work = Work.of(assembly.model, options, assembly.feed.training, world.size)
    found = _figures(benchmark, options, assembly, world, nodes, work, measured)
    with parallel.agree(world):
        if world.is_root:
            write_json(output, found, "give another --output")
    recorded = next((ways[name] for name in ("fit", "device") if name in ways), None)
    if again and recorded:
        timeline = record(recorded, benchmark.warmup, benchmark.steps, world)
        if world.is_root:
            found["communication"]["timeline"] = timeline
            write_json(output, found, "give another --output")
    if world.is_root:
        report(found, work, output)


def _measure(options: BenchOptions, ways: dict, assembly, world) -> tuple[dict, dict, dict]:
    """Samples/s of each round, this rank's seconds of all counted steps, and input wait of each round, by way."""
    import numpy as np

    from hpc_train.bench.throughput.ranks import longest

    names = list(ways)
    rates: dict[str, list[float]] = {name: [] for name in names}
    seconds, waits = {name: [] for name in names}, {}
    samples = world.size * assembly.plan.batch_size * options.steps
    for number in range(options.rounds + 1):
        for name in np.roll(names, -number):
            timed = ways[name](options.warmup, options.steps)
            slowest = longest(timed.seconds.sum())
            if number:
                rates[name].append(samples / slowest)
                seconds[name].append(timed.seconds)
                if timed.input_wait is not None and name.startswith("fit"):
                    waits.setdefault(name, []).append(timed.input_wait)
    return rates, {name: np.concatenate(values) for name, values in seconds.items()}, waits


def _figures(benchmark: BenchOptions, options, assembly, world, nodes: list[dict], work, measured: tuple) -> dict:
    """The content of a measurement's file, without the timeline. Collective.

    Returns:
        Figures in s, bytes and samples/s. rates, ratios, input_wait and communication.share have an entry for each
        round. In steps, slowest, fastest and mean (over the ranks) have an entry for each counted step, and by_rank has
        one for each rank, as peak_memory has. batch_size: samples of a rank in a step. gradient_bytes: what a rank
        gives to the all-reduces of a step. flops_per_sample: of training. peak_tflops: of a rank.
    """
    import tensorflow as tf

    from hpc_train.bench.throughput import figures
    from hpc_train.bench.throughput.ranks import over_ranks, peak_memory
    from hpc_train.data.options import is_synthetic
    from hpc_train.parallel.variables import parameters
    from hpc_train.training.run_folder import versions

    rates, seconds, waits = measured
    return {
        "benchmark": "throughput",
        "format": FORMAT,
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": shlex.join(sys.orig_argv),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "trainer": benchmark.TRAINER,
        "framework": "hpc-train",
        "options": benchmark.recorded(),
        "data": "synthetic" if is_synthetic(options) else assembly.feed.training.identity,
        "model": options.init.stem if options.init else getattr(options, "model", None) or options.build,
        "batch_size": assembly.plan.batch_size,
        "ranks": world.size,
        "threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "nodes": nodes,
        "versions": versions(),
        "gradient_bytes": figures.gradient_bytes(assembly.model.trainable_variables, options.wire_dtype),
        "parameters": parameters(assembly.model),
        "flops_per_sample": work.flops,
        "peak_tflops": options.peak_tflops,
        "rates": rates,
        "ratios": figures.ratios(rates),
        "steps": {way: over_ranks(values, world.rank) for way, values in seconds.items()},
        "input_wait": waits,
        "communication": {"share": figures.communication_share(rates), "timeline": None},
        "peak_memory": peak_memory(),
    }
