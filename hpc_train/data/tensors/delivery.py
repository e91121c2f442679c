"""From the arrays of a batch to what `fit` gets: Keras's names, real values, and inputs that are targets too."""

from collections.abc import Sequence

import tensorflow as tf

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.scaling import Scaling


class Delivery:
    """Makes (inputs, targets) or (inputs, targets, weights) of the arrays of a batch.

    Inputs and targets are dicts by Keras's names where the catalogue has names. Without targets the inputs are the
    targets too.

    Args:
        catalogue: of the samples as they are read.
        scalings: of the parts whose values are scaled, by `Part.label`.
        alone: without targets, give the inputs alone, for a model whose own training step takes no targets.
    """

    def __init__(self, catalogue: Catalogue, scalings: dict[str, Scaling], alone: bool = False):
        self._parts, self._scalings, self._alone = catalogue.parts, scalings, alone

    @classmethod
    def of(cls, catalogue: Catalogue, scalings: dict[str, Scaling], alone: bool = False) -> "Delivery | None":
        """What a catalogue needs; None where its arrays are delivered as they are."""
        plain = [(part.role, part.name) for part in catalogue.parts] == [("input", ""), ("target", "")]
        return None if plain and not scalings else cls(catalogue, scalings, alone)

    @property
    def scales(self) -> bool:
        """Whether it computes; else it only names."""
        return bool(self._scalings)

    def __call__(self, *arrays: tf.Tensor):
        """A batch for `fit`; arrays: one (b, ...) for each part."""
        values = [self._scaled(part, array) for part, array in zip(self._parts, arrays, strict=True)]
        inputs, targets, weights = (self._side(role, values) for role in ("input", "target", "weight"))
        if targets is None:
            if self._alone and weights is None:
                return inputs
            targets = inputs
        return (inputs, targets) if weights is None else (inputs, targets, weights)

    def _scaled(self, part, array: tf.Tensor) -> tf.Tensor:
        scaling = self._scalings.get(part.label)
        if scaling is None:
            return array
        # In float64: an integer of 32 bits has more digits than a float32, and so has a small deviation from a mean.
        return tf.cast(tf.cast(array, tf.float64) * scaling.scale + scaling.offset, tf.float32)

    def _side(self, role: str, values: Sequence[tf.Tensor]):
        held = {part.name: value for part, value in zip(self._parts, values, strict=True) if part.role == role}
        return held.get("") if "" in held else held or None
