"""Writes maps as NetCDF-4 by the CF conventions 1.8, sample by sample: of classes, or of numbers."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hpc_train.data.fields.grid import Grid
from hpc_train.errors import UserError
from hpc_train.predict.writing import one_line, written

_UNKNOWN = np.int8(-1)


@contextmanager
def mask_file(
    path: Path,
    grid: Grid,
    class_names: Sequence[str],
    labelled: bool,
    probabilities: bool,
    calendar: str | None,
    attributes: dict[str, str],
) -> Iterator["MaskFile"]:
    """A `MaskFile` at `path`, which appears there when the context ends without an error.

    Args:
        path: of the file.
        grid: of the maps.
        class_names: of all classes.
        labelled, probabilities: whether `MaskFile.add` gets true classes and probabilities.
        calendar: of the times, or None.
        attributes: global ones: title, source, history, ...

    Raises:
        UserError: netCDF4 is not installed, or the file cannot be written.
    """
    with _dataset(path, attributes) as file:
        yield MaskFile(path, file, grid, class_names, labelled, probabilities, calendar)


@contextmanager
def field_file(
    path: Path,
    grid: Grid,
    fields: Sequence[tuple[str, str]],
    labelled: bool,
    calendar: str | None,
    attributes: dict[str, str],
) -> Iterator["FieldFile"]:
    """A `FieldFile` at `path`, which appears there when the context ends without an error.

    Args:
        path: of the file.
        grid: of the maps.
        fields: name and units ("" if they are not known) of each.
        labelled: whether `FieldFile.add` gets true fields.
        calendar: of the times, or None.
        attributes: global ones: title, source, history, ...

    Raises:
        UserError: netCDF4 is not installed, or the file cannot be written.
    """
    with _dataset(path, attributes) as file:
        yield FieldFile(path, file, grid, fields, labelled, calendar)


def _dataset(path: Path, attributes: dict[str, str]):
    """A new `netCDF4.Dataset`, which appears at `path` when the context ends without an error."""
    try:
        import netCDF4
    except ImportError as error:
        raise UserError(f"writing NetCDF needs netCDF4 ({error}); install it: pip install netCDF4") from error

    def make(temporary):
        file = netCDF4.Dataset(temporary, "w")
        file.setncatts({"Conventions": "CF-1.8", **attributes})
        return file

    return written(path, make)


class _MapFile:
    """The axes of maps, and for each sample its file and row, and its time if it is known."""

    def __init__(self, path: Path, file, grid: Grid, calendar: str | None):
        self._path, self._file, self._samples, self._calendar = path, file, 0, calendar
        self._axes = ("y", "x") if grid.numbered else ("lat", "lon")
        with one_line(path):
            self._add_axes(grid)

    def _next(self, place: tuple[str, int], time) -> int:
        at, self._samples = self._samples, self._samples + 1
        variables = self._file.variables
        variables["sample"][at] = at
        variables["file"][at], variables["row"][at] = place
        if self._calendar and time is not None:
            import cftime

            variables["time"][at] = cftime.date2num(time, variables["time"].units, self._calendar)
        return at

    def _add_axes(self, grid: Grid) -> None:
        self._file.createDimension("sample", None)
        side = "bottom" if grid.upwards else "top"
        words = (f"row, counted from the {side}", "1"), ("column, counted from the left", "1")
        if not grid.numbered:
            words = ("latitude", "degrees_north"), ("longitude", "degrees_east")
        values = grid.latitudes, grid.longitudes
        for name, axis, (long_name, units), letter in zip(self._axes, values, words, "YX", strict=True):
            self._file.createDimension(name, len(axis))
            about = {"long_name": long_name, "units": units, "axis": letter}
            about |= {} if grid.numbered else {"standard_name": long_name}
            if grid.assumed:
                about["comment"] = "assumed: the data do not say where their maps lie"
            self._variable(name, "f8", (name,), about)[:] = axis
        self._variable("sample", "i4", ("sample",), {"long_name": "number of the sample in its split"})
        self._variable("file", str, ("sample",), {"long_name": "file that holds the sample"})
        self._variable("row", "i4", ("sample",), {"long_name": "row of the sample in its file"})
        if self._calendar:
            about = {"standard_name": "time", "units": "hours since 1900-01-01 00:00:00", "calendar": self._calendar}
            self._variable("time", "f8", ("sample",), about)

    def _variable(self, name: str, kind, dimensions, attributes: dict, **options):
        variable = self._file.createVariable(name, kind, dimensions, **options)
        variable.setncatts(attributes)
        variable.set_auto_mask(False)
        return variable

    @property
    def _coordinates(self) -> str:
        return "time file row" if self._calendar else "file row"


class MaskFile(_MapFile):
    """A NetCDF file of predicted classes, and of true classes and probabilities if there are any.

    Dimensions: sample (unlimited), lat and lon (y and x where rows and columns only have numbers), and class with
    probabilities. Variables: `predicted` and `truth`, int8 with flag_values and flag_meanings (CF 1.8, section 3.5),
    `truth` missing where it is not known; `probability`, float32 to three digits; for each sample its file and row, and
    its time if it is known.
    """

    def __init__(self, path: Path, file, grid: Grid, class_names: Sequence[str], labelled, probabilities, calendar):
        super().__init__(path, file, grid, calendar)
        meanings = " ".join("_".join(name.split()) for name in class_names)
        flags = {"flag_values": np.arange(len(class_names), dtype=np.int8), "flag_meanings": meanings}
        with one_line(path):
            self._masks = [self._mask("predicted", "predicted class", grid, flags)]
            self._masks += [self._mask("truth", "labelled class", grid, flags, fill_value=_UNKNOWN)] if labelled else []
            self._probability = self._add_probability(grid, class_names) if probabilities else None

    def add(self, place: tuple[str, int], time, masks: Sequence[np.ndarray], probabilities=None) -> None:
        """Add the next sample.

        Args:
            place: its file and row.
            time: as of `MapSource.time`.
            masks: predicted and, for labelled data, true classes (height, width).
            probabilities: (height, width, classes).

        Raises:
            UserError: it cannot be written.
        """
        with one_line(self._path):
            at = self._next(place, time)
            for variable, mask in zip(self._masks, masks, strict=True):
                variable[at] = mask
            if self._probability is not None:
                self._probability[at] = np.moveaxis(probabilities, -1, 0)

    def _mask(self, name: str, long_name: str, grid: Grid, flags: dict, **options):
        size = (1, len(grid.latitudes), len(grid.longitudes))
        about = {"long_name": long_name, "coordinates": self._coordinates, **flags}
        options |= {"zlib": True, "complevel": 2, "chunksizes": size}
        return self._variable(name, "i1", ("sample", *self._axes), about, **options)

    def _add_probability(self, grid: Grid, class_names: Sequence[str]):
        self._file.createDimension("class", len(class_names))
        self._variable("class_name", str, ("class",), {"long_name": "class"})[:] = np.array(class_names, object)
        about = {"long_name": "probability of the class", "units": "1"}
        about["coordinates"] = f"{self._coordinates} class_name"
        size = (1, 1, len(grid.latitudes), len(grid.longitudes))
        options = {"zlib": True, "complevel": 2, "chunksizes": size, "least_significant_digit": 3}
        return self._variable("probability", "f4", ("sample", "class", *self._axes), about, **options)


class FieldFile(_MapFile):
    """A NetCDF file of predicted fields, and of true ones if there are any.

    Dimensions: sample (unlimited), lat, lon. Variables: `NAME_predicted` and `NAME_truth` of each field, float32; for
    each sample its file and row, and its time if it is known.
    """

    def __init__(self, path: Path, file, grid: Grid, fields: Sequence[tuple[str, str]], labelled: bool, calendar):
        super().__init__(path, file, grid, calendar)
        size = (1, len(grid.latitudes), len(grid.longitudes))
        kinds = ("predicted", "truth") if labelled else ("predicted",)
        self._fields = []
        with one_line(path):
            for kind in kinds:
                for name, units in fields:
                    about = {"long_name": f"{name}, {kind}", "coordinates": self._coordinates}
                    about |= {"units": units} if units else {}
                    variable = f"{re.sub(r'[^A-Za-z0-9_]+', '_', name).strip('_')}_{kind}"
                    self._fields.append(
                        self._variable(variable, "f4", ("sample", *self._axes), about, zlib=True, chunksizes=size)
                    )

    def add(self, place: tuple[str, int], time, maps: Sequence[np.ndarray]) -> None:
        """Add the next sample.

        Args:
            place: its file and row.
            time: as of `MapSource.time`.
            maps: predicted and, for labelled data, true maps (height, width, channels).

        Raises:
            UserError: it cannot be written.
        """
        with one_line(self._path):
            at = self._next(place, time)
            layers = np.concatenate([np.moveaxis(one, -1, 0) for one in maps])
            for variable, layer in zip(self._fields, layers, strict=True):
                variable[at] = layer
