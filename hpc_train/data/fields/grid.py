"""Where on the Earth the rows and columns of a data set's maps are, and the times of its samples."""

from contextlib import suppress
from dataclasses import dataclass, replace

import h5py
import numpy as np

from hpc_train.data.catalogue.conventions import numbers_of
from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.contents import UNREADABLE, member, name_of, text_attribute
from hpc_train.errors import UserError

_LATITUDES, _LONGITUDES = ("latitude", "lat"), ("longitude", "lon")
# Of WRF, and of ocean models.
_CURVED = ("XLAT", "nav_lat", "TLAT")


@dataclass(frozen=True, eq=False)
class Grid:
    """Latitudes and longitudes of a map.

    Args:
        latitudes: float64 (height,), degrees north, rising or falling.
        longitudes: float64 (width,), degrees east, rising or falling; they continue beyond 180 or 360 where the map
            crosses that meridian.
        assumed: the files hold none, so these are those of a global grid of equal angles, such as CAM5's.
        geometry: "globe", "region" or "picture"; "" where nothing says it.
        numbered: rows and columns have no degrees: latitudes and longitudes are their numbers, counted from the top
            left.
        upwards: of numbered rows, whether the first one is the lowest.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    assumed: bool = False
    geometry: str = "globe"
    numbered: bool = False
    upwards: bool = False

    @property
    def goes_round(self) -> bool:
        """Whether its columns go once around the globe, so that the last one is beside the first."""
        first, last = self.longitudes[[0, -1]]
        steps = np.diff(self.longitudes, append=first + np.copysign(360.0, last - first))
        return bool(np.ptp(steps) < 0.1 * np.abs(steps).max())

    @property
    def mirrored(self) -> bool:
        """Whether its rows are symmetric about the equator."""
        away = np.abs(self.latitudes + self.latitudes[::-1]).max()
        return bool(away < 0.1 * np.abs(np.diff(self.latitudes)).max(initial=1.0))

    def part(self, region: tuple[float, float, float, float] | None = None):
        """The part of the grid in a region.

        Args:
            region: west, east, south, north, which may cross the seam of the grid; by default all of the grid from its
                westernmost column on.

        Returns:
            (rows, columns, x, y): indices into the grid, and their degrees east and north. x rises from west on by at
            most 360; y rises too.

        Raises:
            UserError: for a region that holds fewer than two rows or columns, or of a grid without degrees.
        """
        if self.numbered:
            if region:
                raise UserError("--region is in degrees, which these maps do not have; leave it out")
            return (
                *(np.arange(len(axis)) for axis in (self.latitudes, self.longitudes)),
                self.longitudes,
                self.latitudes,
            )
        west, east, south, north = region or (float(self.longitudes.min()), np.inf, -90.0, 90.0)
        span = (east - west) % 360.0 if east - west < 360 else 360.0
        offsets = (self.longitudes - west) % 360.0
        columns = np.flatnonzero(offsets <= span)
        # The last column may repeat the first one: 0 and 360.
        columns = columns[np.unique(offsets[columns], return_index=True)[1]]
        rows = np.flatnonzero((self.latitudes >= south) & (self.latitudes <= north))
        rows = rows[np.argsort(self.latitudes[rows])]
        if len(rows) < 2 or len(columns) < 2:
            raise UserError(
                f"--region {west:g} {east:g} {south:g} {north:g} (west, east, south, north) holds {len(rows)} x "
                f"{len(columns)} points of a grid from {self.latitudes.min():g} to {self.latitudes.max():g} degrees "
                "north; give a larger one"
            )
        return rows, columns, west + offsets[columns], self.latitudes[rows]


def global_grid(height: int, width: int) -> Grid:
    """The grid of CAM5: rows from the south pole to the north pole, including both; columns eastwards from 0."""
    return Grid(np.linspace(-90.0, 90.0, height), np.arange(width) * (360.0 / width), assumed=True)


def numbered_grid(height: int, width: int, geometry: str, upwards: bool = False) -> Grid:
    """The grid of maps whose rows and columns only have numbers."""
    return Grid(np.arange(float(height)), np.arange(float(width)), False, geometry, True, upwards)


def read_grid(path: str, height: int, width: int) -> Grid:
    """The grid of the maps in a file, or `global_grid` where the file has none.

    The grid is in 1-D data sets latitude and longitude, or lat and lon, at the root of the file or in the group
    climate.

    Raises:
        UserError: naming file and data set, where these do not fit the maps or are not degrees.
    """
    with open_hdf5(path) as file:
        found = [_find(file, names) for names in (_LATITUDES, _LONGITUDES)]
        if None in found:
            return global_grid(height, width)
        axes = {name_of(dataset): _real(dataset) for dataset in found}
    for (name, axis), length in zip(axes.items(), (height, width), strict=True):
        if len(axis) != length:
            raise UserError(
                f"{path}: {name} has {len(axis)} values for maps of {height} rows and {width} columns; fix it"
            )
    latitudes, longitudes = in_order(path, axes)
    grid = Grid(latitudes, longitudes)
    return grid if grid.goes_round else replace(grid, geometry="region")


def curved_grid(path: str, height: int, width: int) -> Grid | None:
    """The grid of maps whose file has a latitude for each pixel (..., height, width); None for other files."""
    with open_hdf5(path) as file:
        found = (file.get(group + name) for group in ("", "climate/") for name in (*_LATITUDES, *_CURVED))
        held = (item for item in found if isinstance(item, h5py.Dataset) and item.dtype.kind == "f")
        latitudes = next((item for item in held if item.ndim > 1 and item.shape[-2:] == (height, width)), None)
        if latitudes is None:
            return None
        first, last = (latitudes[(0,) * (latitudes.ndim - 2) + (row, width // 2)] for row in (0, height - 1))
    return numbered_grid(height, width, "region", bool(first < last))


def in_order(path: str, axes: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes, float64, rising or falling; they continue beyond 180 or 360 where the map crosses it.

    Args:
        path: path of their file, for messages.
        axes: the two arrays by their names in messages.

    Raises:
        UserError: when they are not degrees, or neither rise nor fall.
    """
    (north, latitudes), (east, longitudes) = ((name, np.asarray(axis, np.float64)) for name, axis in axes.items())
    turns = longitudes
    if np.isfinite(longitudes).all():
        turns = np.unwrap(longitudes, period=360.0)
    for name, axis, going, limit, span in (
        (north, latitudes, latitudes, 90, 180),
        (east, longitudes, turns, 720, 360),
    ):
        steps = np.diff(going)
        one_way = (steps > 0).all() or (steps < 0).all()
        if not (np.isfinite(axis).all() and np.abs(axis).max() <= limit and one_way and np.ptp(going) <= span):
            raise UserError(
                f"{path}: {name} runs from {axis[0]:g} to {axis[-1]:g}, which are not degrees in order within "
                f"{-limit} to {limit}; fix it"
            )
    return latitudes, turns


