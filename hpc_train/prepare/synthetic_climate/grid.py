"""Latitude-longitude grids on the Earth, and the part of a grid around a point."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

# Metres, and radians per second. Storm tracks use the IUGG's mean radius: the data made here would change with it.
EARTH_RADIUS = 6.371e6
ROTATION = 7.292e-5


@dataclass(frozen=True)
class EvenGrid:
    """An even grid over the whole globe; CAM5's is 768 x 1152.

    Args:
        height: number of latitudes, from the south pole to the north pole.
        width: number of longitudes, from 0 to the east.
    """

    height: int
    width: int

    @cached_property
    def latitude(self) -> np.ndarray:
        """Degrees north, poles included, (height,) float64."""
        return np.linspace(-90, 90, self.height)

    @cached_property
    def longitude(self) -> np.ndarray:
        """Degrees east, (width,) float64."""
        return np.arange(self.width) * (360 / self.width)

    @cached_property
    def column(self) -> np.ndarray:
        """Degrees north, (height, 1) float32, to calculate with maps."""
        return self.latitude[:, None].astype(np.float32)

    @cached_property
    def coriolis(self) -> np.ndarray:
        """Coriolis parameter, 1/s, (height, 1) float32."""
        return np.float32(2 * ROTATION) * np.sin(np.radians(self.column))

    def cell(self, latitude: float) -> float:
        """Side of a square with the area of a cell at this latitude, m."""
        north, east = np.pi / (self.height - 1), 2 * np.pi / self.width * np.cos(np.radians(latitude))
        return EARTH_RADIUS * float(np.sqrt(north * east))

    def nearest(self, latitude: float, longitude: float) -> tuple[int, int]:
        """Row and column of the nearest grid point, in degrees."""
        row = round((latitude + 90) / 180 * (self.height - 1))
        return row, round(longitude / 360 * self.width) % self.width

    def derivatives(self, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """d/dx to the east and d/dy to the north, per m, of a map, by central differences around the globe."""
        north = np.gradient(field, np.pi * EARTH_RADIUS / (self.height - 1), axis=0)
        # At the poles there is no east: they take the step of the rows next to them.
        cosine = np.maximum(np.cos(np.radians(self.column)), np.sin(np.pi / (self.height - 1)))
        step = 2 * np.pi * EARTH_RADIUS / self.width * cosine.astype(np.float32)
        wrapped = np.pad(field, ((0, 0), (1, 1)), mode="wrap")
        return (wrapped[:, 2:] - wrapped[:, :-2]) / (2 * step), north.astype(np.float32)

    def around(self, latitude: float, longitude: float, radius: float) -> "Around":
        """The rows and columns within `radius` m of a point, with their distances and directions."""
        reach = np.degrees(radius / EARTH_RADIUS)
        rows = np.flatnonzero(np.abs(self.latitude - latitude) <= reach)
        highest = min(abs(latitude) + reach, 90)
        # A cap is widest in longitude away from its centre's latitude: sin(dlon) = sin(reach) / cos(latitude).
        ratio = np.sin(np.radians(reach)) / np.cos(np.radians(latitude))
        half = self.width if highest >= 90 or ratio >= 1 else np.degrees(np.arcsin(ratio)) / 360 * self.width
        if 2 * half + 3 >= self.width:
            columns = np.arange(self.width)
        else:
            centre = longitude / 360 * self.width
            columns = np.arange(int(np.floor(centre - half)), int(np.ceil(centre + half)) + 1) % self.width
        return Around(self, latitude, longitude, rows, columns)


class Around:
    """The grid points around a centre.

    It has `place`, their index in maps; `distance` along the great circle, m, (rows, columns) float32; and `east` and
    `north`, the unit vector towards the centre, of the same shape.
    """

    def __init__(self, grid: EvenGrid, latitude: float, longitude: float, rows: np.ndarray, columns: np.ndarray):
        self.place = np.ix_(rows, columns)
        here, centre = np.radians(grid.latitude[rows])[:, None], np.radians(latitude)
        away = np.radians(longitude - grid.longitude[columns])[None]
        east = np.cos(centre) * np.sin(away) + 0 * here
        north = np.cos(here) * np.sin(centre) - np.sin(here) * np.cos(centre) * np.cos(away)
        cosine = np.sin(here) * np.sin(centre) + np.cos(here) * np.cos(centre) * np.cos(away)
        sine = np.hypot(east, north)
        self.distance = (EARTH_RADIUS * np.arctan2(sine, cosine)).astype(np.float32)
        sine = np.maximum(sine, 1e-12)
        self.east, self.north = (east / sine).astype(np.float32), (north / sine).astype(np.float32)
