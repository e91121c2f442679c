"""The sources of maps to predict: a data set, read with the options of the run, or a NumPy file."""

import csv
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from hpc_train.data.catalogue.layout import CAM5_CHANNELS, datasets_of, find_files, find_splits
from hpc_train.data.catalogue.part import Part
from hpc_train.data.fields.geometry import grid_of, grid_of_record, is_climate
from hpc_train.data.fields.grid import Grid, global_grid, read_time
from hpc_train.data.fields.options import FieldOptions
from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.encoded_reader import open_reader
from hpc_train.errors import UserError
from hpc_train.predict.run_data import RunDataOptions, without_targets


@dataclass(frozen=True, eq=False)
class MapSource:
    """Maps by their numbers.

    Args:
        samples: number of maps.
        shape, dtype: of one as stored.
        channel_axis: 0, 2, or None for maps without channels.
        packing: (scale, offset) of all channels or of each.
        channel_names: may be empty.
        classes: number of classes, 0 if it is not known.
        class_names: may be empty.
        grid: of the maps.
        climate: whether these are the published climate data, whose classes are known.
        labelled: whether there are labels.
        read: from sample numbers to inputs (b, *shape) as stored, and class numbers (b, height, width) with -1 for
            pixels that do not count; None without labels.
        place: from a sample's number to its file and row.
        time: from a sample's number to its time, a `cftime.datetime`, or None.
        storms: from a sample's number to the names of its storms, as far as the data have them.
    """

    samples: int
    shape: tuple[int, ...]
    dtype: np.dtype
    channel_axis: int | None
    packing: tuple[tuple[float, float], ...]
    channel_names: tuple[str, ...]
    classes: int
    class_names: tuple[str, ...]
    grid: Grid
    climate: bool
    labelled: bool
    read: Callable
    place: Callable[[int], tuple[str, int]]
    time: Callable[[int], object]
    storms: Callable[[int], list[str]]

    @property
    def inputs(self) -> tuple[Part, ...]:
        """The one input of a sample."""
        return (Part("input", "", (), self.shape, self.dtype, self.packing),)

    def channels_last(self, sample: np.ndarray) -> np.ndarray:
        """A sample as (height, width, channels)."""
        if self.channel_axis is None:
            return sample[..., np.newaxis]
        return np.moveaxis(sample, self.channel_axis, -1)


def open_data(
    data: Path, split: str, recorded: dict, given: RunDataOptions | None = None, facts: dict | None = None
) -> MapSource:
    """Open a split of a data set, read with the recorded options of a run.

    Args:
        data: folder or file of the data set.
        split: its name.
        recorded: the options in run.json; only those of `FieldOptions` are used, such as layout and class map.
        given: what the command line says in their place; by default nothing.
        facts: what run.json says of the maps of training, for files that do not say where theirs lie.

    Raises:
        UserError: the data cannot be read as label maps.
    """
    facts = facts or {}
    options = (given or RunDataOptions()).of_run(recorded, data, FieldOptions)
    if options.inputs and not (options.classes or options.class_map or options.class_names):
        # Named data sets do not say it themselves.
        options = replace(options, classes=facts.get("classes"))
    if (bare := _unlabelled(options, split)) is not None:
        return _open_unlabelled(bare, options, split, facts)
    catalogue = options.catalogue(split)
    class_map = options.classes_of(catalogue)
    reader = open_reader(catalogue, ignore=options.ignored_label(catalogue))

    def read(numbers):
        inputs, labels = reader.read(numbers)
        return inputs, class_map.apply(labels)

    place, time, storms = places(catalogue, data, split)
    return MapSource(
        samples=catalogue.samples,
        shape=tuple(catalogue.input_shape),
        dtype=catalogue.input_dtype.newbyteorder("="),
        channel_axis=catalogue.channel_axis,
        packing=catalogue.packing,
        channel_names=tuple(catalogue.channel_names),
        classes=class_map.classes,
        class_names=class_map.names(catalogue.class_names),
        grid=_grid(catalogue, options.geometry, facts),
        climate=is_climate(catalogue),
        labelled=True,
        read=read,
        place=place,
        time=time,
        storms=storms,
    )


def _grid(catalogue, asked, facts: dict, size: tuple[int, int] | None = None) -> Grid:
    """The grid that the files say, else that of training."""
    found = grid_of(catalogue, asked, size)
    if found.geometry:
        return found
    return grid_of_record(facts, *(size or catalogue.target_shape), asked) or found


