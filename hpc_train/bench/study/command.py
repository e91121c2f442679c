"""How does the speed grow with the ranks? hpc-train bench scaling studies/NAME --np 1,2,4 -- mnist --data shards/mnist

A command line of `hpc-train bench throughput` follows `--`. It runs once for every size, repeat and value of a sweep,
each time in new processes, one job after another: launched here, or with --submit as jobs of Slurm. Each job writes a
measurement and a log into the study's folder. So the same command again runs what is missing, and a job that fails does
no harm to the others. Without --np, the command prints the measurements of the folder again.

Repeats are interleaved: every size once, then every size again, beginning with another one. Parallel efficiency is
samples/s of a rank over that of the smallest size. fit / alone is the efficiency relative to ranks that train
independently on the same nodes: the cost of averaging gradients, without what a node loses because it is full. Its
ceiling comes from the single steps of those ranks: the mean step over the slowest rank's, for which ranks that average
would wait. In weak scaling the batch of a rank is constant, in strong scaling the global batch.
"""

import json
import math
import shlex
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from hpc_train.bench.study.measurements import Measurement, load, read
from hpc_train.bench.study.tables import tables
from hpc_train.console import say
from hpc_train.errors import UserError

__all__ = ["Measurement", "Scaling", "read", "run", "tables"]


@dataclass(frozen=True)
class Scaling:
    """Measure throughput at several numbers of ranks, and print the results in one table."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of the study."""
    benchmark: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """After `--`: the trainer and its options, as `hpc-train bench throughput` takes them."""
    np: str = ""
    """Numbers of ranks, as in 1,2,4. Without it, the results in the folder are printed."""
    repeats: int = 5
    """Jobs of each kind. Standard errors are over them."""
    mode: Literal["weak", "strong", "both"] = "weak"
    """What stays constant: a rank's batch, the global batch (of the smallest size), or each in turn."""
    sweep: tuple[str, ...] = ()
    """Options of the benchmark to vary, and variables in capitals: bucket_mib=1,8,32 lag=0,1 HOROVOD_CYCLE_TIME=1,5.
    One is changed at a time. The first values together are the base."""
    launcher: str = "horovodrun -np {np}"
    """Command that starts the ranks, as in 'horovodrun --gloo -np {np} -H node1:4,node2:4'; {np} is their number."""
    timeout: float = 3600
    """Seconds after which a job that was started here is ended, and counts as failed."""
    submit: bool = False
    """Submit each job with sbatch and slurm/scaling_study.sh; then wait, and print the results."""
    sbatch: str = ""
    """More options for sbatch, in quotes: '--account=A --gres=gpu:a100:{gpus_a_node}'; {gpus} is the number in all."""
    ranks_per_node: int = 4
    """With --submit: ranks on a full node."""
    detach: bool = False
    """With --submit: do not wait. To collect the results, give the same command again, or --wait alone."""
    wait: bool = False
    """Without --np: first wait for the jobs of the study that are in Slurm's queue."""
    peers: bool = False
    """Also run the same network on other frameworks, at each size and repeat."""
    peers_python: Path | None = None
    """Python that has the other frameworks; by default this one."""
    json: bool = False
    """Print the results as JSON instead of the table."""


def run(options: Scaling) -> None:
    """Measure what is missing, and print the results.

    Raises:
        UserError: options that cannot be used, or jobs that failed.
    """
    show = partial(say, stream=sys.stderr) if options.json else say
    failed: list[str] = []
    if options.np:
        failed = _make(options, show)
        if options.submit and options.detach:
            show(f"collect them with the same command, or with `hpc-train bench scaling {options.study} --wait`")
            return
    elif options.benchmark:
        raise UserError("--np is missing: give the numbers of ranks, as in --np 1,2,4")
    elif options.wait:
        from hpc_train.bench.study.make import collect
        from hpc_train.bench.study.record import recorded

        submitted = (recorded(options.study) or {}).get("submitted", {})
        failed = collect(options.study, submitted, show)
    if failed and not any(map(load, options.study.glob("[!.]*.json"))):
        raise UserError(f"no job has measured anything; read {options.study / failed[0]}.log for the reason")
    _print(options)
    if failed:
        named = ", ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
        jobs = f"{len(failed)} job{'s' * (len(failed) > 1)} failed"
        raise UserError(f"{jobs}: {named}; read their logs, then run what is missing with the same command")


def _make(options: Scaling, show) -> list[str]:
    """Plan, record, and run what is missing; return the names of the jobs that failed."""
    from hpc_train.bench.study import benchmark, make, peers, submit
    from hpc_train.bench.study.plan import jobs, sizes_of, sweep_of
    from hpc_train.bench.study.record import record

    _check(options)
    sizes, sweep = sizes_of(options.np), sweep_of(options.sweep)
    batch_size = benchmark.parsed(options.benchmark).batch_size
    frameworks = peers.frameworks() if options.peers else ()
    planned = jobs(sizes, options.repeats, options.mode, sweep, batch_size, frameworks)
    benchmark.check(options.benchmark, planned)
    if options.peers:
        peers.check(planned, options.benchmark, options.study, options.peers_python)
    settings = {"the command after --": list(options.benchmark), "--mode": options.mode, "--sweep": sweep}
    settings |= {"--peers": options.peers, "--submit": options.submit}
    if options.submit:
        for ranks in sizes:
            submit.shape(ranks, options.ranks_per_node)
        settings |= {"--ranks-per-node": options.ranks_per_node}
    else:
        settings |= {"--launcher": options.launcher}
    if options.mode != "weak":
        settings |= {"the smallest of --np": sizes[0]}
    plan = record(options.study, planned, settings, {"np": sizes, "repeats": options.repeats})
    if not options.submit:
        return make.here(options, planned, show)
    submitted = make.on_cluster(options, planned, plan, show)
    return [] if options.detach else make.collect(options.study, submitted, show)


def _check(options: Scaling) -> None:
    from hpc_train.parallel.launcher import detect

    if detect().size > 1:
        raise UserError(f"{detect().name} has started this command on several ranks; start it once, without a launcher")
    if not options.benchmark:
        raise UserError(
            "the benchmark is missing: put it after `--`, as in `hpc-train bench scaling studies/NAME --np 1,2,4 -- "
            "mnist --data shards/mnist`"
        )
    if options.repeats < 1 or not 0 < options.timeout < math.inf or options.ranks_per_node < 1:
        raise UserError("--repeats and --ranks-per-node must be at least 1, --timeout more than 0")
    for option, words in (("launcher", options.launcher), ("sbatch", options.sbatch)):
        try:
            shlex.split(words)
        except ValueError as error:
            raise UserError(f"--{option} {words}: {str(error).lower()}; fix the quotes in it") from error
    if options.peers and options.submit:
        raise UserError("--peers runs on this machine only; leave --submit or --peers out")
    if (options.detach or options.sbatch) and not options.submit:
        raise UserError("--detach and --sbatch need --submit; add it, or leave them out")


def _print(options: Scaling) -> None:
    measurements, left_out = read(options.study)
    laid_out = tables(measurements)
    if options.json:
        say(json.dumps({"tables": laid_out, "left_out": left_out}, indent=2))
    else:
        from hpc_train.bench.study.report import report

        report(laid_out, left_out)
