"""`make test-kills`: trainings that are killed at random moments, under each launcher, end as one that was not.

    python tests/kills.py [--kills 500] [--launchers mpi gloo slurm] [--tally FILE]

Each run is killed again and again (one rank, the launcher, or all), and started again with --resume; in one of ten
starts two jobs race for its folder, and in half of them checkpoints are in two parts. At its end every variable must
have the bits of a run without kills, and each epoch one line of metrics. A line of JSON for each run is added to the
tally, which several calls of the command share.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cluster
import h5py
import numpy as np
import psutil
from launch import BIN, REPOSITORY, environment

TRAINER = ["-m", "hpc_train.mnist", "--model", "dropout", "--augment", "--batch-size", "32", "--epochs", "8"]
TRAINER += ["--checkpoint-every", "4", "--no-histograms"]
LAUNCHERS = {
    "mpi": ["horovodrun", "--mpi", "-np", "2"],
    "gloo": ["horovodrun", "--gloo", "-np", "2"],
    "slurm": ["srun", "--mpi=pmi2", "--ntasks=2", "--kill-on-bad-exit=1"],
}
# Of one run; then it may end.
MOST_KILLS = 6
# Seconds: about a start until training, then a while of training, and what the others have left when a rank is gone.
START, WHILE, END = 8, 2, 90


class Lost(Exception):
    """A run did not come out as it should."""


class Job:
    """A training under a launcher, in a process group of its own, with its output in a file."""

    def __init__(self, launcher: str, data: Path, run: Path, env: dict[str, str], parts: int = 1):
        self.run, self.log = run, run.with_suffix(f".{time.time_ns()}.log")
        words = [*LAUNCHERS[launcher], sys.executable, *TRAINER, "--data", data, "--run", run, "--resume"]
        words += ["--checkpoint-parts", parts]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                list(map(str, words)), cwd=REPOSITORY, env=env, start_new_session=True, stdin=subprocess.DEVNULL,
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def ranks(self) -> list[psutil.Process]:
        """Processes of its ranks, wherever the launcher has put them."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if "hpc_train.mnist" in words and str(self.run) in words and Path(words[0]).name.startswith("python"):
                found.append(process)
        return found

    def kill(self, what: str, chosen: random.Random) -> None:
        """Send SIGKILL to a rank, to the launcher, or to all of the job."""
        ranks = self.ranks()
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if what == "rank" and ranks:
                chosen.choice(ranks).kill()
            elif what == "launcher":
                self.process.kill()
            else:
                os.killpg(self.process.pid, signal.SIGKILL)
                for rank in ranks:
                    rank.kill()

    def end(self) -> int:
        """Wait until nothing of it runs any more; its status."""
        deadline = time.monotonic() + END
        while (self.process.poll() is None or self.ranks()) and time.monotonic() < deadline:
            time.sleep(0.1)
        if self.process.poll() is None:
            self.kill("all", random.Random())
            raise Lost(f"still runs {END} s after a kill: {self.log.read_text(errors='replace')[-2000:]}")
        # Ranks whose launcher was killed are the system's to end.
        for rank in self.ranks():
            rank.kill()
        return self.process.wait()


def wait(job: Job, chosen: random.Random) -> None:
    """Wait until a random moment of the job's start, or more often of its training, which a new checkpoint tells."""
    folder, seconds = job.run / "checkpoints", chosen.uniform(0, START)
    if chosen.random() < 0.7:
        before, begun = folder.stat().st_mtime_ns if folder.is_dir() else 0, time.monotonic()
        while job.process.poll() is None and time.monotonic() < begun + END:
            if folder.is_dir() and folder.stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        seconds = chosen.uniform(0, WHILE)
    with contextlib.suppress(subprocess.TimeoutExpired):
        job.process.wait(seconds)


def variables(run: Path) -> dict[str, bytes]:
    """The bytes of each variable in the newest checkpoint, by name."""
    last, found = max((run / "checkpoints").glob("step-*.h5")), {}
    for path in (last, *last.parent.glob(f"part-{last.stem.removeprefix('step-')}-*.h5")):
        with h5py.File(path) as file:
            found |= {stored.attrs["name"]: stored[()].tobytes() for stored in file["variables"].values()}
    return found


