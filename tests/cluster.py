"""A Slurm cluster for the tests: two nodes with four pretended GPUs each, on this machine, as root or any user.

As root, each node has its own host name. To try it by hand: `python tests/cluster.py start`, `status`, `stop`. It uses
only the standard library: any Python 3.10 or later runs it, with this file and cluster_daemons.py in any folder.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "sinfo")
# Debian's daemons are in folders that are only on root's PATH.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
UNFINISHED = {"PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "REQUEUED", "PREEMPTED", "STAGE_OUT"}
BY_HAND = Path(f"/tmp/hpc-train-cluster-{os.getuid()}")


def missing() -> str:
    """Why no cluster can run here; empty if one can."""
    absent = [program for program in PROGRAMS if not shutil.which(program, path=PATH)]
    return f"no {', '.join(absent)} here: install Slurm (Debian: slurm-wlm slurm-client munge)" if absent else ""


def settings() -> set[str]:
    """Names of the variables that a developer may have set for own jobs; read from the templates if they are here."""
    templates = Path(__file__).parents[1] / "slurm" / "job.sh"
    names = re.search(r"for name in ([A-Z_ \\\n]+); do", templates.read_text()) if templates.exists() else None
    return {"HPC_TRAIN", *re.findall("[A-Z_]+", names[1] if names else "")}


def short_folder() -> Path:
    """A new folder with a short path, whatever TMPDIR is: sockets have at most 107 characters."""
    places = [place for place in ("/tmp", "/var/tmp", "/dev/shm", tempfile.gettempdir()) if os.access(place, os.W_OK)]
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir=places[0]))
    folder.chmod(0o755)
    return folder


@dataclass(frozen=True)
class Job:
    """A job, as `scontrol show job` describes it."""

    fields: dict[str, str]

    @property
    def state(self) -> str:
        """RUNNING, COMPLETED, FAILED, ..."""
        return self.fields["JobState"]

    @property
    def status(self) -> int:
        """Exit status of the batch script, as in a shell: 128 + N if signal N ended it."""
        status, number = map(int, self.fields["ExitCode"].split(":"))
        return status or (number and 128 + number)

    @property
    def restarts(self) -> int:
        """How many times it was requeued and started again."""
        return int(self.fields["Restarts"])

    @property
    def finished(self) -> bool:
        """Whether it has ended for good."""
        return self.state not in UNFINISHED


@dataclass(frozen=True)
class Shape:
    """What a cluster is like, and what it asks of jobs."""

    gpus: tuple[int, ...] = (4, 4)
    """GPUs of each node."""
    cpus: int = 64
    gpu_type: str = ""
    """Such as v100-32; by default GPUs have no type."""
    features: str = "gpu"
    """Of every node, for --constraint."""
    mpi_default: str = "none"
    job_submit: str = ""
    """The text of job_submit.lua, which accepts, changes or refuses jobs."""
    conf: tuple[str, ...] = ()
    """More lines of slurm.conf."""

    @property
    def nodes(self) -> int:
        """The number of nodes, node1 to nodeN."""
        return len(self.gpus)


class Cluster:
    """A cluster in a folder of its own. It ends at the latest with this process; also a context manager."""

    def __init__(self, **shape):
        self.shape = Shape(**shape)
        self.folder: Path | None = None
        self._supervisor: subprocess.Popen | None = None
        self.submitted: list[str] = []

    def start(self, folder: Path | None = None, stay: bool = False) -> "Cluster":
        """Start the daemons and wait until every node takes jobs.

        Args:
            folder: where to keep everything; by default a new folder.
            stay: keep running after the end of this process.

        Raises:
            RuntimeError: a daemon does not start; the message holds its log.
        """
        self.folder = folder or short_folder()
        command = [sys.executable, str(Path(__file__).with_name("cluster_daemons.py")), str(self.folder)]
        command += [json.dumps({**asdict(self.shape), "nodes": self.shape.nodes}), *(["--stay"] if stay else [])]
        # A session of its own: Ctrl-C in a terminal is for the tests, which then stop the cluster.
        self._supervisor = subprocess.Popen(
            command,
            env=self.environment(),
            stdin=subprocess.DEVNULL if stay else subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A cluster that stays must not keep open the pipe that the command's caller reads.
            stderr=subprocess.DEVNULL if stay else None,
            text=True,
            start_new_session=True,
        )
        (self.folder / "supervisor.pid").write_text(str(self._supervisor.pid))
        answer = self._supervisor.stdout.readline()
        if answer.strip() != "ready":
            raise RuntimeError(answer + self._supervisor.stdout.read())
        return self

    def stop(self) -> None:
        """End every process of the cluster and of its jobs; remove the folder."""
        if self._supervisor:
            self._supervisor.communicate()
            self._supervisor = None

    def __enter__(self) -> "Cluster":
        return self.start()

    def __exit__(self, *_) -> None:
        self.stop()

    @property
    def conf(self) -> Path:
        """The configuration, for SLURM_CONF."""
        return self.folder / "slurm.conf"

    def environment(self, **variables: str) -> dict[str, str]:
        """This process's environment, for this cluster's commands, without the variables of other jobs."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_"))}
        own = {name: value for name, value in own.items() if name not in settings()}
        # Where the templates remember a launcher.
        own["XDG_CACHE_HOME"] = f"{self.folder}/cache"
        return {**own, "PATH": PATH, "SLURM_CONF": str(self.conf), **variables}

    def run(self, *command, cwd=None, timeout: float = 60, **variables: str) -> subprocess.CompletedProcess:
        """Run a command such as `sbatch` or `srun` to its end; `stdout` of the result holds both streams."""
        return subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=self.environment(**variables),
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def submit(self, *arguments, cwd, **variables: str) -> str:
        """Run `sbatch ARGUMENTS` in the folder `cwd`.

        Returns:
            The number of the job.

        Raises:
            RuntimeError: sbatch refuses it.
        """
        answer = self.run("sbatch", "--parsable", *arguments, cwd=cwd, **variables)
        # sbatch may print more than the number, on the other stream.
        numbers = [line for line in answer.stdout.splitlines() if line.isdigit()]
        if answer.returncode or not numbers:
            raise RuntimeError(f"sbatch {' '.join(map(str, arguments))}: {answer.stdout}")
        self.submitted.append(numbers[-1])
        return numbers[-1]

    def job(self, number: str) -> Job:
        """The job as it is now; for an array its first element.

        Raises:
            RuntimeError: Slurm does not know it, or the controller does not answer.
        """
        for _ in range(3):
            answer = self.run("scontrol", "show", "job", "-o", number)
            if answer.returncode == 0:
                first = answer.stdout.splitlines()[0]
                return Job(dict(word.split("=", 1) for word in first.split() if "=" in word))
            time.sleep(1)  # the controller may be busy, as on real clusters
        raise RuntimeError(f"scontrol show job {number}: {answer.stdout}")

    def wait(self, number: str, timeout: float, until=lambda job: job.finished) -> Job:
        """Wait for the end of a job, or until `until(job)` is true.

        Returns:
            The job as it is then.

        Raises:
            TimeoutError: this takes more than `timeout` seconds, or the job ends before; it is then cancelled.
        """
        deadline = time.monotonic() + timeout
        while not until(job := self.job(number)):
            if job.finished or time.monotonic() > deadline:
                self.run("scancel", number)
                raise TimeoutError(f"job {number} is {job.state} after waiting for at most {timeout} s")
            time.sleep(0.2)
        return job

    def output(self, number: str) -> str:
        """What the job has printed so far, on both streams."""
        streams = {self.job(number).fields[name] for name in ("StdOut", "StdErr")}
        return "".join(Path(path).read_text(errors="replace") for path in sorted(streams) if Path(path).exists())

    def clear(self, first: int = 0) -> None:
        """Cancel the unfinished jobs among those submitted here, from number `first` on, and wait for their end."""
        mine, self.submitted[first:] = self.submitted[first:], []
        left = [number for number in mine if not self.job(number).finished]
        for number in left:
            self.run("scancel", number)
        deadline = time.monotonic() + 45  # more than KillWait
        while not all(self.job(number).finished for number in left) and time.monotonic() < deadline:
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of the daemons' logs and of the outputs of the jobs that have not been cleared."""
        outputs = [(f"job {number}", self.output(number)) for number in self.submitted]
        daemons = [(log.name, log.read_text(errors="replace")) for log in sorted(self.folder.glob("slurm*.log"))]
        return "\n".join(f"--- {name}\n{text[-3000:]}" for name, text in outputs + daemons)


