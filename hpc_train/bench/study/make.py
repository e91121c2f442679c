"""Running the jobs that a study lacks: here, one after another, or as jobs of Slurm."""

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
from hpc_train.files.json_file import write_json

Show = Callable[[str], None]
# Seconds to wait for a file that a job on another node has written.
_LATE = 10


def here(options, jobs: list[Job], show: Show) -> list[str]:
    """Run the jobs that have no measurement yet on this machine, one after another.

    Args:
        options: the command's.
        jobs: all, in their order.
        show: called with each line of progress.

    Returns:
        Names of the jobs that failed.

    Raises:
        UserError: the launcher cannot be started, or every job of the first repeat failed.
    """
    missing = [job for job in jobs if not load(options.study / job.file)]
    first = sum(job.repeat == jobs[0].repeat for job in jobs)
    failed: list[str] = []
    with launch.ended_by_signals(), _when_interrupted(show, "the same command goes on"):
        for number, job in enumerate(missing, 1):
            log, begun = options.study / f"{job.name}.log", time.monotonic()
            status = _run(options, job, log)
            place, figures = f"[{number}/{len(missing)}] {job.described}", load(options.study / job.file)
            if figures:
                show(f"{place}: {_rate(figures)} samples/s, {time.monotonic() - begun:.0f} s")
                continue
            failed.append(job.name)
            how = f"ended after {options.timeout:g} s" if status is None else f"status {status}"
            show(_failure(f"{place}: failed, {how}", log))
            if len(failed) == number == first < len(missing):
                raise UserError(f"every job of the first repeat failed, so the rest was not tried; read {log}")
    return failed


def _run(options, job: Job, log: Path) -> int | None:
    argv, variables = _command(options, job)
    try:
        return launch.run(argv, variables, log, options.timeout)
    except OSError as error:
        raise UserError(f"cannot start `{shlex.join(argv[:3])} ...`: {error.strerror or error}") from error


@contextmanager
def _when_interrupted(show: Show, what: str) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(what) from None
    except SystemExit:
        show(f"interrupted: {what}")
        raise


def _command(options, job: Job) -> tuple[list[str], dict[str, str]]:
    output = options.study / job.file
    if job.framework != OURS:
        return peers.command(job, options.benchmark, output, options.peers_python)
    launcher = [word.replace("{np}", str(job.ranks)) for word in shlex.split(options.launcher)]
    program = [sys.executable, "-m", "hpc_train.cli", "bench", "throughput"]
    return [*launcher, *program, *options.benchmark, *job.options, "--output", str(output)], job.environment


def on_cluster(options, jobs: list[Job], plan: dict, show: Show) -> dict[str, str]:
    """Submit the jobs that have no measurement and are not in the queue. Each runs after the one before.

    Args:
        options: the command's.
        jobs: all, in their order.
        plan: as `record` returns it.
        show: called with each line of progress.

    Returns:
        The numbers of all jobs in the queue, by file.

    Raises:
        UserError: there is no Slurm, or it refuses a job.
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
            # Write it at once, so the job can be found again however this ends.
            write_json(study / PLAN, {**plan, "submitted": waited})
        show(f"{job.described}: job {waited[job.file]}")
    return waited


def collect(study: Path, waited: dict[str, str], show: Show) -> list[str]:
    """Wait until submitted jobs have ended.

    Args:
        study: the folder.
        waited: their numbers, by the files that they write.
        show: called with each line of progress.

    Returns:
        Names of the jobs that failed.

    Raises:
        UserError: Slurm does not answer for a minute.
    """
    failed: list[str] = []
    with _when_interrupted(show, "the jobs stay in the queue, and the same command collects them"):
        for file in submit.over(waited):
            name, deadline = file.removesuffix(".json"), time.monotonic() + _LATE
            while not (figures := load(study / file)) and time.monotonic() < deadline:
                time.sleep(0.5)
            if figures:
                show(f"{name}: {_rate(figures)} samples/s")
            else:
                failed.append(name)
                show(_failure(f"{name}: job {waited[file]} failed", study / f"{name}.log"))
    return failed


def _failure(what: str, log: Path) -> str:
    lines = launch.last_lines(log)
    return "\n".join([f"{what}; from {log}:" if lines else f"{what}; {log} is empty", *(f"    {x}" for x in lines)])


def _rate(figures: dict) -> str:
    rates = figures["rates"]
    return f"{fmean(rates.get('fit') or next(iter(rates.values()))):.4g}"
