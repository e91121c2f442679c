"""`hpc-train report STUDY`: writes one page of HTML that needs no other file, and its charts as PNG."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from hpc_train.bench.study.measurements import OURS
from hpc_train.bench.study.report import DISTURBED
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path
from hpc_train.plotting import svg
from hpc_train.report import charts, page, styles, timelines
from hpc_train.report import study_tables as tables
from hpc_train.report.forecast import Forecast, forecasts
from hpc_train.report.study import MODES, Series, Study, open_studies
from hpc_train.report.study_pictures import write_pictures

_ONE_MACHINE = (
    "All sizes ran on one machine, so nothing that was measured has crossed a network: what follows is no forecast "
    "for a cluster. Measure two nodes, or give `hpc-train bench predict --allreduce FILE` the cluster's network."
)
_SHARED = "* and hollow or pale: ranks share cores or GPUs, so these sizes say nothing about scaling."


def write(paths: dict[str, Path], output: Path) -> list[Path]:
    """Write the page and the pictures of studies into a folder.

    Args:
        paths: of the studies, by their names.
        output: the folder.

    Returns:
        The files written.

    Raises:
        UserError: a study holds no measurement, matplotlib is missing, or a file cannot be written.
    """
    studies = open_studies(paths)
    series = [one for study in studies for one in study.series]
    if not series:
        raise UserError(f"no measurement of {', '.join(paths)} has the way fit; measure it with --ways fit")
    ahead = [one for study in studies for one in forecasts(study)]
    report = output / "report.html"
    title = f"Scaling of {_networks(series)}: {', '.join(paths)}"
    _write_text(report, page.page(title, _parts(title, studies, series, ahead)))
    return [report, *write_pictures(series, ahead, output)]


def _networks(series: Sequence[Series]) -> str:
    """What was measured, for the title."""
    return ", ".join(dict.fromkeys(f"{one.conditions['trainer']} {one.conditions['model']}" for one in series))


def _parts(title: str, studies: Sequence[Study], series: Sequence[Series], ahead: Sequence[Forecast]) -> list[str]:
    header = [f"<h1>{page.escape(title)}</h1>"]
    header += [page.paragraph(f"Written {time.strftime('%Y-%m-%d %H:%M')} by hpc-train.", soft=True)]
    header += [page.listed([_found(one) for one in series if one.framework == OURS])]
    notes = [line for study in studies for line in study.left_out]
    notes += [f"{study.name}: not measured: {', '.join(study.missing)}" for study in studies if study.missing]
    header += [page.listed(notes)]
    speeds = [_speed(mode, [one for one in series if one.mode == mode]) for mode in MODES]
    compared = [tables.sweeps(series), tables.peers(series)]
    return [
        f"<header>{''.join(header)}</header>",
        *(part for part in speeds if part),
        *([page.section("Sweeps and peers", compared)] if any(compared) else []),
        _step(series),
        _prediction(ahead),
        page.section(
            "Conditions, hardware and commands",
            [tables.conditions(series), tables.hardware(studies), *map(tables.commands, studies)],
        ),
    ]


def _found(one: Series) -> str:
    """A curve in a sentence, about its largest size whose ranks do not share cores or GPUs."""
    first, last = one.rows[0], (one.valid or one.rows)[-1]
    text = f"{one.label}, {one.mode} scaling: "
    if last is first:
        return text + f"{tables.rate(first['samples_per_s']['fit']['mean'])} samples/s with {_ranks(first)}."
    speeds = " to ".join(tables.rate(row["samples_per_s"]["fit"]["mean"]) for row in (first, last))
    text += f"{speeds} samples/s from {first['ranks']} to {_ranks(last)}, "
    text += f"efficiency {tables.estimated(last['efficiency']['fit'])}"
    if last["alone"]:
        ceiling = f"; waiting for the slowest allows {tables.estimated(last['ceiling'])}" if last["ceiling"] else ""
        text += f" ({tables.estimated(last['alone'])} of ranks that train alone{ceiling})"
    lost = {name: seconds for name, seconds in (last["parts"] or {}).items() if name != "computing" and seconds > 0}
    if lost:
        most = max(lost, key=lost.get)
        text += f". Besides computing, most time goes to {most}: {tables.percent(lost[most] / last['step'])} of a step"
    return text + "."


def _speed(mode: str, series: Sequence[Series]) -> str:
    if not series:
        return ""
    drawn = [
        _chart(f"{mode}{place}", partial(draw, series=series), caption, series)
        for place, (draw, caption) in enumerate(charts.speeds(series).items())
    ]
    held = "the same batch per rank" if mode == "weak" else "the same global batch"
    threads = [one.label for one in series if len({n for row in one.rows for n in row["threads"]}) > 1]
    notes = [f"{name}: sizes differ in threads per rank, so efficiency compares unequal ranks" for name in threads]
    notes += [_SHARED] if any(row["shared"] for one in series for row in one.rows) else []
    doubts = dict.fromkeys(row["doubt"] for one in series for row in one.rows if row["doubt"])
    notes += [f"! against ranks alone: not to be believed, {' or '.join(doubts)}; {DISTURBED}."] if doubts else []
    swatches = [(styles.swatch(number), one.label) for number, one in enumerate(series)]
    parts = [page.legend(swatches), page.charts(drawn), page.listed(notes)]
    parts += [tables.speed(series, f"{mode.capitalize()} scaling: {held} at every size; means ± standard error")]
    return page.section(f"{mode.capitalize()} scaling", parts)


def _step(series: Sequence[Series]) -> str:
    known = [one for one in series if one.known_parts]
    parts = [tables.steps(series)]
    if known:
        swatches = [(styles.area(colour), name) for name, colour in charts.PART_COLOURS.items()]
        caption = "Line: the step of fit as measured."
        drawn = [
            _chart(f"step{place}", partial(charts.breakdown, series=one), caption, [one])
            for place, one in enumerate(known)
        ]
        text = (
            "Computing is the mean rank's step on data that stay on the device. All ranks wait for the slowest one. "
            "Communication is the part of the all-reduce that computing does not hide."
        )
        parts = [page.paragraph(text), page.legend(swatches), page.charts(drawn), tables.parts(known), *parts]
    else:
        parts.insert(0, page.paragraph("Parts not known: measure the ways device and device alone at one size."))
    parts += [timelines.table(series), page.listed(timelines.advice(series))]
    return page.section("Parts of a step", parts)


def _prediction(ahead: Sequence[Forecast]) -> str:
    parts = []
    for place, one in enumerate(ahead):
        title = f"{one.series.label}, {one.series.mode} scaling"
        parts.append(f"<h3>{page.escape(title)}</h3>")
        if one.why:
            parts.append(page.paragraph(one.why))
            continue
        caption = "Line and band: the model. Points: measured. Dotted: the largest size measured."
        draw = partial(charts.prediction, series=one.series, predicted=one.predicted)
        drawn = _chart(f"model{place}", draw, caption, [one.series])
        if one.one_machine:
            parts.append(page.paragraph(_ONE_MACHINE))
        parts += [page.charts([drawn, page.listed(one.notes)]), tables.predictions(title, one)]
    return page.section("Prediction for larger sizes", parts)


def _chart(name: str, draw: Callable, caption: str, series: Sequence[Series]) -> str:
    # Small enough that text of 8 points can be read when a phone shows the whole chart.
    figure, (axes,) = charts.grid(1, 3.7, 3.0)
    draw(axes)
    title = " ".join(axes.get_title(loc="left").split())
    curves = ", ".join(one.label for one in series)
    described = f"{title}, by number of ranks, of {curves}. {caption} The tables have the figures."
    return page.chart(svg(figure, name, described), caption)


def _write_text(path: Path, text: str) -> None:
    with atomic_path(path, "give another folder with --output", len(text)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _ranks(row: dict) -> str:
    return f"{row['ranks']:,} rank{'s' * (row['ranks'] > 1)}"
