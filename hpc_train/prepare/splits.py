"""What sources of samples share: choosing held-out samples, rows that are read when they are needed, writing splits."""

import sys
from collections.abc import Callable
from math import prod

import numpy as np

from hpc_train.console import say
from hpc_train.data.plan.permutation import permute
from hpc_train.errors import UserError


class Rows:
    """Rows of an array that is not in memory: what `write_shards` needs of one.

    Args:
        samples: number of rows.
        shape: of one row.
        dtype: of the values, in the machine's byte order.
        read: called with a slice of the rows, returns their values, which are converted to `dtype`.
    """

    def __init__(self, samples: int, shape: tuple[int, ...], dtype, read: Callable[[slice], np.ndarray]):
        self.shape, self.dtype, self._read = (samples, *shape), np.dtype(dtype).newbyteorder("="), read
        self.ndim, self.size = len(self.shape), prod(self.shape)
        self.nbytes = self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        return np.ascontiguousarray(self._read(rows), self.dtype)


def held_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Choose test samples, the same share of every class; the same arguments always choose the same samples.

    Args:
        labels: (n,) whole numbers; all the same where samples have no class.
        fraction: share of the samples.
        seed: of the choice.

    Returns:
        (n,) bool, True for a test sample.

    Raises:
        UserError: a part would be empty.
    """
    testing = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = round(fraction * len(members))
        testing[members[permute(np.arange(count), len(members), seed, int(label))]] = True
    if testing.all() or not testing.any():
        raise UserError(
            f"--test-fraction {fraction} puts {testing.sum()} of {len(testing)} samples into the test part; "
            "give a fraction that leaves samples in both parts"
        )
    return testing


def write_splits(output, splits: dict, *, shards=None, compression="none", **description) -> None:
    """Write each split as shards, and print a line about it.

    Args:
        output: the folder.
        splits: {name: (inputs, targets)}, arrays or `Rows`.
        shards, compression, description: as of `write_shards`, the same for all splits.

    Raises:
        UserError: as of `write_shards`.
    """
    from hpc_train.data.shards.arrays import write_shards

    for split, (inputs, targets) in splits.items():
        paths = write_shards(output, split, inputs, targets, shards=shards, compression=compression, **description)
        classes = description["classes"]
        what = f"{classes} classes" if classes else f"targets {tuple(targets.shape[1:])} {targets.dtype}"
        say(
            f"{split}: {len(inputs)} samples of {tuple(inputs.shape[1:])} {inputs.dtype}, {what}, "
            f"{len(paths)} shards in {output}"
        )
    mention_others(output, splits)


def mention_others(output, made) -> None:
    """Print which shards of other splits than `made` are in a folder from before."""
    from hpc_train.data.catalogue.layout import find_splits

    # A trainer might take them for its held-out data.
    if others := sorted(set(find_splits(output)) - set(made)):
        say(f"{output}: also holds older shards of {', '.join(others)}, which were not changed", sys.stderr)
