"""The charts of scaling studies: each draws on given axes, both for the page (SVG) and for pictures (PNG)."""

import math
from collections.abc import Callable, Sequence
from textwrap import fill

from hpc_train.plotting import clean, new_figure
from hpc_train.report.step import PARTS
from hpc_train.report.study import Series
from hpc_train.report.styles import look
from hpc_train.units import number as rounded

PART_COLOURS = dict(zip(PARTS, ("#0072B2", "#E69F00", "#D55E00", "#009E73", "#999999"), strict=True))


def speeds(series: Sequence[Series]) -> dict[Callable, str]:
    """The charts that the series have figures for, each with its caption."""
    kinds = {
        throughput: "Dashed: the smallest size's speed times the number of ranks. Bars: standard error.",
        efficiency: "Samples/s of one rank, relative to the smallest size.",
    }
    if any(row["alone"] for one in series for row in one.rows):
        kinds[efficiency_alone] = (
            "Relative to the same number of ranks that train alone at the same time: shows what averaging gradients "
            "costs. Dashes, the ceiling: the efficiency if ranks only lose time by waiting for the slowest one in each "
            "step."
        )
    return kinds


def throughput(axes, series: Sequence[Series]) -> None:
    """Draw samples/s by ranks, both logarithmic, with standard errors; dashed: ideal scaling of the smallest size."""
    for number, one in enumerate(series):
        first = one.rows[0]
        ranks = [row["ranks"] for row in one.rows]
        ideal = [first["samples_per_s"]["fit"]["mean"] * count / first["ranks"] for count in ranks]
        axes.plot(ranks, ideal, color=look(number)["color"], linestyle=(0, (4, 3)), linewidth=0.9, alpha=0.7)
        _points(axes, one, number, [row["samples_per_s"]["fit"] for row in one.rows])
    axes.set_yscale("log", base=2)
    low, high = axes.get_ylim()
    _rate_ticks(axes, low, high)
    _finish(axes, "Throughput (samples/s)", _ranks(series))


def efficiency(axes, series: Sequence[Series]) -> None:
    """Draw samples/s of one rank relative to the smallest size, with standard errors; dashed: 1."""
    for number, one in enumerate(series):
        _points(axes, one, number, [row["efficiency"]["fit"] for row in one.rows])
    _shares(axes)
    _finish(axes, "Efficiency against the smallest size", _ranks(series))


def efficiency_alone(axes, series: Sequence[Series]) -> None:
    """Draw samples/s relative to as many ranks that train alone, with errors; dashed: 1; dashes: ceilings."""
    for number, one in enumerate(series):
        _points(axes, one, number, [row["alone"] for row in one.rows])
        known = [row for row in one.rows if row["ceiling"]]
        ceilings = [row["ceiling"]["mean"] for row in known]
        dashes = {"linestyle": ":", "linewidth": 1.2, "marker": "_", "markersize": 16, "markeredgewidth": 2}
        axes.plot([row["ranks"] for row in known], ceilings, color=look(number)["color"], **dashes)
    _shares(axes)
    _finish(axes, "Efficiency against ranks alone", _ranks(series))


def breakdown(axes, series: Series) -> None:
    """Draw the parts of a step in ms, stacked, a bar for each size; a line shows the measured step of `fit`."""
    rows = series.known_parts
    for place, row in enumerate(rows):
        bottom = 0.0
        for part, seconds in row["parts"].items():
            filled = {"color": PART_COLOURS[part], "edgecolor": "#ffffff", "linewidth": 0.6}
            axes.bar(place, 1e3 * seconds, 0.62, 1e3 * bottom, alpha=0.4 if row["shared"] else 1, **filled)
            bottom += seconds
        axes.plot([place - 0.38, place + 0.38], [1e3 * row["step"]] * 2, color="#000000", linewidth=1.4)
    axes.set_xticks(range(len(rows)), [f"{row['ranks']}{'*' * row['shared']}" for row in rows])
    axes.set_xlim(-0.6, max(len(rows), 3) - 0.4)
    _finish(axes, f"{series.label}, {series.mode}: step (ms)")


