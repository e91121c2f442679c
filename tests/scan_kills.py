"""A scan whose processes are killed at random ends with the values of one that was left alone.

    python tests/scan_kills.py [--trials 64] [--kills 20] [--search random|grid] [--seed 0]

Killed are the scan itself, the process that starts trials, and trials, each as likely as the others; a scan that was
killed is started again with the same command. At the end each trial must have the value that it has without kills, and
each of its epochs one line of metrics. Prints a line of JSON.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
from launch import BIN, REPOSITORY, environment

from hpc_train.scan.study import Study

SPACES = {
    "random": ["lr=log:1e-3..1e-1", "momentum=0.5..0.95"],
    "grid": ["lr=0.01..0.08:0.01", "momentum=0.2..0.9:0.1"],
}
COMMON = ["--epochs", "4", "--batch-size", "64", "--no-histograms"]
# Seconds between two kills at most.
PAUSE = 15


class Scan:
    """`hpc-train scan` in the background."""

    def __init__(self, study: Path, data: Path, search: str, trials: int):
        self.study = study
        words = [
            "scan",
            study,
            "--trials",
            trials,
            "--search",
            search,
            "--space",
            *SPACES[search],
            "--objective",
            "accuracy",
        ]
        self.words = [
            sys.executable,
            "-m",
            "hpc_train.cli",
            *map(str, words),
            "--",
            "mnist",
            "--data",
            str(data),
            *COMMON,
        ]
        self.start()

    def start(self) -> None:
        self.log = self.study.with_suffix(".log").open("ab")
        env = environment(PYTHONPATH=str(REPOSITORY))
        self.process = subprocess.Popen(self.words, env=env, stdout=self.log, stderr=subprocess.STDOUT)

    def victims(self) -> dict[str, list[psutil.Process]]:
        """Its processes, by kind."""
        found = {"scan": [psutil.Process(self.process.pid)], "nursery": [], "trial": []}
        for nursery in found["scan"][0].children():
            found["nursery"].append(nursery)
            found["trial"] += nursery.children()
        return {kind: processes for kind, processes in found.items() if processes}


def disturbed(scan: Scan, kills: int, chance: random.Random) -> dict[str, int]:
    """Kill its processes until it is over; returns how many of each kind."""
    killed = {"scan": 0, "nursery": 0, "trial": 0}
    due = time.monotonic() + chance.uniform(2, PAUSE)
    while (status := scan.process.poll()) != 0:
        if status is not None:
            if status != -signal.SIGKILL:
                raise SystemExit(
                    f"the scan ended with status {status}: {scan.study.with_suffix('.log').read_text()[-2000:]}"
                )
            scan.start()
        if time.monotonic() > due and sum(killed.values()) < kills:
            due = time.monotonic() + chance.uniform(0.5, PAUSE)
            try:
                victims = scan.victims()
                kind = chance.choice(list(victims))
                chance.choice(victims[kind]).kill()
                killed[kind] += 1
            except psutil.NoSuchProcess:
                continue
            if kind == "scan":
                scan.process.wait()
        time.sleep(0.05)
    return killed


def outcome(path: Path) -> dict[int, tuple]:
    """(state, value, epoch, params) of each trial, whose files are checked."""
    study, found = Study(path), {}
    for trial in study.trials():
        lines = [json.loads(line) for line in (trial.folder / "metrics.jsonl").read_text().splitlines()]
        epochs = [line["epoch"] for line in lines]
        if epochs != [1, 2, 3, 4]:
            raise SystemExit(f"{trial.folder}: its epochs are {epochs}")
        found[trial.number] = trial.state, trial.value, trial.epoch, tuple(sorted(trial.params.items()))
    told = sorted(trial.told for trial in study.trials())
    if told != list(range(len(told))):
        raise SystemExit(f"{path}: trials were counted as {told}")
    return found


def main() -> None:
    """Compare a scan that is killed again and again with one that is not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--search", choices=SPACES, default="random")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "digits"
        subprocess.run([BIN / "hpc-train", "prepare", "digits", "--output", data], check=True, capture_output=True)
        quiet = Scan(folder / "quiet", data, asked.search, asked.trials)
        if quiet.process.wait():
            raise SystemExit((folder / "quiet.log").read_text())
        loud = Scan(folder / "loud", data, asked.search, asked.trials)
        killed = disturbed(loud, asked.kills, random.Random(asked.seed))
        expected, found = outcome(folder / "quiet"), outcome(folder / "loud")
        different = [number for number in expected if expected[number] != found.get(number)]
        best = [Study(folder / study).best() for study in ("quiet", "loud")]
        said = {"trials": len(found), "kills": killed, "different": different, "best": [one["value"] for one in best]}
        print(json.dumps(said))
        if different or len(found) != len(expected) or best[0]["number"] != best[1]["number"]:
            os._exit(1)


if __name__ == "__main__":
    main()
