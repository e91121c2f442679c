"""Pictures of label maps over plain pictures, such as photographs: the picture, the true and the predicted classes."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpc_train.names import label
from hpc_train.plotting import new_figure, save
from hpc_train.predict.maps import Panel, class_colour

_HEIGHT, _WIDEST, _ALPHA = 4.2, 6.0, 0.55
_UNKNOWN = "0.5"


def draw_pictures(
    path: Path, title: str, panels: Sequence[Panel], class_names: Sequence[str], predicted: np.ndarray, truth=None
) -> None:
    """Write one sample as PNG: for each panel the picture alone, with its true classes, and with the predicted ones.

    Args:
        path: of the picture.
        title: may have several lines.
        panels: values (height, width) or (height, width, 1), drawn in grey, or (height, width, 3), red, green and blue;
            row 0 is at the top.
        class_names: class 0 is the background, which is not painted.
        predicted: class numbers (height, width).
        truth: class numbers (height, width), negative if unknown; None without labels.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    # Pixels without a label, such as padding, do not count: what is predicted there only distracts.
    shown = predicted if truth is None else np.where(truth < 0, truth, predicted)
    maps = [("", None), *([("true", truth)] if truth is not None else []), ("predicted", shown)]
    rows, columns = predicted.shape
    width = min(_WIDEST, max(1.0, _HEIGHT * columns / rows))
    lines = len(title.splitlines())
    figure = new_figure(len(maps) * width + 0.4, len(panels) * (width * rows / columns + 0.35) + 0.5 + 0.2 * lines)
    figure.suptitle(title, fontsize=11)
    for line, panel in zip(figure.subplots(len(panels), len(maps), squeeze=False), panels, strict=True):
        picture = _shown(panel.values)
        for axes, (what, classes) in zip(line, maps, strict=True):
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            if classes is not None:
                _paint(axes, classes, len(class_names))
            axes.set_title(what or label(panel.title, 60), fontsize=9)
            axes.set_axis_off()
    handles = _legend(class_names, truth is not None and bool((truth < 0).any()))
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    save(figure, path)


def _paint(axes, classes: np.ndarray, number: int) -> None:
    from matplotlib.colors import ListedColormap

    colours = ListedColormap([class_colour(i) for i in range(1, max(3, number))])
    some = np.ma.masked_less(classes, 1)
    axes.imshow(some, cmap=colours, vmin=1, vmax=max(2, number - 1), alpha=_ALPHA, interpolation="nearest")
    unknown = np.ma.masked_greater_equal(classes, 0)
    axes.imshow(unknown, cmap=ListedColormap([_UNKNOWN]), alpha=_ALPHA, interpolation="nearest")


def _legend(class_names: Sequence[str], unknown: bool) -> list:
    from matplotlib.patches import Patch

    known = [(class_colour(i), name) for i, name in list(enumerate(class_names))[1:]]
    known += [(_UNKNOWN, "not labelled")] if unknown else []
    return [Patch(color=colour, alpha=_ALPHA, linewidth=0, label=label(name)) for colour, name in known]


def _shown(values: np.ndarray) -> np.ndarray:
    """The values from 0 to 1: bytes as they are, others between their extreme thousandths."""
    values = values[..., 0] if values.shape[2:] == (1,) else values
    if values.min() >= 0 and 1 < values.max() <= 255:
        return values / 255
    low, high = (0.0, 1.0) if values.min() >= 0 and values.max() <= 1 else np.nanpercentile(values, (0.1, 99.9))
    return np.clip((values - low) / max(high - low, np.finfo(np.float32).tiny), 0, 1)
