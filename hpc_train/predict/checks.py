"""Checks that data fit a model, and the samples that the options choose."""

from pathlib import Path

import numpy as np

from hpc_train.errors import UserError


def check_inputs(model, source, data: Path) -> None:
    """Check that the model takes samples like these.

    Args:
        model: a Keras model with one input.
        source: a `MapSource` or `NumberSource`.
        data: named in messages.

    Raises:
        UserError: their shape, type or packing is another one.
    """
    inputs = getattr(model, "inputs", None)
    # A model that is a class of its own says nothing about its inputs.
    if not inputs:
        return
    if len(inputs) > 1:
        names = ", ".join(one.name for one in inputs)
        raise UserError(f"{data}: a sample has one array of inputs, but the model takes {names}")
    _check_shape(model.input_shape, source.shape, data)
    _check_dtype(np.dtype(model.inputs[0].dtype), source, data)
    _check_packing(model, source, data)


def samples_drawn(options, samples: int) -> set[int]:
    """Numbers of the samples that --maps and --samples ask to draw; UserError for one that is not there."""
    for number in options.samples:
        if not 0 <= number < samples:
            raise UserError(f"--samples {number}: {options.data} has samples 0 to {samples - 1}; give one of these")
    spread = np.linspace(0, samples - 1, min(options.maps, samples)).round().astype(int)
    return {*options.samples, *spread.tolist()}


def _check_shape(takes, shape, data: Path) -> None:
    takes = tuple(takes[1:])
    if len(takes) != len(shape) or any(wanted not in (None, given) for wanted, given in zip(takes, shape, strict=True)):
        raise UserError(
            f"{data}: holds samples of {tuple(shape)}, but the model takes {takes}; give data of that shape"
        )


def _check_dtype(takes: np.dtype, source, data: Path) -> None:
    # A model of packed integers unpacks only these: Keras would convert other inputs to integers.
    packed = any(pair != (1.0, 0.0) for pair in source.packing)
    whole = takes.kind == source.dtype.kind == "i"
    if takes != source.dtype and (packed or not (takes.kind == "f" or whole)):
        held = f"{source.dtype}{' packed' * packed}"
        raise UserError(
            f"{data}: holds numbers stored as {held}, but the model takes {takes}; give data stored like that"
        )


def _check_packing(model, source, data: Path) -> None:
    from hpc_train.models.inputs import UNPACK

    layer = next((layer for layer in model.layers if layer.name == UNPACK), None)
    if layer is None:
        return
    trained = tuple(zip(layer.scale, layer.offset, strict=True))
    if trained != source.packing:
        raise UserError(
            f"{data}: its values are packed by (scale, offset) {source.packing}, but those for training were by "
            f"{trained}; bring them into one form with `hpc-train shard`"
        )
