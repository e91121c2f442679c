"""The first layers of a network for raw data: casting and normalising on the device, inside the model that is saved."""

from keras import Input, KerasTensor, layers

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.statistics import Statistics
from hpc_train.errors import UserError


def network_input(
    catalogue: Catalogue, statistics: Statistics | None = None, how: str = "mean-std"
) -> tuple[KerasTensor, KerasTensor]:
    """(inputs, x): samples as they are stored, and what the network's own layers take.

    Bytes travel to the device as they are stored; there packed values are unpacked, channels moved to the last axis,
    and each channel normalised. The saved model takes raw data.

    Args:
        catalogue: of the training data; samples of shape (channels, ...) or (..., channels).
        statistics: of the channels (`hpc-train stats`); without them values are only unpacked.
        how: "mean-std" or "min-max".

    Returns:
        inputs (batch, *sample) in the stored dtype, and x (batch, ..., channels) floating.

    Raises:
        UserError: the statistics are of other channels, or lack what `how` needs.
    """
    axis = catalogue.channel_axis
    x = inputs = Input(catalogue.input_shape, dtype=catalogue.input_dtype.name)
    if axis == 0 and len(catalogue.input_shape) > 1:
        x = layers.Permute((*range(2, len(catalogue.input_shape) + 1), 1))(x)
    scale, offset = zip(*catalogue.packing, strict=True)
    if any(pair != (1.0, 0.0) for pair in catalogue.packing):
        x = layers.Rescaling(list(scale), list(offset))(x)
    return inputs, normalise(x, statistics, how, axis is not None) if statistics else x


def normalise(x: KerasTensor, statistics: Statistics, how: str = "mean-std", channels: bool = True) -> KerasTensor:
    """Normalise each channel, the last axis; without `channels` all of `x` is one.

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
    mean, variance = (shift, divisor**2) if channels else (shift[0], divisor[0] ** 2)
    return layers.Normalization(-1 if channels else None, mean=mean, variance=variance)(x)
