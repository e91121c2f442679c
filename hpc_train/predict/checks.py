"""Checks that data fit a model, and the samples that the options choose."""

from pathlib import Path

import numpy as np

from hpc_train.data.catalogue.part import Part
from hpc_train.errors import UserError
from hpc_train.predict.samples import input_of


def check_inputs(model, parts: tuple[Part, ...], data: Path) -> None:
    """Check that the model takes samples like these.

    Args:
        model: a Keras model.
        parts: the inputs of a sample, as they are given to it.
        data: named in messages.

    Raises:
        UserError: they are other inputs, or of another shape, type or packing.
    """
    inputs = getattr(model, "inputs", None)
    # A model that is a class of its own says nothing about its inputs.
    if not inputs:
        return
    found = [input_of(model, part) for part in parts]
    if len(inputs) != len(parts) or any(one is None for one in found):
        names = ", ".join(one.name for one in inputs)
        there = ", ".join(part.name for part in parts if part.name) or "one array"
        raise UserError(f"{data}: the inputs of a sample are {there}, but the model takes {names}; name them alike")
    for part, wanted in zip(parts, found, strict=True):
        _check_shape(wanted.shape, part, data)
        _check_dtype(np.dtype(wanted.dtype), part, data)
    if len(parts) == 1:
        _check_packing(model, parts[0], data)


def samples_drawn(options, samples: int) -> set[int]:
    """Numbers of the samples that --maps and --samples ask to draw; UserError for one that is not there."""
    for number in options.samples:
        if not 0 <= number < samples:
            raise UserError(f"--samples {number}: {options.data} has samples 0 to {samples - 1}; give one of these")
    spread = np.linspace(0, samples - 1, min(options.maps, samples)).round().astype(int)
    return {*options.samples, *spread.tolist()}


def _check_shape(takes, part: Part, data: Path) -> None:
    takes, shape = tuple(takes[1:]), part.shape
    if len(takes) != len(shape) or any(wanted not in (None, given) for wanted, given in zip(takes, shape, strict=True)):
        named = f" in {part.label}" if part.name else ""
        raise UserError(
            f"{data}: holds samples of {tuple(shape)}{named}, but the model takes {takes}; give data of that shape"
        )


def _check_dtype(takes: np.dtype, part: Part, data: Path) -> None:
    # A model of packed integers unpacks only these: Keras would convert other inputs to integers.
    whole = takes.kind == part.dtype.kind == "i"
    if takes != part.dtype.newbyteorder("=") and (part.packed or not (takes.kind == "f" or whole)):
        held = f"{part.dtype.newbyteorder('=')}{' packed' * part.packed}"
        raise UserError(
            f"{data}: holds numbers stored as {held}, but the model takes {takes}; give data stored like that"
        )


def _check_packing(model, part: Part, data: Path) -> None:
    from hpc_train.models.inputs import UNPACK

    layer = next((layer for layer in model.layers if layer.name == UNPACK), None)
    if layer is None:
        return
    trained = tuple(zip(layer.scale, layer.offset, strict=True))
    if trained != part.packing:
        raise UserError(
            f"{data}: its values are packed by (scale, offset) {part.packing}, but those for training were by "
            f"{trained}; bring them into one form with `hpc-train shard`"
        )
