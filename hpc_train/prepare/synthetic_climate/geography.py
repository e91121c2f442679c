"""Land and its height: the Earth's continents as rough ellipses, its mountains as hills, the same on every grid."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from hpc_train.prepare.synthetic_climate.grid import EvenGrid
from hpc_train.prepare.synthetic_climate.noise import random_fields, tracer_spectrum

# Centre (degrees north, east), half axes (north, east).
_CONTINENTS = (
    (64, 95, 13, 75),
    (52, 55, 14, 50),
    (36, 95, 14, 27),
    (22, 78, 13, 9),
    (49, 12, 9, 14),
    (24, 45, 9, 11),
    (15, 12, 20, 27),
    (-12, 26, 23, 14),
    (-25, 134, 10, 19),
    (56, 250, 15, 36),
    (40, 262, 9, 21),
    (22, 257, 8, 6),
    (73, 318, 12, 17),
    (-5, 300, 15, 18),
    (-33, 293, 20, 7),
    (-90, 0, 20, 720),
    (0, 113, 4, 6),
)
# Centre, half axes, height in m.
_MOUNTAINS = (
    (33, 88, 6, 14, 5200),
    (43, 250, 11, 8, 2000),
    (-20, 291, 22, 4, 3400),
    (74, 318, 10, 14, 2600),
    (-82, 75, 14, 90, 3500),
    (-84, 250, 12, 80, 2200),
    (5, 36, 9, 5, 1400),
    (-26, 27, 7, 7, 1200),
    (33, 52, 5, 9, 1300),
    (58, 105, 8, 30, 600),
)


@dataclass(frozen=True)
class Geography:
    """The land of the planet.

    Args:
        land: share of a cell, 0 to 1, (height, width) float32.
        elevation: m above the sea, (height, width) float32.
    """

    land: np.ndarray
    elevation: np.ndarray


@lru_cache(maxsize=2)
def geography(grid: EvenGrid) -> Geography:
    """The planet of every sample on this grid."""
    roughness = random_fields(grid, np.random.default_rng(1), tracer_spectrum(12, 2.0)[None])[0]
    depth = np.full((grid.height, grid.width), np.inf, np.float32)
    for *place, north, east in _CONTINENTS:
        depth = np.minimum(depth, _ellipse(grid, *place, north, east))
    land = 1 / (1 + np.exp(((depth + 0.12 * roughness - 1) / 0.02).clip(-50, 50)))
    elevation = 350 + 120 * roughness
    for *place, north, east, height in _MOUNTAINS:
        elevation = elevation + height * np.exp(-(_ellipse(grid, *place, north, east) ** 2)) * (1 + 0.12 * roughness)
    return Geography(land.astype(np.float32), (land * elevation.clip(0)).astype(np.float32))


def _ellipse(grid: EvenGrid, latitude: float, longitude: float, north: float, east: float) -> np.ndarray:
    """Distance from the centre, in units of the half axes: 1 on the ellipse, (height, width) float32."""
    away = (grid.longitude[None] - longitude + 180) % 360 - 180
    return np.hypot((grid.latitude[:, None] - latitude) / north, away / east).astype(np.float32)