def _supervisor_by_hand() -> int | None:
    try:
        number = int((BY_HAND / "supervisor.pid").read_text())
        ours = str(BY_HAND).encode() in Path(f"/proc/{number}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return number if ours else None


def main() -> None:
    """Run one of the commands to try a cluster by hand."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["start", "status", "stop"])
    command = parser.parse_args().command
    supervisor = _supervisor_by_hand()
    if command == "stop":
        if supervisor:
            os.kill(supervisor, signal.SIGTERM)
            while _supervisor_by_hand():
                time.sleep(0.05)
        return
    if missing():
        sys.exit(f"error: {missing()}")
    if command == "start" and not supervisor:
        shutil.rmtree(BY_HAND, ignore_errors=True)
        BY_HAND.mkdir(mode=0o755)
        try:
            Cluster().start(BY_HAND, stay=True)
        except RuntimeError as error:
            sys.exit(f"error: {error}")
    if not _supervisor_by_hand():
        sys.exit("no cluster is running; start one: python tests/cluster.py start")
    print(f"export SLURM_CONF={BY_HAND}/slurm.conf PATH=$PATH:/usr/sbin")
    if command == "status":
        sys.stdout.flush()
        subprocess.run(["sinfo", "-N", "-l"], env={**os.environ, "PATH": PATH, "SLURM_CONF": f"{BY_HAND}/slurm.conf"})


if __name__ == "__main__":
    main()
