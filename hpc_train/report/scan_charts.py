"""The charts of a scan: each draws on given axes, both for the page (SVG) and for pictures (PNG)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles

from hpc_train.names import label
from hpc_train.plotting import clean
from hpc_train.report.scan import Parameter, Scan, Trial

BEST, COMPLETE, PRUNED, FAILED = "best trial", "complete", "pruned", "failed"
SO_FAR, NEXT, OTHERS = "best so far", "next best", "other complete trials"
_BLUE, _RED, _GREY = "#0072B2", "#D55E00", "#999999"
_POINT = {"linestyle": "none", "markeredgewidth": 0}
# Of each kind of trial: how charts show it, in points and in lines.
POINTS = {
    COMPLETE: {"color": _BLUE, "marker": "o", **_POINT},
    PRUNED: {"color": _GREY, "marker": "X", **_POINT},
    FAILED: {"color": "#CC79A7", "marker": "d", **_POINT},
    SO_FAR: {"color": _RED, "linewidth": 1.4},
    BEST: {"color": _RED, "marker": "*", "markersize": 9, **_POINT},
}
LINES = {
    BEST: {"color": _RED, "linewidth": 2.2},
    NEXT: {"color": _BLUE, "linewidth": 1.0},
    OTHERS: {"color": _GREY, "linewidth": 0.7},
}
CURVES = {
    BEST: {"color": _RED, "linewidth": 2.2},
    COMPLETE: {"color": _BLUE, "linewidth": 0.9},
    PRUNED: {"color": _GREY, "linewidth": 0.7},
}
# More lines than this are a blot.
MOST_LINES = 300
_MOST_NEXT = 20
_MOST_TICKS = 6
_MOST_CHOICES = 12
# Letters of labels that have room beside each other below an axis.
_LETTERS = 48


@dataclass(frozen=True)
class Scores:
    """The axis of scores: from low to high, perhaps logarithmic, and how many trials are beyond it."""

    low: float
    high: float
    log: bool
    beyond: int

    def within(self, value: float) -> float:
        """The value, moved to the axis' end if it is beyond it."""
        return min(max(value, self.low), self.high)

    def share(self, value: float) -> float:
        """The place of a value on the axis, from 0 to 1."""
        scale = math.log if self.log else float
        low, high = scale(self.low), scale(self.high)
        return (scale(self.within(value)) - low) / (high - low)


def scores(scan: Scan) -> Scores:
    """The axis for a scan's scores: trials far worse than most do not squeeze all others together."""
    found = [one.value for state in ("complete", "pruned") for one in scan.of(state)]
    if not found:
        return Scores(0.0, 1.0, False, 0)
    low, high = min(found), max(found)
    log = not scan.larger_is_better and 0 < 30 * low < high
    if log or len(found) < 8:
        cut = low if scan.larger_is_better else high
    else:
        quarters = quantiles(found, n=4)
        cut = 3 * quarters[0] - 2 * high if scan.larger_is_better else 3 * quarters[2] - 2 * low
    kept = [value for value in found if (value >= cut if scan.larger_is_better else value <= cut)]
    low, high = min(kept), max(kept)
    if low == high:
        low, high = low - (abs(low) / 20 or 0.5), high + (abs(high) / 20 or 0.5)
    return Scores(low, high, log, len(found) - len(kept))


def history(axes, scan: Scan) -> None:
    """Draw the score by the trial's number, and the best so far; pruned and failed trials are marked."""
    axis = scores(scan)
    for kind in (PRUNED, COMPLETE):
        trials = scan.of(kind)
        _points(axes, [one.number for one in trials], [one.value for one in trials], kind, axis, scan)
    failed = [one.number for one in scan.of("failed")]
    size = 5 if len(failed) < 30 else 3
    axes.plot(failed, [0.02] * len(failed), transform=axes.get_xaxis_transform(), markersize=size, **POINTS[FAILED])
    reached = _best_so_far(scan)
    if reached:
        ends = [number for number, _ in reached] + [max(one.number for one in scan.trials)]
        values = [axis.within(value) for _, value in reached]
        axes.plot(ends, [*values, values[-1]], drawstyle="steps-post", **POINTS[SO_FAR])
        axes.plot(*reached[-1], **POINTS[BEST])
    _score_axis(axes, axis)
    _whole_numbers(axes.xaxis)
    axes.set_xlim(-0.5 - 0.02 * len(scan.trials), 1.02 * max((one.number for one in scan.trials), default=0) + 0.5)
    _finish(axes, f"{label(scan.score)} by trial", "trial")


