"""Statistics of a data set in one pass: moments and range of each channel, pixels of each class, and their merging."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from math import prod

import numpy as np

from hpc_train.data.statistics.label_counts import BadSample, add_counts, count_labels
from hpc_train.errors import UserError

# The powers the climate papers weigh classes with: none, DeepCAM's, Kurth et al.'s 1/sqrt, plain inverse frequency.
WEIGHT_POWERS = (0.0, -0.125, -0.5, -1.0)
# Values looked at together: their float64 copy stays in a core's cache.
_BLOCK = 1 << 17


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of the samples seen so far; NaN for a channel of which no finite value was seen.

    samples: their number. Per channel, (channels,): count, int64, of finite values; mean; m2, the sum of squared
    deviations from the mean; min; max, all float64; not_finite, int64, of values skipped because they are NaN,
    infinite or missing. class_counts: int64 (classes,), pixels of each class in all layers of the targets.

    flavour: the file it was loaded from: "hpc-train" (also for what was counted here), "deepcam" or "paper". The
    last two do not tell the number of values: count is then the number of samples, or 1. notes: lines that whoever
    loaded the file should show once.
    """

    samples: int
    count: np.ndarray
    mean: np.ndarray
    m2: np.ndarray
    min: np.ndarray
    max: np.ndarray
    not_finite: np.ndarray
    class_counts: np.ndarray
    channel_names: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    split: str = ""
    fingerprint: str = ""
    flavour: str = "hpc-train"
    notes: tuple[str, ...] = ()

    @classmethod
    def empty(cls, channels: int, classes: int = 0) -> "Statistics":
        """The statistics of no sample: what merging starts from."""
        nothing, unknown = np.zeros(channels, np.int64), np.full(channels, np.nan)
        return cls(0, nothing, unknown, np.zeros(channels), unknown, unknown, nothing, np.zeros(classes, np.int64))

    @classmethod
    def of(
        cls,
        inputs,
        targets=None,
        channel_axis: int | None = None,
        classes: int = 0,
        skip_nan=False,
        missing=None,
        ignore: int | None = None,
    ):
        """Statistics of one batch, in float64 whatever the dtype, without a float64 copy of the batch.

        inputs: (samples, ...) numbers. channel_axis: the axis of one sample that counts channels; None when all
        its values are one channel. targets: labels (samples,), (samples, height, width) or with layers, integers
        or integral floats, or None. classes: labels lie in [0, classes); 0: as many classes as are seen.
        skip_nan: leave NaN, infinity and missing values out, and count them. missing: float64 (channels,), what
        stands for a missing value in each channel, NaN where nothing does; None: in no channel. ignore: a label, also
        outside the classes, that is not counted.

        Raises BadSample for the first NaN, infinity or missing value, or the first label that is no class.
        """
        inputs = np.asarray(inputs)
        values = _with_channels(inputs, channel_axis)
        nothing = total = cls.empty(values.shape[1])
        for block in _blocks(values):
            if missing is not None:
                block[block == missing[:, None]] = np.nan
            moments = _moments(block)
            if moments is None:
                if not skip_nan:
                    raise _first_not_finite(inputs, channel_axis, missing)
                moments = _moments_of_finite(block)
            total = total.merge(replace(nothing, **moments))
        counts = np.zeros(classes, np.int64) if targets is None else count_labels(np.asarray(targets), classes, ignore)
        return replace(total, samples=len(inputs), class_counts=counts)

    def update(self, inputs, targets=None, channel_axis: int | None = None, classes: int = 0, skip_nan=False):
        """These statistics and those of a batch together; arguments and errors as of `of`."""
        return self.merge(Statistics.of(inputs, targets, channel_axis, classes, skip_nan))

    def merge(self, other: "Statistics") -> "Statistics":
        """The statistics of both sets of samples: counts exactly, moments to rounding, in whatever order.

        The pairwise update of Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing
        sample variances" (1979): it does not subtract squares that are almost equal.
        """
        if not self.flavour == other.flavour == "hpc-train":
            raise ValueError("statistics of a file that does not tell its number of values cannot be merged")
        count = self.count + other.count
        # As shares: the product of two counts of a large data set would not fit an int64.
        share = other.count / np.maximum(count, 1)
        step = other.mean - self.mean
        mine, theirs = self.count > 0, other.count > 0
        return replace(
            self,
            samples=self.samples + other.samples,
            count=count,
            mean=np.where(mine & theirs, self.mean + step * share, np.where(mine, self.mean, other.mean)),
            m2=self.m2 + other.m2 + np.where(mine & theirs, step * step * self.count * share, 0),
            min=np.fmin(self.min, other.min),
            max=np.fmax(self.max, other.max),
            not_finite=self.not_finite + other.not_finite,
            class_counts=add_counts(self.class_counts, other.class_counts),
        )

    def unpacked(self, scale, offset) -> "Statistics":
        """The statistics of values * scale + offset; each a number or (channels,)."""
        ends = self.min * scale + offset, self.max * scale + offset
        moments = {"mean": self.mean * scale + offset, "m2": self.m2 * np.square(scale)}
        return replace(self, **moments, min=np.minimum(*ends), max=np.maximum(*ends))

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each channel, float64: of the samples themselves (divided by count)."""
        return np.sqrt(self.m2 / np.where(self.count, self.count, np.nan))

    @property
    def digest(self) -> str:
        """A hash of what the channels and classes are normalised and weighted by, to six digits.

        Ranks that merge in another order give the same.
        """
        values = (self.mean, self.std, self.min, self.max, self.class_counts)
        text = " ".join(f"{value:.6g}" for array in values for value in array)
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def normalisation(self, how: str) -> tuple[np.ndarray, np.ndarray]:
        """(offset, divisor), float64 (channels,): (x - offset) / divisor is normalised; a constant channel gives 0.

        how: "min-max", to [0, 1] (Kurth et al., DeepCAM), or "mean-std", to mean 0 and standard deviation 1.

        Raises UserError when a channel lacks what `how` needs.
        """
        offset, divisor = {"min-max": (self.min, self.max - self.min), "mean-std": (self.mean, self.std)}[how]
        missing = np.flatnonzero(~np.isfinite(offset + divisor))
        if len(missing):
            ranges = how == "mean-std" and np.isfinite(self.max - self.min).all()
            remedy = "normalise by min-max" if ranges else "run `hpc-train stats` on the data"
            channel = self.channel_names[missing[0]] if self.channel_names else missing[0]
            raise UserError(f"no {how} normalisation: the statistics lack it for channel {channel}; {remedy}")
        return offset, np.where(divisor > 0, divisor, 1.0)


def class_weights(counts, power: float) -> np.ndarray:
    """Weight of each class in the loss, float64 (classes,): frequency ** power, where frequency = count / total.

    counts: pixels of each class. power: 0 (all alike), -1/8 (DeepCAM), -1/2 (Kurth et al. 2018) or -1.
    A class that never occurs has no such weight; it gets 1, that of an unweighted loss, instead of infinity.
    """
    counts = np.asarray(counts, np.float64)
    if (counts < 0).any():
        raise ValueError(f"class counts {counts} are negative")
    seen = counts > 0
    frequency = np.where(seen, counts, 1.0) / max(counts.sum(), 1.0)
    return np.where(seen, frequency**power, 1.0)


def _with_channels(inputs: np.ndarray, axis: int | None) -> np.ndarray:
    """`inputs` as (outer, channels, inner)."""
    if axis is None:
        return inputs.reshape(len(inputs), 1, prod(inputs.shape[1:]))
    before, channels, after = inputs.shape[1 : 1 + axis], inputs.shape[1 + axis], inputs.shape[2 + axis :]
    return inputs.reshape(len(inputs) * prod(before), channels, prod(after))


def _blocks(values: np.ndarray) -> Iterator[np.ndarray]:
    """The values of (outer, channels, inner) in float64 pieces (channels, n); a piece is overwritten by the next."""
    outer, channels, inner = values.shape
    length = max(1, _BLOCK // max(1, channels))
    group = max(1, length // max(1, inner))
    memory = np.empty(channels * group * min(length, inner))
    for first in range(0, outer, group):
        for start in range(0, inner, length):
            piece = values[first : first + group, :, start : start + length].swapaxes(0, 1)
            block = memory[: piece.size].reshape(piece.shape)
            np.copyto(block, piece)
            yield block.reshape(channels, -1)


def _moments(block: np.ndarray) -> dict[str, np.ndarray] | None:
    """Count, mean, m2, min and max of each row, in two passes; destroys the block. None: a value is not finite."""
    low, high = block.min(axis=1), block.max(axis=1)
    # Both carry a NaN on.
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    mean = block.mean(axis=1)
    block -= mean[:, None]
    count = np.full(len(block), block.shape[1], np.int64)
    return {"count": count, "mean": mean, "m2": np.einsum("ij,ij->i", block, block), "min": low, "max": high}


def _moments_of_finite(block: np.ndarray) -> dict[str, np.ndarray]:
    """What `_moments` gives, of the finite values, and the number of the others."""
    finite = np.isfinite(block)
    count = finite.sum(axis=1)
    some = count > 0
    block[~finite] = 0
    mean = np.where(some, block.sum(axis=1) / np.maximum(count, 1), np.nan)
    low = np.where(some, block.min(axis=1, where=finite, initial=np.inf), np.nan)
    high = np.where(some, block.max(axis=1, where=finite, initial=-np.inf), np.nan)
    deviation = np.where(finite, block - mean[:, None], 0)
    m2 = np.einsum("ij,ij->i", deviation, deviation)
    return {"count": count, "mean": mean, "m2": m2, "min": low, "max": high, "not_finite": block.shape[1] - count}


def _first_not_finite(inputs: np.ndarray, channel_axis: int | None, missing: np.ndarray | None) -> BadSample:
    if missing is None:
        missing = np.array([np.nan])
    # Along the channels, as broadcasting has it.
    missing = missing if channel_axis is None else missing.reshape(-1, *[1] * (inputs.ndim - 2 - channel_axis))
    bad = (~np.isfinite(sample) | (sample == missing) for sample in inputs)
    place, wrong = next((place, wrong) for place, wrong in enumerate(bad) if wrong.any())
    index = tuple(np.argwhere(wrong)[0])
    value = inputs[place][index]
    what = f"the missing value {value}" if np.isfinite(value) else f"{value}"
    where = "" if channel_axis is None else f" in channel {index[channel_axis]}"
    return BadSample(place, f"holds {what}{where}")
