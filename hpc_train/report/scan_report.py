"""`hpc-train report SCAN`: writes one page of HTML that needs no other file, and its charts as PNG."""

import shlex
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hpc_train.files.whole import atomic_path
from hpc_train.names import label, printable
from hpc_train.plotting import new_figure, save, svg
from hpc_train.report import charts, page, scan_charts, styles
from hpc_train.report.scan import Parameter, Scan, Trial, importances, open_scan, saved_by_pruning
from hpc_train.report.scan_charts import shown
from hpc_train.scan.study import Settings
from hpc_train.scan.trainer import again

NONE = "-"
# Rows of the tables of trials and of reasons; numbers of trials in a row.
_BEST, _REASONS, _NUMBERS = 10, 20, 8
# Letters of a reason.
_LONGEST = 500
_IN_SLICES = ("complete", "pruned", scan_charts.BEST)
_BEYOND = "Triangles: {} of the trials are beyond the axis."


def write(name: str, path: Path, output: Path) -> list[Path]:
    """Write the page and the pictures of a scan into a folder.

    Args:
        name: of the scan.
        path: its folder.
        output: the folder.

    Returns:
        The files written.

    Raises:
        UserError: the scan is damaged, matplotlib is missing, or a file cannot be written.
    """
    scan = open_scan(name, path)
    shares, about = importances(scan)
    # The most important one comes first.
    ordered = sorted(scan.parameters, key=lambda one: -shares.get(one.name, 0.0))
    report = output / "report.html"
    text = page.page(f"Scan: {printable(name)}", _parts(scan, ordered, shares, about))
    with atomic_path(report, "give another folder with --output", len(text)) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return [report, *_write_pictures(scan, ordered, shares, output)]


def _parts(scan: Scan, parameters: list[Parameter], shares: dict[str, float], about: str) -> list[str]:
    header = [f"<h1>Scan {page.escape(printable(scan.name))}</h1>"]
    header += [page.paragraph(f"Written {time.strftime('%Y-%m-%d %H:%M')} by hpc-train.", soft=True)]
    header += [page.listed(_found(scan))]
    if scan.best:
        header += [page.paragraph("The command that trains the best one again:"), page.code(_command(scan, scan.best))]
    header += [page.listed(list(map(printable, scan.left_out)))]
    return [
        f"<header>{''.join(header)}</header>",
        page.section("Trials", _trials(scan)),
        page.section("Parameters", _about_parameters(scan, parameters, shares, about)),
        page.section("Search and workers", [page.listed(_search(scan)), _members(scan)]),
    ]


def _found(scan: Scan) -> list[str]:
    """The scan in a few sentences."""
    counts = {
        state: sum(one.state == state for one in scan.trials) for state in ("complete", "pruned", "failed", "open")
    }
    planned = scan.settings.get("trials")
    begun = f"{len(scan.trials):,}" + (f" of {planned:,}" if planned and planned != len(scan.trials) else "")
    lines = [f"{begun} trials: " + ", ".join(f"{count:,} {state}" for state, count in counts.items()) + "."]
    best = scan.best
    if best:
        values = ", ".join(f"{label(name)} {label(shown(value))}" for name, value in best.params.items())
        epoch = f" (epoch {best.epoch})" if best.epoch is not None else ""
        lines.append(f"Best {label(scan.score)}: {shown(best.value)}, by trial {best.number}{epoch}: {values}.")
    else:
        lines.append("No trial is complete yet.")
    trained, saved = saved_by_pruning(scan)
    share = f"; pruning saved {saved:,} more, {_percent(saved / (trained + saved))} of all" if saved else ""
    lines.append(f"{trained:,} epochs trained{share}.")
    there = sum(one.there for one in scan.members)
    if there:
        busy, preparing = (sum(getattr(one, part) for one in scan.members) / there for part in ("busy", "preparing"))
        parts = f"{_percent(busy)} of the time, {_percent(preparing)} with preparing trials"
        lines.append(f"Workers were busy {parts}.")
    return lines


def _command(scan: Scan, one: Trial) -> str:
    settings = Settings(**scan.settings)
    return printable(f"cd {shlex.quote(settings.folder)} && {again(settings, one.words)}")


