"""The benchmark's command line, read before anything runs."""

from collections.abc import Sequence

from hpc_train.bench.study.plan import Job
from hpc_train.errors import UserError

PROGRAM = "hpc-train bench throughput"


def parsed(words: Sequence[str]):
    """Options of `hpc-train bench throughput WORDS`; a mistake in them ends this process as it would end that command.

    Raises:
        UserError: values that make no sense.
    """
    from hpc_train import command_line
    from hpc_train.bench.throughput.options import Throughput
    from hpc_train.training.options import check

    found = command_line.parse(Throughput, PROGRAM, words)
    found.check_bench()
    check(found.of_trainer())
    return found


def check(words: Sequence[str], jobs: list[Job]) -> None:
    """Read the command line of every kind of job, each once.

    Raises:
        UserError: values that make no sense, or --output, which is the study's.
    """
    if parsed(words).output:
        raise UserError("--output is the study's: every job has its file in the study's folder; leave it out")
    for added in dict.fromkeys(tuple(job.options) for job in jobs):
        parsed([*words, *added])
