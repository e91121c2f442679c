"""Sequences of different lengths, stored one after the other, as rows padded to one length."""

from collections.abc import Callable

import h5py
import numpy as np

from hpc_train.data.hdf5.contents import name_of


class RaggedArray:
    """Sequences of one data set, whose first axis counts the steps of all of them.

    Args:
        steps: reads single steps: any of the arrays of this folder.
        lengths: int64 (n,), steps of each sequence.
        longest: steps of a padded sequence; longer ones are cut at their end.

    Attributes:
        lengths: int64 (n,), steps of each sequence that are read.
    """

    def __init__(self, steps, lengths: np.ndarray, longest: int):
        self._steps, self._longest = steps, longest
        self._starts = np.cumsum(lengths) - lengths
        self.lengths = np.minimum(lengths, longest)
        self.quick = steps.quick
        # Samples that share a chunk of steps, on average.
        self.rows_together = max(1, int(steps.rows_together / max(1.0, lengths.mean())))

    @property
    def description(self) -> str:
        """How it is read, and why."""
        return f"{len(self.lengths)} sequences, padded with zeros to {self._longest}; their steps: " + (
            self._steps.description
        )

    def jobs(self, rows: np.ndarray, places: np.ndarray, out: np.ndarray, look) -> list[Callable[[], None]]:
        """Functions that together make out[places[i]] the sequence rows[i], as `ContiguousArray.jobs`.

        Args:
            rows: int64 (k,), sorted.
            places: int64 (k,).
            out: (b, longest, ...) in native byte order, C-contiguous.
            look: called with steps that have just been read.
        """
        lengths = self.lengths[rows]
        for place, length in zip(places, lengths, strict=True):
            out[place, length:] = 0
        # Step i of a sequence, for all sequences one after the other.
        numbers = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        if not len(numbers):
            return []
        steps = np.repeat(self._starts[rows], lengths) + numbers
        flat = out.reshape(len(out) * self._longest, *out.shape[2:])
        return self._steps.jobs(steps, np.repeat(places * self._longest, lengths) + numbers, flat, look)


def read_lengths(dataset: h5py.Dataset, steps: h5py.Dataset) -> np.ndarray:
    """The lengths of the sequences in `steps`, int64 (n,).

    Raises:
        ValueError: they are no whole numbers (n,) of 0 and more, or their sum is not the number of steps.
    """
    name = name_of(dataset)
    if dataset.ndim != 1 or dataset.dtype.kind not in "ui":
        raise ValueError(f"the lengths {name} are {dataset.shape} {dataset.dtype}, not whole numbers (n,)")
    lengths = dataset[()].astype(np.int64)
    if len(lengths) and lengths.min() < 0:
        raise ValueError(f"the lengths {name} hold {lengths.min()}")
    if lengths.sum() != len(steps):
        raise ValueError(f"the lengths {name} add up to {lengths.sum()}, but {name_of(steps)} has {len(steps)} steps")
    return lengths
