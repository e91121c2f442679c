"""What the tests of PBS and LSF share: a training, whether its interrupted run is as a whole one, a site."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
from launch import REPOSITORY

# 21 steps an epoch on two ranks.
OPTIONS = ("--model", "dropout", "--augment", "--batch-size", "32", "--epochs", "6", "--no-histograms")


def site(scheduler: str, **lines: str) -> str:
    """The file of a site with nodes of two GPUs."""
    more = "".join(f"{name} = '{value}'\n" for name, value in lines.items())
    variables = f"[environment]\nHYDRA_LAUNCHER = 'fork'\nPYTHONPATH = '{REPOSITORY}'\n"
    start = f"title = 'here'\nscheduler = '{scheduler}'\npartition = '-q {{partition}}'\n{more}"
    return f"{start}[partitions.gpu]\ngpus_a_node = 2\ncores_a_node = 4\n{variables}"


def checkpoints(run: Path) -> list[int]:
    """Steps of the checkpoints."""
    return [int(path.stem.split("-")[1]) for path in (run / "checkpoints").glob("step-*.h5")]


def epochs(run: Path) -> int:
    """Epochs that have ended."""
    return len(_metrics(run)) if (run / "metrics.jsonl").exists() else 0


def as_if_nothing_had_happened(run: Path, whole: Path) -> None:
    """Assert that the final weights are equal bit for bit, and the metrics of all epochs too."""
    got, want = _weights(run), _weights(whole)
    assert got.keys() == want.keys()
    assert len(want) > 8
    assert [name for name in want if not np.array_equal(got[name], want[name])] == []
    for name in ("epoch", "step", "learning_rate", "val_loss", "val_accuracy"):
        assert [line[name] for line in _metrics(run)] == [line[name] for line in _metrics(whole)]


def _weights(run: Path) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(run / "model.keras") as archive:
        stored = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(stored) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def _metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