def _trials(scan: Scan) -> list[str]:
    axis = scan_charts.scores(scan)
    caption = "Failed trials stand at the bottom." if scan.of("failed") else ""
    caption += f" {_BEYOND.format(axis.beyond)}" if axis.beyond else ""
    few = f" At most {scan_charts.MOST_LINES} of a kind are drawn." if len(scan.trials) > scan_charts.MOST_LINES else ""
    drawn = [_chart("history", partial(scan_charts.history, scan=scan), caption.strip())]
    if any(one.curve for one in scan.trials):
        ends = "Crosses: where trials were pruned." if scan.of("pruned") else ""
        drawn.append(_chart("curves", partial(scan_charts.learning_curves, scan=scan), f"{ends}{few}".strip()))
    return [_legend(_points(scan)), page.charts(drawn), _best(scan), _failed(scan)]


def _about_parameters(scan: Scan, parameters: list[Parameter], shares: dict[str, float], about: str) -> list[str]:
    parts = [page.paragraph(f"Importance: {printable(about)}")]
    drawn = []
    if shares:
        draw = partial(scan_charts.importance, shares=shares)
        drawn.append(_chart("importance", draw, "Shares of all parameters together.", 0.26 * len(shares) + 0.7))
    if scan.best:
        draw = partial(scan_charts.parallel, scan=scan, parameters=parameters)
        kinds = scan_charts.by_rank(scan)
        caption = f"Each line is a complete trial; {'right' if scan.larger_is_better else 'left'} is better."
        others = len(kinds.get(scan_charts.OTHERS, ()))
        caption += (
            f" Of {others:,} others, {scan_charts.MOST_LINES} are drawn." if others > scan_charts.MOST_LINES else ""
        )
        drawn.append(_chart("parallel", draw, caption, 0.6 * len(parameters) + 0.75))
        parts.append(_legend(_lines(scan)))
    slices = [
        _chart(f"slice{place}", partial(scan_charts.slice_of, scan=scan, parameter=one), "", 2.5)
        for place, one in enumerate(parameters)
    ]
    parts += [page.charts(drawn), "<h3>Score by the value of each parameter</h3>", page.charts(slices)]
    return [*parts, _space(scan, parameters, shares)]


def _lines(scan: Scan) -> dict[str, dict]:
    """The looks of the lines of parallel coordinates that there are, best first."""
    there = scan_charts.by_rank(scan)
    return {kind: look for kind, look in scan_charts.LINES.items() if kind in there}


def _points(scan: Scan) -> dict[str, dict]:
    """The looks of the kinds of points that there are."""
    there = {kind for kind in ("complete", "pruned", "failed") if scan.of(kind)}
    there |= {scan_charts.SO_FAR, scan_charts.BEST} if scan.best else set()
    return {kind: look for kind, look in scan_charts.POINTS.items() if kind in there}


def _best(scan: Scan) -> str:
    ranked = scan.ranked[:_BEST]
    names = [one.name for one in scan.parameters]
    rows = [
        (
            str(one.number),
            shown(one.value),
            str(one.epoch or NONE),
            *(_cell(one.params.get(name, NONE)) for name in names),
        )
        for one in ranked
    ]
    heads = ("trial", label(scan.score), "epoch", *map(label, names))
    some = f"The best {len(rows)} of {len(scan.ranked):,} complete trials"
    return page.table(some if len(rows) < len(scan.ranked) else "All complete trials", heads, rows) if rows else ""


def _failed(scan: Scan) -> str:
    reasons: dict[str, list[int]] = {}
    for one in scan.of("failed"):
        reasons.setdefault(_cell(one.reason or "not known", _LONGEST), []).append(one.number)
    often = sorted(reasons.items(), key=lambda found: -len(found[1]))
    rows = [(_numbers(numbers), str(len(numbers)), reason) for reason, numbers in often[:_REASONS]]
    left = len(often) - len(rows)
    more = f"; {left:,} more reasons are in the files trial.json" if left else ""
    return page.table(f"Failed trials{more}", ("trials", "count", "reason"), rows, words=(0, 2)) if rows else ""


