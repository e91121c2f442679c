"""How random an order is: three figures, exact for small data sets and from a sample of large ones."""

from dataclasses import dataclass

import numpy as np

# So many places tell a mean to about 0.001; with no more samples than that, all are looked at.
DRAWS = 2**17
_PIECE = 2**15  # bounds the memory of one evaluation


@dataclass(frozen=True)
class Randomness:
    """Figures of one epoch's order beside those of a uniformly random permutation, each without a unit.

    displacement: mean |place - index| / samples; uniform 1/3. Blocks that are permuted over the whole epoch have it
    too: it says nothing about what stays together.
    neighbours: mean distance in the order of samples that are neighbours in the files, / samples; uniform 1/3, blocks
    dealt to lanes about window / (3 share), where share is the samples of a lane.
    same_block: how often two samples of one global batch are of one block, relative to chance; uniform 1. NaN where
    chance has none: blocks or batches of one sample.
    """

    displacement: float
    neighbours: float
    same_block: float


def measure(order, epoch, global_batch, block, draws=DRAWS):
    """The Randomness of `order` in `epoch`, its batches judged by blocks of `block` consecutive samples."""
    return Randomness(
        displacement(order, epoch, draws),
        neighbour_distance(order, epoch, draws),
        same_block(order, epoch, global_batch, block, draws),
    )


def displacement(order, epoch, draws=DRAWS):
    """Mean |place - index| / samples over all places, or over `draws` of them."""
    places = _some(order.samples, draws)
    return float(np.abs(places - _evaluate(order.indices, places, epoch)).mean() / order.samples)


def neighbour_distance(order, epoch, draws=DRAWS):
    """Mean |place of k - place of k + 1| / samples over all samples k but the last, or over `draws` of them."""
    first = _some(order.samples - 1, draws)
    if not first.size:
        return float("nan")
    distance = np.abs(_evaluate(order.places, first, epoch) - _evaluate(order.places, first + 1, epoch))
    return float(distance.mean() / order.samples)


def same_block(order, epoch, global_batch, block, draws=DRAWS):
    """Share of the pairs within a global batch that lie in one block, over that share among all samples.

    Over all whole global batches, or over as many of them as hold `draws` samples, at least eight.
    """
    # Random batches are drawn without replacement, so that none counts twice.
    steps = order.samples // global_batch
    chosen = min(steps, max(8, draws // global_batch))
    numbers = np.sort(np.random.default_rng(0).choice(steps, chosen, replace=False))
    pairs = 0
    for number in numbers:
        places = np.arange(number * global_batch, (number + 1) * global_batch, dtype=np.int64)
        pairs += _pairs(np.unique(_evaluate(order.indices, places, epoch) // block, return_counts=True)[1])
    whole, rest = divmod(order.samples, block)
    chance = (whole * _pairs(block) + _pairs(rest)) / max(_pairs(order.samples), 1)
    if chance == 0 or global_batch == 1:
        return float("nan")
    return float(pairs / (len(numbers) * _pairs(global_batch)) / chance)


def _pairs(counts):
    return int(np.sum(np.multiply(counts, np.subtract(counts, 1))) // 2)


def _some(count, draws):
    if count <= draws:
        return np.arange(count, dtype=np.int64)
    return np.random.default_rng(0).integers(0, count, draws)


def _evaluate(function, numbers, epoch):
    pieces = np.array_split(numbers, -(-numbers.size // _PIECE))
    return np.concatenate([function(piece, epoch) for piece in pieces])
