"""Statistics in files: the suite's statistics.h5, and the two kinds of stats.h5 that the climate codes read.

statistics.h5, version 1:

    /           attributes: format "hpc-train statistics", version 1, split, fingerprint (of the data), samples
    /channels   each (channels,): count int64; mean, std, min, max float64, NaN where no value was finite;
                not_finite int64, values left out; names, where known. std is divided by count, not count - 1.
    /classes    only with labels. Each (classes,): count int64, pixels; names, where known.
                powers float64 (4,) and weights float64 (4, classes): (count / all pixels) ** power, and 1 for a class
                that never occurs.
    /others/L   of other inputs, and of targets that are no labels: as /channels; L is "target", "input NAME" or
                "target NAME".

stats.h5, as published with CAM5 and MLPerf HPC's DeepCAM: climate/count int64, the number of samples; climate/mean,
sqmean (of the squares), minval, maxval float32 (channels,).

stats_paper.h5, as in Kurth et al. (2018): climate/stats float32 (channels, 4), columns mean, max, min, std.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from hpc_train.data.catalogue.layout import STATISTICS_FILES
from hpc_train.data.hdf5.access import fixed_length, open_hdf5, reason
from hpc_train.data.hdf5.contents import text_attribute
from hpc_train.data.statistics.moments import WEIGHT_POWERS, Statistics, class_weights
from hpc_train.errors import UserError
from hpc_train.files.seal import Damaged, check_seal, seal
from hpc_train.files.whole import atomic_path

FORMAT = "hpc-train statistics"
# From version 2 on it is sealed.
UNSEALED, VERSION = 1, 2
_MOMENTS = ("mean", "std", "min", "max")
_DEEPCAM = ("mean", "sqmean", "minval", "maxval")
# Below this share of sqmean, the rounding of sqmean and mean to float32 is a tenth of the variance or more.
_LEAST_VARIANCE = 2e-6


def write_all(folder: Path, statistics: Statistics) -> list[Path]:
    """Write the three files into `folder`, each complete or not at all, and return their paths.

    Raises:
        UserError: as `check_replaceable` does; or a file cannot be written.
    """
    paths = check_replaceable(folder, statistics.split)
    for path, write in zip(paths, _WRITERS, strict=True):
        with atomic_path(path, "give another folder with --output") as temporary:
            with open_hdf5(temporary, "w") as file:
                # This tells the next run that the file did not come with the data.
                file.attrs.update(format=FORMAT, version=VERSION, split=statistics.split)
                write(file, statistics)
            seal(temporary)
    return paths


def check_replaceable(folder: Path, split: str) -> list[Path]:
    """The paths that `write_all` writes; UserError when a file exists that this suite did not write for this split."""
    paths = [Path(folder, name) for name in STATISTICS_FILES]
    for path in filter(Path.exists, paths):
        try:
            with open_hdf5(path) as file:
                ours, theirs = text_attribute(file, "format") == FORMAT, text_attribute(file, "split")
        except (OSError, RuntimeError):
            ours, theirs = False, None
        if not ours:
            raise UserError(f"{path} was not written by hpc-train, so it is kept; give another folder with --output")
        if theirs != split:
            raise UserError(f"{path} holds the statistics of split {theirs!r}; give another folder with --output")
    return paths


def load_statistics(path: str | Path) -> Statistics:
    """Read any of the three kinds of file; `flavour` of the result names the kind.

    Where a stats.h5 of DeepCAM's kind gives no standard deviation (sqmean - mean² is negative or lost in float32's
    rounding), it is NaN and a note names the channel; its min and max can still be used.

    Raises:
        UserError: the file cannot be read, is of none of the kinds, or is not consistent.
    """
    try:
        sealed = check_seal(Path(path))
        with open_hdf5(path) as file:
            if not sealed and text_attribute(file, "format") == FORMAT and file.attrs["version"] == VERSION:
                raise ValueError("it was cut or changed; if that is meant, set its attribute version to 1")
            return _checked(path, _read(file, path))
    # h5py raises many kinds of errors for damaged files and missing parts.
    except (OSError, Damaged, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        remedy = "give a statistics.h5 or stats.h5, or make one with `hpc-train stats`"
        raise UserError(f"{path}: statistics cannot be read ({reason(error)}); {remedy}") from error


def _read(file, path) -> Statistics:
    if "channels" in file and text_attribute(file, "format") == FORMAT:
        version = file.attrs["version"]
        if version not in (UNSEALED, VERSION):
            raise UserError(
                f"{path}: version {version}, but this hpc-train reads up to version {VERSION}; use a newer hpc-train"
            )
        return _read_own(file)
    if all(f"climate/{name}" in file for name in ("count", *_DEEPCAM)):
        return _read_deepcam(file["climate"], path)
    if "climate/stats" in file:
        return _read_paper(file["climate/stats"][()])
    raise ValueError("there is no /channels, climate/mean or climate/stats")


def _checked(path, statistics: Statistics) -> Statistics:
    arrays = (statistics.count, statistics.mean, statistics.std, statistics.min, statistics.max)
    if statistics.mean.ndim != 1 or {array.shape for array in arrays} != {statistics.mean.shape}:
        raise ValueError(f"the shapes {[array.shape for array in arrays]} are not all (channels,)")
    # Both are NaN where a channel has no finite value.
    wrong = np.flatnonzero(statistics.min > statistics.max)
    if len(wrong):
        raise ValueError(f"channel {wrong[0]}: min {statistics.min[wrong[0]]} exceeds max {statistics.max[wrong[0]]}")
    return statistics


def _read_own(file) -> Statistics:
    samples, classes, others = int(file.attrs["samples"]), file.get("classes", {}), file.get("others", {})
    return replace(
        _read_channels(file["channels"], samples),
        class_counts=classes["count"][()] if classes else np.zeros(0, np.int64),
        class_names=_names(classes),
        split=file.attrs["split"],
        fingerprint=file.attrs["fingerprint"],
        others={name: _read_channels(group, samples) for name, group in others.items()},
    )


def _read_channels(group, samples: int) -> Statistics:
    count, mean, std, low, high = (group[name][()] for name in ("count", *_MOMENTS))
    return Statistics(
        samples=samples,
        count=count,
        mean=mean,
        m2=np.where(count > 0, std * std * count, 0.0),
        min=low,
        max=high,
        not_finite=group["not_finite"][()],
        class_counts=np.zeros(0, np.int64),
        channel_names=_names(group),
    )


def _read_deepcam(group, path) -> Statistics:
    mean, square, low, high = (group[name][()].astype(np.float64) for name in _DEEPCAM)
    samples = int(group["count"][()])
    variance = np.where(low == high, 0.0, square - mean**2)
    lost = (low != high) & ~(variance > _LEAST_VARIANCE * square) & ~np.isnan(mean)
    notes = tuple(
        f"{path}: channel {channel} has no standard deviation: sqmean - mean² is {variance[channel]:.4g} in float32; "
        "normalise it by min and max"
        for channel in np.flatnonzero(lost)
    )
    variance[lost] = np.nan
    return _foreign(samples, max(samples, 1), mean, variance, low, high, "deepcam", notes)


def _read_paper(table) -> Statistics:
    if table.ndim != 2 or table.shape[1] != 4:
        raise ValueError(f"climate/stats is {table.shape}, not (channels, 4)")
    mean, high, low, std = table.T.astype(np.float64)
    return _foreign(0, 1, mean, std**2, low, high, "paper", ())


def _foreign(samples, count, mean, variance, low, high, flavour, notes) -> Statistics:
    counts, none = np.full(mean.shape, count, np.int64), np.zeros(mean.shape, np.int64)
    no_classes = np.zeros(0, np.int64)
    return Statistics(
        samples, counts, mean, variance * count, low, high, none, no_classes, flavour=flavour, notes=notes
    )


def _write_own(file, statistics: Statistics) -> None:
    file.attrs.update(samples=statistics.samples, fingerprint=statistics.fingerprint)
    _write_channels(file.create_group("channels"), statistics)
    for name, part in statistics.others.items():
        _write_channels(file.create_group(f"others/{name}"), part)
    if len(statistics.class_counts):
        classes = file.create_group("classes")
        classes["count"] = statistics.class_counts
        classes["powers"] = np.array(WEIGHT_POWERS)
        classes["weights"] = np.stack([class_weights(statistics.class_counts, power) for power in WEIGHT_POWERS])
        _write_names(classes, statistics.class_names)


def _write_channels(group, statistics: Statistics) -> None:
    for name in ("count", *_MOMENTS, "not_finite"):
        group[name] = getattr(statistics, name)
    _write_names(group, statistics.channel_names)


def _write_deepcam(file, statistics: Statistics) -> None:
    group = file.create_group("climate")
    group["count"] = np.int64(statistics.samples)
    squares = statistics.mean**2 + statistics.std**2
    for name, values in zip(_DEEPCAM, (statistics.mean, squares, statistics.min, statistics.max), strict=True):
        group[name] = values.astype(np.float32)


def _write_paper(file, statistics: Statistics) -> None:
    columns = (statistics.mean, statistics.max, statistics.min, statistics.std)
    file["climate/stats"] = np.stack(columns, axis=1).astype(np.float32)


def _write_names(group, names) -> None:
    if names:
        group["names"] = fixed_length(names)


def _names(group) -> tuple[str, ...]:
    return tuple(group["names"].asstr()[()]) if "names" in group else ()


# In the order of STATISTICS_FILES.
_WRITERS = (_write_own, _write_deepcam, _write_paper)
