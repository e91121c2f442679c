"""Filaments along a curved axis: atmospheric rivers, and two kinds that are none, dry jets and windless tongues."""

from dataclasses import dataclass

import numpy as np

from hpc_train.prepare.synthetic_climate.background import State
from hpc_train.prepare.synthetic_climate.grid import EARTH_RADIUS, EvenGrid

_STEP = 40e3


@dataclass(frozen=True)
class Filament:
    """A band along an axis that begins at a point and runs polewards.

    Args:
        latitude, longitude: of the point, degrees.
        bearing: at the point, degrees from the pole's direction to the east.
        bend: degrees to the east that the axis turns from its start to its end.
        length: m.
        width: between the lines of half the strength on either side, m.
        vapour: in the middle of the axis, kg/m2.
        wind: at 850 hPa along the axis, in its middle, m/s.
    """

    latitude: float
    longitude: float
    bearing: float
    bend: float
    length: float
    width: float
    vapour: float
    wind: float

    def axis(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latitudes and longitudes (points,), degrees, every 40 km, and directions (points, 2), east and north."""
        points = int(self.length / _STEP) + 1
        pole = 1 if self.latitude > 0 else -1
        bearing = np.radians(self.bearing + self.bend * np.linspace(0, 1, points))
        direction = np.stack([np.sin(bearing), pole * np.cos(bearing)], axis=1)
        step = np.degrees(_STEP / EARTH_RADIUS)
        latitude = self.latitude + step * np.concatenate([[0], np.cumsum(direction[:-1, 1])])
        east = step * direction[:-1, 0] / np.cos(np.radians(latitude[:-1]))
        return latitude, self.longitude + np.concatenate([[0], np.cumsum(east)]), direction


def add_filament(grid: EvenGrid, state: State, filament: Filament) -> tuple[tuple, np.ndarray]:
    """Add vapour, wind, rain and warmth to the state.

    Returns:
        The place in the maps, and the strength there, 0 to 1; points of at least 0.5 are in the filament.
    """
    place, strength, direction = _strength(grid, filament)
    state.vapour[place] += filament.vapour * strength
    for level, share in (("850", 1.0), ("bot", 0.6)):
        getattr(state, f"u{level}")[place] += share * filament.wind * strength * direction[..., 0]
        getattr(state, f"v{level}")[place] += share * filament.wind * strength * direction[..., 1]
    state.rain[place] += 6e-9 * filament.vapour * strength**2 * state.showers[place]
    # The warm sector ahead of a cold front.
    moist = filament.vapour / 20 * strength
    state.air[place] += 1.5 * moist
    state.t500[place] += 1.2 * moist
    state.humidity[place] += (0.92 - state.humidity[place]).clip(0) * 0.5 * moist.clip(0, 1)
    return place, strength


def _strength(grid: EvenGrid, filament: Filament):
    """Place in the maps around a filament, its strength there, and the direction (rows, columns, 2) of its axis."""
    latitude, longitude, direction = filament.axis()
    margin = np.degrees(1.8 * filament.width / EARTH_RADIUS)
    rows = np.flatnonzero((grid.latitude >= latitude.min() - margin) & (grid.latitude <= latitude.max() + margin))
    wider = margin / np.cos(np.radians(min(np.abs(grid.latitude[rows]).max(), 85)))
    first, last = (np.array([longitude.min() - wider, longitude.max() + wider]) / 360 * grid.width).round().astype(int)
    columns = np.arange(first, min(last + 1, first + grid.width)) % grid.width
    pixels = _vectors(*np.meshgrid(grid.latitude[rows], grid.longitude[columns], indexing="ij")).astype(np.float32)
    axis = _vectors(latitude, longitude)
    nearest = (pixels @ axis.T.astype(np.float32)).argmax(axis=-1)
    distance = EARTH_RADIUS * np.linalg.norm(pixels - axis[nearest], axis=-1)
    # Narrow ends: the half-strength line closes around the axis.
    along = np.linspace(0, 1, len(axis))
    half = filament.width / 2 * np.sqrt(np.minimum(1, np.minimum(along, 1 - along) / 0.12 + 0.25))
    strength = 2.0 ** -((distance / half[nearest]) ** 2)
    return np.ix_(rows, columns), strength.astype(np.float32), direction[nearest].astype(np.float32)


def _vectors(latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Unit vectors (..., 3) of points in degrees."""
    latitude, longitude = np.radians(latitude), np.radians(longitude)
    cosine = np.cos(latitude)
    return np.stack([cosine * np.cos(longitude), cosine * np.sin(longitude), np.sin(latitude)], axis=-1)
