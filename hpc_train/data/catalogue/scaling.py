"""Linear scaling of an array of the samples: packed numbers to real values, real values to normalised ones and back."""

from dataclasses import dataclass

import numpy as np

from hpc_train.data.catalogue.catalogue import Catalogue
from hpc_train.data.catalogue.part import Part


@dataclass(frozen=True, eq=False)
class Scaling:
    """How stored numbers are delivered: stored * scale + offset, which is (real value - mean) / deviation.

    Args:
        scale, offset, mean, deviation: float64, of a shape that broadcasts against a sample.
    """

    scale: np.ndarray
    offset: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, catalogue: Catalogue, part: Part, mean=0.0, deviation=1.0) -> "Scaling":
        """The scaling of a part of a catalogue, whatever packs it; mean and deviation: of its real values."""
        axis, channels, shape = catalogue.channel_axis_of(part), catalogue.channels_of(part), [1] * len(part.shape)
        if axis is not None:
            shape[axis] = channels
        factor, shift = (np.resize(numbers, channels).reshape(shape) for numbers in np.array(part.packing).T)
        mean, deviation = (np.broadcast_to(np.asarray(each, np.float64), shape) for each in (mean, deviation))
        return cls(factor / deviation, (shift - mean) / deviation, mean, deviation)

    def exact(self, stored: np.ndarray) -> np.ndarray:
        """Values, float64, of stored numbers (b, ...)."""
        return stored * self.scale + self.offset

    def apply(self, stored: np.ndarray) -> np.ndarray:
        """float32 values, as they are delivered, of stored numbers (b, ...)."""
        return self.exact(stored).astype(np.float32)

    def restore(self, values: np.ndarray) -> np.ndarray:
        """Real values, float64, of values (b, ...) as they are delivered."""
        return restored(values, self.mean, self.deviation)

    def as_dict(self) -> dict[str, list]:
        """Mean and deviation as plain values, for JSON: arguments of `of`."""
        return {"mean": self.mean.tolist(), "deviation": self.deviation.tolist()}


def restored(values: np.ndarray, mean, deviation) -> np.ndarray:
    """Real values, float64, of normalised ones (b, ...); mean and deviation: as in `Scaling.as_dict`."""
    return np.asarray(values, np.float64) * np.array(deviation) + np.array(mean)
