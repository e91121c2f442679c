"""Whether the run folder of an interrupted training is as if nothing had happened."""

import io
import json
import zipfile
from pathlib import Path

import h5py
import numpy as np

# 21 steps an epoch on two ranks.
OPTIONS = ("--model", "dropout", "--augment", "--batch-size", "32", "--epochs", "6", "--no-histograms")


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
