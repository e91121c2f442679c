"""One array of a sample: an input, a target or the sample weights."""

from math import prod
from typing import NamedTuple

import numpy as np

from hpc_train.data.catalogue.layout import Place

UNPACKED = (1.0, 0.0)


class Kind(NamedTuple):
    """What the files must have in common of one array, as plain values. Shape of one sample, dtype as stored.

    Args:
        shape: of one sample, as delivered.
        dtype: text of the dtype.
        packing: (scale, offset) of each of its data sets.
    """

    shape: tuple[int, ...]
    dtype: str
    packing: tuple[tuple[float, float], ...] = (UNPACKED,)


class Part(NamedTuple):
    """One array of a sample.

    Args:
        role: "input", "target" or "weight".
        name: Keras's name of the input or output; "" for the only one of its kind.
        datasets: its data sets; several are stacked on a new first axis of the sample.
        shape: of one sample.
        dtype: as stored.
        packing: (scale, offset) of each data set. Values are read as stored; for NetCDF's packed ones the real value
            is value * scale + offset.
        lengths: of sequences of different lengths, the data set of their lengths; the first axis of the shape is then
            the length to which they are padded with zeros.
    """

    role: str
    name: str
    datasets: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    packing: tuple[tuple[float, float], ...] = (UNPACKED,)
    lengths: str = ""

    @classmethod
    def of(cls, place: Place, kind: Kind) -> "Part":
        """The part at `place` of a file's layout, which is of this kind."""
        own = place.role, place.name, place.datasets
        return cls(*own, kind.shape, np.dtype(kind.dtype), kind.packing, place.lengths)

    @property
    def label(self) -> str:
        """How messages name it: "input", "target mask"."""
        return f"{self.role} {self.name}".strip()

    @property
    def packed(self) -> bool:
        """Whether stored values are not the real ones."""
        return any(pair != UNPACKED for pair in self.packing)

    @property
    def bytes(self) -> int:
        """Bytes of one sample, once it is read."""
        return prod(self.shape) * self.dtype.itemsize
