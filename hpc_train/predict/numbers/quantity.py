"""What a network predicts, one array for each output: its axes, channels, units and grid, and the target it fits."""

from dataclasses import dataclass

import numpy as np

from hpc_train.data.fields.grid import Grid, read_grid
from hpc_train.errors import UserError
from hpc_train.predict.numbers.source import NumberSource, Target


@dataclass(frozen=True, eq=False)
class Quantity:
    """One predicted array.

    Args:
        name: of the target, else of the output.
        shape: of one sample.
        channel_axis: the axis of a sample that counts channels, or the components of a vector; None without.
        channel_names: of each channel; one name without channels.
        units: of each channel, "" where they are not known.
        grid: where a map lies; None where the data do not say it.
    """

    name: str
    shape: tuple[int, ...]
    channel_axis: int | None
    channel_names: tuple[str, ...]
    units: tuple[str, ...]
    grid: Grid | None

    def channels_last(self, values: np.ndarray) -> np.ndarray:
        """Samples (b, *shape) as (b, ..., channels)."""
        if self.channel_axis is None:
            return values[..., np.newaxis]
        return np.moveaxis(values, 1 + self.channel_axis, -1)

    @property
    def is_map(self) -> bool:
        """Whether a sample is one map (height, width) of each channel on a known grid."""
        return self.grid is not None and len(self.shape) - (self.channel_axis is not None) == 2


def describe(source: NumberSource, target: Target | None, output: str, shape: tuple[int, ...]) -> Quantity:
    """The quantity that an output of the network predicts.

    Args:
        source: of the samples.
        target: of this output; None without targets.
        output: name of the output.
        shape: of one sample of the target, else of the output.
    """
    grid, place = _grid(source.first, shape)
    stacked = target.stacked if target else ()
    axis = _channel_axis(shape, place, bool(stacked), source)
    channels = 1 if axis is None else shape[axis]
    name = target.name if target else output
    numbered = (name,) if channels == 1 else tuple(f"{name}[{number}]" for number in range(channels))
    known = stacked or (target.channel_names if target else ())
    units = target.units if target else ("",)
    return Quantity(
        name=name,
        shape=tuple(shape),
        channel_axis=axis,
        channel_names=tuple(known) if len(known) == channels else numbered,
        units=units if len(units) == channels else (units[0],) * channels,
        grid=grid,
    )


def outputs(model, result) -> list[tuple[str, np.ndarray]]:
    """(name, array (b, ...)) of each output, from what `predict_on_batch` returned."""
    if isinstance(result, dict):
        return [(name, np.asarray(array)) for name, array in result.items()]
    if isinstance(result, (list, tuple)):
        names = getattr(model, "output_names", None) or [f"output_{number}" for number in range(len(result))]
        return [(name, np.asarray(array)) for name, array in zip(names, result, strict=True)]
    return [("predicted", np.asarray(result))]


def pair(names: list[str], targets: tuple[Target, ...], data) -> list[int | None]:
    """For each output, the number of its target: by name, or the only one of each; None without targets.

    Raises:
        UserError: outputs and targets are not the same.
    """
    known = [target.name for target in targets]
    if not targets:
        return [None] * len(names)
    if len(names) == len(targets) == 1:
        return [0]
    if sorted(names) != sorted(known):
        raise UserError(
            f"{data}: has the targets {', '.join(known)}, but the model's outputs are {', '.join(names)}; name the "
            "data sets with --targets as the outputs are named"
        )
    return [known.index(name) for name in names]


def as_target(name: str, predicted: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Predictions (b, ...) in the shape of the target: only axes of length 1 may differ.

    Raises:
        UserError: other axes differ.
    """
    if [size for size in predicted.shape[1:] if size != 1] != [size for size in target.shape[1:] if size != 1]:
        raise UserError(
            f"the model predicts {name} of shape {predicted.shape[1:]}, but its target has shape {target.shape[1:]}; "
            "name the right data set with --targets"
        )
    return predicted.reshape(target.shape)


def _grid(path: str, shape: tuple[int, ...]) -> tuple[Grid | None, int | None]:
    """The grid that the file gives, and the axis of a sample that counts its rows; None where no two axes fit."""
    if not path.endswith(".npy"):
        for axis in range(len(shape) - 1):
            try:
                grid = read_grid(path, *shape[axis : axis + 2])
            # Degrees of another length belong to other axes.
            except UserError:
                continue
            if not grid.assumed:
                return grid, axis
    return None, None


def _channel_axis(shape: tuple[int, ...], rows: int | None, stacked: bool, source: NumberSource) -> int | None:
    if len(shape) < 2:
        return 0 if shape else None
    if stacked:
        return 0
    place = source.channel_axis
    inputs = source.inputs[0].shape
    where = inputs if place is None else inputs[:place] + inputs[place + 1 :]
    if shape == where or (rows is not None and len(shape) == 2):
        return None
    if rows is not None and len(shape) == 3:
        return 0 if rows else 2
    return 0 if source.channels == "first" else len(shape) - 1
