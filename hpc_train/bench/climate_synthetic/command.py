"""How near is the synthetic climate to the real data, and how far do rules get? hpc-train bench climate-synthetic"""

import io
import zipfile
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from hpc_train.console import say
from hpc_train.data.catalogue.layout import CAM5_CHANNELS
from hpc_train.data.options import DataOptions
from hpc_train.errors import UserError

_NAMES = ("background", "cyclone", "river")
# By the real heights of the lowest level: above this, the points are over land.
_SEA_LEVEL = 400.0


@dataclass(frozen=True)
class ClimateComparison(DataOptions):
    """Compare a synthetic climate with real data, and show what thresholds and a constant prediction reach on it."""

    split: str = "train"
    """Split to compare with the real data, and on which the thresholds are chosen."""
    held_out: str = "test"
    """Split on which the thresholds are evaluated."""
    most: int = 100
    """Largest number of samples to use of a split."""
    deepcam_stats: Path | None = None
    """The stats.h5 of DeepCAM. It adds mean, standard deviation and range of every real channel."""
    points: Path | None = None
    """Points of ClimateNet with experts' labels: a csv file, or a zip of one, with columns named like the channels, lat
    and Label. It adds means and standard deviations by class at the latitudes of these points."""


def run(options: ClimateComparison) -> None:
    """Print the tables.

    Raises:
        UserError: options or data that cannot be used.
    """
    if options.most < 1:
        raise UserError(f"--most is {options.most}; it must be at least 1")
    catalogue, held_out = (_labelled(options.catalogue(split)) for split in (options.split, options.held_out))
    if catalogue.channel_axis != 2 or not catalogue.channel_names:
        raise UserError(
            f"{options.data}: not maps of CAM5's 16 channels; make them with `hpc-train prepare climate-synthetic`"
        )
    real = _load_real(options, catalogue.channel_names)
    points = read_points(options.points, catalogue.channel_names) if options.points else None
    read = _batches(catalogue, options.most)
    say(f"{options.data}, {options.split}: {min(options.most, catalogue.samples)} of {catalogue.samples} samples\n")
    say(channel_table(catalogue, options.most, real) + "\n")
    if points:
        say(point_table(*points, read, catalogue.channel_names) + "\n")
    say(rule_table(read, _batches(held_out, options.most), catalogue.channel_names))


def channel_table(catalogue, most: int, real=None) -> str:
    """Markdown: mean, standard deviation, minimum and maximum of each channel, beside those of `real` statistics."""
    from hpc_train.data.statistics.command import count

    made = count(catalogue, 0, min(most, catalogue.samples))
    sources = [("synthetic", made)] + ([("real", real)] if real else [])
    columns = ("mean", "std", "min", "max")
    head = [f"{column} {source}" for column in columns for source, _ in sources]
    lines = _head(["channel", *head])
    for place, name in enumerate(catalogue.channel_names):
        values = [getattr(statistics, column)[place] for column in columns for _, statistics in sources]
        lines.append(f"| {name} | " + " | ".join("unknown" if np.isnan(value) else f"{value:.4g}" for value in values))
        lines[-1] += " |"
    shares = made.class_counts / made.class_counts.sum()
    text = ", ".join(f"{name} {100 * share:.3g} %" for name, share in zip(_NAMES, shares, strict=False))
    return "\n".join(lines) + f"\n\npixels: {text}"


