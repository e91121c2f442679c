"""The first layers of a network for raw data: casting and normalising on the device, inside the model that is saved."""

from dataclasses import replace

import numpy as np
from keras import Input, KerasTensor, layers, ops

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.fields.options import chosen_channels
from hpc_train.data.statistics import Statistics
from hpc_train.errors import UserError

# The layer that makes values of packed integers.
UNPACK = "unpack"


def network_input(
    catalogue: Catalogue,
    statistics: Statistics | None = None,
    how: str = "mean-std",
    fields: tuple[str, ...] = (),
    any_size: bool = False,
) -> tuple[KerasTensor, KerasTensor]:
    """(inputs, x): samples as they are stored, and what the network's own layers take.

    Bytes travel to the device as they are stored; there packed values are unpacked, channels moved to the last axis,
    those of `fields` picked, and each normalised, in float32 under every dtype policy: half precision ends at 65504,
    below a surface pressure in Pa. The saved model takes raw data, all channels of them.

    Args:
        catalogue: of the training data; samples of shape (channels, ...) or (..., channels).
        statistics: of all stored channels (`hpc-train stats`); without them values are only unpacked.
        how: "mean-std", "min-max", or "none", which is as without statistics.
        fields: channels by name, in the order that the network gets them; by default all.
        any_size: leave all axes but the channels open, for maps of several sizes.

    Returns:
        inputs (batch, *sample) in the stored dtype, and x (batch, ..., channels) floating.

    Raises:
        UserError: the statistics are of other channels, or lack what `how` needs; a channel that the data lack.
    """
    axis, shape = catalogue.channel_axis, catalogue.input_shape
    chosen = chosen_channels(catalogue, fields)
    if any_size:
        shape = tuple(size if place == axis else None for place, size in enumerate(shape))
    x = inputs = Input(shape, dtype=catalogue.input_dtype.name)
    if axis == 0 and len(shape) > 1:
        # No layer: half precision would turn its input into that.
        x = ops.moveaxis(x, 1, -1)
    scale, offset = zip(*catalogue.packing, strict=True)
    if any(pair != (1.0, 0.0) for pair in catalogue.packing):
        x = layers.Rescaling(list(scale), list(offset), dtype="float32", name=UNPACK)(x)
    if chosen:
        # GPUs pick among floating numbers, not among all kinds of integers.
        x = ops.take(x if x.dtype == "float32" else ops.cast(x, "float32"), chosen, axis=-1)
    if not statistics or how == "none":
        return inputs, x
    statistics = _fitting(statistics, catalogue, chosen)
    return inputs, normalise(x, statistics, how, axis is not None)


def normalise(x: KerasTensor, statistics: Statistics, how: str = "mean-std", channels: bool = True) -> KerasTensor:
    """Normalise each channel, the last axis, in float32; without `channels` all of `x` is one.

    Args:
        x: (batch, ..., channels).
        statistics: of the channels (`hpc-train stats`).
        how: "mean-std" or "min-max".

    Raises:
        UserError: the statistics are of other channels, or lack what `how` needs.
    """
    number = x.shape[-1] if channels else 1
    if len(statistics.mean) != number:
        raise UserError(
            f"the statistics are of {len(statistics.mean)} channels, the data have {number}; "
            "run `hpc-train stats` on these data"
        )
    shift, divisor = statistics.normalisation(how)
    # Not Keras's Normalization: it takes a deviation below 1e-7, such as that of rain in m/s, for 1e-7.
    scale, offset = 1 / divisor, -shift / divisor
    if not channels:
        scale, offset = scale[0], offset[0]
    return layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="normalise")(x)


def _fitting(statistics: Statistics, catalogue: Catalogue, options: list[int]) -> Statistics:
    """The statistics of the chosen channels of the catalogue, of all where none is chosen."""
    names = catalogue.channel_names
    axis = catalogue.channel_axis
    number = 1 if axis is None else catalogue.input_shape[axis]
    if len(statistics.mean) != number:
        raise UserError(
            f"the statistics are of {len(statistics.mean)} channels, but {catalogue.files[0]} has {number}; "
            "run `hpc-train stats` on these data"
        )
    if names and statistics.channel_names and names != statistics.channel_names:
        raise UserError(
            f"the statistics are of the channels {', '.join(statistics.channel_names)}, but {catalogue.files[0]} has "
            f"{', '.join(names)}; run `hpc-train stats` on these data"
        )
    statistics = replace(statistics, channel_names=names if len(names) == number else ())
    if not options:
        return statistics
    arrays = ("count", "mean", "m2", "min", "max", "not_finite")
    parts = {name: getattr(statistics, name)[np.array(options)] for name in arrays}
    return replace(statistics, **parts, channel_names=tuple(names[number] for number in options))
