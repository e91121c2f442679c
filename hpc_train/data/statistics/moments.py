"""Statistics of a data set in one pass, and how to merge them: moments and range of channels, pixels of classes."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from math import prod

import numpy as np

from hpc_train.data.statistics.label_counts import BadSample, add_counts, count_labels
from hpc_train.errors import UserError

# Powers by which the climate papers weight classes: none, DeepCAM's, Kurth et al.'s 1/sqrt, plain inverse frequency.
WEIGHT_POWERS = (0.0, -0.125, -0.5, -1.0)
# Number of values in a block: its float64 copy fits into a core's cache.
_BLOCK = 1 << 17


@dataclass(frozen=True, eq=False)
class Statistics:
    """Statistics of the samples seen so far; NaN for a channel in which no finite value was seen.

    Args:
        samples: number of samples.
        count: finite values of each channel, int64 (channels,).
        mean: of each channel, float64 (channels,).
        m2: sum of squared deviations from the mean, float64 (channels,).
        min, max: of each channel, float64 (channels,).
        not_finite: values that were skipped because they are NaN, infinite or missing, int64 (channels,).
        class_counts: pixels of each class in all layers of the targets, int64 (classes,).
        channel_names, class_names: empty where unknown.
        split: name of the split.
        fingerprint: of the data.
        flavour: the kind of file it was loaded from: "hpc-train" (also for what was counted here), "deepcam" or
            "paper". The last two do not store the number of values: count is then the number of samples, or 1.
        notes: lines that the caller who loaded the file should show once.
        others: statistics of the channels of other inputs, and of targets that are no labels, by `Part.label`.
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
    others: dict[str, "Statistics"] = field(default_factory=dict)

    @classmethod
    def empty(cls, channels: int, classes: int = 0) -> "Statistics":
        """The statistics of no samples, from which merging starts."""
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
        absent=None,
        ignore: int | None = None,
    ):
        """Compute the statistics of one batch, in float64 for every dtype, without a float64 copy of the batch.

        Args:
            inputs: (samples, ...) numbers.
            targets: labels (samples,), (samples, height, width) or with layers, integers or whole floats; or None.
            channel_axis: the axis of a sample that counts channels; None if all its values are one channel.
            classes: labels lie in [0, classes); 0: up to the largest label.
            skip_nan: leave out NaN, infinity and missing values, and count them.
            absent: which inputs are missing values, bool (samples, ...); None if none is.
            ignore: a label that is not counted; it may lie outside the classes.

        Raises:
            BadSample: the first NaN, infinity or missing value, or the first label that is not a class.
        """
        inputs = np.asarray(inputs)
        if absent is not None:
            if not skip_nan:
                raise _first_not_finite(inputs, channel_axis, absent)
            inputs = np.where(absent, np.nan, inputs.astype(np.float64))
        values = _with_channels(inputs, channel_axis)
        nothing = total = cls.empty(values.shape[1])
        for block in _blocks(values):
            moments = _moments(block)
            if moments is None:
                if not skip_nan:
                    raise _first_not_finite(inputs, channel_axis)
                moments = _moments_of_finite(block)
            total = total.merge(replace(nothing, **moments))
        counts = np.zeros(classes, np.int64) if targets is None else count_labels(np.asarray(targets), classes, ignore)
        return replace(total, samples=len(inputs), class_counts=counts)

    def update(self, inputs, targets=None, channel_axis: int | None = None, classes: int = 0, skip_nan=False):
        """Merge these statistics with those of a batch; arguments and errors are those of `of`."""
        return self.merge(Statistics.of(inputs, targets, channel_axis, classes, skip_nan))

    def merge(self, other: "Statistics") -> "Statistics":
        """Merge the statistics of two sets of samples, in any order: counts are exact, moments up to rounding.

        The pairwise update of Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing
        sample variances" (1979): it does not subtract squares that are almost equal.
        """
        if not self.flavour == other.flavour == "hpc-train":
            raise ValueError("statistics from a file that does not store its number of values cannot be merged")
        count = self.count + other.count
        # Shares are used because the product of two counts of a large data set would not fit an int64.
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
            others=_merged(self.others, other.others),
        )

    def unpacked(self, scale, offset) -> "Statistics":
        """The statistics of values * scale + offset; scale and offset are numbers or (channels,)."""
        ends = self.min * scale + offset, self.max * scale + offset
        moments = {"mean": self.mean * scale + offset, "m2": self.m2 * np.square(scale)}
        return replace(self, **moments, min=np.minimum(*ends), max=np.maximum(*ends))

    @property
    def std(self) -> np.ndarray:
        """Standard deviation of each channel, float64 (channels,), divided by count, not count - 1."""
        return np.sqrt(self.m2 / np.where(self.count, self.count, np.nan))

    @property
    def digest(self) -> str:
        """A hash of the numbers that normalise channels and weight classes, rounded to six digits.

        It does not depend on the order in which ranks were merged.
        """
        values = (self.mean, self.std, self.min, self.max, self.class_counts)
        text = " ".join(f"{value:.6g}" for array in values for value in array)
        text += "".join(f" {name} {part.digest}" for name, part in self.others.items())
        return blake2b(text.encode(), digest_size=8).hexdigest()

    def normalisation(self, how: str) -> tuple[np.ndarray, np.ndarray]:
        """Offset and divisor that normalise the channels: (x - offset) / divisor; a constant channel becomes 0.

        Args:
            how: "min-max", to [0, 1] (Kurth et al., DeepCAM), or "mean-std", to mean 0 and standard deviation 1.

        Returns:
            offset and divisor, each float64 (channels,).

        Raises:
            UserError: the statistics of a channel lack what `how` needs.
        """
        offset, divisor = {"min-max": (self.min, self.max - self.min), "mean-std": (self.mean, self.std)}[how]
        missing = np.flatnonzero(~np.isfinite(offset + divisor))
        if len(missing):
            ranges = how == "mean-std" and np.isfinite(self.max - self.min).all()
            remedy = "normalise by min-max" if ranges else "run `hpc-train stats` on the data"
            channel = self.channel_names[missing[0]] if self.channel_names else missing[0]
            raise UserError(f"cannot normalise by {how}: the statistics of channel {channel} lack it; {remedy}")
        return offset, np.where(divisor > 0, divisor, 1.0)


