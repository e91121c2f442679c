"""The jobs of a study as jobs of Slurm: submitting them, and waiting until they have ended."""

import os
import re
import shlex
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from hpc_train.bench.study.plan import Job
from hpc_train.errors import UserError

_TEMPLATE = Path("slurm", "scaling_study.sh")
_POLL = 2.0
_TRIES = 30


def shape(ranks: int, ranks_per_node: int) -> tuple[int, int]:
    """(nodes, ranks on each node) for a number of ranks.

    Raises:
        UserError: the last node would have fewer ranks than the others.
    """
    if ranks <= ranks_per_node:
        return 1, ranks
    if ranks % ranks_per_node:
        raise UserError(
            f"--np {ranks} does not fill its nodes; with --ranks-per-node {ranks_per_node}, choose a multiple of it"
        )
    return ranks // ranks_per_node, ranks_per_node


def template() -> Path:
    """Find the batch script in this folder or in HPC_TRAIN.

    Raises:
        UserError: there is none.
    """
    path = Path(os.environ.get("HPC_TRAIN", "."), _TEMPLATE)
    if not path.is_file():
        how = "run this in a folder with slurm/ (`hpc-train templates FOLDER` writes it), or export HPC_TRAIN=FOLDER"
        raise UserError(f"there is no {path}: {how}")
    return path


def submit(study: Path, job: Job, words: Sequence[str], ranks_per_node: int, options: str, after: str | None) -> str:
    """Submit one job with `sbatch`. The job writes its measurement and its log into the study's folder.

    Args:
        study: the folder.
        job: what to run.
        words: the benchmark's command line.
        ranks_per_node: the most ranks of a node.
        options: more for sbatch, in one string; they replace what is set here. {gpus} and {gpus_a_node} are filled.
        after: number of the job that must end first, so that jobs of a study do not share the network.

    Returns:
        The job's number.

    Raises:
        UserError: sbatch refuses the job, or there is no sbatch.
    """
    nodes, tasks = shape(job.ranks, ranks_per_node)
    command = ["sbatch", "--parsable", f"--job-name={study.absolute().name}-{job.name}", f"--nodes={nodes}"]
    command += [f"--ntasks-per-node={tasks}", f"--output={study / job.name}.log"]
    places = {"{gpus}": str(nodes * tasks), "{gpus_a_node}": str(tasks)}
    # One form of asking for GPUs may contradict another.
    if not (form := re.search(r"(^|\s)(-G|--gpus|--gres[ =]\S*gpu)\S*", options)):
        command += [f"--gpus-per-node={tasks}"]
    elif not any(place in options for place in places) and not re.search(r"(=|:|-G)0\b|--gpus-per-task", form[0]):
        how = "write {gpus} for the number of the job, or {gpus_a_node}, as in --gres=gpu:a100:{gpus_a_node}"
        raise UserError(f"--sbatch {form[0].strip()}: the sizes of a study have unequal numbers of GPUs; {how}")
    for place, number in places.items():
        options = options.replace(place, number)
    command += [f"--dependency=afterany:{after}"] if after else []
    command += [*shlex.split(options), str(template()), *words, *job.options, "--output", str(study / job.file)]
    try:
        asked = subprocess.run(command, env={**os.environ, **job.environment}, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"--submit: there is no sbatch here ({error.strerror}); run this on a login node") from error
    number = asked.stdout.strip().split(";")[0]
    if asked.returncode or not number.isdigit():
        reason = " ".join((asked.stderr or asked.stdout).split())
        remedy = "add the options that it needs, as in --sbatch '--account=A --gpus-per-node=0'"
        raise UserError(f"sbatch refuses {job.described}: {reason}; {remedy}")
    return number


def queued(numbers: Iterable[str]) -> set[str]:
    """The jobs among these that have not ended.

    Raises:
        UserError: Slurm does not answer for a minute.
    """
    command = ["squeue", "--noheader", "--format=%A", f"--user={os.getuid()}"]
    for _ in range(_TRIES):
        try:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            reason = str(error)
        else:
            if asked.returncode == 0:
                return set(numbers) & set(asked.stdout.split())
            reason = " ".join(asked.stderr.split())
        time.sleep(_POLL)  # the controller may be busy
    raise UserError(f"squeue does not answer: {reason}; run the same command again later, and it goes on from here")


def over(waited: dict[str, str]) -> Iterator[str]:
    """Yield the files of jobs, as the jobs end.

    Args:
        waited: numbers of jobs, by the files that they write.

    Raises:
        UserError: Slurm does not answer for a minute.
    """
    left = dict(waited)
    while left:
        alive = queued(left.values())
        for file in [file for file, number in left.items() if number not in alive]:
            del left[file]
            yield file
        if left:
            time.sleep(_POLL)
