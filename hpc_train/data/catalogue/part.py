"""One array of a sample: an input, a target or the sample weights."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np

from hpc_train.data.catalogue.conventions import UNPACKED, Missing
from hpc_train.data.catalogue.layout import CAM5, PAPER, Layout, Place


class Kind(NamedTuple):
    """What the files must have in common of one array, as plain values. Shape of one sample, dtype as stored.

    Args:
        shape: of one sample, as delivered.
        dtype: text of the dtype.
        packing: (scale, offset) of each of its data sets.
        missing: which stored numbers of each data set stand for no value; empty where none of any does.
    """

    shape: tuple[int, ...]
    dtype: str
    packing: tuple[tuple[float, float], ...] = (UNPACKED,)
    missing: tuple[Missing, ...] = ()


def labelled(layout: Layout, classes: int, targets: "Sequence[Part]") -> bool:
    """Whether targets are class numbers: label maps, with a number of classes, or one set of whole numbers.

    Args:
        layout: of the files.
        classes: 0 where the files do not say it.
        targets: all of them.
    """
    if len(targets) != 1:
        return False
    if classes or layout.name in (CAM5.name, PAPER.name, "climatenet"):
        return True
    return layout.name == "custom" and targets[0].dtype.kind != "f" and not targets[0].packed


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
        missing: which stored numbers of each data set stand for no value; empty where none of any does.
        added: the last axis, of length 1, is not stored.
    """

    role: str
    name: str
    datasets: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    packing: tuple[tuple[float, float], ...] = (UNPACKED,)
    lengths: str = ""
    missing: tuple[Missing, ...] = ()
    added: bool = False

    @classmethod
    def of(cls, place: Place, kind: Kind) -> "Part":
        """The part at `place` of a file's layout, which is of this kind."""
        own = place.role, place.name, place.datasets
        missing = tuple(Missing(*each) for each in kind.missing)
        return cls(*own, kind.shape, np.dtype(kind.dtype), kind.packing, place.lengths, missing)

    def absent(self, stored: np.ndarray, strict: bool = False) -> np.ndarray | None:
        """Which stored numbers (b, ...) stand for no value, bool (b, ...); None where none does.

        Args:
            stored: of this part.
            strict: see `Missing.find`.
        """
        if not self.missing:
            return None
        if len(self.datasets) == 1:
            found = self.missing[0].find(stored, strict)
        else:
            found = np.stack([each.find(stored[:, n], strict) for n, each in enumerate(self.missing)], axis=1)
        return found if found.any() else None

    def with_channel(self) -> "Part":
        """The same with an axis of one channel, where samples are stored without one; itself for stacked data sets."""
        plain = len(self.datasets) == 1 and not self.lengths and not self.added
        return self._replace(shape=(*self.shape, 1), added=True) if plain else self

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Of one sample, without an axis that is added."""
        return self.shape[:-1] if self.added else self.shape

    @property
    def label(self) -> str:
        """How messages name it: "input", "target mask"."""
        return f"{self.role} {self.name}".strip()

    @property
    def packed(self) -> bool:
        """Whether stored values are not the real ones."""
        return any(pair != UNPACKED for pair in self.packing)

    @property
    def scaled(self) -> "Part":
        """The same as it is delivered when its values are scaled: float32, and not packed."""
        return self._replace(dtype=np.dtype(np.float32), packing=(UNPACKED,) * len(self.datasets))

    @property
    def bytes(self) -> int:
        """Bytes of one sample, once it is read."""
        return prod(self.shape) * self.dtype.itemsize