def learning_curves(axes, scan: Scan) -> None:
    """Draw the score by epoch of every trial, the best one thick and pruned ones faint."""
    drawn = {
        PRUNED: evenly([one for one in scan.of("pruned") if one.curve], MOST_LINES),
        COMPLETE: evenly([one for one in scan.ranked[1:] if one.curve], MOST_LINES),
        BEST: [one for one in scan.ranked[:1] if one.curve],
    }
    for kind, trials in drawn.items():
        fade = 1.0 if kind == BEST else _opacity(len(trials), 0.75 if kind == COMPLETE else 0.6)
        _lines(axes, [one.curve for one in trials], CURVES[kind], fade)
        # One epoch makes no line, and where a trial was pruned shall be seen.
        ends = [one.curve[-1] for one in trials if kind == PRUNED or len(one.curve) == 1]
        look = {"color": CURVES[kind]["color"], "marker": "X" if kind == PRUNED else "o"}
        axes.plot(*zip(*ends, strict=True) if ends else ((), ()), markersize=4, zorder=4, **look, **_POINT)
    values = [value for trials in drawn.values() for one in trials for _, value in one.curve]
    axes.autoscale_view()
    if values:
        _curves_axis(axes, scan, values)
    _whole_numbers(axes.xaxis)
    _finish(axes, f"{label(scan.score)} by epoch", "epoch")


def importance(axes, shares: dict[str, float]) -> None:
    """Draw a bar for the share of each parameter, the largest on top."""
    names = list(shares)[::-1]
    axes.barh(range(len(names)), [shares[name] for name in names], 0.62, color=_BLUE)
    for place, name in enumerate(names):
        axes.text(shares[name], place, f" {100 * shares[name]:.0f} %", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [label(name, 24) for name in names])
    axes.set_xticks([])
    axes.set_xlim(0, 1.18 * max(shares.values()))
    axes.set_ylim(-0.6, len(names) - 0.4)
    _finish(axes, "Importance of the parameters")
    axes.grid(False)
    axes.spines["bottom"].set_visible(False)


def parallel(axes, scan: Scan, parameters: Sequence[Parameter]) -> None:
    """Draw every complete trial as a line through its values, an axis for each parameter and below them the score."""
    axis = scores(scan)
    kinds = by_rank(scan)
    for order, (kind, trials) in enumerate(kinds.items()):
        lines = [_through(one, parameters, axis) for one in evenly(trials, MOST_LINES)]
        fade = _opacity(len(lines), 0.8) if kind == OTHERS else 1.0
        _lines(axes, [part for line in lines for part in line], LINES[kind], fade, zorder=2 + order)
    for row, one in enumerate(parameters):
        _scale(axes, -row, label(one.name, 44), marks_of(one))
    marks = [(axis.share(value), shown(value)) for value in _ticks(axis.low, axis.high, axis.log)]
    _scale(axes, -len(parameters), label(scan.score, 44), marks)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-len(parameters) - 0.5, 0.45)
    axes.set_axis_off()


