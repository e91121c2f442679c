"""Scores of predicted numbers: sums in float64 that are stable, and that can be merged in any order and over ranks."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class RegressionScores:
    """Errors of the values seen so far, for each channel.

    Args:
        count: number of values, int64 (channels,).
        squares: sum of squared errors, float64 (channels,).
        distances: sum of absolute errors, float64 (channels,).
        bias: mean of prediction minus target, float64 (channels,).
        mean: mean of the targets, float64 (channels,).
        m2: sum of squared deviations of the targets from their mean, float64 (channels,).
    """

    count: np.ndarray
    squares: np.ndarray
    distances: np.ndarray
    bias: np.ndarray
    mean: np.ndarray
    m2: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray, predicted: np.ndarray) -> "RegressionScores":
        """The scores of one batch.

        Args:
            targets: (values, channels), any numeric dtype, at least one value.
            predicted: the same shape.

        Raises:
            ValueError: the shapes differ.
        """
        if targets.shape != predicted.shape:
            raise ValueError(f"targets are {targets.shape}, predictions {predicted.shape}")
        # NumPy sums the last axis pairwise, which keeps more digits than the first.
        targets, predicted = (np.ascontiguousarray(np.transpose(part), np.float64) for part in (targets, predicted))
        error = predicted - targets
        mean, m2 = _moments(targets)
        return cls(
            count=np.full(len(error), error.shape[1], np.int64),
            squares=np.einsum("ij,ij->i", error, error),
            distances=np.abs(error).sum(1),
            bias=error.mean(1),
            mean=mean,
            m2=m2,
        )

    def merge(self, other: "RegressionScores") -> "RegressionScores":
        """The scores of both sets of values (Chan, Golub & LeVeque 1979, as `data.statistics.moments` merges)."""
        count = self.count + other.count
        share, step = other.count / count, other.mean - self.mean
        return RegressionScores(
            count=count,
            squares=self.squares + other.squares,
            distances=self.distances + other.distances,
            bias=self.bias + (other.bias - self.bias) * share,
            mean=self.mean + step * share,
            m2=self.m2 + other.m2 + step * step * self.count * share,
        )

    @property
    def rmse(self) -> np.ndarray:
        """Root of the mean squared error of each channel, float64 (channels,)."""
        return np.sqrt(self.squares / self.count)

    @property
    def mae(self) -> np.ndarray:
        """Mean absolute error of each channel, float64 (channels,)."""
        return self.distances / self.count

    @property
    def r2(self) -> np.ndarray:
        """Coefficient of determination of each channel, float64 (channels,); NaN where the targets are constant."""
        return 1 - np.divide(self.squares, self.m2, out=np.full(len(self.m2), np.nan), where=self.m2 > 0)

    def all(self) -> dict[str, float]:
        """RMSE, MAE and bias of the values of all channels together, and the mean of the channels' R2.

        The mean is scikit-learn's and Keras's R2 of several outputs; it is NaN if the R2 of a channel is.
        """
        share = self.count / self.count.sum()
        return {
            "rmse": float(np.sqrt(self.squares.sum() / self.count.sum())),
            "mae": float(self.distances.sum() / self.count.sum()),
            "bias": float((self.bias * share).sum()),
            "r2": float(self.r2.mean()),
        }


@dataclass(frozen=True, eq=False)
class AnomalyCorrelation:
    """Moments of predicted and true maps at each point, from which the anomaly correlation follows.

    They suffice for any climatology, so that the mean of the evaluated targets itself needs no second pass.

    Args:
        samples: number of maps.
        means: of predictions and targets, float64 (2, height, width, channels).
        m2: sums of squared deviations of predictions and of targets, and of the products of both, float64 (3, height,
            width, channels).
    """

    samples: int
    means: np.ndarray
    m2: np.ndarray

    @classmethod
    def of(cls, targets: np.ndarray, predicted: np.ndarray) -> "AnomalyCorrelation":
        """Those of one batch of maps (b, height, width, channels), at least one."""
        both = np.stack([predicted, targets]).astype(np.float64)
        first = both[:, 0].copy()
        both -= first[:, None]
        means = both.mean(1)
        both -= means[:, None]
        (p, t) = both
        return cls(len(targets), first + means, np.stack([(p * p).sum(0), (t * t).sum(0), (p * t).sum(0)]))

    def merge(self, other: "AnomalyCorrelation") -> "AnomalyCorrelation":
        """Those of both sets of maps."""
        samples = self.samples + other.samples
        step = other.means - self.means
        products = _products(step) * (self.samples * other.samples / samples)
        return AnomalyCorrelation(samples, self.means + step * (other.samples / samples), self.m2 + other.m2 + products)

    def of_channels(self, latitudes: np.ndarray, climatology: np.ndarray | None = None) -> np.ndarray:
        """The anomaly correlation coefficient of each channel over all maps and points, weighted by cos(latitude).

        It is sum(w p' t') / sqrt(sum(w p'^2) sum(w t'^2)), where p' and t' are the anomalies from the climatology;
        their mean is not removed.

        Args:
            latitudes: float64 (height,), degrees.
            climatology: what anomalies are counted from, broadcast to (height, width, channels); by default the mean
                of the targets at each point.

        Returns:
            float64 (channels,); NaN where the predicted or the true anomalies are all 0.
        """
        away = self.means - (self.means[1] if climatology is None else climatology)
        weights = np.cos(np.radians(latitudes)).clip(0)[:, None, None]
        p, t, both = (weights * (self.m2 + self.samples * _products(away))).sum((1, 2))
        return np.divide(both, np.sqrt(p * t), out=np.full(len(both), np.nan), where=(p > 0) & (t > 0))


def _products(both: np.ndarray) -> np.ndarray:
    p, t = both
    return np.stack([p * p, t * t, p * t])


def _moments(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sum of squared deviations of each row of (channels, n); exactly 0 for constant rows."""
    away = values - values[:, :1]
    mean = away.mean(1)
    away -= mean[:, None]
    return values[:, 0] + mean, np.einsum("ij,ij->i", away, away)
