"""One sample: a day, the air of that day, the storms in it and their labels."""

import datetime
from dataclasses import dataclass

import numpy as np

from hpc_train.prepare.synthetic_climate.background import State, background, summer
from hpc_train.prepare.synthetic_climate.channels import diagnose
from hpc_train.prepare.synthetic_climate.filaments import Filament, add_filament
from hpc_train.prepare.synthetic_climate.geography import Geography, geography
from hpc_train.prepare.synthetic_climate.grid import EvenGrid
from hpc_train.prepare.synthetic_climate.vortices import (
    Vortex,
    add_extratropical,
    add_moist_blob,
    add_tropical,
    gale_vortex,
)

BACKGROUND, CYCLONE, RIVER = range(3)
# Least radius of a labelled cyclone and width of a river in grid cells, so that a coarse grid shows them.
LEAST_RADIUS, LEAST_WIDTH = 1.75, 2.0
_SPLITS = {"train": 0, "validation": 1, "test": 2}
# Tropical cyclones form over water of 26 degrees Celsius and more (Gray 1968, Mon. Weather Rev. 96, 669).
_WARM_SEA = 299.15
_DAYS = 365


@dataclass(frozen=True)
class Weather:
    """The content of a sample.

    Args:
        data: (height, width, 16) float32.
        labels: (height, width) float32 of 0, 1 and 2.
        cyclones, rivers: its labelled objects.
    """

    data: np.ndarray
    labels: np.ndarray
    cyclones: tuple[Vortex, ...]
    rivers: tuple[Filament, ...]


@dataclass(frozen=True)
class Moment:
    """The time of a sample: a year without leap days, the day in it from 0, and the three hours of the day, 0 to 7."""

    year: int
    day: int
    slot: int

    @classmethod
    def of(cls, number: int) -> "Moment":
        """The moment of sample `number`: neighbouring samples are spread over the seasons; no moment comes twice."""
        # 226 and 365 have no common divisor and their ratio is near the golden one.
        return cls(1996 + number // _DAYS, number * 226 % _DAYS, number % 8)

    @property
    def name(self) -> str:
        """YYYY-MM-DD-TT."""
        # Any year without a leap day.
        date = datetime.date(2001, 1, 1) + datetime.timedelta(self.day)
        return f"{self.year}-{date:%m-%d}-{self.slot:02}"


def make(grid: EvenGrid, seed: int, split: str, number: int, cyclones: float, rivers: float) -> Weather:
    """Make sample `number` of a split, which depends only on these arguments.

    Args:
        cyclones, rivers: mean numbers on a map.
    """
    draw = np.random.default_rng([seed, _SPLITS[split], number])
    season = summer(Moment.of(number).day)
    planet = geography(grid)
    # Objects first, so that a change in the number of the background's random numbers does not move them.
    objects = draw.spawn(1)[0]
    state = background(grid, planet, season, draw)
    labels = np.zeros((grid.height, grid.width), np.float32)
    _add_distractors(grid, state, season, objects)
    found = tuple(_add_river(grid, state, planet, season, objects, labels) for _ in range(objects.poisson(rivers)))
    storms = [_add_cyclone(grid, state, planet, season, objects, labels) for _ in range(objects.poisson(cyclones))]
    return Weather(diagnose(state, planet), labels, tuple(filter(None, storms)), found)


def _add_cyclone(grid, state: State, planet: Geography, season, draw, labels) -> Vortex | None:
    """Add a tropical cyclone over a warm sea; None if 30 random places were not warm seas."""
    strongest = 24 + draw.gamma(2.0, 8.0)
    strongest, shape = min(strongest, 65), draw.uniform(1.2, 2.0)
    size, vapour = draw.lognormal(np.log(225e3), 0.28), draw.uniform(8, 18)
    for _ in range(30):
        side = 1 if draw.random() < 0.6 + 0.3 * season else -1
        latitude, longitude = side * draw.uniform(8, 30), draw.uniform(0, 360)
        at = grid.nearest(latitude, longitude)
        if planet.land[at] < 0.3 and state.surface[at] > _WARM_SEA:
            gale_radius = max(min(size, 420e3), LEAST_RADIUS * grid.cell(latitude))
            vortex = gale_vortex(latitude, longitude, strongest, shape, gale_radius)
            add_tropical(grid, state, vortex, vapour, labels, CYCLONE)
            return vortex
    return None


def _add_river(grid, state: State, planet: Geography, season, draw, labels) -> Filament:
    """Add an atmospheric river: 2,000 km or longer, 300 to 800 km wide, from the subtropics polewards and eastwards."""
    for _ in range(10):
        filament = _filament(grid, season, draw)
        if planet.land[grid.nearest(filament.latitude, filament.longitude % 360)] < 0.5:
            break
    place, strength = add_filament(grid, state, filament)
    labels[place] = np.where(strength >= 0.5, RIVER, labels[place])
    return filament


def _filament(grid: EvenGrid, season, draw, vapour=(9, 19), wind=(10, 20)) -> Filament:
    side = 1 if draw.random() < 0.5 - 0.15 * season else -1
    latitude = side * draw.uniform(20, 30)
    length = draw.uniform(2000e3, 4800e3)
    width = max(draw.uniform(300e3, 800e3) * min(1, length / 3200e3), 300e3, LEAST_WIDTH * grid.cell(45))
    return Filament(
        latitude,
        draw.uniform(0, 360),
        bearing=draw.uniform(30, 60),
        bend=draw.uniform(-40, 40),
        length=length,
        width=width,
        vapour=draw.uniform(*vapour),
        wind=draw.uniform(*wind),
    )


def _add_distractors(grid, state: State, season, draw) -> None:
    """Add weather that looks like cyclones and rivers in one or two channels, but is neither."""
    for _ in range(draw.poisson(9)):
        side = 1 if draw.random() < 0.5 else -1
        latitude, longitude = side * draw.uniform(38, 66), draw.uniform(0, 360)
        low = Vortex(latitude, longitude, draw.uniform(20, 38), draw.uniform(280e3, 520e3), draw.uniform(1.1, 1.6))
        add_extratropical(grid, state, low, cold=draw.uniform(3, 9), vapour=draw.uniform(2, 9))
    for _ in range(draw.poisson(14)):
        latitude = 7 * season + draw.normal(0, 8)
        radius, vapour = draw.uniform(200e3, 700e3), draw.uniform(6, 18)
        add_moist_blob(grid, state, latitude, draw.uniform(0, 360), radius, vapour, draw.uniform(1e-7, 1e-6))
    for _ in range(draw.poisson(2.5)):
        add_filament(grid, state, _filament(grid, season, draw, vapour=(0, 0)))
    for _ in range(draw.poisson(2.5)):
        add_filament(grid, state, _filament(grid, season, draw, wind=(0, 0)))
