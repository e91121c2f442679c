"""Which samples and channels of predicted numbers are drawn, and how: as maps, lines or scatter plots."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.predict import coastlines
from hpc_train.predict.numbers import pictures
from hpc_train.predict.numbers.quantity import Quantity
from hpc_train.predict.numbers.source import NumberSource

# A vector with more components than this is drawn as a line.
_FEW = 6
_POINTS, _CHANNELS = 5000, 4


class Pictures:
    """Draws samples beside the output; of numbers and short vectors one scatter plot of all samples."""

    def __init__(self, options, output: Path, source: NumberSource, quantities: Sequence[Quantity], drawn: set[int]):
        from hpc_train.plotting import new_figure

        # Raise errors before the first prediction is written, not after it.
        new_figure(1, 1)
        self.output, self.source, self.quantities, self.drawn = output, source, quantities, drawn
        self.region = options.region
        self.shown = [_shown(one, options.show) for one in quantities]
        for one in quantities:
            if self.region and not one.grid:
                raise UserError(
                    f"--region is for maps whose file gives their degrees, not for {one.name}; leave it out"
                )
            if one.grid:
                one.grid.part(self.region)
        if any(one.grid for one in quantities) and coastlines.coastlines(0.0) is None:
            say(f"note: no coastlines in the pictures: pip install {coastlines.PACKAGE}", sys.stderr)
        spread = np.linspace(0, source.samples - 1, min(_POINTS, source.samples)).round().astype(int)
        self._points = np.unique(spread)
        self._kept: list[list] = [[] for _ in quantities]

    def add(self, numbers: np.ndarray, predicted: Sequence[np.ndarray], targets: Sequence) -> None:
        """Draw what is asked for of these samples, and keep the points of scatter plots."""
        for place, quantity in enumerate(self.quantities):
            values, truth = predicted[place], targets[place]
            if _scattered(quantity):
                rows = np.isin(numbers, self._points)
                if truth is not None:
                    self._kept[place].append(
                        (quantity.channels_last(values)[rows], quantity.channels_last(truth)[rows])
                    )
                continue
            for row, number in enumerate(numbers.tolist()):
                if number in self.drawn:
                    self._sample(place, number, values[row], None if truth is None else truth[row])

    def finish(self) -> None:
        """Draw the scatter plots."""
        for place, (quantity, kept) in enumerate(zip(self.quantities, self._kept, strict=True)):
            if kept:
                parts = map(np.concatenate, zip(*kept, strict=True))
                values, truth = (part.reshape(-1, len(quantity.channel_names)) for part in parts)
                panels = self._panels(place, values, truth)
                path = self._path(quantity, "scatter")
                pictures.draw_scatter(path, f"{quantity.name}: {len(values)} samples", panels)
                say(f"predictions against truth in {path}")

    def _sample(self, place: int, number: int, values: np.ndarray, truth) -> None:
        quantity = self.quantities[place]
        both = [quantity.channels_last(one[np.newaxis])[0] for one in (values, *([] if truth is None else [truth]))]
        if quantity.channel_axis == 0 and len(quantity.shape) == 1:
            # The components of a long vector are the line.
            both, of = [one[:, np.newaxis] for one in both], "component"
        else:
            of = "step"
        file, row = self.source.place(number)
        title = f"sample {number}: row {row} of {Path(file).name}"
        if time := self.source.time(number):
            title += f"\n{time:%Y-%m-%d %H:%M}"
        while both[0].ndim > 3:
            middle = len(both[0]) // 2
            title += f"\nindex {middle} of {len(both[0])}"
            both = [one[middle] for one in both]
        panels = self._panels(place, *both)
        path = self._path(quantity, f"{number:05}")
        if both[0].ndim == 3:
            pictures.draw_maps(path, title, panels, quantity.grid, self.region)
        else:
            pictures.draw_lines(path, title, panels, of)
        say(f"picture of sample {number} in {path}")

    def _panels(self, place: int, values: np.ndarray, truth: np.ndarray | None = None) -> list[pictures.Panel]:
        quantity = self.quantities[place]
        names, units = quantity.channel_names, quantity.units
        if values.shape[-1] != len(names):
            return [pictures.Panel(quantity.name, units[0], values[..., 0], None if truth is None else truth[..., 0])]
        return [
            pictures.Panel(names[i], units[i], values[..., i], None if truth is None else truth[..., i])
            for i in self.shown[place]
        ]

    def _path(self, quantity: Quantity, what: str) -> Path:
        several = f"-{quantity.name}" if len(self.quantities) > 1 else ""
        return self.output.with_name(f"{self.output.stem}{several}-{what}.png")


def _scattered(quantity: Quantity) -> bool:
    """Whether a quantity is a number or a short vector."""
    return len(quantity.shape) == 0 or (len(quantity.shape) == 1 and quantity.shape[0] <= _FEW)


def _shown(quantity: Quantity, asked: tuple[str, ...]) -> list[int]:
    """Numbers of the channels to draw."""
    names = quantity.channel_names
    if not asked:
        return list(range(min(len(names), _FEW if _scattered(quantity) else _CHANNELS)))
    for name in asked:
        if name not in names and not (name.isdigit() and int(name) < len(names)):
            raise UserError(f"--show {name}: no such channel; the channels are {', '.join(names[:40])}")
    return [names.index(name) if name in names else int(name) for name in asked]
