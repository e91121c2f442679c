"""Names of others are text wherever they are shown: in CSV, in pictures, in tables and on pages."""

import csv
import io
import json

import h5py
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hpc_train.metrics.confusion import table
from hpc_train.names import cell, label
from hpc_train.report import command

UGLY = (
    "=cmd|' /C calc'!A0",
    "$\\frac{1$ and $x$",
    "a\nb\tc\x1b[31m",
    "%s {} \\n \\",
    "_hidden",
    "x" * 5000,
    "<script>alert(1)</script>",
    "$\\undefined$",
)


@pytest.mark.parametrize("name", ["=1+1", "+A1", "-A1", "@SUM(1)", "\tA1", "\rA1", " =1", "\uff1d1", "=cmd|' /C x'!A0"])
def test_a_formula_is_text(name):
    assert cell(name) == "'" + name


def test_a_formula_behind_another_separator_is_text():
    assert cell("a;=1+1") == "a;'=1+1"
    assert cell("a\t@b") == "a\t'@b"


@pytest.mark.parametrize("name", ["cat", "-1", "+2.5e3", "-inf", "a=b", "n-1", "", "é", "sea-ice", "1e5", "x, y"])
def test_other_names_and_numbers_stay(name):
    assert cell(name) == name


@given(st.text(max_size=30))
@example("\r\n=1")
def test_no_part_of_a_row_begins_as_a_formula_whatever_separates_it(name):
    csv.writer(text := io.StringIO()).writerow(["sample", cell(name)])
    (row,) = csv.reader(io.StringIO(text.getvalue(), newline=""))
    try:
        float(row[1])
    except ValueError:
        for separator in (";", "\t", "\r", "\n"):
            for part in row[1].split(separator):
                assert not part.lstrip(" ").startswith(("=", "+", "-", "@"))


@given(st.text(max_size=200))
def test_a_label_is_one_short_line(name):
    assert label(name).isprintable()
    assert len(label(name)) <= 41
    assert not label(name).startswith("_")


def test_predicted_classes_read_back_as_numbers_under_their_names(tmp_path):
    from hpc_train.predict.classes import _write_csv

    probabilities = np.random.default_rng(0).random((3, len(UGLY))).astype("float32")
    _write_csv(tmp_path / "p.csv", probabilities, None, list(UGLY))
    with open(tmp_path / "p.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["sample", "predicted", "'" + UGLY[0], *UGLY[1:]]
    np.testing.assert_allclose(np.array(rows, float)[:, 2:], probabilities, rtol=1e-5)


def test_report_draws_names_as_they_are(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = tmp_path / "run $\\frac{1$ <b>"
    run.mkdir()
    (run / "run.json").write_text("{}")
    classes = len(UGLY)
    line = {"loss": 1.0, "val_loss": 1.0, "learning_rate": 0.1, "val_mean_iou": 0.5, "samples_per_s": 9.0}
    line |= {f"val_iou_{name}": 0.5 for name in UGLY} | {"val_$\\bad{$": 1.0}
    lines = [{"epoch": epoch, "step": epoch, **line, "learning_rate": 0.1**epoch} for epoch in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    with h5py.File(run / "predictions.h5", "w") as file:
        file["targets"] = file["predicted"] = np.arange(classes)
        file.attrs["class_names"] = list(UGLY)
    command.run(command.ReportRuns((run,)))
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert (run / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_powers_of_ten_on_an_axis_stay_formulas(tmp_path):
    pytest.importorskip("matplotlib")
    from hpc_train.plotting import new_figure, save

    figure = new_figure(3, 3)
    axes = figure.subplots()
    axes.plot([1, 2], [1e-3, 1e3])
    axes.set_yscale("log")
    axes.set_title("cost in $ and $")
    save(figure, tmp_path / "log.png")
    assert not axes.title.get_parse_math()
    assert all(text.get_parse_math() for text in axes.get_yticklabels())


def test_pictures_of_maps_show_names_as_they_are(tmp_path):
    pytest.importorskip("matplotlib")
    from hpc_train.predict.maps import Panel
    from hpc_train.predict.numbers import pictures as of_numbers
    from hpc_train.predict.pictures import draw_pictures

    classes = np.arange(64).reshape(8, 8) % len(UGLY)
    panel = Panel(UGLY[1], UGLY[7], classes / 9)
    draw_pictures(tmp_path / "p.png", UGLY[7], [panel], UGLY, classes, classes)
    numbers = [of_numbers.Panel(name, UGLY[1], np.arange(4.0), np.ones(4)) for name in UGLY]
    of_numbers.draw_scatter(tmp_path / "s.png", UGLY[1], numbers)
    for name in ("p.png", "s.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_table_has_a_line_for_each_class():
    text = table(np.eye(len(UGLY), dtype=int), list(UGLY))
    assert len(text.splitlines()) == 2 + len(UGLY)
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) < 45 * (len(UGLY) + 2)
