"""The samples of a data set as a run's network gets them: named, scaled and padded as in training."""

from collections.abc import Callable

import numpy as np

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.part import Part
from hpc_train.data.catalogue.scaling import Scaling, restored
from hpc_train.errors import UserError


class RunSamples:
    """Samples by their numbers.

    Args:
        catalogue: of the data to predict.
        record: the content of the run's run.json.
        model: the network, whose inputs say how long padded sequences are.

    Attributes:
        catalogue: with sequences padded as the network wants them.
        inputs: the inputs of a sample as the network gets them.

    Raises:
        UserError: sequences are longer than the network takes.
    """

    def __init__(self, catalogue: Catalogue, record: dict, model):
        from hpc_train.data.reading.encoded_reader import open_reader

        self.catalogue = _padded(catalogue, model)
        self._reader = open_reader(self.catalogue)
        self._recorded = record.get("facts", {}).get("scaling", {})
        self._scalings = {
            part.label: Scaling.of(self.catalogue, part, **self._recorded[part.label])
            for part in self.catalogue.parts
            if part.label in self._recorded
        }
        self.inputs = tuple(part.scaled if part.label in self._scalings else part for part in self.catalogue.inputs)

    def read(self, numbers) -> tuple[object, dict[str, np.ndarray]]:
        """What the network gets of samples, an array (b, ...) or a dict of them, and all arrays as stored, by label."""
        labels = (part.label for part in self.catalogue.parts)
        stored = dict(zip(labels, self._reader.read(numbers), strict=True))
        given = {part.name: self._scaled(part, stored[part.label]) for part in self.catalogue.inputs}
        return given.get("", given), stored

    def real(self, part: Part) -> Callable[[np.ndarray], np.ndarray]:
        """A function from stored numbers of `part` to real values, float64 where they are packed."""
        return Scaling.of(self.catalogue, part).exact if part.packed else lambda stored: stored

    def restore(self, label: str, values: np.ndarray) -> np.ndarray:
        """Real values of what the network predicts of the part with this label, or of the only target."""
        targets = [name for name in self._recorded if name.split()[0] == "target"]
        known = label if label in self._recorded else targets[0] if len(targets) == 1 and label == "" else None
        return values if known is None else restored(values, **self._recorded[known])

    def _scaled(self, part: Part, stored: np.ndarray) -> np.ndarray:
        return self._scalings[part.label].apply(stored) if part.label in self._scalings else stored


def _padded(catalogue: Catalogue, model) -> Catalogue:
    """The catalogue with its sequences as long as those of the network, where that says a length."""
    wanted = [
        _length(model, part) or length
        for part, length in zip((p for p in catalogue.parts if p.lengths), catalogue.sequence_lengths, strict=True)
    ]
    for length, most in zip(catalogue.sequence_lengths, wanted, strict=True):
        if length > most:
            raise UserError(
                f"{catalogue.files[0]}: holds sequences of {length} steps, but the model takes {most}; leave longer "
                "ones out"
            )
    return catalogue.padded(wanted)


def _length(model, part: Part) -> int | None:
    found = input_of(model, part)
    return found.shape[1] if found is not None and part.role == "input" and len(found.shape) > 1 else None


def input_of(model, part: Part):
    """The symbolic input of the network that gets `part`; None where the network does not say it."""
    inputs = getattr(model, "inputs", None) or []
    if not part.name and len(inputs) == 1:
        return inputs[0]
    return next((one for one in inputs if one.name == part.name), None)