def _unlabelled(options: FieldOptions, split: str) -> DataOptions | None:
    """The options that read files without labels; None where they have them, or are shards, which always do."""
    if not options.inputs and find_splits(options.data) and not options.data.is_file():
        folder = options.data / split
        if not folder.is_dir():
            return None
    first = find_files(options.data, split)[0]
    names = {name: getattr(options, name) for name in ("data", "samples", "channels", "classes", "class_names")}
    if options.inputs:
        kept = without_targets(options, first) if options.targets else options
        return None if kept.targets else DataOptions(**names, inputs=options.inputs)
    with suppress(OSError, RuntimeError), open_hdf5(first) as file:
        held = datasets_of(file)
        if "climate/data" in held and not any(name.startswith("climate/labels") for name in held):
            return DataOptions(**names | {"samples": "files", "channels": "last"}, inputs=("climate/data",))
    return None


def _open_unlabelled(bare: DataOptions, options: FieldOptions, split: str, facts: dict) -> MapSource:
    # Names of classes are those of labels, which are not here.
    catalogue = replace(bare, class_names=(), classes=None).catalogue(split)
    catalogue.one_pair("`hpc-train predict` of label maps")
    if len(catalogue.input_shape) == 2:
        catalogue = replace(catalogue, parts=(catalogue.inputs[0].with_channel(),))
    axis, shape = catalogue.channel_axis, catalogue.input_shape
    if len(shape) != 3:
        raise UserError(f"{catalogue.files[0]}: a sample has inputs {shape}; give maps (height, width, channels)")
    climate = bare.inputs == ("climate/data",) and shape[axis] == len(CAM5_CHANNELS)
    catalogue = replace(catalogue, channel_names=CAM5_CHANNELS) if climate else catalogue
    reader = open_reader(catalogue)
    place, time, storms = places(catalogue, bare.data, split)
    return MapSource(
        samples=catalogue.samples,
        shape=tuple(shape),
        dtype=catalogue.input_dtype.newbyteorder("="),
        channel_axis=axis,
        packing=catalogue.packing,
        channel_names=tuple(catalogue.channel_names),
        classes=0,
        class_names=tuple(options.class_names),
        grid=_grid(catalogue, options.geometry, facts, shape[1:] if axis == 0 else shape[:2]),
        climate=is_climate(catalogue),
        labelled=False,
        read=lambda numbers: (reader.read(numbers)[0], None),
        place=place,
        time=time,
        storms=storms,
    )


def places(catalogue, data: Path, split: str) -> tuple[Callable, Callable, Callable]:
    """The functions `MapSource.place`, `time` and `storms` of a catalogue."""
    times, storms = _storms(data, split)

    def place(number):
        (file,), (row,) = catalogue.locate([number])
        return catalogue.files[file], int(row)

    def time(number):
        if number in times:
            return times[number]
        (file,), (row,) = catalogue.locate([number])
        return read_time(catalogue.files[file], int(row), int(catalogue.rows[file]))

    return place, time, lambda number: storms.get(number, [])


def open_npy(path: Path, facts: dict | None = None, asked=None) -> MapSource:
    """Open a NumPy file of maps (n, height, width, channels), without labels.

    Args:
        path: of the file.
        facts: what run.json says of the maps of training; without it, they are taken for global maps from the south.
        asked: the option --geometry.

    Raises:
        UserError: it cannot be read or holds no maps.
    """
    from hpc_train.predict.classes import open_npy

    samples, shape, _, read = open_npy(path)
    dtype = read(np.arange(1))[0].dtype
    if len(shape) != 3:
        raise UserError(f"--data {path} has samples of shape {shape}; give maps (height, width, channels)")
    return MapSource(
        samples=samples,
        shape=shape,
        dtype=dtype.newbyteorder("="),
        channel_axis=2,
        packing=((1.0, 0.0),),
        channel_names=(),
        classes=0,
        class_names=(),
        grid=grid_of_record(facts or {}, *shape[:2], asked) or global_grid(*shape[:2]),
        climate="class_names" not in (facts or {}),
        labelled=False,
        read=read,
        place=lambda number: (str(path), number),
        time=lambda number: None,
        storms=lambda number: [],
    )


def _storms(data: Path, split: str) -> tuple[dict, dict[int, list[str]]]:
    """Times and storms of the samples, from the list that `hpc-train prepare storm-tracks` writes beside its shards."""
    path = data / f"storms-{split}.csv"
    times, storms = {}, {}
    if path.is_file():
        import cftime

        try:
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    number, time = int(row["sample"]), datetime.fromisoformat(row["time"])
                    times[number] = cftime.datetime(*time.timetuple()[:6], calendar="standard")
                    # Tracks without names have their numbers as names.
                    if row["name"] not in ("", row["track"]):
                        storms.setdefault(number, []).append(row["name"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: is not as `hpc-train prepare storm-tracks` writes it ({error}); remove it, or prepare the "
                "data again"
            ) from error
    return times, storms