def read_points(path: Path, names) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read ClimateNet's points.

    Args:
        path: a csv file, or a zip of one.
        names: of the channels.

    Returns:
        Values (points, channels), latitudes (points,) and labels (points,) int64.

    Raises:
        UserError: not such a file.
    """
    try:
        if path.suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                text = archive.read(next(name for name in archive.namelist() if name.endswith(".csv"))).decode()
        else:
            text = path.read_text()
        if len(text.splitlines()) < 2:
            raise ValueError("there are no rows")
        table = np.atleast_1d(np.genfromtxt(io.StringIO(text), delimiter=",", names=True))
        values = np.stack([table[name] for name in (*names, "lat", "Label")], axis=1)
        if not np.isfinite(values).all():
            raise ValueError("a value is missing or is not a number")
        return values[:, :-2], values[:, -2], values[:, -1].astype(np.int64)
    except (OSError, zipfile.BadZipFile, StopIteration, ValueError) as error:
        raise UserError(f"{path}: not a csv file with columns {' '.join(names)} lat Label ({error})") from error


def point_table(values, latitudes, labels, read: Callable[[], Iterable], names) -> str:
    """Markdown: mean and standard deviation of each channel by class, synthetic and real.

    The synthetic pixels are those over sea in the rows of the points. Each row is weighted by its number of points.
    """
    z1000 = list(names).index("Z1000")
    total = np.zeros((3, 3, len(names)))
    for inputs, classes in read():
        height = inputs.shape[1]
        rows = np.round((latitudes + 90) / 180 * (height - 1)).astype(int)
        weights = np.bincount(rows, minlength=height) / len(rows)
        for row in np.flatnonzero(weights):
            sea = inputs[:, row, :, z1000] < _SEA_LEVEL
            for number in range(3):
                chosen = inputs[:, row][sea & (classes[:, row] == number)].astype(np.float64)
                moments = np.stack([np.ones_like(chosen).sum(0), chosen.sum(0), (chosen**2).sum(0)])
                total[number] += weights[row] * moments
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = total[:, 1] / total[:, 0]
        std = np.sqrt((total[:, 2] / total[:, 0] - mean**2).clip(0))
    lines = _head(["channel", *(f"{name} {source}" for name in _NAMES for source in ("synthetic", "real"))])
    for place, name in enumerate(names):
        cells = []
        for number in range(3):
            real = values[labels == number, place]
            cells += [f"{mean[number, place]:.4g} ± {std[number, place]:.2g}", f"{real.mean():.4g} ± {real.std():.2g}"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rule_table(train: Callable[[], Iterable], test: Callable[[], Iterable], names) -> str:
    """Markdown: IoU on `test` of always background, and of each class's best threshold, chosen on `train`."""
    from hpc_train.bench.climate_synthetic.rules import best_rules, confusion
    from hpc_train.metrics.confusion import iou

    rules = best_rules(train, len(_NAMES))
    lines = _head(["rule", *(f"IoU {name}" for name in _NAMES), "mean IoU"])
    described = [
        f"{_NAMES[number]}: {names[rule.channel]} {'≥' if rule.above else '≤'} {rule.threshold:.4g}"
        for number, rule in enumerate(rules)
        if rule
    ]
    for title, chosen in (("always background", [None] * len(_NAMES)), ("; ".join(described), rules)):
        scores = iou(confusion(test, chosen))
        lines.append(f"| {title} | " + " | ".join(f"{score:.3f}" for score in (*scores, np.nanmean(scores))) + " |")
    return "\n".join(lines)


def _load_real(options: ClimateComparison, names: tuple[str, ...]):
    from hpc_train.data.statistics import load_statistics

    real = load_statistics(options.deepcam_stats) if options.deepcam_stats else None
    # DeepCAM's file has CAM5's channels, without their names.
    if real and (real.channel_names or CAM5_CHANNELS) != names:
        raise UserError(
            f"{options.deepcam_stats}: other channels than in {options.data}, which has {', '.join(names)}; leave "
            "--deepcam-stats out"
        )
    return real


def _labelled(catalogue):
    """The catalogue, with the classes of the tables."""
    return replace(catalogue, classes=len(_NAMES))


def _batches(catalogue, most: int) -> Callable[[], Iterable]:
    """A function that yields the samples: inputs (1, height, width, channels), labels (1, height, width)."""
    from hpc_train.data.reading.encoded_reader import open_reader

    def read():
        with closing(open_reader(catalogue)) as reader:
            for number in range(min(most, catalogue.samples)):
                yield reader.read(np.array([number]))

    return read


def _head(titles: list[str]) -> list[str]:
    return ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
