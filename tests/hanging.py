"""Trainings in which one rank does not go on from some step on, for tests and for `faults.py`."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from cluster import Cluster
from launch import RANKS, ranks_environment, start, start_command, start_mpi

# Seconds of --hang-after.
AFTER = 8
# The step after which one rank does something, and what the report must say of it.
STEP = 30
_RANK = r"rank 1 of \d \(on \S+\) "
FAULTS = {
    "stop": _RANK + r"is stopped \(SIGSTOP",
    "read": _RANK + r"waits for its data in the phase \w+ of step \d+: .* not return \(hangs\.py",
    "lock": _RANK + r"waits for a lock of its own process at hangs\.py:\d+ \(`other\.acquire",
    "inside": _RANK + r"is in step \d+ .*, runs hangs\.py:\d+, and has not come to the collective",
    "native": _RANK + r"runs, but its interpreter answers nobody",
    "other": _RANK + r"is in step \d+ .*, in Horovod's allreduce 'of_this_rank_alone' \(hangs\.py:\d+\)",
    "fewer": _RANK + rf"is in step {STEP} \(epoch \d\), in Horovod's all\w+",
    "node": r"ranks? [13, ]+ of \d \(on \S+\)(, each of which)? is silent, with all ranks of its node",
    "kill": _RANK + r"was ended by SIGKILL: not for want of memory.*; the last checkpoint is that of step \d+",
}
REPORT = re.compile(r"error: (nothing has moved for|rank \d+ of \d+ .* was ended by)")
LAUNCHERS = ("gloo", "mpirun", "slurm")


def options(data: Path, run: Path, *more) -> list:
    """Those of a training that would take longer than any test."""
    return [
        *("--model", "fc", "--data", data, "--run", run, "--epochs", 40, "--batch-size", 32, "--no-histograms"),
        *("--hang-after", AFTER, *more),
    ]


def begin(
    launcher: str, fault: str, *arguments, rank: int = 1, ranks: int = 2, machine: Cluster | None = None
) -> subprocess.Popen:
    """Ranks in the background, of which one has the fault; under "slurm" on two nodes of `machine`."""
    words = list(map(str, (RANKS / "hangs.py", fault, rank, STEP, *arguments)))
    if launcher == "gloo":
        return start(ranks, *words, controller="--gloo")
    if launcher == "mpirun":
        return start_mpi(ranks, *words)
    # Cyclic: an odd rank is on the second node.
    srun = ["srun", "--mpi=pmi2", f"--ntasks={ranks}", "--nodes=2", "--distribution=cyclic", "--kill-on-bad-exit=1"]
    return start_command([*srun, sys.executable, *words], env=machine.environment(**ranks_environment()))


def ranks_of(run: Path) -> list[psutil.Process]:
    """Processes that train in a run folder."""
    found = []
    for process in psutil.process_iter(["cmdline", "status", "name"]):
        words = process.info["cmdline"] or []
        trains = str(run) in words and "python" in process.info["name"] and str(RANKS / "hangs.py") in words[:3]
        if trains and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(process)
    return found


@dataclass
class Hung:
    """How a training with a fault ended."""

    status: int
    """Of the launcher; negative where it had to be killed."""
    line: str
    """The report; empty where there is none."""
    seconds: float
    """From the step of the fault to the end of the job."""
    left: int
    """Ranks that still run 10 s after the job's end."""
    lost: int
    """Steps since the newest checkpoint."""
    output: str

    def right(self, fault: str) -> bool:
        """Whether the cause was named and all ranks have ended, not well."""
        return bool(re.search(FAULTS[fault], self.line)) and self.status > 0 and not self.left


def calm(launcher: str, data: Path, run: Path, seconds: float) -> tuple[int, str, int]:
    """Train for so long with slow checkpoints and slow validation, and stop the whole job again and again, for 12 s.

    Returns:
        Its status, its output, and how often it was stopped.
    """
    # About 33 s an epoch, and 12 more for each stop.
    epochs = max(2, round(seconds / 45))
    job, stops = begin(launcher, "calm", *options(data, run, "--epochs", epochs)), 0
    begun = time.monotonic()
    with open(run.with_suffix(".log"), "w+") as log:
        reader = threading.Thread(target=shutil.copyfileobj, args=(job.stdout, log))
        reader.start()
        while job.poll() is None and time.monotonic() - begun < 2 * seconds + 120:
            time.sleep(random.uniform(20, 50))
            processes = ranks_of(run)
            for act in ("suspend", "resume"):
                for process in processes:
                    with contextlib.suppress(psutil.Error):
                        getattr(process, act)()
                time.sleep(12 if act == "suspend" else 0)
            stops += bool(processes)
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        reader.join()
        log.seek(0)
        return job.wait(), log.read(), stops


def crowd(data: Path, run: Path) -> list[dict]:
    """Train five epochs on two cores, of which another program takes a quarter of rank 1's; the slow ranks that are
    named, as run.json has them.
    """
    # Steps of 30 ms and more, beside which it counts little that rank 0 also prints and writes.
    samples = ("--data", "synthetic", "--image-size", 28, "--classes", 10, "--synthetic-samples", 10240)
    more = (*samples, "--model", "deep", "--batch-size", 64, "--epochs", 5)
    output, _ = begin("gloo", "crowded", *options(data, run, *more)).communicate(timeout=600)
    try:
        return json.loads((run / "run.json").read_text())["starts"][0]["slow"]
    except (OSError, LookupError):
        return [{"output": output}]


def freeze_node(fault: Path) -> None:
    """Stop every process of the node of the rank that wrote this file: those with its host name, Slurm's as well."""
    name = os.readlink(f"/proc/{fault.read_text()}/ns/uts")
    for process in psutil.process_iter():
        with contextlib.suppress(OSError, psutil.Error):
            if os.readlink(f"/proc/{process.pid}/ns/uts") == name:
                process.suspend()


def train(
    launcher: str, fault: str, data: Path, run: Path, timeout: float = 150, rank: int = 1, ranks: int = 2
) -> Hung:
    """Train until the job ends or is killed after `timeout` seconds."""
    # Slurm ends a job on a node that is silent for so long; 300 s by default.
    with Cluster(conf=("SlurmdTimeout=30",)) if launcher == "slurm" else contextlib.nullcontext() as machine:
        job = begin(launcher, fault, *options(data, run), rank=rank, ranks=ranks, machine=machine)
        if fault == "node":
            while job.poll() is None and not (run / "fault").exists():
                time.sleep(0.1)
            freeze_node(run / "fault")
        try:
            output, _ = job.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            output, _ = job.communicate()
        ended = time.time()
        line = next((line for line in output.splitlines() if REPORT.search(line)), "")
        faulty = run / "fault"
        seconds = ended - faulty.stat().st_mtime if faulty.exists() else 0.0
        deadline = time.monotonic() + 10
        while (left := ranks_of(run)) and time.monotonic() < deadline:
            time.sleep(0.2)
        # A node that is down has processes until somebody looks at it.
        gone = [process for process in left if fault == "node" and process.status() == psutil.STATUS_STOPPED]
        for process in left:
            process.kill()
    newest = max((int(path.stem.split("-")[1]) for path in run.glob("checkpoints/step-*.h5")), default=0)
    return Hung(job.returncode, line, seconds, len(left) - len(gone), STEP - newest, output)
