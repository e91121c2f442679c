"""The page of runs: what they are, curves, confusion matrices and scores, in one file of HTML."""

import json
import math
import time
from functools import partial
from pathlib import Path

from hpc_train.files.whole import atomic_path
from hpc_train.metrics import confusion as scores
from hpc_train.names import label, printable
from hpc_train.plotting import new_figure, svg
from hpc_train.report import page, styles
from hpc_train.report.runs import run_time
from hpc_train.report.runs.confusion import Confusion
from hpc_train.report.runs.curves import draw_panel, panels_of, style
from hpc_train.training.run_folder import Run
from hpc_train.watch import goodput

# Columns of a matrix on the page; of more classes it has the scores and the most frequent mistakes.
_MOST_CLASSES = 120
_MISTAKES = 12
_NONE = "-"
_LONGEST = 80


def write(
    output: Path, runs: dict[str, Run], curves: dict[str, list[dict]], found: dict[str, Confusion | None]
) -> Path:
    """Write the page of runs as report.html into a folder.

    Args:
        output: the folder.
        runs: by their names.
        curves: by the runs' names, the lines of metrics.jsonl.
        found: by the runs' names, what `predict` left in their folders.

    Returns:
        The file written.

    Raises:
        UserError: a run is damaged, matplotlib is missing, or the file cannot be written.
    """
    records = {name: run.record() for name, run in runs.items()}
    titles = {name: _title(name, record) for name, record in records.items()}
    title = next(iter(titles.values())) if len(runs) == 1 else f"Runs {', '.join(map(label, runs))}"
    matrices = {name: one for name, one in found.items() if one}
    parts = [
        f"<header>{_header(title, titles, records, curves)}</header>",
        page.section("Curves", _curves(curves)),
        *(page.section(f"Predictions of {label(name, _LONGEST)}", _confusion(one)) for name, one in matrices.items()),
        *([page.section("Where the time went", times)] if (times := _times(records)) else []),
        page.section("Options and starts", [_starts(records), *(_options(*one) for one in records.items())]),
    ]
    report = output / "report.html"
    text = page.page(title, parts)
    with atomic_path(report, "give another folder with --output", len(text)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return report


def _title(name: str, record: dict) -> str:
    """What a run is: trainer and data; its name where run.json does not say them."""
    trainer, data = record["facts"].get("trainer"), record["options"].get("data")
    what = f"{trainer} on {data}" if trainer and data else f"Run {name}"
    return label(what, _LONGEST)


def _header(title: str, titles: dict[str, str], records: dict[str, dict], curves: dict[str, list[dict]]) -> str:
    written = f"Written {time.strftime('%Y-%m-%d %H:%M')} by hpc-train."
    lines = []
    for name, lines_of_run in curves.items():
        named = f"{label(name, _LONGEST)}: {titles[name]}" if len(curves) > 1 else f"Run {label(name, _LONGEST)}"
        lines.append(f"{named}, {_extent(records[name], lines_of_run)}.")
    return f"<h1>{page.escape(title)}</h1>{page.paragraph(written, soft=True)}{page.listed(lines)}"


def _extent(record: dict, lines: list[dict]) -> str:
    epochs, planned = lines[-1]["epoch"], record["options"].get("epochs")
    text = f"{epochs}{f' of {planned}' if planned else ''} epochs"
    if ranks := lines[-1].get("ranks"):
        text += f" on {ranks:.0f} rank{'s' * (ranks != 1)}"
    starts = len(record["starts"])
    return text + (f", {starts} starts" if starts > 1 else "")


def _curves(runs: dict[str, list[dict]]) -> list[str]:
    drawn = []
    for place, panel in enumerate(panels_of(runs)):
        # Small enough that text of 8 points can be read when a phone shows the whole chart.
        figure = new_figure(3.7, 2.8)
        draw_panel(figure.subplots(), panel, runs)
        shown = ", ".join(filter(None, panel.keys.values()))
        described = f"{panel.title} by epoch{f': {shown}' * bool(shown)}. The table has the figures."
        drawn.append(page.chart(svg(figure, f"curve{place}", described), ""))
    legend = []
    if len(runs) > 1:
        looks = [style(number, len(runs)) for number in range(len(runs))]
        legend = [page.legend([(styles.swatch_of(one), label(name)) for one, name in zip(looks, runs, strict=True)])]
    return [*legend, page.charts(drawn), *(_figures(*one, several=len(runs) > 1) for one in runs.items())]


def _figures(name: str, lines: list[dict], several: bool) -> str:
    """Every value of the epochs: the last, the lowest and the highest one."""
    rows = []
    for key in dict.fromkeys(key for line in lines for key in line if key not in ("epoch", "step", "samples", "ranks")):
        values = [(line[key], line["epoch"]) for line in lines if math.isfinite(line.get(key, math.nan))]
        if values:
            rows.append((label(key), _number(values[-1][0]), *map(_at, (min(values), max(values)))))
    caption = f"{label(name)}: values of the epochs" if several else "Values of the epochs"
    return page.table(caption, ("value", "last", "lowest (epoch)", "highest (epoch)"), rows)


def _at(value: tuple[float, int]) -> str:
    return f"{_number(value[0])} ({value[1]})"


def _number(value: float) -> str:
    return f"{value:.4g}"


def _confusion(found: Confusion) -> list[str]:
    matrix, names = found.matrix, [label(name) for name in found.class_names]
    accuracy = matrix.trace() / max(1, matrix.sum())
    line = f"{printable(found.source)}: accuracy {accuracy:.4f}"
    line += f", mean IoU {scores.mean_iou(matrix):.4f}." if found.maps else "."
    counts = matrix.tolist()
    caption = "Confusion matrix: a row for each true class, a column for each predicted one; darker is more of the row"
    few = len(names) <= _MOST_CLASSES
    parts = [page.paragraph(line)]
    parts += [page.matrix(caption, "true / predicted", names, counts)] if few else []
    return [*parts, _mistakes(matrix, names), _scores(found, names)]


def _mistakes(matrix, names: list[str]) -> str:
    rows = [
        (names[true], names[predicted], f"{count:,}", f"{100 * count / matrix[true].sum():.1f} %")
        for true, predicted, count in scores.mistakes(matrix, _MISTAKES)
    ]
    heads = ("true class", "predicted", "count", "of the true class")
    return page.table("Most frequent mistakes", heads, rows) if rows else ""


def _scores(found: Confusion, names: list[str]) -> str:
    kinds = {"recall": scores.recall, "precision": scores.precision} | ({"IoU": scores.iou} if found.maps else {})
    values = [score(found.matrix) for score in kinds.values()]
    rows = [
        (name, f"{found.matrix[place].sum():,}", *(_score(one[place]) for one in values))
        for place, name in enumerate(names)
    ]
    return page.table("Scores of each class", ("class", "pixels" if found.maps else "samples", *kinds), rows)


def _score(value: float) -> str:
    return _NONE if math.isnan(value) else f"{value:.3f}"


def _times(records: dict[str, dict]) -> list[str]:
    """Where the time of the runs went, and which of their ranks were slow; nothing for runs of an earlier version."""
    found = []
    for name, starts in ((name, record["starts"]) for name, record in records.items()):
        if rows := run_time.parts(starts):
            caption = f"{label(name)}: " * (len(records) > 1) + goodput.in_short(starts)
            found += [page.table(caption, ("part", "time", "share"), rows), page.listed(run_time.slow(starts))]
    return found


def _starts(records: dict[str, dict]) -> str:
    text = partial(label, longest=4 * _LONGEST)
    rows = [
        (
            label(name),
            text(str(start.get("time", _NONE))),
            str(start.get("world_size", _NONE)),
            str(start.get("nodes", _NONE)),
            str(start.get("step", _NONE)),
            text(str(start.get("command", _NONE))),
        )
        for name, record in records.items()
        for start in record["starts"]
    ]
    heads = ("run", "start", "ranks", "nodes", "from step", "command")
    return page.table("Starts", heads, rows, words=(5,)) if rows else ""


def _options(name: str, record: dict) -> str:
    text = json.dumps({key: record[key] for key in ("options", "versions") if key in record}, indent=1, default=str)
    return page.folded(f"{label(name)}: options and versions", text)