def prediction(axes, series: Series, predicted: Sequence[dict], number: int = 0) -> None:
    """Draw the measured efficiency, and the prediction with its band; dotted: the largest size measured."""
    colour = look(number)["color"]
    ranks, low, high, middle = ([one[name] for one in predicted] for name in ("ranks", "low", "high", "efficiency"))
    axes.fill_between(ranks, low, high, color=colour, alpha=0.22, linewidth=0)
    axes.plot(ranks, middle, color=colour, linewidth=1.3)
    _points(axes, series, number, [row["efficiency"]["fit"] for row in series.rows], join=False)
    axes.axvline((series.valid or series.rows)[-1]["ranks"], color="#999999", linestyle=":", linewidth=1)
    _shares(axes)
    _finish(axes, f"{series.label}, {series.mode}: efficiency", ranks)


def grid(charts: int, width: float = 4.4, height: float = 3.3):
    """A figure and its axes, one for each chart, of this size in inches, side by side in rows."""
    columns = 2 if charts == 4 else min(3, charts)
    rows = math.ceil(charts / columns)
    made = new_figure(width * columns, height * rows)
    axes = made.subplots(rows, columns, squeeze=False).ravel()
    for spare in axes[charts:]:
        spare.set_visible(False)
    return made, axes[:charts]


def _points(axes, series: Series, number: int, estimates: Sequence[dict | None], join: bool = True) -> None:
    """Draw a curve through means, with error bars; sizes whose ranks share cores or GPUs are hollow."""
    found = [(row, one) for row, one in zip(series.rows, estimates, strict=True) if one]
    line = look(number)
    if join:
        axes.plot([r["ranks"] for r, _ in found], [e["mean"] for _, e in found], **{**line, "marker": None}, lw=1.4)
    for row, estimate in found:
        axes.errorbar(
            row["ranks"],
            estimate["mean"],
            yerr=estimate["error"] or 0.0,
            color=line["color"],
            marker=line["marker"],
            markersize=5.5,
            markerfacecolor="#ffffff" if row["shared"] else line["color"],
            capsize=3,
            linewidth=1.2,
        )


def _shares(axes) -> None:
    from matplotlib.ticker import PercentFormatter

    axes.axhline(1, color="#000000", linestyle=(0, (4, 3)), linewidth=0.9, alpha=0.7)
    low, high = axes.dataLim.intervaly
    axes.set_ylim(0.5 if low > 0.55 else 0, max(1.05, 1.02 * high))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _rate_ticks(axes, low: float, high: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    steps = (1, 2, 5) if high / low > 6 else (1, 1.5, 2, 3, 4, 6, 8) if high / low > 1.6 else (1, 1.2, 1.4, 1.6, 1.8)
    axes.yaxis.set_major_locator(LogLocator(10, steps if high / low < 300 else (1,)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda rate, _: rounded(rate)))


def _finish(axes, title: str, ranks: Sequence[int] = ()) -> None:
    axes.set_title(fill(title, 38), fontsize=10, loc="left")
    axes.set_xlabel("ranks", fontsize=9)
    axes.tick_params(labelsize=8)
    clean(axes)
    if ranks:
        axes.set_xscale("log", base=2)
        shown = _ticks(ranks)
        axes.set_xticks(shown, [f"{count:,}" for count in shown])
        axes.set_xticks([], minor=True)
        axes.set_xlim(min(ranks) / 1.25, max(ranks) * 1.25)


def _ticks(ranks: Sequence[int]) -> list[int]:
    """At most seven of the sizes: the largest, and smaller ones at least a seventh of the axis apart."""
    least = math.log2(max(ranks) / min(ranks)) / 7
    kept: list[int] = []
    for count in sorted(set(ranks), reverse=True):
        if not kept or math.log2(kept[-1] / count) >= least:
            kept.append(count)
    return kept[::-1]


def _ranks(series: Sequence[Series]) -> list[int]:
    return [row["ranks"] for one in series for row in one.rows]