def _merged(one: dict[str, Statistics], other: dict[str, Statistics]) -> dict[str, Statistics]:
    both = {name: one[name].merge(other[name]) for name in one if name in other}
    return {**one, **other, **both}


def class_weights(counts, power: float) -> np.ndarray:
    """Weight of each class in the loss: frequency ** power, where frequency = count / total.

    A class that never occurs gets 1, its weight in an unweighted loss, instead of infinity.

    Args:
        counts: pixels of each class.
        power: 0 (all equal), -1/8 (DeepCAM), -1/2 (Kurth et al. 2018) or -1.

    Returns:
        float64 (classes,).
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
    """The values of (outer, channels, inner) in float64 pieces (channels, n); each piece overwrites the last."""
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
    """Count, mean, m2, min and max of each row, in two passes; None if a value is not finite. Overwrites the block."""
    low, high = block.min(axis=1), block.max(axis=1)
    # Minimum and maximum are NaN where a value is.
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    mean = block.mean(axis=1)
    block -= mean[:, None]
    count = np.full(len(block), block.shape[1], np.int64)
    return {"count": count, "mean": mean, "m2": np.einsum("ij,ij->i", block, block), "min": low, "max": high}


def _moments_of_finite(block: np.ndarray) -> dict[str, np.ndarray]:
    """What `_moments` returns, of the finite values, and the number of the others."""
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


def _first_not_finite(inputs: np.ndarray, channel_axis: int | None, absent: np.ndarray | None = None) -> BadSample:
    bad = ~np.isfinite(inputs) if absent is None else ~np.isfinite(inputs) | absent
    place, *index = (int(number) for number in np.argwhere(bad)[0])
    value = inputs[(place, *index)]
    what = f"the missing value {value}" if np.isfinite(value) else f"{value}"
    where = "" if channel_axis is None else f" in channel {index[channel_axis]}"
    return BadSample(place, f"holds {what}{where}")
