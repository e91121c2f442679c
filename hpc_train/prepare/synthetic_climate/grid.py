"""Latitude-longitude grids on the Earth, and the part of one that lies around a point."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

EARTH_RADIUS = 6.371e6
ROTATION = 7.292e-5


@dataclass(frozen=True)
class EvenGrid:
    """height latitudes from the south pole to the north pole, width longitudes from 0 to the east: CAM5's 768 x 1152.

    Arrays: latitude (height,), longitude (width,) float64 degrees; columns of shape (height, 1) go with maps.
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
        """Degrees north, (height, 1) float32."""
        return self.latitude[:, None].astype(np.float32)

    @cached_property
    def coriolis(self) -> np.ndarray:
        """Coriolis parameter, 1/s, (height, 1) float32."""
        return np.float32(2 * ROTATION) * np.sin(np.radians(self.column))

    def cell(self, latitude: float) -> float:
        """Side of a square as large as a cell at this latitude, m."""
        north, east = np.pi / (self.height - 1), 2 * np.pi / self.width * np.cos(np.radians(latitude))
        return EARTH_RADIUS * float(np.sqrt(north * east))

    def nearest(self, latitude: float, longitude: float) -> tuple[int, int]:
        """Row and column of the grid point that is nearest in degrees."""
        row = round((latitude + 90) / 180 * (self.height - 1))
        return row, round(longitude / 360 * self.width) % self.width

    def derivatives(self, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """d/dx to the east and d/dy to the north, per m, of a map, by central differences around the globe."""
        north = np.gradient(field, np.pi * EARTH_RADIUS / (self.height - 1), axis=0)
        # The poles have no east: the rows next to them stand in.
        cosine = np.maximum(np.cos(np.radians(self.column)), np.sin(np.pi / (self.height - 1)))
        step = 2 * np.pi * EARTH_RADIUS / self.width * cosine.astype(np.float32)
        wrapped = np.pad(field, ((0, 0), (1, 1)), mode="wrap")
        return (wrapped[:, 2:] - wrapped[:, :-2]) / (2 * step), north.astype(np.float32)

    def around(self, latitude: float, longitude: float, radius: float) -> "Around":
        """The rows and columns within `radius` m of a point, with their distances and directions."""
        reach = np.degrees(radius / EARTH_RADIUS)
        rows = np.flatnonzero(np.abs(self.latitude - latitude) <= reach)
        highest = min(abs(latitude) + reach, 90)
        # The widest meridians of a cap are off its centre: sin(dlon) = sin(reach) / cos(latitude).
        ratio = np.sin(np.radians(reach)) / np.cos(np.radians(latitude))
        half = self.width if highest >= 90 or ratio >= 1 else np.degrees(np.arcsin(ratio)) / 360 * self.width
        if 2 * half + 3 >= self.width:
            columns = np.arange(self.width)
        else:
            centre = longitude / 360 * self.width
            columns = np.arange(int(np.floor(centre - half)), int(np.ceil(centre + half)) + 1) % self.width
        return Around(self, latitude, longitude, rows, columns)


class Around:
    """The grid points `place` (an index of maps) around a centre.

    distance: m, along the great circle, (rows, columns) float32; east, north: unit vector towards the centre.
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
