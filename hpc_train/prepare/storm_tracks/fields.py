"""Gridded fields from NetCDF files that follow the CF conventions, classic or NetCDF-4."""

import glob
import os
from collections.abc import Sequence
from math import prod

import numpy as np

from hpc_train.data.fields.grid import in_order
from hpc_train.data.hdf5.access import reason
from hpc_train.data.hdf5.open_errors import GRIB, is_grib
from hpc_train.errors import UserError
from hpc_train.files.limits import most_bytes
from hpc_train.prepare.storm_tracks.classic import problem_of

_NORTH = ("degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn")
_EAST = ("degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese")
_PASCALS = {"pa": 0.01, "hpa": 1.0, "mbar": 1.0, "millibar": 1.0, "millibars": 1.0, "mb": 1.0}
_MOST_NAMES = 20
# Along one dimension of a file: a century of hours.
_MOST_PLACES = 2**20


def find_fields(patterns: Sequence[str]) -> list[str]:
    """Paths of the files that the names and patterns match, each once.

    Raises:
        UserError: a pattern matches no file.
    """
    paths = {}
    for pattern in patterns:
        found = [pattern] if os.path.isfile(pattern) else sorted(filter(os.path.isfile, glob.glob(pattern)))
        if not found:
            raise UserError(f"--fields {pattern}: no such file, and no file matches it as a pattern; check the path")
        paths |= dict.fromkeys(found)
    return list(paths)


