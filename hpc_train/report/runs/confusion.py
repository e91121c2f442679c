"""The confusion matrix of a run's predictions, and the scores of each class that follow from it."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from hpc_train.errors import UserError
from hpc_train.files.json_file import check, read_json
from hpc_train.metrics import confusion as scores
from hpc_train.names import label
from hpc_train.plotting import COLOURS, clean, new_figure, save

# With more classes, the cells have no room for figures.
_MOST_WITH_FIGURES = 12
# More names than these along an axis cannot be read.
_MOST_NAMES = 60
# Of predictions.json.
_OF_MAPS = {"confusion_matrix": list[list[int]], "class_names": list[str], "samples": int, "data": str, "split": str}
_TITLE = 60


@dataclass(frozen=True, eq=False)
class Confusion:
    """A confusion matrix to draw.

    Args:
        matrix: counts int64 (classes, classes), true classes in rows.
        class_names: of all classes.
        maps: whether pixels of label maps were counted, not samples.
        source: the data in one line.
    """

    matrix: np.ndarray
    class_names: list[str]
    maps: bool
    source: str


def load_confusion(run: Path) -> Confusion | None:
    """Load the newest predictions that `hpc-train predict` wrote into a run folder; None without classes.

    Raises:
        UserError: they are damaged.
    """
    found = [path for path in (run / "predictions.json", run / "predictions.h5") if path.is_file()]
    if not found:
        return None
    path = max(found, key=lambda path: path.stat().st_mtime)
    try:
        return _of_maps(path) if path.suffix == ".json" else _of_samples(path)
    except (OSError, TypeError, ValueError, KeyError) as error:
        raise UserError(f"{path} cannot be read ({error}); run `hpc-train predict {run}` again") from error


def draw_confusion(path: Path, confusion: Confusion, name: str) -> None:
    """Draw the matrix, rows as shares of the true class, beside recall, precision and IoU of each class, as PNG.

    Args:
        path: of the picture.
        confusion: what to draw.
        name: of the run.

    Raises:
        UserError: matplotlib is missing, or the file cannot be written.
    """
    classes = len(confusion.class_names)
    side = min(9.0, max(3.6, 0.75 * classes + 1.2))
    figure = new_figure(side + 4.6, side + 1.2)
    left, right = figure.subplots(1, 2, width_ratios=(side, 4.0))
    _draw_matrix(figure, left, confusion)
    _draw_scores(right, confusion)
    title = f"{label(name, _TITLE)}: accuracy {np.trace(confusion.matrix) / max(1, confusion.matrix.sum()):.4f}"
    if confusion.maps:
        title += f", mean IoU {scores.mean_iou(confusion.matrix):.4f}"
    figure.suptitle(f"{title}\n{label(confusion.source, 2 * _TITLE)}", fontsize=10)
    save(figure, path)


def _draw_matrix(figure, axes, confusion: Confusion) -> None:
    matrix, names = confusion.matrix, [label(name) for name in confusion.class_names]
    shares = matrix / np.maximum(1, matrix.sum(1, keepdims=True))
    image = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    if len(names) <= _MOST_WITH_FIGURES:
        for row, column in np.ndindex(matrix.shape):
            share, count = shares[row, column], matrix[row, column]
            text = f"{_share(share, count)}\n{_short(count)}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="k" if share > 0.5 else "w")
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if max(map(len, names)) > 6 else {}
    shown = range(0, len(names), -(-len(names) // _MOST_NAMES))
    axes.set_xticks(shown, [names[place] for place in shown], fontsize=8, **turned)
    axes.set_yticks(shown, [names[place] for place in shown], fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    axes.set_title("Share of each true class, and number", fontsize=10, loc="left")
    figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, format=lambda share, _: f"{share:.0%}")


def _draw_scores(axes, confusion: Confusion) -> None:
    kinds = {"recall": scores.recall, "precision": scores.precision} | ({"IoU": scores.iou} if confusion.maps else {})
    places = np.arange(len(confusion.class_names))
    thick = 0.8 / len(kinds)
    for number, (kind, score) in enumerate(kinds.items()):
        values = score(confusion.matrix)
        at = places + (number - (len(kinds) - 1) / 2) * thick
        axes.barh(at, np.nan_to_num(values), thick * 0.9, color=COLOURS[(0, 4, 2)[number]], label=kind)
        for y, value in zip(at, values, strict=True):
            if len(places) <= _MOST_WITH_FIGURES:
                text = "none" if np.isnan(value) else f"{value:.2f}"
                axes.text(np.nan_to_num(value) + 0.01, y, text, va="center", fontsize=7)
    shown = places[:: -(-len(places) // _MOST_NAMES)]
    axes.set_yticks(shown, [label(confusion.class_names[place]) for place in shown], fontsize=8)
    axes.set_ylim(len(places) - 0.4, -0.6)
    axes.set_xlim(0, 1.12)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title("Scores of each class", fontsize=10, loc="left")
    clean(axes)
    axes.grid(False, axis="y")
    axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=3, ncols=3)


def _of_maps(path: Path) -> Confusion | None:
    record = read_json(path, {}, "predict again")
    if "scores" in record:
        return None
    for name, kind in _OF_MAPS.items():
        check(record.get(name), kind, f"{path}: {name!r}", "predict again")
    matrix = np.array(record["confusion_matrix"], np.int64)
    source = f"{matrix.sum():,} pixels of {record['samples']} maps of {record['data']}, {record['split']}"
    return Confusion(matrix, record["class_names"], True, source)


def _of_samples(path: Path) -> Confusion | None:
    with h5py.File(path, locking=False) as file:
        if "targets" not in file or "class_names" not in file.attrs:
            return None
        names = [name.decode() if isinstance(name, bytes) else str(name) for name in file.attrs["class_names"]]
        matrix = scores.confusion_matrix(file["targets"][()], file["predicted"][()], len(names))
    return Confusion(matrix, names, False, f"{matrix.sum():,} samples, {path.name}")


def _share(share: float, count: int) -> str:
    """A share as text; 0 % and 100 % are written only for exactly these."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.0f} %" if share in (0, 1) or count == 0 else f"{100 * share:.1f} %"


def _short(count: int) -> str:
    # The bounds are where three digits round up: 999,950 is 1 M, not 1e+03 k.
    for least, size, letter in ((999_500_000, 10**9, "G"), (999_500, 10**6, "M"), (10**4, 10**3, "k")):
        if count >= least:
            return f"{count / size:.3g} {letter}"
    return str(count)
