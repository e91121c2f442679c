"""The parts that the segmentation networks share: presets by name, and the layers around a network's own."""

import difflib
from collections.abc import Callable, Mapping
from typing import TypeVar

from keras import KerasTensor, Model, layers

from hpc_train.errors import UserError
from hpc_train.models.padding import crop, pad

_Preset = TypeVar("_Preset")


def choose(name: str, family: Mapping[str, _Preset]) -> _Preset:
    """The preset of a network; UserError for a name that is not in the family."""
    if name in family:
        return family[name]
    nearest = difflib.get_close_matches(name, family, 1)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    raise UserError(f"there is no network {name!r}{hint}; the networks are {', '.join(family)}")


def segment(
    name: str,
    inputs: KerasTensor,
    x: KerasTensor,
    classes: int,
    multiple: int,
    network: Callable[[KerasTensor], KerasTensor],
    initializer: str,
) -> Model:
    """Build a model that gives each pixel logits: it pads images, runs `network`, and crops before the last layer.

    Args:
        name: of the model.
        inputs: what the model takes.
        x: what the first convolution takes: (batch, height, width, channels), normalised. Images whose sides are no
            multiples of `multiple` are padded and their logits cropped. Height or width may be None: the model then
            takes any multiple.
        classes: number of classes.
        multiple: height and width inside the network are multiples of it.
        network: from padded images to features (batch, padded height, padded width, features).
        initializer: of the last convolution's kernel.

    Returns:
        A model from `inputs` to float32 logits (batch, height, width, classes).

    Raises:
        UserError: the data are not maps; fewer than two classes.
    """
    if len(x.shape) != 4:
        raise UserError(
            f"{name} takes maps (height, width, channels) with a label for each pixel; the data have "
            f"{tuple(inputs.shape[1:])}"
        )
    if classes < 2:
        raise UserError(f"{name} needs at least two classes; there {'is' if classes == 1 else 'are'} {classes}")
    x, margins = pad(x, multiple)
    x = network(x)
    logits = layers.Conv2D(classes, 1, kernel_initializer=initializer, dtype="float32", name="logits")
    return Model(inputs, logits(crop(x, margins)), name=name)
