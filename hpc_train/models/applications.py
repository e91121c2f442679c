"""The networks of `keras.applications` by name, untrained, from raw images to logits."""

import difflib
import inspect
import re
import sys
from collections.abc import Callable

import keras
import numpy as np
from keras import KerasTensor, layers

from hpc_train.errors import UserError


def names() -> tuple[str, ...]:
    """The networks in this version of Keras."""
    return tuple(name for name, member in vars(keras.applications).items() if inspect.isfunction(member))


def build(
    name: str,
    input_shape: tuple[int, ...],
    classes: int,
    input_dtype: str = "uint8",
    augment: Callable[[KerasTensor], KerasTensor] | None = None,
) -> keras.Model:
    """Build a network of `keras.applications` that takes raw images and returns logits.

    The model includes the network's own `preprocess_input`. The trunk is as published, with random weights; its
    classifier becomes a Dense layer "logits".

    Args:
        name: one of `names()`, such as "EfficientNetV2B0".
        input_shape: (height, width, channels); 1 channel is repeated to 3.
        classes: number of classes.
        input_dtype: of the images; values are 0 to 255.
        augment: applied to the raw images, for instance `augment.crop_flip`.

    Returns:
        A model from (batch, height, width, channels) to float32 logits (batch, classes).

    Raises:
        UserError: no such network; the data are not images, or are too small for it.
    """
    if name not in names():
        nearest = difflib.get_close_matches(name.lower(), spelled := {n.lower(): n for n in names()}, 1)
        hint = f"did you mean {spelled[nearest[0]]}?" if nearest else f"the networks are {', '.join(names())}"
        raise UserError(f"keras.applications has no network {name!r}; {hint}")
    if len(input_shape) != 3 or input_shape[-1] not in (1, 3):
        raise UserError(f"{name} takes images (height, width, 1 or 3 channels); the data have {tuple(input_shape)}")
    make = getattr(keras.applications, name)
    x = inputs = keras.Input(input_shape, dtype=input_dtype)
    if input_shape[-1] == 1:
        x = layers.Concatenate(dtype="float32", name="rgb")([x, x, x])
    if augment:
        x = augment(x)
    x = _preprocess(x, sys.modules[make.__module__].preprocess_input)
    try:
        full = make(weights=None, input_tensor=x, input_shape=(*input_shape[:2], 3), classes=classes)
    except ValueError as error:
        least = re.search(r"at least (\d+) ?x ?(\d+)", str(error))
        why = f"it needs at least {least[1]} x {least[2]}" if least else str(error).strip().partition("\n")[0]
        raise UserError(f"{name} cannot take images of {input_shape[0]} x {input_shape[1]}: {why}") from error
    # Some networks classify by a 1x1 convolution of one pixel, others by a Dense layer; both take these features.
    features = next(layer for layer in reversed(full.layers) if layer.weights).input
    if len(features.shape) > 2:
        features = layers.Flatten(name="features")(features)
    return keras.Model(inputs, layers.Dense(classes, dtype="float32", name="logits")(features), name=name)


def _preprocess(x: KerasTensor, preprocess_input: Callable) -> KerasTensor:
    """Do what `preprocess_input` does to RGB images, a linear map of channels, with layers that Keras saves."""
    black_and_primaries = np.concatenate([np.zeros((1, 3)), np.eye(3) * 255]).astype("float32")
    black, *primaries = preprocess_input(black_and_primaries[:, None, None].copy())[:, 0, 0]
    slopes = (np.array(primaries) - black) / 255
    if slopes[0, 2]:
        # Networks that come from Caffe take blue, green, red.
        x, slopes = keras.ops.flip(x, axis=-1), slopes[::-1]
    scale = np.diag(slopes)
    if np.array_equal(scale, np.ones(3)) and not black.any():
        return x
    return layers.Rescaling(scale.tolist(), black.tolist(), dtype="float32", name="preprocessing")(x)
