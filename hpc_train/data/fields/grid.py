"""Where on the Earth the rows and columns of a data set's maps lie, and of which times its samples are."""

from dataclasses import dataclass

import h5py
import numpy as np

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.errors import UserError

_LATITUDES, _LONGITUDES = ("latitude", "lat"), ("longitude", "lon")


@dataclass(frozen=True, eq=False)
class Grid:
    """latitudes: float64 (height,), degrees north; longitudes: float64 (width,), degrees east; both go one way.

    Longitudes go on beyond 180 or 360 where the map goes across that meridian.

    assumed: the files do not say them, so they are those of a global grid of equal angles, as CAM5's is.
    """

    latitudes: np.ndarray
    longitudes: np.ndarray
    assumed: bool = False

    @property
    def goes_round(self) -> bool:
        """Whether its columns go once round the globe, so that the last one is beside the first."""
        first, last = self.longitudes[[0, -1]]
        steps = np.diff(self.longitudes, append=first + np.copysign(360.0, last - first))
        return bool(np.ptp(steps) < 0.1 * np.abs(steps).max())

    @property
    def mirrored(self) -> bool:
        """Whether its rows lie as far from the equator as those counted from the other end."""
        away = np.abs(self.latitudes + self.latitudes[::-1]).max()
        return bool(away < 0.1 * np.abs(np.diff(self.latitudes)).max(initial=1.0))

    def part(self, region: tuple[float, float, float, float] | None = None):
        """(rows, columns, x, y): indices into the grid of a region, and the degrees east and north that belong to them.

        region: west, east, south, north; it may lie across the seam of the grid. x rises from west on, by at most 360.
        Without a region all of the grid, from its westernmost column on. y rises too.
        Raises UserError for a region that holds less than two rows and columns.
        """
        west, east, south, north = region or (float(self.longitudes.min()), np.inf, -90.0, 90.0)
        span = (east - west) % 360.0 if east - west < 360 else 360.0
        offsets = (self.longitudes - west) % 360.0
        columns = np.flatnonzero(offsets <= span)
        # The last column may be the first one again: 0 to 360, both of them.
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
    """The grid of CAM5: rows from pole to pole, south first, both poles among them; columns eastwards from 0."""
    return Grid(np.linspace(-90.0, 90.0, height), np.arange(width) * (360.0 / width), assumed=True)


def read_grid(path: str, height: int, width: int) -> Grid:
    """The grid of the maps in a file, or `global_grid` where it says none.

    It says it in 1-D data sets latitude and longitude, or lat and lon, at its root or in the group climate.
    Raises UserError, which names file and data set, where these do not fit the maps or are no degrees.
    """
    with open_hdf5(path) as file:
        found = [_find(file, names) for names in (_LATITUDES, _LONGITUDES)]
        if None in found:
            return global_grid(height, width)
        axes = {dataset.name.lstrip("/"): dataset[()] for dataset in found}
    for (name, axis), length in zip(axes.items(), (height, width), strict=True):
        if len(axis) != length:
            raise UserError(
                f"{path}: {name} has {len(axis)} values for maps of {height} rows and {width} columns; mend it"
            )
    return Grid(*in_order(path, axes))


def in_order(path: str, axes: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Latitudes and longitudes, float64, which go one way: those of a map across 180 or 360 degrees go on beyond it.

    axes: the two arrays by the names that messages call them; path: of their file.
    Raises UserError when they are no degrees, or lie in no order.
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
                f"{path}: {name} runs from {axis[0]:g} to {axis[-1]:g}, which are no degrees in order within "
                f"{-limit} to {limit}; mend it"
            )
    return latitudes, turns


def read_time(path: str, row: int, samples: int):
    """The time of a sample as a `cftime.datetime`, from the 1-D variable `time` of its file; None where it has none.

    row: of the sample in its file; samples: how many the file holds. The variable has CF's `units`, and `calendar`
    where that is not the standard one (CF 1.8, section 4.4).
    """
    with open_hdf5(path) as file:
        time = file.get("time")
        units = _text(time.attrs.get("units")) if isinstance(time, h5py.Dataset) else None
        if not units or time.shape != (samples,):
            return None
        import cftime

        calendar = _text(time.attrs.get("calendar")) or "standard"
        try:
            return cftime.num2date(time[row], units, calendar)
        except ValueError as error:
            raise UserError(f"{path}: time in {units!r} cannot be read ({error}); mend its units") from error


def _find(file: h5py.File, names: tuple[str, ...]) -> h5py.Dataset | None:
    found = (file.get(group + name) for group in ("", "climate/") for name in names)
    return next((item for item in found if isinstance(item, h5py.Dataset) and item.ndim == 1), None)


def _text(value) -> str | None:
    return value.decode() if isinstance(value, bytes) else value
