"""The samples of a run that predicts numbers: read with the options of the run, targets in real values."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.errors import UserError
from hpc_train.predict.map_source import places
from hpc_train.predict.run_data import without_targets


@dataclass(frozen=True, eq=False)
class Target:
    """What the files say of one target.

    Args:
        name: of the data set; "target" for several that are stacked.
        shape: of one sample.
        stacked: names of the data sets that are stacked on the first axis; empty for one data set.
        units: of each data set, "" where they are not given.
        channel_names: of the target's channels, where they are known.
    """

    name: str
    shape: tuple[int, ...]
    stacked: tuple[str, ...] = ()
    units: tuple[str, ...] = ("",)
    channel_names: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class NumberSource:
    """Samples by their numbers.

    Args:
        samples: number of samples.
        shape, dtype: of one sample's inputs as stored.
        packing: (scale, offset) of the inputs.
        channel_axis: of the inputs.
        channels: "first" or "last" axis of a sample, as the options say.
        targets: what is known of each target; empty for data without targets.
        read: from sample numbers to inputs (b, *shape) as stored, and a list of targets (b, *shape) as real values.
        place: from a sample's number to its file and row.
        time: from a sample's number to its time, a `cftime.datetime`, or None.
        first: path of the first file.
        restore: from predictions (b, ...) and the name of their target to real values.
    """

    samples: int
    shape: tuple[int, ...]
    dtype: np.dtype
    packing: tuple[tuple[float, float], ...]
    channel_axis: int | None
    channels: str
    targets: tuple[Target, ...]
    read: Callable[[np.ndarray], tuple[np.ndarray, list[np.ndarray]]]
    place: Callable[[int], tuple[str, int]]
    time: Callable[[int], object]
    first: str
    restore: Callable[[np.ndarray, str], np.ndarray] = lambda values, name: values


def open_source(options, recorded: dict) -> NumberSource:
    """Open the data of `command.Predict`, read with the recorded options of the run.

    A run whose options name inputs and no targets reconstructs its inputs: these are then the targets.

    Raises:
        UserError: the data cannot be read.
    """
    from hpc_train.data.catalogue.layout import find_files
    from hpc_train.data.reading.encoded_reader import open_reader

    if options.data.suffix == ".npy":
        return _open_npy(options.data)
    named = options.of_run(recorded, options.data)
    kept = without_targets(named, find_files(options.data, options.split)[0]) if named.targets else named
    catalogue = kept.catalogue(options.split)
    catalogue.stored_only("`hpc-train predict` of numbers")
    reader = open_reader(catalogue)
    reconstructs = not (catalogue.layout.targets or named.targets)
    targets, real = _reconstructed(catalogue) if reconstructs else _stored(catalogue)

    def read(numbers):
        inputs, stored = reader.read(numbers)
        values = [real(inputs if reconstructs else stored)] if targets else []
        _check_finite(values, numbers, catalogue)
        return inputs, values

    place, time, _ = places(catalogue, options.data, options.split)
    return NumberSource(
        samples=catalogue.samples,
        shape=tuple(catalogue.input_shape),
        dtype=catalogue.input_dtype.newbyteorder("="),
        packing=catalogue.packing,
        channel_axis=catalogue.channel_axis,
        channels=catalogue.channels,
        targets=targets,
        read=read,
        place=place,
        time=time,
        first=catalogue.files[0],
    )


def _open_npy(path: Path) -> NumberSource:
    from hpc_train.predict.classes import open_npy

    samples, shape, _, read = open_npy(path)
    return NumberSource(
        samples=samples,
        shape=tuple(shape),
        dtype=read(np.arange(1))[0].dtype.newbyteorder("="),
        packing=((1.0, 0.0),),
        channel_axis=len(shape) - 1 if len(shape) > 1 else None,
        channels="last",
        targets=(),
        read=lambda numbers: (read(numbers)[0], []),
        place=lambda number: (str(path), number),
        time=lambda number: None,
        first=str(path),
    )


def _stored(catalogue) -> tuple[tuple[Target, ...], Callable]:
    """The targets in the files, and the function that makes real values of stored ones."""
    from hpc_train.data.catalogue.layout import split_name
    from hpc_train.data.hdf5.access import open_hdf5, packing

    names = catalogue.layout.targets
    if not names:
        return (), lambda values: values
    with open_hdf5(catalogue.files[0]) as file:
        datasets = [file[split_name(name)[0]] for name in names]
        units = tuple(_text(dataset.attrs.get("units", "")) for dataset in datasets)
        pairs = tuple(map(packing, datasets))
    short = tuple(name.rsplit("/", 1)[-1] for name in names)
    several = len(names) > 1
    target = Target("target" if several else short[0], catalogue.target_shape, short if several else (), units)
    return (target,), _unpack(pairs, 0 if several else None)


def _reconstructed(catalogue) -> tuple[tuple[Target, ...], Callable]:
    """The inputs as targets."""
    name = catalogue.layout.inputs[0].rsplit("/", 1)[-1] if len(catalogue.layout.inputs) == 1 else "inputs"
    target = Target(name, tuple(catalogue.input_shape), channel_names=tuple(catalogue.channel_names))
    return (target,), _unpack(catalogue.packing, 0 if len(catalogue.layout.inputs) > 1 else None)


def _unpack(pairs: tuple[tuple[float, float], ...], axis: int | None) -> Callable[[np.ndarray], np.ndarray]:
    """value * scale + offset of stored values (b, ...), float64; `axis` of a sample counts the pairs."""
    if set(pairs) == {(1.0, 0.0)}:
        return lambda values: values

    def real(values):
        scale, offset = np.array(pairs).T
        shape = (len(pairs), *[1] * (values.ndim - 2)) if axis == 0 else ()
        return values * scale.reshape(shape) + offset.reshape(shape)

    return real


def _check_finite(values: list[np.ndarray], numbers: np.ndarray, catalogue) -> None:
    from hpc_train.data.sample_checks import first_not_finite

    for array in values:
        row = first_not_finite(array)
        if row is not None:
            (file,), (place,) = catalogue.locate([numbers[row]])
            raise UserError(
                f"{catalogue.files[file]}: row {place} (sample {numbers[row]}) holds NaN or infinity in its targets, "
                "so it cannot be scored; fix it or leave it out"
            )


def _text(value) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
