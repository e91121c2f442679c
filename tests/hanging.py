"""Trainings in which one rank does not go on from some step on, for tests and for `faults.py`."""

import os
import re
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from launch import RANKS, start, start_mpi

# Seconds of --hang-after.
AFTER = 8
# What one rank does after step 30, and what the report must say of it.
FAULTS = {
    "stop": r"rank 1 of 2 \(on \S+\) is stopped \(SIGSTOP",
    "read": r"rank 1 of 2 \(on \S+\) waits for its data in the phase \w+ of step \d+: .* not return \(hangs\.py",
    "lock": r"rank 1 of 2 \(on \S+\) waits for a lock of its own process at hangs\.py:\d+ \(`other\.acquire",
    "inside": r"rank 1 of 2 \(on \S+\) is in step \d+ .*, runs hangs\.py:\d+, and has not come to the collective",
    "native": r"rank 1 of 2 \(on \S+\) runs, but its interpreter answers nobody",
    "other": r"rank 1 of 2 \(on \S+\) is in step \d+ .*, in Horovod's allreduce 'of_this_rank_alone' \(hangs\.py:\d+\)",
    "fewer": r"rank 1 of 2 \(on \S+\) is in step 30 \(epoch 2\), in Horovod's all\w+",
}


def options(data: Path, run: Path, *more) -> list:
    """Those of a training that would take longer than any test."""
    return [
        *("--model", "fc", "--data", data, "--run", run, "--epochs", 40, "--batch-size", 32, "--no-histograms"),
        *("--hang-after", AFTER, *more),
    ]


def begin(launcher: str, fault: str, *arguments, rank: int = 1) -> subprocess.Popen:
    """Two ranks in the background, of which one has the fault."""
    words = list(map(str, (RANKS / "hangs.py", fault, rank, 30, *arguments)))
    return start_mpi(2, *words) if launcher == "mpirun" else start(2, *words, controller="--gloo")


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
    line: str
    """The report; empty where there is none."""
    seconds: float
    """From the step of the fault to the end of the job."""
    left: int
    """Ranks that still run 10 s after the job's end."""
    output: str

    def right(self, fault: str) -> bool:
        """Whether the cause was named and all ranks have ended, not well."""
        return bool(re.search(FAULTS[fault], self.line)) and self.status != 0 and not self.left


def train(launcher: str, fault: str, data: Path, run: Path, timeout: float = 150, rank: int = 1) -> Hung:
    """Train until the job ends or is killed after `timeout` seconds."""
    job = begin(launcher, fault, *options(data, run), rank=rank)
    try:
        output, _ = job.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        output, _ = job.communicate()
    ended = time.time()
    line = next((line for line in output.splitlines() if "error: nothing has moved for" in line), "")
    faulty = run / "fault"
    seconds = ended - faulty.stat().st_mtime if faulty.exists() else 0.0
    deadline = time.monotonic() + 10
    while (left := ranks_of(run)) and time.monotonic() < deadline:
        time.sleep(0.2)
    for process in left:
        process.kill()
    return Hung(job.returncode, line, seconds, len(left), output)
