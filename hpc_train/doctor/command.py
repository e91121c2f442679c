"""`hpc-train doctor`: what is well and what is not, in one line each."""

import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from hpc_train.console import say
from hpc_train.doctor import launch
from hpc_train.doctor.container import with_size
from hpc_train.doctor.examine import Examination
from hpc_train.doctor.findings import Finding, Report
from hpc_train.doctor.supervise import Broken, watch
from hpc_train.errors import UserError
from hpc_train.parallel.failure import first_of_node
from hpc_train.parallel.launcher import Launcher, detect

# Seconds that a rank which cannot go on leaves to rank 0, which may have the same trouble and tells it better.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Doctor:
    """Look at this machine, this environment and this job: one line each of what is ok, worth a note, or wrong.

    Run it anywhere: on a laptop, on a login node, and as the ranks of a job (`srun hpc-train doctor`, `mpirun -np 4
    hpc-train doctor`, `horovodrun -np 2 hpc-train doctor`), where rank 0 speaks for all. Whatever is wrong is printed
    with its fix, and the exit status is then 1.
    """

    data: Path | None = None
    """Data that will be read: a folder, a file, or a pattern in quotes. Checks their file system, and whether they fit
    on node-local storage."""
    local: str | None = None
    """Folder of node-local storage. A variable in quotes ('$TMPDIR/data') is looked up on each node. By default
    NODE_LOCAL, SLURM_TMPDIR, LOCAL_SCRATCH, TMPDIR or /tmp, the first that is set."""
    launch: bool = False
    """Only check whether this launcher makes one job of its ranks: about a second, without TensorFlow."""
    ranks: int | None = None
    """Number of ranks that there should be, for launchers and containers that hide it."""
    json: bool = False
    """Print one JSON document, on one line, with a table of the ranks, instead of text."""
    timeout: float | None = None
    """Seconds after which a step that does not end is given up; by default 120, or 20 with --launch."""


def run(options: Doctor) -> None:
    """Examine, tell, and end with status 1 where anything is wrong.

    Raises:
        UserError: an impossible option.
    """
    if options.timeout is not None and options.timeout <= 0:
        raise UserError(f"--timeout is {options.timeout}; it must be more than 0")
    if options.ranks is not None and options.ranks < 1:
        raise UserError(f"--ranks is {options.ranks}; it must be at least 1")
    launcher = detect() if options.ranks is None else with_size(detect(), options.ranks)
    speaks = launcher.rank == 0
    seconds = options.timeout or (20 if options.launch else 120)
    if not speaks:
        seconds *= 3  # rank 0 waits for the others as well, and is the one to say so

    def work(tell) -> None:
        if options.launch:
            launch.examine(launcher, seconds, tell)
        else:
            Examination(launcher, options.data, options.local, seconds, tell).run()

    report = Report(speaks, options.json, summary=not options.launch)
    try:
        broken = watch(work, report.hear, quiet=options.launch or not speaks)
    except KeyboardInterrupt:
        if speaks:
            say("interrupted", sys.stderr)
        sys.exit(130)
    if not speaks:
        _end_quietly(launcher, broken, report.lost)
    if broken:
        report.hear(Finding("launch" if options.launch else "gave up", "wrong", broken.text, broken.remedy))
    status = report.close()
    if status and launcher.size != 1:
        time.sleep(1)  # launchers kill the ranks that are still about to end, and tell at length
    sys.exit(status)


def _end_quietly(launcher: Launcher, broken: Broken | None, lost: Finding | None) -> None:
    """End a rank that does not speak, unless it alone knows what keeps the job from going on."""
    if not broken and not lost:
        sys.exit(0)
    if broken and broken.known:
        sys.exit(1)
    time.sleep(_PATIENCE if lost else _PATIENCE / 3)
    if first_of_node(f"doctor-{launcher.size}"):
        finding = lost or Finding("gave up", "wrong", broken.text)
        say(f"rank {launcher.rank} on {socket.gethostname()}: {finding.line}", sys.stderr)
    sys.exit(1)
