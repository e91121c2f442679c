"""The first layers of a network for raw data: they cast and normalise on the device, inside the saved model."""

from dataclasses import replace

import numpy as np
from keras import Input, KerasTensor, layers, ops

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.fields.options import chosen_channels
from hpc_train.data.statistics import Statistics
from hpc_train.errors import UserError

# The layer that turns packed integers into values.
UNPACK = "unpack"


def network_input(
    catalogue: Catalogue,
    statistics: Statistics | None = None,
    how: str = "mean-std",
    fields: tuple[str, ...] = (),
    any_size: bool = False,
) -> tuple[KerasTensor, KerasTensor]:
    """Build the inputs of a model, and the layers that prepare them for the network's own layers.

    Bytes go to the device as they are stored. There packed values are unpacked, channels are moved to the last axis,
    those of `fields` are selected, and each channel is normalised. This is done in float32 under every dtype policy:
    half precision ends at 65504, below a surface pressure in Pa. The saved model takes raw data with all channels.

    Args:
        catalogue: of the training data; samples of shape (channels, ...) or (..., channels).
        statistics: of all stored channels (`hpc-train stats`); without them values are only unpacked.
        how: "mean-std", "min-max", or "none", which does the same as no statistics.
        fields: names of channels, in the order in which the network gets them; by default all.
        any_size: leave the size of all axes but the channels open, for maps of several sizes.

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
        # Not a layer: under half precision a layer would cast its input.
        x = ops.moveaxis(x, 1, -1)
    scale, offset = zip(*catalogue.packing, strict=True)
    if any(pair != (1.0, 0.0) for pair in catalogue.packing):
        x = layers.Rescaling(list(scale), list(offset), dtype="float32", name=UNPACK)(x)
    if "float" not in x.dtype or (chosen and x.dtype != "float32"):
        # Convolutions take no integers, and GPUs cannot select all kinds of them.
        x = ops.cast(x, "float32")
    if chosen:
        x = ops.take(x, chosen, axis=-1)
    if not statistics or how == "none":
        return inputs, x
    statistics = _fitting(statistics, catalogue, chosen)
    return inputs, normalise(x, statistics, how, axis is not None)


def normalise(x: KerasTensor, statistics: Statistics, how: str = "mean-std", channels: bool = True) -> KerasTensor:
    """Normalise each channel (the last axis) in float32; without `channels`, all of `x` is one channel.

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
    # Not Keras's Normalization, which replaces a deviation below 1e-7, such as that of rain in m/s, by 1e-7.
    scale, offset = 1 / divisor, -shift / divisor
    if not channels:
        scale, offset = scale[0], offset[0]
    return layers.Rescaling(scale.tolist(), offset.tolist(), dtype="float32", name="normalise")(x)


def _fitting(statistics: Statistics, catalogue: Catalogue, chosen: list[int]) -> Statistics:
    """The statistics of the chosen channels of the catalogue; of all channels if none is chosen."""
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
    if not chosen:
        return statistics
    arrays = ("count", "mean", "m2", "min", "max", "not_finite")
    parts = {name: getattr(statistics, name)[np.array(chosen)] for name in arrays}
    return replace(statistics, **parts, channel_names=tuple(names[number] for number in chosen))