def read_time(path: str, row: int, samples: int):
    """The time of a sample as a `cftime.datetime`, from the 1-D variable `time` of its file; None without one.

    The variable has CF's `units`, and `calendar` where that is not the standard one (CF 1.8, section 4.4).

    Args:
        path: path of the file.
        row: row of the sample in the file.
        samples: number of samples in the file.

    Raises:
        UserError: for units that cannot be read.
    """
    with open_hdf5(path) as file:
        time = member(file, "time")
        units = text_attribute(time, "units") if isinstance(time, h5py.Dataset) else None
        if not units or time.shape != (samples,):
            return None
        import cftime

        calendar = text_attribute(time, "calendar") or "standard"
        try:
            return cftime.num2date(time[row], units, calendar)
        except ValueError as error:
            raise UserError(f"{path}: time in {units!r} cannot be read ({error}); fix its units") from error


def _find(file: h5py.File, names: tuple[str, ...]) -> h5py.Dataset | None:
    for item in (member(file, group + name) for group in ("", "climate/") for name in names):
        # A type that h5py cannot read is that of no degrees.
        with suppress(UserError, *UNREADABLE):
            if isinstance(item, h5py.Dataset) and item.ndim == 1 and item.dtype.kind in "uif" and numbers_of(item, ""):
                return item
    return None


def _real(dataset: h5py.Dataset) -> np.ndarray:
    meant = numbers_of(dataset, "")
    scale, offset = meant.packing
    return dataset[()].view(meant.dtype) * scale + offset
