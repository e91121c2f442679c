"""The samples of a run that predicts numbers: read with the options of the run, targets in real values."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.data.catalogue.layout import find_files
from hpc_train.data.catalogue.part import Part
from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.contents import dataset_at, text_attribute, texts_attribute
from hpc_train.predict.map_source import places
from hpc_train.predict.run_data import without_targets
from hpc_train.predict.samples import RunSamples


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
        inputs: what the files say of each input, as it is given to the network.
        channel_axis: of the first input.
        channels: "first" or "last" axis of a sample, as the options say.
        targets: what is known of each target; empty for data without targets.
        read: from sample numbers to what the network gets, and a list of targets (b, *shape) as real values.
        place: from a sample's number to its file and row.
        time: from a sample's number to its time, a `cftime.datetime`, or None.
        first: path of the first file.
        restore: from predictions (b, ...) and the name of their target to real values.
    """

    samples: int
    inputs: tuple[Part, ...]
    channel_axis: int | None
    channels: str
    targets: tuple[Target, ...]
    read: Callable[[np.ndarray], tuple[np.ndarray, list[np.ndarray]]]
    place: Callable[[int], tuple[str, int]]
    time: Callable[[int], object]
    first: str
    restore: Callable[[np.ndarray, str], np.ndarray] = lambda values, name: values


def open_source(options, record: dict, model=None) -> NumberSource:
    """Open the data of `command.Predict`, read with the options of the run, and scaled as in training.

    A run whose options name inputs and no targets reconstructs its inputs: these are then the targets.

    Args:
        options: `command.Predict`.
        record: the content of run.json.
        model: the network, whose input says how long padded sequences are.

    Raises:
        UserError: the data cannot be read.
    """
    if options.data.suffix == ".npy":
        return _open_npy(options.data)
    named = options.of_run(record.get("options", {}), options.data)
    kept = without_targets(named, find_files(options.data, options.split)[0]) if named.targets else named
    catalogue = kept.catalogue(options.split)
    catalogue.stored_only("`hpc-train predict` of numbers")
    samples = RunSamples(catalogue, record, model)
    # Without targets the inputs are the targets too, unless only these files have none.
    true = samples.catalogue.targets or (() if named.targets else samples.catalogue.inputs)
    targets = _targets(samples.catalogue, true)
    labels = {one.name: part.label for part, one in zip(true, targets, strict=True)}
    real = [(part.label, samples.real(part)) for part in true]

    def read(numbers):
        given, stored = samples.read(numbers)
        return given, [function(stored[label]) for label, function in real]

    place, time, _ = places(catalogue, options.data, options.split)
    return NumberSource(
        samples=catalogue.samples,
        inputs=samples.inputs,
        channel_axis=catalogue.channel_axis_of(catalogue.inputs[0]),
        channels=catalogue.channels,
        targets=targets,
        read=read,
        place=place,
        time=time,
        first=catalogue.files[0],
        restore=lambda values, name: samples.restore(labels.get(name, ""), values),
    )


def _open_npy(path: Path) -> NumberSource:
    from hpc_train.predict.classes import open_npy

    samples, shape, _, read = open_npy(path)
    return NumberSource(
        samples=samples,
        inputs=(Part("input", "", (), tuple(shape), read(np.arange(1))[0].dtype.newbyteorder("=")),),
        channel_axis=len(shape) - 1 if len(shape) > 1 else None,
        channels="last",
        targets=(),
        read=lambda numbers: (read(numbers)[0], []),
        place=lambda number: (str(path), number),
        time=lambda number: None,
        first=str(path),
    )


def _targets(catalogue, parts: tuple[Part, ...]) -> tuple[Target, ...]:
    """What the files say of the parts that the network predicts."""
    found = []
    with open_hdf5(catalogue.files[0]) as file:
        for part in parts:
            units = tuple(text_attribute(dataset_at(file, name)[0], "units") or "" for name in part.datasets)
            short = tuple(name.rsplit("/", 1)[-1] for name in part.datasets)
            several = len(short) > 1
            plain = "inputs" if part.role == "input" else "target"
            name = part.name or (plain if several else short[0])
            channels = tuple(catalogue.channel_names) if part is catalogue.inputs[0] else ()
            if part.role == "target" and len(parts) == 1:
                channels = texts_attribute(file, "target_names")
            found.append(Target(name, part.shape, short if several and not channels else (), units, channels))
    return tuple(found)
