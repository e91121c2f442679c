"""`hpc-train report` of a scan: the page, its tables and its charts, from made-up trials."""

import json
import re
import shlex
import sys

import numpy as np
import pytest
from made_up_scan import drawn, trial, write
from made_up_study import Page

from hpc_train.errors import UserError
from hpc_train.report import command, scan, scan_charts

pytest.importorskip("optuna")
figures = pytest.importorskip("matplotlib.figure")

EVIL = '<script>alert("$x$")</script>\u202e\udc80'


def params(lr=0.01, model="cnn", **more):
    return {"lr": lr, "model": model, **more}


def small():
    """Three complete trials, one pruned after two of six epochs, two that failed and one that is open."""
    return [
        trial(0, params(0.1), [0.5, 0.6, 0.7, 0.7, 0.72, 0.71]),
        trial(1, params(0.01, "deep"), [0.6, 0.7, 0.8, 0.9, 0.92, 0.91]),
        trial(2, params(0.02), [0.2, 0.3], "pruned"),
        trial(3, params(0.09), [], "failed", "the loss is not finite"),
        trial(4, params(0.001), [0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
        trial(5, params(0.08), [0.1], "failed", "the loss is not finite"),
        trial(6, params(0.03), [0.4], "open"),
    ]


def work(slot, trial, began, prepared, ended):
    return {"slot": slot, "trial": trial, "began": began, "prepared": prepared, "ended": ended, "status": 0}


def report(path, output=None):
    command.run(command.ReportRuns((path,), output))
    return Page(((output or path) / "report.html").read_text())


def opened(tmp_path, trials, **settings):
    return scan.open_scan("scan", write(tmp_path / "scan", trials, **settings))


def axes_of(draw, *given):
    axes = figures.Figure().subplots()
    draw(axes, *given)
    return axes


def lines_of(axes):
    """The lines of each kind that a chart draws, by their colours."""
    found = {}
    for one in axes.collections:
        colour = tuple(one.get_edgecolor()[0])
        found.setdefault(colour[:3], []).extend((colour[3], segment) for segment in one.get_segments())
    return found


def colour(name):
    from matplotlib.colors import to_rgb

    return to_rgb(name)


BLUE, GREY, RED = (colour(name) for name in ("#0072B2", "#999999", "#D55E00"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    # Two slots for 100 s; one works for 90 of them, 10 with preparing, the other for 40, 5 with preparing.
    lines = [work(0, 0, 1000.0, 1010.0, 1090.0), work(1, 1, 1020.0, 1025.0, 1050.0), work(1, 3, 1090.0, None, 1100.0)]
    return write(tmp_path_factory.mktemp("scans") / "lr & model", small(), {"node-1": lines}, trials=10)


@pytest.fixture(scope="module")
def page(folder):
    return report(folder)


def test_the_page_needs_nothing_but_itself(page):
    page.needs_nothing_else()


def test_the_page_can_be_read_aloud_and_in_the_dark(page):
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(one.get("aria-label") if one.get("role") == "img" else one["aria-hidden"] for one in pictures)
    # History, curves, parallel coordinates and a slice for each of two parameters; too few trials for importance.
    assert sum(one.get("role") == "img" for one in pictures) == 5
    assert not re.search(r"(?:fill|stroke): #(?:000000|ffffff)", page.text.partition("</style>")[2])


def test_the_summary_counts_trials_and_names_the_best(page):
    assert "<h1>Scan lr &amp; model</h1>" in page.text
    assert "7 of 10 trials: 3 complete, 1 pruned, 2 failed, 1 open." in page.text
    assert "Best val_accuracy: 0.92, by trial 1 (epoch 5): lr 0.01, model deep." in page.text


def test_the_command_trains_the_best_trial_again(page):
    (shown,) = re.findall("<pre>(.*?)</pre>", page.text)
    words = shlex.split(shown.replace("&amp;", "&").replace("&#x27;", "'"))
    assert words[:3] == ["cd", "/where/it/began", "&&"]
    given = ["--data", "shards/my digits", "--epochs", "6"]
    found = ["--lr", "0.01", "--model", "deep", "--monitor", "accuracy:max"]
    assert words[3:] == ["python", "-m", "hpc_train.mnist", *given, *found]


def test_trials_of_several_ranks_are_trained_again_by_as_many(tmp_path):
    page = report(write(tmp_path / "scan", small(), ranks_per_trial=4))
    assert "&amp;&amp; horovodrun -np 4 python -m hpc_train.mnist --data" in page.text


def test_what_pruning_saved_is_what_the_pruned_trials_did_not_train(page):
    # 6 + 6 + 2 + 0 + 6 + 1 + 1 epochs, and 4 of the pruned trial.
    assert "22 epochs trained; pruning saved 4 more, 15.4 % of all." in page.text


def test_utilisation_is_the_share_of_time_that_slots_worked(page):
    # 90 + 30 + 10 of 2 x 100 s; 10 + 5 + 10 with preparing: the last one was never prepared.
    assert "Workers were busy 65.0 % of the time, 12.5 % with preparing trials." in page.text
    (row,) = page.table("Processes of the scan")
    assert (row["process"], row["slots used"], row["trials"], row["busy"]) == ("node-1", "2", "3", "65.0 %")


def test_the_best_trials_stand_in_a_table_best_first(page, tmp_path):
    rows = page.table("All complete trials")
    assert [(row["trial"], row["val_accuracy"], row["epoch"]) for row in rows] == [
        ("1", "0.92", "5"),
        ("4", "0.8", "6"),
        ("0", "0.72", "5"),
    ]
    assert (rows[0]["lr"], rows[0]["model"]) == ("0.01", "deep")
    losses = [trial(number, params(), [float(loss)], best=min) for number, loss in enumerate(range(30, 10, -1))]
    page = report(write(tmp_path / "scan", losses, objective="loss", direction="min"))
    rows = page.table("The best 10 of 20 complete trials")
    assert [row["val_loss"] for row in rows] == [str(loss) for loss in range(11, 21)]


def test_failed_trials_stand_with_their_reason(page):
    (row,) = page.table("Failed trials")
    assert row == {"trials": "3, 5", "count": "2", "reason": "the loss is not finite"}


def test_pictures_stand_beside_the_page(folder, page, tmp_path):
    for name in ("history", "learning-curves", "parallel", "slices"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    report(write(tmp_path / "scan", drawn(30, 2)), tmp_path / "out")
    assert (tmp_path / "out" / "importance.png").exists()
    assert not (tmp_path / "scan" / "report.html").exists()


def test_importance_finds_what_the_score_depends_on(tmp_path):
    page = report(write(tmp_path / "scan", drawn(200, 5)))
    shares = {row["parameter"]: float(row["importance"].rstrip(" %")) for row in page.table("What is searched")}
    # The score of these trials depends on lr most and on the last two not at all.
    assert max(shares, key=shares.get) == "lr"
    assert shares["nesterov"] + shares["warmup"] < 15
    assert sum(shares.values()) == pytest.approx(100, abs=0.5)
    assert "by PED-ANOVA over" in page.text


def test_too_few_or_equal_trials_have_no_importance_and_the_page_says_so(page, tmp_path):
    assert "Importance: Not known yet: that needs 10 complete trials, there are 3." in page.text
    equal = opened(tmp_path, [trial(number, params(0.1 / (number + 1)), [0.5]) for number in range(20)])
    assert scan.importances(equal) == ({}, "Not known: all complete trials have the same score.")


def test_the_page_is_whole_without_optuna(tmp_path, monkeypatch):
    folder = write(tmp_path / "scan", drawn(30, 2))
    monkeypatch.setitem(sys.modules, "optuna", None)
    page = report(folder)
    assert "Not known: that needs Optuna" in page.text
    assert len(page.table("What is searched")) == 2


def test_history_shows_the_best_so_far_and_marks_what_was_pruned_or_failed(tmp_path):
    axes = axes_of(scan_charts.history, opened(tmp_path, small()))
    pruned, complete, failed, so_far, best = axes.lines
    np.testing.assert_allclose(pruned.get_xydata(), [[2, 0.3]])
    np.testing.assert_allclose(complete.get_xydata(), [[0, 0.72], [1, 0.92], [4, 0.8]])
    assert list(failed.get_xdata()) == [3, 5]
    np.testing.assert_allclose(so_far.get_xydata(), [[0, 0.72], [1, 0.92], [6, 0.92]])
    np.testing.assert_allclose(best.get_xydata(), [[1, 0.92]])


def test_learning_curves_are_those_of_the_epochs_and_pruned_ones_are_fainter(tmp_path):
    axes = axes_of(scan_charts.learning_curves, opened(tmp_path, small()))
    drawn = lines_of(axes)
    ((_, best),) = drawn[RED]
    np.testing.assert_allclose(best, list(enumerate([0.6, 0.7, 0.8, 0.9, 0.92, 0.91], 1)))
    ((faint, pruned),) = drawn[GREY]
    np.testing.assert_allclose(pruned, [[1, 0.2], [2, 0.3]])
    assert all(faint < strong for strong, _ in drawn[BLUE])
    assert len(drawn[BLUE]) == 2


def test_a_slice_has_a_logarithmic_axis_where_the_search_has(tmp_path):
    found = opened(tmp_path, [*small(), trial(7, params(units=40), [0.5])])
    lr, model, units = found.parameters
    axes = axes_of(scan_charts.slice_of, found, lr)
    # From 0.0001 to 0.1: 0.001 is a third, 0.01 two thirds on the way.
    labels = {text.get_text(): place for place, text in zip(axes.get_xticks(), axes.get_xticklabels(), strict=True)}
    assert labels == {"0.0001": 0, "0.001": pytest.approx(1 / 3), "0.01": pytest.approx(2 / 3), "0.1": pytest.approx(1)}
    np.testing.assert_allclose(axes.lines[1].get_xdata(), [1, 2 / 3, 1 / 3, 2 / 3])
    # The others have no units.
    axes = axes_of(scan_charts.slice_of, found, units)
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[(40 - 16) / (64 - 16), 0.5]])
    axes = axes_of(scan_charts.slice_of, found, model)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["cnn", "deep"]
    places = np.asarray(axes.lines[1].get_xdata())
    assert [place > 0.5 for place in places] == [False, True, False, False]


def test_parallel_coordinates_lead_each_complete_trial_through_its_values(tmp_path):
    found = opened(tmp_path, small())
    axes = axes_of(scan_charts.parallel, found, found.parameters)
    ((_, best),) = lines_of(axes)[RED]
    # lr 0.01 of 0.0001 to 0.1, the second of two choices, and the best score, all below each other.
    assert best[0] == pytest.approx([2 / 3, 0])
    assert 0.5 < best[1][0] < 1
    assert best[2] == pytest.approx([1, -2])
    assert len(lines_of(axes)[GREY]) == 2
    assert {"lr", "model", "val_accuracy", "0.001", "cnn", "deep"} <= {text.get_text() for text in axes.texts}


def test_a_trial_without_a_parameter_has_no_line_there(tmp_path):
    found = opened(tmp_path, [trial(0, {"lr": 0.01}, [0.5]), trial(1, params(units=20), [0.6])])
    lr, model, units = found.parameters
    axes = axes_of(scan_charts.parallel, found, [lr, model, units])
    assert [len(line) for _, line in lines_of(axes)[GREY]] == [1, 1]
    assert [len(line) for _, line in lines_of(axes)[RED]] == [4]


def test_many_trials_are_drawn_as_so_many_lines_as_can_be_seen(tmp_path):
    found = opened(tmp_path, drawn(600, 2))
    lines = lines_of(axes_of(scan_charts.parallel, found, found.parameters))
    assert (len(lines[RED]), len(lines[BLUE]), len(lines[GREY])) == (1, 20, 300)
    curves = lines_of(axes_of(scan_charts.learning_curves, found))
    assert len(curves[BLUE]) == 300
    history = axes_of(scan_charts.history, found)
    assert sum(len(line.get_xdata()) for line in history.lines[:2]) == len(found.of("complete")) + len(
        found.of("pruned")
    )


def test_trials_far_worse_than_most_are_triangles_at_the_end_of_the_axis(tmp_path):
    good = [trial(number, params(), [0.9 + number / 1000]) for number in range(20)]
    bad = [trial(20 + number, params(), [0.1]) for number in range(2)]
    folder = write(tmp_path / "scan", [*good, *bad])
    axes = axes_of(scan_charts.history, scan.open_scan("scan", folder))
    assert 0.8 < axes.get_ylim()[0] < 0.9
    (beyond,) = (line for line in axes.lines if line.get_marker() == "v")
    assert list(beyond.get_xdata()) == [20, 21]
    assert "Triangles: 2 of the trials are beyond the axis." in report(folder).text


def test_losses_of_several_magnitudes_have_a_logarithmic_axis(tmp_path):
    losses = [trial(number, params(), [10.0**-number], best=min) for number in range(5)]
    found = opened(tmp_path, losses, objective="loss", direction="min")
    axes = axes_of(scan_charts.history, found)
    assert axes.get_yscale() == "log"
    assert found.best.number == 4


def test_a_scan_that_runs_is_drawn_before_a_trial_is_complete(tmp_path):
    trials = [
        trial(0, params(), [0.2], "open"),
        trial(1, params(), [0.1, 0.2], "pruned"),
        trial(2, params(), [], "open"),
    ]
    page = report(write(tmp_path / "scan", trials))
    assert "No trial is complete yet." in page.text
    assert "3 trials: 0 complete, 1 pruned, 0 failed, 2 open." in page.text


def test_what_is_being_written_is_left_out_and_what_is_damaged_is_named(tmp_path):
    folder = write(tmp_path / "scan", small(), {"node-1": [work(0, 0, 0.0, 1.0, 2.0)]})
    (folder / "trials" / "00002" / "trial.json").write_text('{"number": 2')
    changed = json.loads((folder / "trials" / "00003" / "trial.json").read_text())
    changed["distributions"]["lr"] = '{"name": "FloatDistribution", "attributes": {}}'
    (folder / "trials" / "00003" / "trial.json").write_text(json.dumps(changed))
    (folder / "trials" / "00007").mkdir()
    with open(folder / "members" / "node-1" / "trials.jsonl", "a") as file:
        file.write('{"slot": 1, "tri')
    page = report(folder)
    assert "00002/trial.json: is not JSON" in page.text
    assert "00003/trial.json: distribution of lr is wrong" in page.text
    assert "00007" not in page.text
    assert "trials.jsonl" not in page.text
    assert len(page.table("Processes of the scan")) == 1


def test_texts_of_a_scan_are_text_on_the_page_and_in_pictures(tmp_path):
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    space = {EVIL: CategoricalDistribution([EVIL, "other"]), "_x": FloatDistribution(0, 1)}
    trials = [
        trial(number, {EVIL: EVIL, "_x": 0.5}, [0.1 * number], space=space)
        if number
        else trial(0, {EVIL: "other", "_x": 0.1}, [], "failed", EVIL, space=space)
        for number in range(5)
    ]
    evil = dict.fromkeys(("trainer", "folder", "version"), EVIL) | {"options": [EVIL]}
    folder = write(tmp_path / "scan", trials, {"node": [work(0, 0, 0.0, 1.0, 2.0)]}, objective=EVIL, **evil)
    page = report(folder)
    assert "script" not in {name for name, _ in page.tags}
    assert "&lt;script&gt;" in page.text
    assert "\u202e" not in page.text
    # matplotlib would draw what stands between two $ as a formula.
    assert "$x$" in page.text


def test_mistakes_end_with_one_line(tmp_path, folder):
    empty = write(tmp_path / "empty", [])
    other = write(tmp_path / "other", small())
    run, study = tmp_path / "run", tmp_path / "study"
    run.mkdir()
    (run / "run.json").write_text("{}")
    study.mkdir()
    (study / "study.json").write_text("{}")
    damaged = write(tmp_path / "damaged", small(), direction="up")
    for folders, said in (
        ((empty,), "empty has no trial yet"),
        ((folder, other), "report one after the other"),
        ((folder, run), "run is not a scan, but .*lr & model is"),
        ((run, folder), "run is not a scan, but .*lr & model is"),
        ((study, folder), "model is not a study, but .*study is"),
        ((damaged,), "scan.json: 'direction' is wrong"),
    ):
        with pytest.raises(UserError, match=said):
            command.run(command.ReportRuns(folders, tmp_path / "out"))


def test_a_trial_of_a_scan_is_reported_as_a_run(tmp_path):
    folder = write(tmp_path / "scan", small()) / "trials" / "00001"
    (folder / "run.json").write_text("{}")
    command.run(command.ReportRuns((folder,)))
    assert (folder / "curves.png").exists()
