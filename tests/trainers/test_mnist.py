"""The MNIST trainer from end to end, on real ranks and real digits."""

import csv
import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from launch import environment, launch
from plain_keras import evaluate
from profiles import steps_marked

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    """A run of 2 ranks, 6 epochs, with its output."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ("--model", "batchnorm", "--epochs", "6", "--batch-size", "16", "--base-batch", "16", "--lr", "0.02")
    options += ("--profile", "20", "24", "--pictures", "4")
    ended = launch(2, "-m", "hpc_train.mnist", "--data", str(digits), "--run", str(folder), *options)
    assert ended.status == 0, ended.output
    folder.joinpath("output").write_text(ended.output)
    return folder


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_says_so_once(run):
    output = (run / "output").read_text()
    assert metrics(run)[-1]["val_accuracy"] > 0.8
    assert output.count("test accuracy") == 1
    assert f"run folder {run}" in output
    assert output.count("epoch 3/6") == 1


def test_the_folder_holds_what_the_readme_says(run):
    names = {path.name for path in run.iterdir()} - {"output"}
    records = {"run.json", "run.json.copy", "metrics.jsonl"}
    assert names == records | {"tensorboard", "checkpoints", "best.keras", "model.keras"}
    lines = metrics(run)
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    # 1,400 samples in global batches of 32: 43 steps an epoch for 2 ranks
    assert [line["step"] for line in lines] == [43 * epoch for epoch in range(1, 7)]
    assert {line["ranks"] for line in lines} == {2}
    record = json.loads((run / "run.json").read_text())
    assert record["options"]["model"] == "batchnorm"
    assert {"tensorflow-cpu", "tensorflow"} & set(record["versions"])


def test_tensorboard_has_scalars_histograms_and_the_networks_graph(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "train"), size_guidance={"tensors": 0}).Reload()
    tags = events.Tags()
    assert {"epoch_loss", "epoch_accuracy", "epoch_learning_rate"} <= set(tags["tensors"])
    assert any("kernel" in tag for tag in tags["tensors"])
    assert len(events.Tensors("epoch_loss")) == 6
    # GRAPHS opens with the run's own graph, and fails where there are only graphs with a tag.
    assert any("conv2d" in node.name for node in events.Graph().node)


def test_tensorboard_has_a_picture_of_predictions_for_each_epoch(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard" / "validation"), size_guidance={"tensors": 0}).Reload()
    assert [event.step for event in events.Tensors("predictions")] == [0, 1, 2, 3, 4, 5]


def test_the_profile_marks_its_steps(run):
    (file,) = (run / "tensorboard").rglob("*.xplane.pb")
    assert steps_marked(file) == [20, 21, 22, 23, 24]


def test_the_model_loads_in_plain_keras_and_gives_the_accuracy_that_was_reported(run, digits, tmp_path):
    saved = evaluate(run / "model.keras", digits, tmp_path)
    assert saved.module.startswith("keras.")
    assert saved.iterations == 6 * 43
    assert saved.accuracy == pytest.approx(metrics(run)[-1]["val_accuracy"], abs=1e-6)
    assert saved.loss == pytest.approx(metrics(run)[-1]["val_loss"], rel=1e-4)


def test_predict_writes_probabilities_and_prints_the_confusion_matrix(run, digits, tmp_path):
    best = max(line["val_accuracy"] for line in metrics(run))
    for name in ("p.h5", "p.csv"):
        command = [sys.executable, "-m", "hpc_train.cli", "predict", str(run), "--data", str(digits)]
        ended = subprocess.run(
            [*command, "--output", str(tmp_path / name)], capture_output=True, text=True, env=environment()
        )
        assert ended.returncode == 0, ended.stderr
        assert "confusion matrix" in ended.stdout
        assert f"accuracy {best:.4f} of 397 samples" in ended.stdout
    with h5py.File(tmp_path / "p.h5") as file:
        probabilities, targets = file["probabilities"][()], file["targets"][()]
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert (probabilities.argmax(1) == targets).mean() == pytest.approx(best, abs=1e-6)
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert len(rows) == 397
    assert float(rows[7][rows[7]["predicted"]]) == pytest.approx(probabilities[7].max(), rel=1e-4)


def test_predict_takes_samples_without_labels(run, digits, tmp_path):
    catalogue = Catalogue.open(digits, "test")
    inputs, _ = Reader(catalogue).read(np.arange(20))
    np.save(tmp_path / "images.npy", inputs)
    command = [sys.executable, "-m", "hpc_train.cli", "predict", str(run), "--data", str(tmp_path / "images.npy")]
    ended = subprocess.run(
        [*command, "--output", str(tmp_path / "p.csv")], capture_output=True, text=True, env=environment()
    )
    assert ended.returncode == 0, ended.stderr
    assert "confusion" not in ended.stdout
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert len(rows) == 20
    assert "target" not in rows[0]


def test_early_stopping_under_gloo_ends_all_ranks_in_the_same_epoch(digits, tmp_path):
    # At a rate of almost 0 nothing improves after the first epoch.
    options = ("--model", "fc", "--lr", "1e-9", "--patience", "2", "--epochs", "9", "--wire-dtype", "bfloat16")
    run = tmp_path / "run"
    ended = launch(3, "-m", "hpc_train.mnist", "--data", str(digits), "--run", str(run), *options, controller="--gloo")
    assert ended.status == 0, ended.output
    assert "after 3 epochs" in ended.output