def lines(run: Path) -> list[dict]:
    """The lines of metrics.jsonl."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def compare(run: Path, whole: Path) -> None:
    """Raise Lost unless the run ended as the one that was not killed."""
    mine, expected = variables(run), variables(whole)
    differing = [name for name in expected if mine.get(name) != expected[name]]
    if differing or mine.keys() != expected.keys():
        raise Lost(f"{len(differing)} variables differ: {differing[:3]}")
    if [(line["epoch"], line["step"]) for line in lines(run)] != [(ln["epoch"], ln["step"]) for ln in lines(whole)]:
        raise Lost(f"its epochs are {[line['epoch'] for line in lines(run)]}")
    for got, want in zip(lines(run), lines(whole), strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            # The sums of an interrupted epoch are added in another order.
            if not np.isclose(got[name], want[name], rtol=0 if name.startswith("val_") else 1e-4, atol=0):
                raise Lost(f"epoch {got['epoch']}: {name} is {got[name]}, not {want[name]}")
    if left := [path.name for path in (*run.glob(".*"), *(run / "checkpoints").glob(".*"))]:
        raise Lost(f"left behind: {left}")


def campaign(launcher: str, data: Path, run: Path, env: dict[str, str], chosen: random.Random, result: dict) -> None:
    """Kill and start again one run until it has ended; counts kills and races in `result`."""
    for _ in range(MOST_KILLS + 4):
        race = chosen.random() < 0.1
        jobs = [Job(launcher, data, run, env, chosen.choice([1, 2])) for _ in range(1 + race)]
        result["races"] += race
        if result["kills"] < MOST_KILLS:
            wait(jobs[0], chosen)
            for job in jobs:
                if job.process.poll() is None:
                    job.kill(chosen.choice(["rank", "launcher", "all"]), chosen)
                    result["kills"] += 1
        statuses = [job.end() for job in jobs]
        if 0 in statuses:
            return
    raise Lost(f"does not end: {jobs[0].log.read_text(errors='replace')[-2000:]}")


def main() -> None:
    """Kill until the number is reached; status 1 if a run was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    parser.add_argument("--tally", type=Path, default=REPOSITORY / "build" / "kills.jsonl")
    parser.add_argument("--seed", type=int, default=time.time_ns())
    options = parser.parse_args()
    chosen, made = random.Random(options.seed), 0
    options.tally.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-")))
        env = environment(PYTHONPATH=str(REPOSITORY), OMP_NUM_THREADS="1")
        machine = stack.enter_context(cluster.Cluster()) if "slurm" in options.launchers else None
        envs = {name: machine.environment(**env) if name == "slurm" and machine else env for name in options.launchers}
        data, whole = folder / "digits", folder / "whole"
        prepare = [BIN / "hpc-train", "prepare", "digits", "--output", data]
        subprocess.run(prepare, check=True, env=env, stdout=subprocess.DEVNULL)
        first = Job("gloo", data, whole, env)
        if first.process.wait(600):
            sys.exit(first.log.read_text(errors="replace"))
        while made < options.kills:
            for name in options.launchers:
                result = {"launcher": name, "kills": 0, "races": 0, "lost": ""}
                run = folder / f"run-{time.time_ns()}"
                try:
                    campaign(name, data, run, envs[name], chosen, result)
                    compare(run, whole)
                except Lost as lost:
                    result["lost"] = str(lost)
                made += result["kills"]
                with open(options.tally, "a") as tally:
                    tally.write(json.dumps(result) + "\n")
                print(json.dumps(result), flush=True)
    every = [json.loads(line) for line in options.tally.read_text().splitlines()]
    total = {key: sum(one[key] for one in every) for key in ("kills", "races")}
    lost = sum(bool(one["lost"]) for one in every)
    print(f"{options.tally}: {len(every)} runs, {total['kills']} kills, {total['races']} races, {lost} lost")
    sys.exit(bool(lost))


if __name__ == "__main__":
    main()
