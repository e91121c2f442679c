"""Making what is missing of a study: here, one job after another, or as jobs of Slurm."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import fmean

from hpc_train.bench.study import launch, peers, submit
from hpc_train.bench.study.measurements import OURS, PLAN, load
from hpc_train.bench.study.plan import Job
from hpc_train.errors import UserError
from hpc_train.files import write_json

Tell = Callable[[str], None]
# Seconds after which a file is there that a job on another node has written.
_LATE = 10


def here(options, jobs: list[Job], tell: Tell) -> list[str]:
    """Run on this machine the jobs that have no measurement yet, one after another.

    Args:
        chosen: the command's options.
        jobs: all, in their order.
        tell: takes the lines of progress.

    Returns:
        Names of the jobs that failed.

    Raises:
        UserError: the launcher is not there, or nothing of the first repeat works.
    """
    missing = [job for job in jobs if not load(options.study / job.file)]
    first = sum(job.repeat == jobs[0].repeat for job in jobs)
    failed: list[str] = []
    with launch.ended_by_signals(), _said_when_interrupted(tell, "the same command goes on"):
        for number, job in enumerate(missing, 1):
            log, begun = options.study / f"{job.name}.log", time.monotonic()
            status = _run(options, job, log)
            place, figures = f"[{number}/{len(missing)}] {job.described}", load(options.study / job.file)
            if figures:
                tell(f"{place}: {_rate(figures)} samples/s, {time.monotonic() - begun:.0f} s")
                continue
            failed.append(job.name)
            how = f"ended after {options.timeout:g} s" if status is None else f"status {status}"
            tell(_failure(f"{place}: failed, {how}", log))
            if len(failed) == number == first < len(missing):
                raise UserError(f"every job of the first repeat failed, and the rest is not tried: see {log}")
    return failed


def _run(options, job: Job, log: Path) -> int | None:
    argv, variables = _command(options, job)
    try:
        return launch.run(argv, variables, log, options.timeout)
    except OSError as error:
        raise UserError(f"cannot start `{shlex.join(argv[:3])} ...`: {error.strerror or error}") from error


@contextmanager
def _said_when_interrupted(tell: Tell, what: str) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        tell(f"interrupted; {what}")
        raise


def _command(options, job: Job) -> tuple[list[str], dict[str, str]]:
    output = options.study / job.file
    if job.framework != OURS:
        return peers.command(job, options.benchmark, output, options.peers_python)
    launcher = [word.replace("{np}", str(job.ranks)) for word in shlex.split(options.launcher)]
    program = [sys.executable, "-m", "hpc_train.cli", "bench", "throughput"]
    return [*launcher, *program, *options.benchmark, *job.options, "--output", str(output)], job.environment


def on_cluster(options, jobs: list[Job], plan: dict, tell: Tell) -> dict[str, str]:
    """Submit the jobs that have no measurement and are not in the queue, each to run after the one before.

    Args:
        chosen: the command's options.
        jobs: all, in their order.
        plan: as `record` has it.
        tell: takes the lines of progress.

    Returns:
        Job numbers, by file, of all that is in the queue.

    Raises:
        UserError: no Slurm, or it refuses a job.
    """
    study = options.study
    missing = [job for job in jobs if not load(study / job.file)]
    known = {file: number for file, number in plan["submitted"].items() if not load(study / file)}
    alive = submit.queued(known.values()) if known else set()
    waited = {file: number for file, number in known.items() if number in alive}
    last = max(alive, key=int, default=None)
    for job in missing:
        if job.file not in waited:
            last = submit.submit(study, job, options.benchmark, options.ranks_per_node, options.sbatch, last)
            waited[job.file] = last
            # At once: it is found again whatever ends this.
            write_json(study / PLAN, {**plan, "submitted": waited})
        tell(f"{job.described}: job {waited[job.file]}")
    return waited


def collect(study: Path, waited: dict[str, str], tell: Tell) -> list[str]:
    """Wait until submitted jobs are over.

    Args:
        study: the folder.
        waited: their numbers, by the files that they make.
        tell: takes the lines of progress.

    Returns:
        Names of those that failed.

    Raises:
        UserError: Slurm does not answer for a minute.
    """
    failed: list[str] = []
    with _said_when_interrupted(tell, "the jobs stay in the queue, and the same command collects them"):
        for file in submit.over(waited):
            name, deadline = file.removesuffix(".json"), time.monotonic() + _LATE
            while not (figures := load(study / file)) and time.monotonic() < deadline:
                time.sleep(0.5)
            if figures:
                tell(f"{name}: {_rate(figures)} samples/s")
            else:
                failed.append(name)
                tell(_failure(f"{name}: job {waited[file]} failed", study / f"{name}.log"))
    return failed


def _failure(what: str, log: Path) -> str:
    lines = launch.last_lines(log)
    return "\n".join(
        [f"{what}; the end of {log}:" if lines else f"{what}; {log} is empty", *(f"    {x}" for x in lines)]
    )


def _rate(figures: dict) -> str:
    rates = figures["rates"]
    return f"{fmean(rates.get('fit') or next(iter(rates.values()))):.4g}"
