"""Linear scaling of an array of the samples: packed numbers to real values, real values to normalised ones and back."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Scaling:
    """value = stored * scale + offset, for each channel.

    Args:
        scale, offset: float64, of a shape that broadcasts against a sample.
    """

    scale: np.ndarray
    offset: np.ndarray

    def as_dict(self) -> dict:
        """Plain values, for JSON."""
        return {"scale": self.scale.tolist(), "offset": self.offset.tolist()}

    @classmethod
    def from_dict(cls, values: dict) -> "Scaling":
        """What `as_dict` gave."""
        return cls(np.array(values["scale"], np.float64), np.array(values["offset"], np.float64))

    def undo(self, values: np.ndarray) -> np.ndarray:
        """The stored numbers of values (b, ...), in float64."""
        return (np.asarray(values, np.float64) - self.offset) / self.scale
