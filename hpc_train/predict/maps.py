"""Pictures of label maps: fields, true and predicted classes on a map with degrees and coastlines."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.data.fields.grid import Grid
from hpc_train.names import label
from hpc_train.plotting import COLOURS, new_figure, save
from hpc_train.predict.coastlines import coastlines

# The warm colour is for class 1, the storms of climate data, and blue for class 2, the rivers.
_CLASS_COLOURS = (COLOURS[1], COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[4], COLOURS[5])
_WIDTH, _LINE = 10.0, 1.1


@dataclass(frozen=True, eq=False)
class Panel:
    """A field to draw: its title, its units ("" if they are not known), and its values (height, width)."""

    title: str
    units: str
    values: np.ndarray


def draw(
    path: Path,
    title: str,
    panels: Sequence[Panel],
    grid: Grid,
    class_names: Sequence[str],
    predicted: np.ndarray,
    truth: np.ndarray | None = None,
    region: tuple[float, float, float, float] | None = None,
) -> None:
    """Write one sample's map as PNG, with a panel for each field: predicted classes are filled, true ones outlined.

    Args:
        path: of the picture.
        title: may have several lines.
        panels: fields on the grid.
        grid: of all arrays; the projection is equirectangular. Without degrees, rows and columns have numbers.
        class_names: class 0 is the background, which is not drawn.
        predicted: class numbers (height, width).
        truth: class numbers (height, width), negative if unknown; None without labels.
        region: see `Grid.part`.

    Raises:
        UserError: matplotlib is missing, the region is empty, or the file cannot be written.
    """
    rows, columns, x, y = grid.part(region)
    cut = np.ix_(rows, columns)
    middle = 1.0 if region is None else max(0.3, np.cos(np.radians((y[0] + y[-1]) / 2)))
    # The colour bar and the latitudes take an eighth of the width.
    height = 0.875 * _WIDTH * min(1.2, (y[-1] - y[0]) / (x[-1] - x[0]) / middle)
    figure = new_figure(_WIDTH, len(panels) * (height + 0.3) + 0.5 + 0.2 * len(title.splitlines()))
    shores = None if grid.numbered else coastlines(x[0])
    all_axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    figure.suptitle(title, fontsize=11)
    for axes, panel in zip(all_axes, panels, strict=True):
        _field(figure, axes, panel, x, y, panel.values[cut])
        _classes(axes, x, y, predicted[cut], truth[cut] if truth is not None else None, len(class_names))
        if grid.numbered:
            sides = _sides(y)[[0, -1]]
            axes.set(xlim=_sides(x)[[0, -1]], ylim=sides if grid.upwards else sides[::-1], aspect=1)
        else:
            frame(axes, x, y, shores, middle)
    figure.legend(handles=_legend(class_names, truth), loc="outside lower center", ncols=6, frameon=False, fontsize=9)
    save(figure, path)


def frame(axes, x: np.ndarray, y: np.ndarray, shores: np.ndarray | None, middle: float) -> None:
    """Give a map its edges, its ratio of height to width, degrees and coastlines.

    Args:
        axes: of matplotlib.
        x, y: rising degrees of the columns and rows.
        shores: from `coastlines`.
        middle: a degree of longitude is this share of a degree of latitude.
    """
    if shores is not None:
        axes.plot(*shores.T, color="0.25", linewidth=0.5, scalex=False, scaley=False)
    axes.set(xlim=_sides(x)[[0, -1]], ylim=_sides(y)[[0, -1]].clip(-90, 90), aspect=1 / middle)
    for axis, degrees, written in ((axes.xaxis, x, _longitude), (axes.yaxis, y, _latitude)):
        axis.set_major_formatter(written)
        axis.set_major_locator(_locator(degrees[-1] - degrees[0]))


def _field(figure, axes, panel: Panel, x, y, values) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    # Grey, so that colours mean only classes, and light enough to see the classes. The extreme thousandths are cut off:
    # they would take the contrast from the rest.
    greys = LinearSegmentedColormap.from_list("greys", ["white", "0.35"])
    low, high = np.nanpercentile(values, (0.1, 99.9))
    mesh = axes.pcolormesh(x, y, values, cmap=greys, vmin=low, vmax=high, shading="nearest")
    title = f"{panel.title} ({panel.units})" if panel.units else panel.title
    bar = figure.colorbar(mesh, ax=axes, shrink=0.8, aspect=25, pad=0.01, extend="both")
    bar.set_label(label(title, 60), fontsize=9)
    bar.ax.tick_params(labelsize=8)
    axes.tick_params(labelsize=8)


def _classes(axes, x, y, predicted, truth, classes: int) -> None:
    from matplotlib.colors import ListedColormap

    colours = [class_colour(i) for i in range(1, classes)]
    filled = np.ma.masked_less(predicted, 1)
    axes.pcolormesh(
        x, y, filled, cmap=ListedColormap(colours), vmin=1, vmax=max(2, classes - 1), alpha=0.45, shading="nearest"
    )
    if truth is None:
        return
    unknown = np.ma.masked_greater_equal(truth, 0)
    axes.pcolormesh(x, y, unknown, cmap=ListedColormap(["0.5"]), alpha=0.3, shading="nearest")
    for i in range(1, classes):
        if (truth == i).any():
            axes.add_collection(_outline(x, y, truth == i, class_colour(i)), autolim=False)


def _outline(x, y, inside, colour):
    """The sides of pixels between inside and outside."""
    from matplotlib.collections import LineCollection

    x, y = _sides(x), _sides(y)
    across, along = (np.nonzero(np.diff(inside.astype(np.int8), axis=axis)) for axis in (1, 0))
    (row, column), (line, place) = across, along
    upright = np.stack([np.stack([x[column + 1], y[row]], -1), np.stack([x[column + 1], y[row + 1]], -1)], 1)
    level = np.stack([np.stack([x[place], y[line + 1]], -1), np.stack([x[place + 1], y[line + 1]], -1)], 1)
    return LineCollection(np.concatenate([upright, level]), colors=colour, linewidths=_LINE, capstyle="projecting")


def _legend(class_names, truth) -> list:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles = []
    for i, name in list(enumerate(class_names))[1:]:
        handles.append(Patch(color=class_colour(i), alpha=0.45, linewidth=0, label=f"{label(name)}, predicted"))
        if truth is not None:
            handles.append(Line2D([], [], color=class_colour(i), linewidth=_LINE, label=f"{label(name)}, true"))
    if truth is not None and (truth < 0).any():
        handles.append(Patch(color="0.5", alpha=0.3, linewidth=0, label="not labelled"))
    return handles


def class_colour(number: int) -> str:
    """The colour of a class from 1 on."""
    return _CLASS_COLOURS[(number - 1) % len(_CLASS_COLOURS)]


def _sides(centres: np.ndarray) -> np.ndarray:
    """The edges, (n + 1,), of the n cells with these centres."""
    middles = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middles[0]], middles, [2 * centres[-1] - middles[-1]]])


def _locator(span: float):
    from matplotlib.ticker import MultipleLocator

    return MultipleLocator(next(step for step in (1, 2, 5, 10, 15, 30, 60) if span / step <= 7))


def _longitude(degrees: float, _=None) -> str:
    east = (degrees + 180.0) % 360.0 - 180.0
    side = "" if east in (0.0, -180.0) else "E" if east > 0 else "W"
    return f"{abs(east):g}°{side}"


def _latitude(degrees: float, _=None) -> str:
    return f"{abs(degrees):g}°{'N' if degrees > 0 else 'S' if degrees < 0 else ''}"
