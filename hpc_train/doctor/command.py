"""`hpc-train doctor`: its options, and how it ends."""

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

# Seconds that a rank with a problem waits: rank 0 may find the same problem, and describes it better.
_PATIENCE = 10.0


@dataclass(frozen=True)
class Doctor:
    """Check this machine, environment and job, and print one line for each check: ok, note or wrong.

    Run it anywhere: on a laptop, on a login node, or as the ranks of a job (`srun hpc-train doctor`, `mpirun -np 4
    hpc-train doctor`, `horovodrun -np 2 hpc-train doctor`), where rank 0 prints for all ranks. After each problem it
    prints how to fix it. If something is wrong, the exit status is 1.
    """

    data: Path | None = None
    """Data that you want to read: a folder, a file, or a pattern in quotes. Checks their file system, and whether they
    fit on node-local storage."""
    local: str | None = None
    """Folder on node-local storage. Each node expands a variable in single quotes ('$TMPDIR/data'). Default: the first
    that is set of NODE_LOCAL, SLURM_TMPDIR, LOCAL_SCRATCH and TMPDIR, or else /tmp."""
    launch: bool = False
    """Only check whether the ranks that this launcher starts find each other. Takes about a second, without
    TensorFlow."""
    ranks: int | None = None
    """Number of ranks that the launcher starts. Needed only if the launcher or a container hides it."""
    json: bool = False
    """Print one line of JSON instead of text, with a table of the ranks."""
    timeout: float | None = None
    """Seconds after which the doctor gives up on a step. Default: 120, or 20 with --launch."""


def run(options: Doctor) -> None:
    """Run the checks, print the findings, and exit with status 1 if something is wrong.

    Raises:
        UserError: an option is invalid.
    """
    if options.timeout is not None and options.timeout <= 0:
        raise UserError(f"--timeout is {options.timeout}; it must be more than 0")
    if options.ranks is not None and options.ranks < 1:
        raise UserError(f"--ranks is {options.ranks}; it must be at least 1")
    launcher = detect() if options.ranks is None else with_size(detect(), options.ranks)
    prints = launcher.rank == 0
    seconds = options.timeout or (20 if options.launch else 120)
    if not prints:
        seconds *= 3  # rank 0 waits for the others, too, and shall report it first

    def work(send) -> None:
        if options.launch:
            launch.examine(launcher, seconds, send)
        else:
            Examination(launcher, options.data, options.local, seconds, send).run()

    report = Report(prints, options.json, summary=not options.launch)
    try:
        broken = watch(work, report.add, quiet=options.launch or not prints)
    except KeyboardInterrupt:
        if prints:
            say("interrupted", sys.stderr)
        sys.exit(130)
    if not prints:
        _end_quietly(launcher, broken, report.lost)
    if broken:
        report.add(Finding("launch" if options.launch else "gave up", "wrong", broken.text, broken.remedy))
    status = report.close()
    if status and launcher.size != 1:
        time.sleep(1)  # a launcher kills ranks that end later than this one, and prints a long message about it
    sys.exit(status)


def _end_quietly(launcher: Launcher, broken: Broken | None, lost: Finding | None) -> None:
    """End a rank other than 0. It prints something only if it alone may know why the job stopped."""
    finding = lost or (Finding("gave up", "wrong", broken.text) if broken else None)
    if not finding:
        sys.exit(0)
    if broken and broken.known:
        sys.exit(1)
    time.sleep(_PATIENCE if lost else _PATIENCE / 3)
    if first_of_node(f"doctor-{launcher.size}"):
        say(f"rank {launcher.rank} on {socket.gethostname()}: {finding.line}", sys.stderr)
    sys.exit(1)
