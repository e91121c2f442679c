"""Where maps to predict come from: a data set as the run was told to read one, or a NumPy file."""

import csv
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from datetime import datetime
from pathlib import Path

import numpy as np

from hpc_train.data.fields.grid import Grid, global_grid, read_grid, read_time
from hpc_train.data.fields.options import FieldOptions
from hpc_train.errors import UserError


@dataclass(frozen=True, eq=False)
class MapSource:
    """Maps by their numbers.

    samples: how many; shape, dtype: of one as stored; channel_axis: 0, 2, or None for maps without channels; packing:
    (scale, offset) of all channels or of each; channel_names, class_names: may be empty; classes: their number, 0
    where it is not known; grid: of the maps; labelled: whether there are labels; read: from sample numbers to (inputs
    (b, *shape) as stored, class numbers (b, height, width) with -1 where they do not count, or None); place: from a
    sample's number to its (file, row); time: to its time, a `cftime.datetime`, or None; storms: to the names of storms
    that it shows, where the data tell any.
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
    labelled: bool
    read: Callable
    place: Callable[[int], tuple[str, int]]
    time: Callable[[int], object]
    storms: Callable[[int], list[str]]

    def channels_last(self, sample: np.ndarray) -> np.ndarray:
        """A sample as (height, width, channels)."""
        if self.channel_axis is None:
            return sample[..., np.newaxis]
        return np.moveaxis(sample, self.channel_axis, -1)


def open_data(data: Path, split: str, recorded: dict) -> MapSource:
    """The split of a data set, read as the run's recorded options say.

    recorded: the options in run.json; those of `FieldOptions` among them count: layout, class map, ignored label, ...
    Raises UserError for data that cannot be read as label maps.
    """
    from hpc_train.data.reading.encoded_reader import open_reader

    known = {field.name for field in dataclass_fields(FieldOptions)} & recorded.keys() - {"data", "statistics"}
    options = {name: tuple(value) if isinstance(value, list) else value for name, value in recorded.items()}
    chosen = FieldOptions(data=data, **{name: options[name] for name in known})
    catalogue = chosen.catalogue(split)
    class_map = chosen.classes_of(catalogue)
    reader = open_reader(catalogue, ignore=class_map.ignore)

    def read(numbers):
        inputs, labels = reader.read(numbers)
        return inputs, class_map.apply(labels)

    def place(number):
        (file,), (row,) = catalogue.locate([number])
        return catalogue.files[file], int(row)

    times, storms = _storms(data, split)

    def time(number):
        if number in times:
            return times[number]
        (file,), (row,) = catalogue.locate([number])
        return read_time(catalogue.files[file], int(row), int(catalogue.rows[file]))

    return MapSource(
        samples=catalogue.samples,
        shape=tuple(catalogue.input_shape),
        dtype=catalogue.input_dtype.newbyteorder("="),
        channel_axis=catalogue.channel_axis,
        packing=catalogue.packing,
        channel_names=tuple(catalogue.channel_names),
        classes=class_map.classes,
        class_names=class_map.names(catalogue.class_names),
        grid=read_grid(catalogue.files[0], *catalogue.target_shape),
        labelled=True,
        read=read,
        place=place,
        time=time,
        storms=lambda number: storms.get(number, []),
    )


def open_npy(path: Path) -> MapSource:
    """Maps (n, height, width, channels) in a NumPy file, without labels, on a global grid.

    Raises UserError when it cannot be read or holds no maps.
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
        grid=global_grid(*shape[:2]),
        labelled=False,
        read=read,
        place=lambda number: (str(path), number),
        time=lambda number: None,
        storms=lambda number: [],
    )


def _storms(data: Path, split: str) -> tuple[dict, dict[int, list[str]]]:
    """Time and storms of each sample, as `hpc-train prepare storm-tracks` lists them beside its shards; else empty."""
    path = data / f"storms-{split}.csv"
    times, storms = {}, {}
    if path.is_file():
        import cftime

        try:
            with open(path, newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    number, time = int(row["sample"]), datetime.fromisoformat(row["time"])
                    times[number] = cftime.datetime(*time.timetuple()[:6], calendar="standard")
                    # Where the tracks name no storms, their numbers stand in.
                    if row["name"] not in ("", row["track"]):
                        storms.setdefault(number, []).append(row["name"])
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: is not as `hpc-train prepare storm-tracks` wrote it ({error}); take it away, or prepare the "
                "data again"
            ) from error
    return times, storms
