"""The scores of a predicted quantity: errors of each channel and, for maps with latitudes, the anomaly correlation."""

import math
from pathlib import Path

import numpy as np

from hpc_train.metrics.regression import AnomalyCorrelation, RegressionScores
from hpc_train.predict.numbers.quantity import Quantity

# Most channels in the printed table; the JSON file has all.
_MOST_LINES = 24
_CLIMATOLOGY = "the mean of the evaluated targets at each point"


class Scores:
    """Sums the errors of a quantity, batch by batch."""

    def __init__(self, quantity: Quantity):
        self.quantity, self.samples = quantity, 0
        self._errors: RegressionScores | None = None
        self._maps: AnomalyCorrelation | None = None

    def add(self, targets: np.ndarray, predicted: np.ndarray) -> None:
        """Count a batch, (b, *shape) both."""
        targets, predicted = map(self.quantity.channels_last, (targets, predicted))
        channels = targets.shape[-1]
        errors = RegressionScores.of(targets.reshape(-1, channels), predicted.reshape(-1, channels))
        self._errors = self._errors.merge(errors) if self._errors else errors
        if self.quantity.is_map:
            maps = AnomalyCorrelation.of(targets, predicted)
            self._maps = self._maps.merge(maps) if self._maps else maps
        self.samples += len(targets)

    def as_dict(self) -> dict:
        """Channels, units, the scores of each channel and of all; None where a score is undefined."""
        columns, everything = self._columns()
        found = {name: [_known(value) for value in values] for name, values in columns.items()}
        about = {"channels": list(self.quantity.channel_names), "units": list(self.quantity.units)}
        climatology = {"climatology": _CLIMATOLOGY} if self._maps else {}
        return {**about, **found, "all": {name: _known(value) for name, value in everything.items()}, **climatology}

    def text(self, path: Path) -> str:
        """The scores as a table, with what they mean.

        Args:
            path: of the model.
        """
        columns, everything = self._columns()
        names = self.quantity.channel_names
        units = [f" ({unit})" if unit else "" for unit in self.quantity.units]
        rows = [(names[i] + units[i], [values[i] for values in columns.values()]) for i in range(len(names))]
        several = len(rows) > 1
        more = len(rows) - _MOST_LINES
        rows = rows[:_MOST_LINES] + ([("all", [everything[name] for name in columns])] if several else [])
        width = max(len("channel"), *(len(name) for name, _ in rows))
        lines = ["".join(["channel".ljust(width), *(_TITLES[name].rjust(13) for name in columns)])]
        lines += [name.ljust(width) + "".join(_figure(value).rjust(13) for value in values) for name, values in rows]
        lines += [f"and {more} more channels, in the JSON file"] if more > 0 else []
        lines += [f"{self.quantity.name}: bias is prediction - truth; {self.samples} samples, {path}"]
        lines += ["all: RMSE, MAE and bias of all values together, the mean of the channels' R2"] if several else []
        if np.isnan(columns["r2"]).any():
            lines += ["R2 is undefined (-) where the targets are constant"]
        if self._maps:
            lines += [f"ACC: anomaly correlation, weighted by the cosine of latitude, against {_CLIMATOLOGY}"]
        return "\n".join(lines)

    def _columns(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Scores by name: of each channel, and of all."""
        errors = self._errors
        columns = {"rmse": errors.rmse, "mae": errors.mae, "bias": errors.bias, "r2": errors.r2}
        everything = errors.all()
        if self._maps:
            columns["acc"] = self._maps.of_channels(self.quantity.grid.latitudes)
            everything["acc"] = float(columns["acc"].mean())
        return columns, everything


_TITLES = {"rmse": "RMSE", "mae": "MAE", "bias": "bias", "r2": "R2", "acc": "ACC"}


def _figure(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.6g}"


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