class FieldFile:
    """A context that reads maps from one file.

    It has times, datetime64[s] (n,), and latitudes (h,) and longitudes (w,), float64 in degrees, in the order of the
    file; see `data.fields.grid.in_order`.

    Args:
        path: of a NetCDF file.
        variables: names; for a variable with several levels with one of them: "u@850" (hPa, or the file's unit).

    Raises:
        UserError: a variable is missing or is not a map of the Earth; the message names the file and the variable.
    """

    def __init__(self, path: str, variables: Sequence[str]):
        try:
            import netCDF4
        except ImportError as error:
            raise UserError(f"{path}: netCDF4 is needed to read it; install it: pip install netCDF4") from error

        self.path, self.variables = path, tuple(variables)
        try:
            if problem := problem_of(path):
                raise self._problem(f"{problem}; fetch the file again")
            self._file = netCDF4.Dataset(path)
        except UserError:
            raise
        # NetCDF4 raises many kinds of errors for damaged files.
        except Exception as error:
            if is_grib(path):
                raise UserError(f"{path}: {GRIB}") from error
            raise UserError(f"{path}: cannot be read as NetCDF ({reason(error)}); check or fetch it again") from error
        try:
            self._places = [self._place(variable) for variable in variables]
            self.times, self.latitudes, self.longitudes = self._common_grid()
        except BaseException as error:
            self._file.close()
            if isinstance(error, UserError) or not isinstance(error, Exception):
                raise
            raise self._problem(f"cannot be read ({reason(error)}); check or fetch it again") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()

    def read(self, index: int) -> np.ndarray:
        """Read the map at times[index]: float32 (h, w, variables), unpacked, without missing values.

        Raises:
            UserError: it cannot be read, or has missing values.
        """
        layers = []
        for variable, (array, chosen, axes) in zip(self.variables, self._places, strict=True):
            chosen = chosen | ({axes["time"]: index} if "time" in axes else {})
            try:
                values = array[tuple(chosen.get(axis, slice(None)) for axis in range(array.ndim))]
            except Exception as error:
                raise self._problem(f"{variable} cannot be read ({reason(error)}); fetch the file again") from error
            values = np.ma.asarray(values, np.float32)
            # Chunks that are missing in the file, and masked values, are not winds.
            if np.ma.is_masked(values) or not np.isfinite(values.data).all():
                raise self._problem(
                    f"{variable} has missing values or NaN at {self.times[index]}; fill them, or leave this time out "
                    "of --splits"
                )
            values = values.data
            layers.append(values if axes["latitude"] < axes["longitude"] else values.T)
        return np.ascontiguousarray(np.stack(layers, axis=-1))

    def _place(self, text: str):
        """(variable, {axis: index of the level to read there}, {"time", "latitude", "longitude": axis})."""
        name, _, level = text.partition("@")
        if name not in self._file.variables:
            there = [known for known, variable in self._file.variables.items() if variable.ndim >= 2]
            more = f" and {len(there) - _MOST_NAMES} more" if len(there) > _MOST_NAMES else ""
            raise self._problem(f"no variable {name!r}; it has {', '.join(there[:_MOST_NAMES]) or 'none'}{more}")
        array = self._file.variables[name]
        kinds = [self._kind(dimension) for dimension in array.dimensions]
        axes = {kind: axis for axis, kind in enumerate(kinds) if kind}
        for kind in ("latitude", "longitude"):
            if kind not in axes:
                raise self._problem(
                    f"{name}{array.dimensions} has no 1-D {kind} in degrees among its dimensions; put it on a regular "
                    "grid of latitudes and longitudes first"
                )
        for dimension in array.dimensions:
            if len(self._file.dimensions[dimension]) > _MOST_PLACES:
                raise self._problem(
                    f"{name} has {len(self._file.dimensions[dimension])} places along {dimension}, more than "
                    f"{_MOST_PLACES}; divide the file"
                )
        map_bytes = 4 * len(self.variables) * prod(array.shape[axes[kind]] for kind in ("latitude", "longitude"))
        if map_bytes > (most := most_bytes(os.path.getsize(self.path))):
            raise self._problem(f"a map takes {map_bytes} bytes, more than {most}, which the file can hardly hold")
        others = [axis for axis, kind in enumerate(kinds) if kind is None]
        chosen = {axis: self._level(name, array.dimensions[axis], level) for axis in others}
        if level and not chosen:
            raise self._problem(f"{name}{array.dimensions} has no levels; give it without @{level}")
        return array, chosen, axes

    def _kind(self, dimension: str) -> str | None:
        """The kind of a dimension: "time", "latitude", "longitude", or None for others, such as levels."""
        if self._time_of(dimension) or dimension.lower() == "time":
            return "time"
        coordinate = self._file.variables.get(dimension)
        if coordinate is None or coordinate.ndim != 1:
            return None
        units, standard = (str(getattr(coordinate, name, "")).lower() for name in ("units", "standard_name"))
        if units in _NORTH or standard == "latitude" or dimension.lower() in ("lat", "latitude"):
            return "latitude"
        if units in _EAST or standard == "longitude" or dimension.lower() in ("lon", "longitude"):
            return "longitude"
        return None

    def _time_of(self, dimension: str | None):
        """The variable with the times along a dimension; without a dimension, that with the file's time; or None."""
        wanted = () if dimension is None else (dimension,)
        found = {
            name: variable
            for name, variable in self._file.variables.items()
            if variable.dimensions == wanted and " since " in str(getattr(variable, "units", ""))
        }
        # A forecast has both the time at which it started and the time that it is for.
        valid = [variable for variable in found.values() if getattr(variable, "standard_name", "") == "time"]
        return found.get(dimension) or next(iter(valid + list(found.values())), None)

    def _level(self, name: str, dimension: str, level: str) -> int:
        size, coordinate = len(self._file.dimensions[dimension]), self._file.variables.get(dimension)
        if not level:
            if size == 1:
                return 0
            raise self._problem(
                f"{name} has {size} {self._levels(dimension)}; name one: {name}@{self._some(dimension)}"
            )
        if coordinate is not None and coordinate.ndim == 1:
            try:
                wanted = float(level)
            except ValueError:
                raise self._problem(
                    f"{name}@{level}: {level!r} is not a number; give, for example, {name}@850"
                ) from None
            scale = _PASCALS.get(str(getattr(coordinate, "units", "")).lower(), 1.0)
            for values in (np.asarray(coordinate[:], np.float64) * scale, np.asarray(coordinate[:], np.float64)):
                places = np.flatnonzero(np.isclose(values, wanted))
                if len(places):
                    return int(places[0])
        if size == 1 and coordinate is None:
            return 0
        raise self._problem(f"{name} has no level {level}; it has {self._levels(dimension)}")

    def _some(self, dimension: str) -> str:
        coordinate = self._file.variables.get(dimension)
        return f"{np.ravel(coordinate[:])[0]:g}" if coordinate is not None else "LEVEL"

    def _levels(self, dimension: str) -> str:
        coordinate = self._file.variables.get(dimension)
        if coordinate is None:
            return f"places along {dimension}, which has no values"
        values = ", ".join(f"{value:g}" for value in np.ravel(coordinate[:])[:_MOST_NAMES])
        return f"levels {dimension} = {values} {getattr(coordinate, 'units', '')}".rstrip()

    def _common_grid(self):
        grids = []
        for array, _, axes in self._places:
            dimensions = {kind: array.dimensions[axis] for kind, axis in axes.items()}
            grids.append((dimensions.get("time"), dimensions["latitude"], dimensions["longitude"]))
        if len(set(grids)) > 1:
            other = next(place for place, grid in enumerate(grids) if grid != grids[0])
            raise self._problem(
                f"{self.variables[other]} is on the grid {grids[other]}, but {self.variables[0]} on {grids[0]}; give "
                "variables of one grid"
            )
        time, *space = grids[0]
        axes = {name: np.ma.filled(self._file.variables[name][:].astype(float), np.nan) for name in space}
        return self._decode_times(self._time_of(time)), *in_order(self.path, axes)

    def _decode_times(self, variable) -> np.ndarray:
        from netCDF4 import num2date

        if variable is None or not variable.size:
            raise self._problem(
                f"no time: {self.variables[0]} has no dimension with a variable of units such as "
                "'hours since 2018-09-01', or that variable is empty; add it"
            )
        calendar = getattr(variable, "calendar", "standard")
        try:
            # CF 1.11, section 4.4; the dates of best tracks exist only in real calendars.
            real = {"only_use_cftime_datetimes": False, "only_use_python_datetimes": True}
            dates = num2date(np.ravel(variable[:]), variable.units, calendar, **real)
        except (ValueError, OverflowError) as error:
            raise self._problem(
                f"{variable.name} ({variable.units}, calendar {calendar}) cannot be turned into dates "
                f"({reason(error)}); give files whose time has valid units and a real calendar"
            ) from error
        if np.ma.is_masked(dates):
            raise self._problem(f"{variable.name} has missing values; fill them")
        microseconds = np.array(np.ma.getdata(dates), "datetime64[us]").astype(np.int64)
        # Fractions of a day, as floating-point numbers, miss the full second by a little.
        return np.round(microseconds / 1e6).astype(np.int64).astype("datetime64[s]")

    def _problem(self, text: str) -> UserError:
        return UserError(f"{self.path}: {text}")
