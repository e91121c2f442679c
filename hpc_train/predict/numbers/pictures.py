"""Pictures of predicted numbers: truth, prediction and difference as maps or lines, and scatter plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.data.fields.grid import Grid
from hpc_train.names import label
from hpc_train.plotting import COLOURS, clean, new_figure, save
from hpc_train.predict.coastlines import coastlines
from hpc_train.predict.maps import frame

_PREDICTED, _TRUE = COLOURS[1], COLOURS[0]


@dataclass(frozen=True, eq=False)
class Panel:
    """One channel: its name, its units ("" if unknown), prediction and truth (None without) of the same shape."""

    name: str
    units: str
    predicted: np.ndarray
    truth: np.ndarray | None

    @property
    def label(self) -> str:
        """Name and units, as `names.label`."""
        return label(f"{self.name} ({self.units})" if self.units else self.name)


def draw_maps(path: Path, title: str, panels: Sequence[Panel], grid: Grid | None, region=None) -> None:
    """Write the channels of one sample as PNG: truth and prediction in one colour scale, and their difference.

    Args:
        path: of the picture.
        title: may have several lines.
        panels: channels (height, width).
        grid: where the maps lie, drawn with coastlines; None: rows count downwards from 0.
        region: see `Grid.part`.

    Raises:
        UserError: matplotlib is missing, the region is empty, or the file cannot be written.
    """
    height, width = panels[0].predicted.shape
    rows, columns, x, y = grid.part(region) if grid else (*map(np.arange, (height, width, width, height)),)
    shores = coastlines(x[0]) if grid else None
    middle = 1.0 if region is None else max(0.3, np.cos(np.radians((y[0] + y[-1]) / 2)))
    across = 1 if panels[0].truth is None else 3
    tall = 4.3 * min(1.4, max(0.2, np.ptp(y) / max(1, np.ptp(x)) / middle))
    figure = new_figure(4.9 * across, len(panels) * (tall + 1.1) + 0.1 + 0.25 * len(title.splitlines()))
    figure.suptitle(title, fontsize=11)
    for line, panel in zip(figure.subplots(len(panels), across, squeeze=False), panels, strict=True):
        for axes, (what, values, scale) in zip(line, _parts(panel, np.ix_(rows, columns)), strict=True):
            mesh = axes.pcolormesh(x, y, values, shading="nearest", rasterized=True, **scale)
            bar = figure.colorbar(mesh, ax=axes, orientation="horizontal", shrink=0.8, aspect=30, pad=0.03)
            bar.ax.tick_params(labelsize=8)
            axes.set_title(f"{panel.label}, {what}", fontsize=9)
            axes.tick_params(labelsize=8)
            if grid:
                frame(axes, x, y, shores, middle)
            else:
                axes.set(aspect=1, ylim=(height - 0.5, -0.5))
    save(figure, path)


def draw_lines(path: Path, title: str, panels: Sequence[Panel], across: str) -> None:
    """Write the channels of one sample as PNG: truth and prediction as lines, and their difference below them.

    Args:
        path: of the picture.
        title: may have several lines.
        panels: channels (length,).
        across: what the length counts.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    known = panels[0].truth is not None
    figure = new_figure(8.0, len(panels) * (3.6 if known else 2.4) + 0.4)
    figure.suptitle(title, fontsize=11)
    heights = [2, 1] * len(panels) if known else [1] * len(panels)
    all_axes = figure.subplots(len(heights), 1, squeeze=False, sharex=True, height_ratios=heights)[:, 0]
    for place, panel in enumerate(panels):
        upper = all_axes[place * (1 + known)]
        if known:
            upper.plot(panel.truth, color=_TRUE, label="truth")
            lower = all_axes[2 * place + 1]
            lower.axhline(0, color="0.6", linewidth=0.8)
            lower.plot(panel.predicted - panel.truth, color="0.15", linewidth=1)
            lower.set_ylabel("prediction - truth", fontsize=8)
        upper.plot(panel.predicted, color=_PREDICTED, linestyle="--", label="prediction")
        upper.set_ylabel(panel.label)
        upper.legend(frameon=False, fontsize=9)
    for axes in all_axes:
        clean(axes)
    all_axes[-1].set_xlabel(across)
    save(figure, path)


def draw_scatter(path: Path, title: str, panels: Sequence[Panel]) -> None:
    """Write predictions of many samples against their true values as PNG, a panel for each channel.

    Args:
        path: of the picture.
        title: may have several lines.
        panels: channels (samples,) with truth.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure = new_figure(4.0 * across + 0.4, 4.0 * down + 0.5)
    figure.suptitle(title, fontsize=11)
    all_axes = figure.subplots(down, across, squeeze=False).ravel()
    for axes, panel in zip(all_axes, panels, strict=False):
        ends = [min(panel.truth.min(), panel.predicted.min()), max(panel.truth.max(), panel.predicted.max())]
        axes.plot(ends, ends, color="0.6", linewidth=0.8)
        alpha = float(np.clip(300 / len(panel.truth), 0.1, 0.8))
        axes.scatter(panel.truth, panel.predicted, s=9, color=_TRUE, alpha=alpha, linewidths=0, rasterized=True)
        axes.set_xlabel(f"{panel.label}, truth")
        axes.set_ylabel(f"{panel.label}, prediction")
        axes.set_box_aspect(1)
        clean(axes)
    for axes in all_axes[len(panels) :]:
        axes.remove()
    save(figure, path)


def _parts(panel: Panel, cut):
    """(what, values, colours and range) of each map of a channel. Extreme thousandths do not set the range."""
    predicted = panel.predicted[cut]
    if panel.truth is None:
        low, high = np.nanpercentile(predicted, (0.1, 99.9))
        return [("prediction", predicted, {"cmap": "viridis", "vmin": low, "vmax": high})]
    truth = panel.truth[cut]
    low, high = np.nanpercentile([truth, predicted], (0.1, 99.9))
    same = {"cmap": "viridis", "vmin": low, "vmax": high}
    away = predicted.astype(np.float64) - truth
    # A difference of 0 everywhere still needs a range.
    most = np.nanpercentile(np.abs(away), 99.9) or 1.0
    diverging = {"cmap": "RdBu_r", "vmin": -most, "vmax": most}
    return [("truth", truth, same), ("prediction", predicted, same), ("prediction - truth", away, diverging)]
