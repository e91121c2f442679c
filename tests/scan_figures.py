"""The figures on scans in docs/scans.md and docs/results.md; each command prints lines of text.

python tests/scan_figures.py search               TPE, CMA-ES and chance on Hartmann's function (a minute)
python tests/scan_figures.py prune MNIST_SHARDS   epochs that pruning saves, and the best value (15 minutes)
python tests/scan_figures.py grid MNIST_SHARDS    43 settings: one after another, and as a scan (10 minutes)
python tests/scan_figures.py slurm MNIST_SHARDS   eight trials at once on a Slurm of two nodes (10 minutes)
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from cluster import Cluster
from launch import REPOSITORY, environment

from hpc_train.scan.search import Search
from hpc_train.scan.show import use_in_words
from hpc_train.scan.space import read
from hpc_train.scan.study import COMPLETE, Settings, Study

# Hartmann's function of six variables (Dixon and Szego 1978), whose least value is -3.32237.
ALPHA = np.array([1.0, 1.2, 3.0, 3.2])
A = np.array(
    [[10, 3, 17, 3.5, 1.7, 8], [0.05, 10, 17, 0.1, 8, 14], [3, 3.5, 1.7, 10, 17, 8], [17, 8, 0.05, 10, 0.1, 14]]
)
P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)


def hartmann(x: np.ndarray) -> float:
    """Its value at a point of the unit cube."""
    return float(-(ALPHA * np.exp(-(A * (x - P) ** 2).sum(axis=1))).sum())


def search(seeds: int = 20, trials: int = 100) -> None:
    """The mean of the best values by kind of search, one and eight trials at once."""
    space = [f"x{place}=0.0..1.0" for place in range(6)]
    for kind in ("random", "tpe", "cmaes"):
        for at_once in (1, 8):
            best = [min(_searched(kind, seed, trials, at_once, space)) for seed in range(seeds)]
            spread = statistics.stdev(best) / len(best) ** 0.5
            print(f"{kind}, {at_once} at once: {statistics.mean(best):.3f} +- {spread:.3f} after {trials} trials")


def _searched(kind: str, seed: int, trials: int, at_once: int, space: list[str]) -> list[float]:
    settings = Settings("f.py", [], space, kind, "none", "f", "min", seed, 1, "/", trials)
    one, values = Search(settings, read(space), []), []
    for number in range(trials):
        params, _ = one.ask()
        values.append(hartmann(np.array(list(params.values()))))
        if number >= at_once - 1:
            one.tell(number - at_once + 1, COMPLETE, values[number - at_once + 1])
    return values


def prune(data: Path, seeds: int = 2) -> None:
    """Epochs and best value of the same 27 trials with and without pruning."""
    trainer = ["--", "mnist", "--model", "fc", "--epochs", "9", "--data", data, "--no-histograms"]
    common = ["--trials", "27", "--search", "random", "--space", "lr=log:1e-4..1", "momentum=0.0..0.98"]
    for seed in range(seeds):
        for kind in ("none", "asha", "median", "hyperband"):
            with tempfile.TemporaryDirectory() as folder:
                study = Path(folder) / "study"
                words = [*common, "--seed", seed, "--prune", kind, "--objective", "accuracy"]
                seconds = _scan(study, *words, *trainer)
                found = Study(study).trials()
                epochs = sum(len(trial.curve("accuracy")) for trial in found)
                best = max(trial.value for trial in found if trial.state == COMPLETE)
                print(
                    f"seed {seed}, prune {kind}: {epochs} epochs of {27 * 9}, best {best:.4f}, {seconds:.0f} s",
                    flush=True,
                )


def grid(data: Path) -> None:
    """43 learning rates, each by a command of its own, and all as a scan."""
    shared = ["--data", str(data), "--model", "fc", "--epochs", "2", "--no-histograms"]
    with tempfile.TemporaryDirectory() as folder:
        alone = []
        for number in range(5):
            began = time.monotonic()
            run = ["--lr", str(0.002 * (8 * number + 1)), "--run", f"{folder}/{number}"]
            subprocess.run(
                [sys.executable, "-m", "hpc_train.mnist", *shared, *run], check=True, env=_env(), capture_output=True
            )
            alone.append(time.monotonic() - began)
        one = statistics.median(alone)
        print(f"one after another: {one:.1f} s a training, {43 * one / 60:.1f} min for 43 by extrapolation", flush=True)
        words = ["--space", "lr=0.002..0.086:0.002", "--search", "grid", "--objective", "accuracy"]
        seconds = _scan(Path(folder) / "study", *words, "--", "mnist", *shared)
        print(f"as a scan on 2 cores: {seconds / 60:.1f} min; {use_in_words(Study(Path(folder) / 'study'))[0]}")


def slurm(data: Path) -> None:
    """Trainings of about a minute, eight at once, on two nodes with four GPUs each, which are pretended."""
    with Cluster() as cluster, tempfile.TemporaryDirectory() as folder:
        words = [
            "study",
            "--trials",
            "24",
            "--search",
            "random",
            "--space",
            "lr=log:1e-3..1e-1",
            "--objective",
            "accuracy",
        ]
        words += ["--", "mnist", "--model", "fc", "--epochs", "4", "--data", str(data), "--no-histograms"]
        site = {"HPC_TRAIN": str(REPOSITORY), "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
        shape = ["--nodes=2", "--ntasks-per-node=4", "--gpus-per-node=4"]
        job = cluster.submit(*shape, REPOSITORY / "slurm" / "scan.sh", *words, cwd=folder, **site)
        ended = cluster.wait(job, 3600)
        print(f"status {ended.status}\n{cluster.output(job)}")


def _scan(study: Path, *words) -> float:
    """Run a scan; returns its seconds."""
    began = time.monotonic()
    line = [sys.executable, "-m", "hpc_train.cli", "scan", study, *words]
    subprocess.run(list(map(str, line)), check=True, env=_env(), capture_output=True)
    return time.monotonic() - began


def _env() -> dict[str, str]:
    return environment(PYTHONPATH=str(REPOSITORY))


if __name__ == "__main__":
    what, *rest = sys.argv[1:]
    {"search": search, "prune": prune, "grid": grid, "slurm": slurm}[what](*map(Path, rest))
