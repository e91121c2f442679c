"""The example of tabular regression: from a CSV file to scores in the units of the table, on 2 ranks."""

import csv
import json

import numpy as np
import pytest
from launch import REPOSITORY, launch

EXAMPLE = REPOSITORY / "examples" / "tabular_regression.py"


def test_a_table_is_prepared_trained_and_predicted_in_its_units(tmp_path):
    pytest.importorskip("pyarrow")
    draw = np.random.default_rng(0)
    rooms, towns = draw.normal(6, 1, 600), draw.integers(0, 3, 600)
    prices = 1e5 * rooms + np.array([0.0, 5e4, 2e5])[towns] + draw.normal(0, 1e3, 600)
    with open(tmp_path / "houses.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["rooms", "town", "price"])
        writer.writerows(zip(rooms, np.array(["Oslo", "Kobe", "Pittsburgh"])[towns], prices, strict=True))

    def command(ranks, *words):
        ended = launch(ranks, "-m", *words, cwd=tmp_path)
        assert ended.status == 0, ended.output
        return ended.output

    table = ["csv", "houses.csv", "--target", "price", "--categories", "town", "--test-fraction", "0.2"]
    command(1, "hpc_train.cli", "prepare", *table, "--output", "houses")
    command(1, "hpc_train.cli", "stats", "--data", "houses")
    train = ["--normalise", "targets", "--loss", "mse", "--batch-size", "16", "--lr", "0.01", "--epochs", "8"]
    command(2, "hpc_train.fit", f"{EXAMPLE}:build", "--data", "houses", *train, "--run", "run", "--no-histograms")
    command(1, "hpc_train.cli", "predict", "run", "--data", "houses")
    scores = json.loads((tmp_path / "run" / "predictions.json").read_text())["scores"]
    (found,) = scores.values()
    assert found["channels"] == ["price"]
    # Without towns the error would be that of their prices, about 85,000; a tenth of it is well learned.
    assert found["rmse"][0] < 3e4
    assert found["r2"][0] > 0.9
