"""`hpc-train report`: curves and confusion matrices of run folders."""

import json

import h5py
import numpy as np
import pytest

from hpc_train.errors import UserError
from hpc_train.report import command
from hpc_train.report.runs import confusion, curves

pytest.importorskip("matplotlib")

CLIMATE = {"val_mean_iou": 0.5, "val_sample_iou": 0.6, "val_iou_tc": 0.3, "val_precision_tc": 0.4, "val_recall_tc": 0.5}


def line(epoch, **more):
    common = {"loss": 1 / epoch, "val_loss": 1.1 / epoch, "accuracy": 0.9, "val_accuracy": 0.8, "input_wait": 0.01}
    return {"epoch": epoch, "step": epoch, **common, "learning_rate": 0.1 / epoch, "samples_per_s": 9.0, **more}


@pytest.fixture
def make(tmp_path):
    """A function that makes a run folder with the epochs' lines."""

    def folder(name, lines):
        path = tmp_path / name
        path.mkdir(parents=True)
        (path / "run.json").write_text("{}")
        (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
        return path

    return folder


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, by the names of their files."""
    drawn = {}
    for module in (curves, confusion):
        monkeypatch.setattr(module, "save", lambda figure, path: drawn.update({path.name: figure}))
    return drawn


def texts(axes):
    return [text.get_text() for text in axes.texts]


def test_a_run_gets_its_curves_beside_its_metrics(make, capsys):
    run = make("run", [line(epoch) for epoch in (1, 2, 3)])
    command.run(command.ReportRuns((run,)))
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert f"wrote {run / 'report.html'}, {run / 'curves.png'}" in said
    assert "`hpc-train predict" in said


def test_each_panel_shows_what_the_epochs_recorded(make, figures):
    run = make("run", [line(epoch, **CLIMATE) for epoch in (1, 2, 3)])
    command.run(command.ReportRuns((run,)))
    panels = {axes.get_title(loc="left"): axes for axes in figures["curves.png"].axes if axes.get_visible()}
    assert list(panels) == [
        "Loss",
        "Accuracy",
        "Mean IoU, validation",
        "IoU by class, validation",
        "Precision by class, validation",
        "Recall by class, validation",
        "Learning rate",
        "Throughput (samples/s)",
        "Input wait, share of a step",
    ]
    training, validation = panels["Loss"].lines
    np.testing.assert_allclose(training.get_xydata(), [[1, 1], [2, 1 / 2], [3, 1 / 3]])
    np.testing.assert_allclose(validation.get_ydata(), [1.1, 1.1 / 2, 1.1 / 3])
    assert [text.get_text() for text in panels["Loss"].get_legend().get_texts()] == ["training", "validation"]


def test_runs_are_laid_over_each_other_under_different_names(make, figures, tmp_path):
    runs = [make(name, [line(1, **CLIMATE), line(2, **CLIMATE)]) for name in ("a/run", "b/run")]
    command.run(command.ReportRuns(tuple(runs), tmp_path / "both"))
    figure = figures["curves.png"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a/run", "b/run"]
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_visible()}
    assert {"Loss, validation", "IoU of tc, validation"} <= panels.keys()
    assert all(len(axes.lines) == 2 for axes in panels.values())
    colours = [[curve.get_color() for curve in axes.lines] for axes in panels.values()]
    assert all(pair == colours[0] and pair[0] != pair[1] for pair in colours)


def test_a_rate_that_falls_by_steps_has_a_logarithmic_axis():
    falling = [{"epoch": i, "learning_rate": rate} for i, rate in enumerate((0.1, 0.01, 0.01, 0.001))]
    assert [panel.scale for panel in curves.panels_of({"run": falling})] == ["log"]
    cosine = [{"epoch": i, "learning_rate": 0.1 * (1 + np.cos(np.pi * i / 9)) / 2} for i in range(10)]
    assert [panel.scale for panel in curves.panels_of({"run": cosine})] == ["linear"]


def test_the_matrix_of_samples_shows_counts_and_shares_of_the_true_class(make, figures):
    run = make("run", [line(1)])
    with h5py.File(run / "predictions.h5", "w") as file:
        file["targets"], file["predicted"] = [0, 0, 0, 0, 1], [0, 0, 0, 1, 1]
        file.attrs["class_names"] = ["cat", "dog"]
    command.run(command.ReportRuns((run,)))
    matrix, scores = figures["confusion.png"].axes[:2]
    assert texts(matrix) == ["75.0 %\n3", "25.0 %\n1", "0 %\n0", "100 %\n1"]
    # Recall 3/4 and 1/1, precision 3/3 and 1/2.
    assert texts(scores) == ["0.75", "1.00", "1.00", "0.50"]


def test_of_many_classes_some_are_named_along_the_axes(make, figures):
    run = make("run", [line(1)])
    with h5py.File(run / "predictions.h5", "w") as file:
        file["targets"] = file["predicted"] = np.arange(150)
        file.attrs["class_names"] = [f"kind {number}" for number in range(150)]
    command.run(command.ReportRuns((run,)))
    for axes in figures["confusion.png"].axes[:2]:
        names = [text.get_text() for text in axes.get_yticklabels()]
        assert names == [f"kind {number}" for number in range(0, 150, 3)]


def test_the_matrix_of_label_maps_comes_from_what_predict_left(make, figures):
    run = make("run", [line(1)])
    found = {"class_names": ["background", "tc"], "confusion_matrix": [[2_000_000, 1_000], [500, 1_500]]}
    (run / "predictions.json").write_text(json.dumps({**found, "samples": 4, "data": "d", "split": "test"}))
    command.run(command.ReportRuns((run,)))
    figure = figures["confusion.png"]
    assert texts(figure.axes[0]) == ["> 99.9 %\n2 M", "< 0.1 %\n1000", "25.0 %\n500", "75.0 %\n1500"]
    # IoU of tc: 1,500 of 3,000; of the background 2,000,000 of 2,001,500.
    assert texts(figure.axes[1])[-1] == "0.50"
    assert "mean IoU 0.7496" in figure.get_suptitle()


def test_mistakes_end_with_one_line(make, tmp_path):
    run, new = make("run", [line(1)]), make("new", [])
    for runs, said in (
        ((), "give a run folder"),
        ((tmp_path,), "is not a run folder"),
        ((new,), "new has not finished an epoch yet"),
        ((run, new), "--output"),
    ):
        with pytest.raises(UserError, match=said):
            command.run(command.ReportRuns(runs))
    (run / "predictions.json").write_text("{}")
    with pytest.raises(UserError, match=r"predictions\.json: 'confusion_matrix' is wrong"):
        command.run(command.ReportRuns((run,)))
    with pytest.raises(UserError, match="given twice"):
        command.run(command.ReportRuns((run, run), tmp_path / "out"))


def test_metrics_of_ones_own_get_a_panel_each_and_several_rates_a_curve_each():
    lines = [line(1, mae=0.3, val_mae=0.4, kl=1.0, val_kl=2.0, val_precision_at_recall=0.5, critic=0.1)]
    lines[0]["learning_rate_critic"] = lines[0].pop("learning_rate")
    lines[0]["learning_rate_generator"] = 0.2
    panels = {panel.title: panel.keys for panel in curves.panels_of({"run": lines})}
    assert panels["mae"] == {"mae": "training", "val_mae": "validation"}
    assert panels["kl"] == {"kl": "training", "val_kl": "validation"}
    assert panels["precision_at_recall"] == {"val_precision_at_recall": "validation"}
    assert panels["critic"] == {"critic": "training"}
    assert panels["Learning rate"] == {"learning_rate_critic": "critic", "learning_rate_generator": "generator"}
    assert set(panels) == {
        *("Loss", "Accuracy", "mae", "kl", "precision_at_recall", "critic", "Learning rate"),
        *("Throughput (samples/s)", "Input wait, share of a step"),
    }
