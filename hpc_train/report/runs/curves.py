"""Draws the values that `metrics.jsonl` has for every epoch, a panel for each quantity."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from hpc_train.names import label
from hpc_train.plotting import COLOURS, clean, new_figure, save

_COLUMNS = 3
_TITLE = 60
# What metrics.jsonl has of an epoch besides its metrics.
_OF_EPOCHS = {"epoch", "step", "samples", "ranks", "input_wait", "loss_scale", "skipped_steps", "samples_per_s"}
_OF_EPOCHS |= {"tflops_per_s", "utilisation", "seconds"}


@dataclass(frozen=True)
class Panel:
    """The panel of a quantity.

    Args:
        title: above the panel.
        keys: the keys of metrics.jsonl to draw, each with its label in the legend.
        scale: "linear" or "log".
        percent: whether values are shown as percent.
    """

    title: str
    keys: dict[str, str]
    scale: str = "linear"
    percent: bool = False


def draw_curves(path: Path, runs: dict[str, list[dict]]) -> None:
    """Draw the panels for which any of the runs has values, as one PNG.

    Args:
        path: of the picture.
        runs: by their names, the lines of metrics.jsonl.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    panels = panels_of(runs)
    columns = min(_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    several = len(runs) > 1
    figure = new_figure(4.2 * columns, 3.1 * rows + (0.3 if several else 0.2))
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, panel in zip(grid, panels, strict=False):
        draw_panel(axes, panel, runs)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if several:
        _name_runs(figure, runs)
    else:
        figure.suptitle(label(next(iter(runs)), _TITLE), fontsize=11)
    save(figure, path)


def panels_of(runs: dict[str, list[dict]]) -> list[Panel]:
    """The panels for what the runs recorded; with several runs, each has one curve, that of validation."""
    present = {key: None for lines in runs.values() for line in lines for key in line}
    phases = {"": "training", "val_": "validation"}
    panels = []
    for name, title in (("loss", "Loss"), ("accuracy", "Accuracy"), ("top5", "Top-5 accuracy")):
        panels.append(Panel(title, _kept({phase + name: label for phase, label in phases.items()}, present)))
    overall = {"val_mean_iou": "all pixels", "val_sample_iou": "mean of samples (DeepCAM's)"}
    panels.append(Panel("Mean IoU, validation", _kept(overall, present)))
    scores = (("iou", "IoU"), ("precision", "Precision"), ("recall", "Recall")) if "val_mean_iou" in present else ()
    for score, title in scores:
        of_classes = {key: match[1] for key in present if (match := re.fullmatch(f"val_{score}_(.+)", key))}
        if len(runs) == 1:
            panels.append(Panel(f"{title} by class, validation", of_classes))
        elif score == "iou":
            panels += [Panel(f"IoU of {name}, validation", {key: name}) for key, name in of_classes.items()]
    panels += _others(present, phases, {key for panel in panels for key in panel.keys})
    rates = {key: key.removeprefix("learning_rate").lstrip("_") for key in present if key.startswith("learning_rate")}
    panels.append(Panel("Learning rate", rates, _rate_scale(runs)))
    panels.append(Panel("Throughput (samples/s)", _kept({"samples_per_s": ""}, present)))
    panels.append(Panel("Input wait, share of a step", _kept({"input_wait": ""}, present), percent=True))
    panels.append(Panel("Loss scale", _kept({"loss_scale": ""}, present), "log"))
    panels = [panel for panel in panels if panel.keys]
    return panels if len(runs) == 1 else [_one_curve(panel) for panel in panels]


def _others(present, phases: dict[str, str], drawn: set[str]) -> list[Panel]:
    """A panel for each other metric of training and validation."""
    left = [key for key in present if key not in _OF_EPOCHS | drawn and not key.startswith("learning_rate")]
    of_maps = re.compile("(iou|precision|recall)_" if "val_mean_iou" in present else "$^")
    names = dict.fromkeys(key.removeprefix("val_") for key in left)
    panels = (Panel(name, _kept({phase + name: label for phase, label in phases.items()}, present)) for name in names)
    return [panel for panel in panels if not (of_maps.match(panel.title) or drawn & set(panel.keys))]


def draw_panel(axes, panel: Panel, runs: dict[str, list[dict]]) -> None:
    """Draw a panel: the curves of its keys, or of its only key for several runs."""
    for number, lines in enumerate(runs.values()):
        for place, key in enumerate(panel.keys):
            points = [(line["epoch"], line[key]) for line in lines if _drawable(line.get(key), panel.scale)]
            looks = style(number, len(runs)) if len(runs) > 1 else {"color": COLOURS[place % len(COLOURS)]}
            marker = "o" if len(points) < 12 else None
            name = label(panel.keys[key]) if number == 0 else None
            axes.plot(*zip(*points, strict=True) if points else ((), ()), marker=marker, ms=3, label=name, **looks)
    axes.set_title(label(panel.title, _TITLE), fontsize=10, loc="left")
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8)
    clean(axes)
    _scale(axes, panel)
    if len(panel.keys) > 1:
        axes.legend(fontsize=8, frameon=False)


def _scale(axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if panel.scale == "log":
        axes.set_yscale("log", base=2 if panel.title == "Loss scale" else 10)
    elif panel.title.startswith(("Throughput", "Input wait")):
        # From 0, so that small changes look small.
        axes.set_ylim(0, max(1.1 * axes.dataLim.y1, 0.01))
    if panel.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))


def _name_runs(figure, runs: dict[str, list[dict]]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], label=label(name, _TITLE), **style(i, len(runs))) for i, name in enumerate(runs)]
    widest = min(_TITLE, max(map(len, runs)))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=max(1, min(len(runs), 130 // (widest + 8))),
        frameon=False,
        fontsize=9,
    )


def style(number: int, runs: int) -> dict:
    """The look of the curve of a run; colours first: with more runs than colours, the same colours with other lines."""
    dashes = ("-", "--", ":", "-.")[number // len(COLOURS) % 4] if runs > len(COLOURS) else "-"
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": dashes}


def _one_curve(panel: Panel) -> Panel:
    key = next((key for key in panel.keys if key.startswith("val_")), next(iter(panel.keys)))
    kind = panel.keys[key]
    title = f"{panel.title}, {kind}" if kind == "validation" else panel.title
    return Panel(title, {key: kind}, panel.scale, panel.percent)


def _rate_scale(runs: dict[str, list[dict]]) -> str:
    """Log if the runs differ by orders of magnitude, or if most of one is far below its peak."""
    rates = [[line.get("learning_rate") or 0.0 for line in lines] for lines in runs.values()]
    peaks = [max(one) for one in rates if max(one) > 0]
    far = peaks and max(peaks) > 20 * min(peaks)
    return "log" if far or any(median(one) <= max(one) / 10 for one in rates) else "linear"


def _kept(keys: dict[str, str], present) -> dict[str, str]:
    return {key: label for key, label in keys.items() if key in present}


def _drawable(value, scale: str) -> bool:
    return value is not None and math.isfinite(value) and (scale == "linear" or value > 0)
