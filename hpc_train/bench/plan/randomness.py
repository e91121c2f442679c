"""How random an order is: three figures, exact for small data sets, and from a sample of large ones."""

from dataclasses import dataclass

import numpy as np

# This many places give a mean to about 0.001. A data set with no more samples is used as a whole.
DRAWS = 2**17
_PIECE = 2**15  # bounds the memory of one evaluation


@dataclass(frozen=True)
class Randomness:
    """Figures of one epoch's order, each without a unit; uniform: those of a uniformly random permutation."""

    displacement: float
    """Mean |place - index| / samples; uniform 1/3. Blocks that are permuted over the whole epoch have 1/3 too: this
    figure does not show what stays together."""
    neighbours: float
    """Mean distance, in the order, of samples that are neighbours in the files, over samples; uniform 1/3. Blocks dealt
    to lanes have about window / (3 share), where share is the number of samples of a lane."""
    same_block: float
    """How often two samples of one global batch come from one block, relative to chance; uniform 1. NaN if chance gives
    no such pair: for blocks or batches of one sample."""


def measure(order, epoch, global_batch, block, draws=DRAWS):
    """The `Randomness` of an order.

    Args:
        order: a `BlockOrder` or full order of the plan.
        epoch: number of the epoch.
        global_batch: samples in a step of all ranks.
        block: consecutive samples that count as a block.
        draws: places or samples to draw from a larger data set.
    """
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

    It takes all whole global batches, or as many as hold `draws` samples, but at least eight.
    """
    # Random batches are drawn without replacement, so none counts twice.
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