def by_rank(scan: Scan) -> dict[str, list[Trial]]:
    """The complete trials as the kinds of LINES, without kinds that have none: next best are a tenth, or 20."""
    ranked = scan.ranked
    first = 1 + min(_MOST_NEXT, len(ranked) // 10)
    kinds = {OTHERS: ranked[first:], NEXT: ranked[1:first], BEST: ranked[:1]}
    return {kind: trials for kind, trials in kinds.items() if trials}


def slice_of(axes, scan: Scan, parameter: Parameter) -> None:
    """Draw the score by the value of a parameter; values of choices are spread a little, so that points are seen."""
    axis = scores(scan)
    for kind in (PRUNED, COMPLETE):
        trials = [one for one in scan.of(kind) if parameter.name in one.params]
        places = [_place(one, parameter) for one in trials]
        _points(axes, places, [one.value for one in trials], kind, axis, scan)
    if scan.best and parameter.name in scan.best.params:
        axes.plot(_place(scan.best, parameter), axis.within(scan.best.value), **POINTS[BEST])
    found = marks_of(parameter)
    most = max(3, _LETTERS // max(1, len(found)))
    axes.set_xticks([place for place, _ in found], [label(name, most) for _, name in found])
    axes.set_xlim(-0.04, 1.04)
    _score_axis(axes, axis)
    _finish(axes, label(parameter.name, 40), "logarithmic" if parameter.log else "")


def marks_of(parameter: Parameter) -> list[tuple[float, str]]:
    """Places from 0 to 1 on a parameter's axis, with their labels."""
    if parameter.choices:
        values = parameter.choices[:: math.ceil(len(parameter.choices) / _MOST_CHOICES)]
    elif parameter.low == parameter.high:
        values = [parameter.low]
    else:
        values = _ticks(parameter.low, parameter.high, parameter.log)
        values = [value for value in values if not parameter.whole or value == round(value)]
    return [(_share(value, parameter), shown(value)) for value in values]


def shown(value) -> str:
    """A parameter's value or a score as text, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def evenly(items: Sequence, most: int) -> Sequence:
    """At most this many of the items, at equal distances."""
    return items if len(items) <= most else [items[place * len(items) // most] for place in range(most)]


def _share(value, parameter: Parameter) -> float:
    """The place of a value on its parameter's axis, from 0 to 1."""
    if parameter.choices:
        places = {repr(one): place for place, one in enumerate(parameter.choices)}
        # Choices stand inside the axis, with room for what is spread around them.
        return (places[repr(value)] + 0.5) / len(places)
    if parameter.low == parameter.high:
        return 0.5
    scale = math.log if parameter.log else float
    low, high = scale(parameter.low), scale(parameter.high)
    return (scale(value) - low) / (high - low)


def _place(one: Trial, parameter: Parameter) -> float:
    """As `_share`, but each trial a little beside the others of the same choice."""
    beside = (one.number * 0.618034 % 1 - 0.5) * 0.4 / len(parameter.choices) if parameter.choices else 0.0
    return _share(one.params[parameter.name], parameter) + beside


def _through(one: Trial, parameters: Sequence[Parameter], axis: Scores) -> list[list[tuple[float, float]]]:
    """A trial's line over the axes below each other, in parts where it does not have a parameter."""
    parts: list[list[tuple[float, float]]] = [[]]
    for row, parameter in enumerate(parameters):
        if parameter.name in one.params:
            parts[-1].append((_place(one, parameter), -row))
        else:
            parts.append([])
    parts[-1].append((axis.share(one.value), -len(parameters)))
    return [part for part in parts if part]


def _ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers from low to high, at most _MOST_TICKS."""
    from matplotlib.ticker import MaxNLocator

    if not log or high < 2 * low:
        found = MaxNLocator(_MOST_TICKS - 1, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
        found = [float(f"{value:.6g}") for value in found]
    else:
        steps = (1, 1.5, 2, 3, 5, 7) if high < 10 * low else (1, 2, 5) if high < 100 * low else (1,)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [float(f"{step}e{decade}") for decade in decades for step in steps]
    slack = 1e-9 * (high - low)
    found = [value for value in found if low - slack <= value <= high + slack]
    return found[:: math.ceil(len(found) / _MOST_TICKS)] if found else [low]


def _scale(axes, height: float, name: str, marks: Sequence[tuple[float, str]]) -> None:
    """Draw one of the axes of `parallel`: its name above it, labels below."""
    # So that names can be read across lines; it is the page's colour.
    behind = {"facecolor": "#ffffff", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
    front = {"zorder": 6, "bbox": behind}
    axes.plot([0, 1], [height, height], color="#000000", linewidth=1.0, zorder=5)
    axes.text(0, height + 0.1, name, fontsize=9, fontweight="bold", va="bottom", **front)
    most = max(3, _LETTERS // max(1, len(marks)))
    for place, mark in marks:
        axes.plot([place, place], [height - 0.06, height], color="#000000", linewidth=1.0, zorder=5)
        axes.text(place, height - 0.1, label(mark, most), fontsize=7.5, ha="center", va="top", **front)


def _points(axes, places: Sequence[float], values: Sequence[float], kind: str, axis: Scores, scan: Scan) -> None:
    """Draw trials as points; a triangle at the axis' end is one beyond it."""
    size = 4.5 if len(places) < 150 else 2.5
    within = [axis.low <= value <= axis.high for value in values]
    look = {**POINTS[kind], "alpha": max(0.4, _opacity(len(places), 0.9))}
    inside = [(place, value) for place, value, there in zip(places, values, within, strict=True) if there]
    beyond = [
        (place, axis.within(value)) for place, value, there in zip(places, values, within, strict=True) if not there
    ]
    for points, marker in ((inside, look["marker"]), (beyond, "v" if scan.larger_is_better else "^")):
        if points:
            axes.plot(*zip(*points, strict=True), **{**look, "marker": marker}, markersize=size)


def _lines(axes, lines: Sequence[Sequence[tuple[float, float]]], look: dict, alpha: float, zorder: float = 2) -> None:
    from matplotlib.collections import LineCollection

    if lines:
        drawn = LineCollection(lines, colors=look["color"], linewidths=look["linewidth"], alpha=alpha, zorder=zorder)
        axes.add_collection(drawn)


def _opacity(count: int, most: float) -> float:
    """Less for each of many."""
    return max(0.2, min(most, 6 / math.sqrt(count))) if count else most


def _best_so_far(scan: Scan) -> list[tuple[int, float]]:
    """Number and score of each trial that was better than all complete ones before it."""
    reached: list[tuple[int, float]] = []
    for one in scan.of("complete"):
        if not reached or (one.value > reached[-1][1] if scan.larger_is_better else one.value < reached[-1][1]):
            reached.append((one.number, one.value))
    return reached


def _curves_axis(axes, scan: Scan, values: Sequence[float]) -> None:
    """An axis for curves: without the few values that are far worse than all others."""
    low, high = min(values), max(values)
    if not scan.larger_is_better and 0 < 30 * low < high:
        axes.set_yscale("log")
    if len(values) >= 40:
        parts = quantiles(values, n=20)
        low, high = (parts[0], high) if scan.larger_is_better else (low, parts[-1])
    room = 0.05 * (high - low) or abs(high) / 20 or 0.5
    log = axes.get_yscale() == "log"
    axes.set_ylim(low / 1.1 if log else low - room, 1.1 * high if log else high + room)
    _plain_ticks(axes.yaxis, low, high, log)


def _score_axis(axes, axis: Scores) -> None:
    """Set the vertical axis to that of scores, with some room around it."""
    if axis.log:
        axes.set_yscale("log")
        room = (axis.high / axis.low) ** 0.06
        axes.set_ylim(axis.low / room, axis.high * room)
    else:
        room = 0.06 * (axis.high - axis.low)
        axes.set_ylim(axis.low - room, axis.high + room)
    _plain_ticks(axes.yaxis, axis.low, axis.high, axis.log)


def _plain_ticks(axis, low: float, high: float, log: bool) -> None:
    values = _ticks(low, high, log)
    axis.set_ticks(values, [shown(value) for value in values])
    axis.set_ticks([], minor=True)


def _whole_numbers(axis) -> None:
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _finish(axes, title: str, below: str = "") -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(below, fontsize=9)
    axes.tick_params(labelsize=8)
    clean(axes)
