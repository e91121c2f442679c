"""The command line of the benchmark, which is read before anything runs."""

from collections.abc import Sequence

from hpc_train.bench.study.plan import Job
from hpc_train.errors import UserError

PROGRAM = "hpc-train bench throughput"


def parsed(words: Sequence[str]):
    """Read the options of `hpc-train bench throughput WORDS`. A mistake ends this process as it would end that command.

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
    """Check the command line of every kind of job.

    Raises:
        UserError: values that make no sense, or --output, which the study sets.
    """
    if parsed(words).output:
        raise UserError("--output: the study sets it for every job, to a file in its folder; leave it out")
    for added in dict.fromkeys(tuple(job.options) for job in jobs):
        parsed([*words, *added])
