"""Two small splits as shards, for the tests of writing, opening and reading them."""

import os

import numpy as np
import pytest

from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError

SHARD = "train-00001-of-00004.h5"
CLASSES = 5


def samples(n, dtype=np.uint8, shape=(3, 2, 1), seed=0):
    generator = np.random.default_rng(seed)
    inputs = generator.integers(0, 200, (n, *shape)).astype(dtype)
    return inputs, generator.integers(0, CLASSES, n).astype(np.int32)


def names(directory):
    return sorted(os.listdir(directory))


def refusal(function, *args, **options):
    """The one line of the UserError that the call ends with."""
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write_small(folder):
    """Write 22 train samples in 4 shards and 6 test samples in 2; returns the folder."""
    write_shards(folder, "train", *samples(22), classes=CLASSES, shards=4, source="made\nup")
    write_shards(folder, "test", *samples(6, seed=1), classes=CLASSES, shards=2)
    return folder
