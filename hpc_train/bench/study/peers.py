"""Jobs of other frameworks beside ours."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from hpc_train.bench.study.benchmark import parsed
from hpc_train.bench.study.measurements import OURS
from hpc_train.bench.study.plan import Job
from hpc_train.errors import UserError
from hpc_train.parallel.world import threads_per_rank

# Options with which our step computes something that theirs do not. How gradients are averaged may differ.
_COMPUTED = {"precision", "accumulate", "augment", "optimizer", "layerwise", "clip_norm", "label_smoothing", "ema"}
_COMPUTED |= {"sync_batch_norm", "init"}


def frameworks() -> tuple[str, ...]:
    """The other frameworks that a study can measure beside ours."""
    from hpc_train.bench import frameworks

    return frameworks.FRAMEWORKS


def check(jobs: Sequence[Job], words: Sequence[str], output: Path, python: Path | None) -> None:
    """Check that every framework among the jobs can do what the benchmark's command line says.

    Raises:
        UserError: one cannot.
    """
    options = parsed(words)
    for field in dataclasses.fields(options):
        if field.name in _COMPUTED and getattr(options, field.name) != field.default:
            option = field.name.replace("_", "-")
            raise UserError(f"--peers: the other frameworks are measured without --{option}; leave one of the two out")
    for job in {job.framework: job for job in jobs if job.framework != OURS}.values():
        command(job, words, output, python)


def command(job: Job, words: Sequence[str], output: Path, python: Path | None) -> tuple[list[str], dict[str, str]]:
    """Make the command of a peer's process group, with our model, data, batch and threads.

    Args:
        job: size, batch and framework.
        words: the benchmark's command line.
        output: file for the measurement.
        python: interpreter that has the peer's packages; None takes this one.

    Returns:
        The command, and variables that it needs besides this process's.

    Raises:
        UserError: the peer lacks the network, or its packages are missing.
    """
    from hpc_train.bench import frameworks

    options, cores = parsed(words), len(os.sched_getaffinity(0))
    return frameworks.command(
        framework=job.framework,
        ranks=job.ranks,
        threads=options.threads or threads_per_rank(job.ranks, cores, os.cpu_count() or 1),
        trainer=options.TRAINER,
        model=options.model,
        batch_size=job.batch_size or options.batch_size,
        steps=options.steps,
        rounds=options.rounds,
        data=options.data,
        output=output,
        python=python,
    )
