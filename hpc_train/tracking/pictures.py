"""Pictures of what a network predicts for some samples: truth beside prediction."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import numpy as np

from hpc_train.console import say
from hpc_train.names import label
from hpc_train.plotting import COLOURS, new_figure

_RIGHT, _WRONG = COLOURS[0], COLOURS[1]
_SIDE = 1.7  # inches of a panel


class Pictures:
    """Draws the predictions for the same samples again and again.

    Args:
        count: of the samples, the first ones.
        batches: returns held-out batches: inputs, or inputs and targets with or without weights.
        weights: puts the weights that predict into the model, while it is entered.
        class_names: empty where unknown.
    """

    def __init__(
        self,
        count: int,
        batches: Callable,
        weights: Callable[[], AbstractContextManager],
        class_names: Sequence[str] = (),
    ):
        self.count, self.batches, self.weights = count, batches, weights
        self.class_names = [label(name, 20) for name in class_names]
        self._batches: list[tuple] = []

    def draw(self, model) -> np.ndarray | None:
        """The picture uint8 (height, width, 3) of the model's predictions; None, and once a line, where it has none."""
        if self.count == 0:
            return None
        if not self._batches:
            # A network may know batches of one size only.
            whole = any(one.shape[0] for one in getattr(model, "inputs", None) or ())
            self._batches = _first(self.batches(), self.count, whole)
        with self.weights():
            found = [model.predict_on_batch(inputs) for inputs, _ in self._batches]
        inputs, targets = zip(*self._batches, strict=True)
        if not isinstance(found[0], np.ndarray) or not isinstance(targets[0], np.ndarray):
            self.count = 0
            say("no pictures of predictions: they are for networks with one output and its targets")
            return None
        shown = np.concatenate(inputs) if isinstance(inputs[0], np.ndarray) else None
        return _pixels(draw(shown, np.concatenate(targets), np.concatenate(found), self.count, self.class_names))


def draw(inputs: np.ndarray | None, targets: np.ndarray, found: np.ndarray, count: int, names: Sequence[str] = ()):
    """A figure of predictions.

    Args:
        inputs: (b, ...); None for several inputs, which are not shown.
        targets: (b, ...) class numbers, masks of class numbers, or numbers.
        found: (b, ..., classes) for class numbers, else as the targets.
        count: of the samples to draw.
        names: of the classes.

    Returns:
        The figure.
    """
    shown = None if inputs is None else inputs[:count]
    targets, found = targets[:count], found[:count]
    if targets.ndim > 1 and targets.shape[-1] == 1 and targets.ndim == found.ndim and found.shape[-1] > 1:
        targets = targets[..., 0]
    if targets.dtype.kind in "iub" and found.ndim == targets.ndim + 1 and found.shape[-1] > 1:
        classes, found = found.shape[-1], found.argmax(-1)
        return _masks(shown, targets, found, classes) if targets.ndim > 1 else _classes(shown, targets, found, names)
    if targets.size == found.size and (targets.ndim == 1 or targets.size == len(targets)):
        return _numbers(targets.ravel(), found.ravel())
    return _values(shown, targets, found.reshape(targets.shape) if targets.size == found.size else found)


def _classes(inputs, targets: np.ndarray, found: np.ndarray, names: Sequence[str]):
    """Every input below its class, and what was predicted where that is wrong."""
    columns = min(len(targets), 6)
    figure, grid = _grid(-(-len(targets) // columns), columns)
    for axes, place in zip(grid.ravel(), range(len(targets)), strict=False):
        true, guess = (
            names[int(one)] if int(one) < len(names) else str(int(one)) for one in (targets[place], found[place])
        )
        right = targets[place] == found[place]
        text = true if right else f"{true}\npredicted {guess}"
        axes.set_title(text, fontsize=8, color=_RIGHT if right else _WRONG)
        if inputs is not None:
            _show(axes, inputs[place], _limits(inputs))
    return figure


def _masks(inputs, targets: np.ndarray, found: np.ndarray, classes: int):
    """Input, true mask and predicted mask of every sample, in a row; labels that are no class are left out."""
    figure, grid = _grid(len(targets), 3, ("input", "true", "predicted"), _height(targets))
    for row, true, guess, place in zip(grid, targets, found, range(len(targets)), strict=True):
        if inputs is not None:
            _show(row[0], inputs[place], _limits(inputs))
        known = (true >= 0) & (true < classes)
        for axes, mask in zip(row[1:], (np.ma.masked_where(~known, true), guess), strict=True):
            axes.imshow(mask, cmap="viridis", vmin=0, vmax=max(1, classes - 1), interpolation="nearest")
    return figure


def _numbers(targets: np.ndarray, found: np.ndarray):
    """One number for each sample."""
    figure = new_figure(4.2, 2.6)
    axes = figure.subplots()
    places = np.arange(len(targets))
    axes.vlines(places, targets, found, color="0.8")
    axes.plot(places, targets, "o", color=COLOURS[6], label="true")
    axes.plot(places, found, "x", color=_WRONG, label="predicted")
    axes.set_xticks(places)
    axes.set_xlabel("sample", fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return figure


def _values(inputs, targets: np.ndarray, found: np.ndarray):
    """Input, true and predicted values of every sample, in a row; both in one scale."""
    figure, grid = _grid(len(targets), 3, ("input", "true", "predicted"), _height(targets))
    limits = _limits(targets)
    for row, true, guess, place in zip(grid, targets, found, range(len(targets)), strict=True):
        if inputs is not None:
            _show(row[0], inputs[place], _limits(inputs))
        _show(row[1], true, limits)
        _show(row[2], guess, limits)
    return figure


def _show(axes, sample: np.ndarray, limits: tuple[float, float]) -> None:
    """A picture of a sample of one, two or three axes; of channels that are no colours, the first."""
    if sample.ndim == 3:
        sample = sample[..., 0] if sample.shape[-1] != 3 else sample
    low, high = limits
    if sample.ndim == 1:
        axes.plot(sample, color=COLOURS[6], linewidth=1)
        axes.set_ylim(low, high)
    elif sample.ndim == 2:
        axes.imshow(sample, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
    elif sample.ndim == 3:
        axes.imshow(np.clip((sample - low) / (high - low), 0, 1), interpolation="nearest")


def _limits(values: np.ndarray) -> tuple[float, float]:
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return low, high if high > low else low + 1


def _height(maps: np.ndarray) -> float:
    """Of a panel, relative to its width."""
    return min(1.5, maps.shape[1] / maps.shape[2]) if maps.ndim > 2 else 1.0


def _grid(rows: int, columns: int, titles: Sequence[str] = (), height: float = 1.0):
    figure = new_figure(_SIDE * columns, _SIDE * height * rows + 0.3 * (1 if titles else rows))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel():
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
    for axes, title in zip(grid[0], titles, strict=False):
        axes.set_title(title, fontsize=9)
    return figure, grid


def _first(batches, count: int, whole: bool) -> list[tuple]:
    """Inputs and targets of the first `count` samples, or of `whole` batches; without targets the inputs are both."""
    import keras

    found: list[tuple] = []
    for batch in batches:
        inputs, targets, _ = keras.utils.unpack_x_y_sample_weight(batch)
        pair = inputs, inputs if targets is None else targets
        found.append(keras.tree.map_structure(lambda one, left=count: np.asarray(one)[: None if whole else left], pair))
        count -= len(keras.tree.flatten(found[-1])[0])
        if count <= 0:
            break
    return found


def _pixels(figure) -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
