"""The page that `hpc-train report` writes of runs."""

import json

import h5py
import numpy as np
import pytest
from made_up_study import Page

from hpc_train.report import command
from hpc_train.report.runs import confusion, curves

pytest.importorskip("matplotlib")

UGLY = "a<b>&c"
FACTS = {"facts": {"trainer": "resnet-resnet20"}, "options": {"data": "shards/photos", "epochs": 4}}


@pytest.fixture
def make(tmp_path):
    """A function that makes a run folder of three epochs, with predictions of so many classes."""

    def folder(name, classes=0, record=FACTS, **more):
        path = tmp_path / name
        path.mkdir()
        start = {"time": "2026-11-29T12:00:00+0000", "world_size": 2, "nodes": 1, "step": 0, "command": UGLY}
        (path / "run.json").write_text(json.dumps({**record, "starts": [start]} if record else {}))
        epochs = ({"epoch": epoch, "step": epoch, "ranks": 2, "loss": 1 / epoch, **more} for epoch in (1, 2, 3))
        (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in epochs))
        if classes:
            true = np.repeat(np.arange(classes), 3)
            found = true.copy()
            # Of class 1 two in three are taken for class 0, of class 2 one for class 1.
            found[[3, 4, 6]] = 0, 0, 1
            with h5py.File(path / "predictions.h5", "w") as file:
                file["targets"], file["predicted"] = true, found
                file.attrs["class_names"] = [UGLY, *(f"kind {number}" for number in range(1, classes))]
        return path

    return folder


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """PNGs take long to write, and other tests look at them."""
    for module in (confusion, curves):
        monkeypatch.setattr(module, "save", lambda figure, path: None)


def report(*runs, output=None):
    command.run(command.ReportRuns(tuple(runs), output))
    page = Page(((output or runs[0]) / "report.html").read_text())
    page.needs_nothing_else()
    return page


def test_the_title_says_what_the_run_is(make):
    page = report(make("mine"))
    assert "<h1>resnet-resnet20 on shards/photos</h1>" in page.text
    assert "Run mine, 3 of 4 epochs on 2 ranks." in page.text


def test_a_run_that_recorded_little_has_its_name(make):
    assert "<h1>Run old</h1>" in report(make("old", record=None)).text


def test_a_matrix_of_many_classes_scrolls_in_a_box_of_its_own(make):
    page = report(make("run", classes=46))
    boxes = [attributes for tag, attributes in page.tags if attributes.get("class") == "wide"]
    assert any(one["aria-label"].startswith("Confusion matrix") and one["tabindex"] == "0" for one in boxes)
    assert "overflow-x:auto" in page.text
    rows = page.table("Confusion matrix")
    assert len(rows) == 46
    assert (rows[0][UGLY], rows[0]["kind 1"], rows[1][UGLY], rows[1]["kind 1"]) == ("3", "", "2", "1")


def test_mistakes_and_scores_stand_below_the_matrix(make):
    page = report(make("run", classes=4))
    mistakes = [tuple(row.values()) for row in page.table("Most frequent mistakes")]
    assert mistakes == [("kind 1", UGLY, "2", "66.7 %"), ("kind 2", "kind 1", "1", "33.3 %")]
    scores = {row["class"]: (row["recall"], row["precision"]) for row in page.table("Scores of each class")}
    # Class 0: 3 of 3 found, 3 of 5 right; class 1: 1 of 3, 1 of 2; class 2: 2 of 3, 2 of 2.
    assert scores[UGLY] == ("1.000", "0.600")
    assert scores["kind 1"] == ("0.333", "0.500")
    assert scores["kind 2"] == ("0.667", "1.000")


def test_more_classes_than_a_page_can_hold_have_scores_and_no_matrix(make):
    page = report(make("run", classes=150))
    assert len(page.table("Scores of each class")) == 150
    assert not any(title.startswith("Confusion matrix") for title in page.tables)


def test_every_metric_of_a_regression_is_drawn_and_in_the_table(make):
    page = report(make("run", mae=0.5, val_mae=0.25))
    labels = [attributes["aria-label"] for tag, attributes in page.tags if attributes.get("role") == "img"]
    assert any(one.startswith("mae by epoch: training, validation") for one in labels)
    rows = {row["value"]: row for row in page.table("Values of the epochs")}
    assert rows["val_mae"]["last"] == "0.25"
    assert (rows["loss"]["lowest (epoch)"], rows["loss"]["highest (epoch)"]) == ("0.3333 (3)", "1 (1)")


def test_runs_are_laid_over_each_other_with_a_legend(make, tmp_path):
    page = report(make("first", classes=3), make("other"), output=tmp_path / "both")
    assert "<h1>Runs first, other</h1>" in page.text
    assert "first: resnet-resnet20 on shards/photos, 3 of 4 epochs" in page.text
    assert "</svg>first</li>" in page.text
    assert [row["run"] for row in page.table("Starts")] == ["first", "other"]
    assert {"first: values of the epochs", "other: values of the epochs"} <= set(page.tables)


def test_the_page_says_where_the_time_went_and_which_rank_was_slow(make):
    times = {
        "seconds": {"start-up": 10.0, "training": 80.0, "lost": 10.0},
        "first": 0,
        "step": 9,
        "at": 1.0,
        "ended": True,
    }
    slow = [{"epoch": 2, "rank": 1, "place": UGLY, "by": 0.3, "cost": 0.2}]
    run = make("mine")
    record = json.loads((run / "run.json").read_text())
    record["starts"][0] |= {"times": times, "slow": slow}
    (run / "run.json").write_text(json.dumps(record))
    page = report(run)
    title = "useful 80.0% of 1 min 40 s in 1 start (start-up 10.0%, lost 10.0%)"
    assert [tuple(row) for row in page.tables[title]][-1] == ("lost", "10.0 s", "10.0%")
    assert "rank 1 on a&lt;b&gt;&amp;c was the slowest in 1 epoch: 30% slower" in page.text