def _space(scan: Scan, parameters: list[Parameter], shares: dict[str, float]) -> str:
    best = scan.best.params if scan.best else {}
    rows = [
        (
            _cell(one.name),
            _searched(one),
            _cell(best.get(one.name, NONE)),
            _percent(shares[one.name]) if one.name in shares else NONE,
        )
        for one in parameters
    ]
    heads = ("parameter", "values", "best trial", "importance")
    return page.table("What is searched", heads, rows, words=(1,)) if rows else ""


def _searched(one: Parameter) -> str:
    if one.choices:
        return _cell(", ".join(map(shown, one.choices)), _LONGEST)
    kind = " by the logarithm" * one.log + ", whole numbers" * one.whole
    return f"{shown(one.low)} to {shown(one.high)}{kind}"


def _search(scan: Scan) -> list[str]:
    found = scan.settings
    options = shlex.join(found["options"])
    lines = [f"Trainer {found['trainer']}, options {options or 'none'}."]
    lines.append(f"Search {found['search']}, pruning {found['prune']}, seed {found.get('seed', NONE)}.")
    lines.append(f"Ranks per trial: {found.get('ranks_per_trial') or 1}; hpc-train {found.get('version', NONE)}.")
    return list(map(printable, lines))


def _members(scan: Scan) -> str:
    rows = [
        (
            _cell(one.name),
            str(one.slots),
            f"{one.trials:,}",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(one.began)),
            f"{(one.ended - one.began) / 3600:.2f}",
            _percent(one.busy / one.there) if one.there else NONE,
            _percent(one.preparing / one.there) if one.there else NONE,
        )
        for one in scan.members
    ]
    heads = ("process", "slots used", "trials", "began", "hours", "busy", "preparing")
    return page.table("Processes of the scan: how busy trials that ended kept their slots", heads, rows) if rows else ""


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _cell(value, longest: int = 80) -> str:
    return label(shown(value), longest).strip()


def _numbers(numbers: list[int]) -> str:
    more = f" and {len(numbers) - _NUMBERS:,} more" if len(numbers) > _NUMBERS else ""
    return ", ".join(map(str, numbers[:_NUMBERS])) + more


def _legend(looks: dict[str, dict]) -> str:
    return page.legend([(styles.swatch_of(look), name) for name, look in looks.items()])


def _chart(name: str, draw: Callable, caption: str, height: float = 3.0) -> str:
    # Small enough that text of 8 points can be read when a phone shows the whole chart.
    figure = new_figure(3.7, height)
    axes = figure.subplots()
    draw(axes)
    title = axes.get_title(loc="left") or "Parallel coordinates of the trials"
    return page.chart(svg(figure, name, f"{title}. {caption} The tables have the figures."), caption)


def _write_pictures(scan: Scan, parameters: list[Parameter], shares: dict[str, float], output: Path) -> list[Path]:
    made = {"history.png": _picture(partial(scan_charts.history, scan=scan), _points(scan))}
    if any(one.curve for one in scan.trials):
        draw = partial(scan_charts.learning_curves, scan=scan)
        made["learning-curves.png"] = _picture(draw, scan_charts.CURVES)
    if shares:
        made["importance.png"] = _picture(partial(scan_charts.importance, shares=shares), {}, 0.3 * len(shares) + 0.8)
    if scan.best:
        draw = partial(scan_charts.parallel, scan=scan, parameters=parameters)
        made["parallel.png"] = _picture(draw, _lines(scan), 0.62 * len(parameters) + 1.2)
    if parameters:
        figure, every = charts.grid(len(parameters))
        for axes, one in zip(every, parameters, strict=True):
            scan_charts.slice_of(axes, scan, one)
        figure.suptitle(f"{label(scan.score)} by the value of each parameter", fontsize=11)
        styles.looks_below(figure, {kind: look for kind, look in _points(scan).items() if kind in _IN_SLICES})
        made["slices.png"] = figure
    for name, figure in made.items():
        save(figure, output / name)
    return [output / name for name in made]


def _picture(draw: Callable, looks: dict[str, dict], height: float = 4.2):
    figure = new_figure(6.4, height)
    draw(figure.subplots())
    if looks:
        styles.looks_below(figure, looks)
    return figure
