"""How does the speed grow with the ranks? hpc-train bench scaling studies/NAME --np 1,2,4 -- mnist --data shards/mnist

What follows `--` is a command line of `hpc-train bench throughput`. It runs once for every size, repeat and value of a
sweep, each in processes of its own, one job after another: launched here, or with --submit as jobs of Slurm. Each job
leaves a measurement and a log in the study's folder, so the same command again makes what is missing, and a job that
fails takes nothing else with it. Without --np the folder's measurements are printed again.

Repeats are interleaved: every size once, then every size again, begun elsewhere. Parallel efficiency is samples/s a
rank over that of the smallest size; fit / alone is efficiency against ranks that train independently on the same nodes:
what averaging gradients costs, apart from what a node itself loses when it is full. Its ceiling comes from the single
steps of those: their mean over that of each step's slowest rank, for which ranks that average would wait. In weak
scaling a rank's batch is constant, in strong scaling the global one.
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
    """Measure throughput at several numbers of ranks and lay the results side by side."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of the study."""
    benchmark: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """After `--`: the trainer and its options, as `hpc-train bench throughput` takes them."""
    np: str = ""
    """Numbers of ranks, as in 1,2,4; without it what the folder holds is printed."""
    repeats: int = 5
    """Jobs of each kind; standard errors are over them."""
    mode: Literal["weak", "strong", "both"] = "weak"
    """What stays constant: a rank's batch, the global batch (of the smallest size), or each in turn."""
    sweep: tuple[str, ...] = ()
    """Options of the benchmark to vary, and variables in capitals: bucket_mib=1,8,32 lag=0,1 HOROVOD_CYCLE_TIME=1,5.
    One is changed at a time; the first values together are the base."""
    launcher: str = "horovodrun -np {np}"
    """What starts the ranks, as in 'horovodrun --gloo -np {np} -H node1:4,node2:4'; {np} is their number."""
    timeout: float = 3600
    """Seconds after which a job launched here is ended, and has failed."""
    submit: bool = False
    """Submit each job with sbatch and slurm/scaling_study.sh; then wait, and print."""
    sbatch: str = ""
    """More options for sbatch, in quotes: '--account=A --partition=P'."""
    ranks_per_node: int = 4
    """With --submit: ranks on a full node."""
    detach: bool = False
    """With --submit: do not wait. The same command again, or --wait alone, does."""
    wait: bool = False
    """Without --np: wait first for the study's jobs that are in Slurm's queue."""
    peers: bool = False
    """Run the same network on other frameworks too, beside ours at each size and repeat."""
    peers_python: Path | None = None
    """Python that has the other frameworks; by default this one."""
    json: bool = False
    """Print the figures as JSON in place of the table."""


def run(chosen: Scaling) -> None:
    """Measure what is missing, print, and say what failed."""
    tell = partial(say, stream=sys.stderr) if chosen.json else say
    failed: list[str] = []
    if chosen.np:
        failed = _make(chosen, tell)
        if chosen.submit and chosen.detach:
            tell(f"the same command collects them, or `hpc-train bench scaling {chosen.study} --wait`")
            return
    elif chosen.benchmark:
        raise UserError("--np is missing: say how many ranks, as in --np 1,2,4")
    elif chosen.wait:
        from hpc_train.bench.study.make import collect
        from hpc_train.bench.study.record import recorded

        submitted = (recorded(chosen.study) or {}).get("submitted", {})
        failed = collect(chosen.study, submitted, tell)
    if failed and not any(map(load, chosen.study.glob("[!.]*.json"))):
        raise UserError(f"no job has measured anything; see {chosen.study / failed[0]}.log")
    _print(chosen)
    if failed:
        named = ", ".join(failed[:3]) + (f" and {len(failed) - 3} more" if len(failed) > 3 else "")
        jobs = f"{len(failed)} job{'s' * (len(failed) > 1)} failed"
        raise UserError(f"{jobs}: {named}; their logs say why, and the same command runs what is missing")


def _make(chosen: Scaling, tell) -> list[str]:
    """Plan, record, and make what is missing; names of the jobs that failed."""
    from hpc_train.bench.study import benchmark, make, peers, submit
    from hpc_train.bench.study.plan import jobs, sizes_of, sweep_of
    from hpc_train.bench.study.record import record

    _check(chosen)
    sizes, sweep = sizes_of(chosen.np), sweep_of(chosen.sweep)
    batch_size = benchmark.parsed(chosen.benchmark).batch_size
    frameworks = peers.frameworks() if chosen.peers else ()
    planned = jobs(sizes, chosen.repeats, chosen.mode, sweep, batch_size, frameworks)
    benchmark.check(chosen.benchmark, planned)
    if chosen.peers:
        peers.check(planned, chosen.benchmark, chosen.study, chosen.peers_python)
    settings = {"the command after --": list(chosen.benchmark), "--mode": chosen.mode, "--sweep": sweep}
    settings |= {"--peers": chosen.peers, "--submit": chosen.submit}
    if chosen.submit:
        for ranks in sizes:
            submit.shape(ranks, chosen.ranks_per_node)
        settings |= {"--ranks-per-node": chosen.ranks_per_node}
    else:
        settings |= {"--launcher": chosen.launcher}
    if chosen.mode != "weak":
        settings |= {"the smallest of --np": sizes[0]}
    plan = record(chosen.study, planned, settings, {"np": sizes, "repeats": chosen.repeats})
    if not chosen.submit:
        return make.here(chosen, planned, tell)
    submitted = make.on_cluster(chosen, planned, plan, tell)
    return [] if chosen.detach else make.collect(chosen.study, submitted, tell)


def _check(chosen: Scaling) -> None:
    from hpc_train.parallel.launcher import see

    if see().size > 1:
        raise UserError(f"{see().name} has started several of this; start one, which starts the ranks itself")
    if not chosen.benchmark:
        raise UserError(
            "what to measure is missing: put it after `--`, as in `hpc-train bench scaling studies/NAME --np 1,2,4 -- "
            "mnist --data shards/mnist`"
        )
    if chosen.repeats < 1 or not 0 < chosen.timeout < math.inf or chosen.ranks_per_node < 1:
        raise UserError("--repeats and --ranks-per-node must be at least 1, --timeout more than 0")
    for option, words in (("launcher", chosen.launcher), ("sbatch", chosen.sbatch)):
        try:
            shlex.split(words)
        except ValueError as error:
            raise UserError(f"--{option} {words}: {str(error).lower()}; mend the quotes within it") from error
    if chosen.peers and chosen.submit:
        raise UserError("--peers runs on this machine only; leave --submit or --peers out")
    if (chosen.detach or chosen.sbatch) and not chosen.submit:
        raise UserError("--detach and --sbatch are for --submit; give it too, or leave them out")


def _print(chosen: Scaling) -> None:
    measurements, left_out = read(chosen.study)
    laid_out = tables(measurements)
    if chosen.json:
        say(json.dumps({"tables": laid_out, "left_out": left_out}, indent=2))
    else:
        from hpc_train.bench.study.report import report

        report(laid_out, left_out)
