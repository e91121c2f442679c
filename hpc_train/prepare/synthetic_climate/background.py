"""The air without storms: zonal means that follow the season, and correlated noise in balance with its own winds."""

from dataclasses import dataclass

import numpy as np

from hpc_train.prepare.synthetic_climate.geography import Geography
from hpc_train.prepare.synthetic_climate.grid import EARTH_RADIUS, EvenGrid
from hpc_train.prepare.synthetic_climate.noise import kinetic_spectrum, random_fields, tracer_spectrum

GRAVITY = 9.80665
GAS_CONSTANT = 287.05
AIR_DENSITY = 1.15
# Mean of the pressure at sea level over the latitudes of the real data.
_MEAN_PRESSURE = 100_800


@dataclass
class State:
    """The state of the air, maps (height, width) float32; `channels.diagnose` turns it into the 16 channels.

    Args:
        psl: pressure at sea level, Pa.
        surface, air: temperature of the surface and at 2 m, reduced to sea level, K.
        t500, t200: temperature, K.
        u850, v850, ubot, vbot: winds, m/s.
        humidity: relative, at 2 m.
        column: vapour in the column, relative to an atmosphere with a scale height of `channels.VAPOUR_HEIGHT`.
        vapour: additional vapour, kg/m2.
        rain: m/s.
        showers: factor of mean 1 for the rain of storms, which comes in cells.
    """

    psl: np.ndarray
    surface: np.ndarray
    air: np.ndarray
    t500: np.ndarray
    t200: np.ndarray
    u850: np.ndarray
    v850: np.ndarray
    ubot: np.ndarray
    vbot: np.ndarray
    humidity: np.ndarray
    column: np.ndarray
    vapour: np.ndarray
    rain: np.ndarray
    showers: np.ndarray


def summer(day: int) -> float:
    """The season in the north on a day of the year (from 0): -1 in winter to 1 in summer, with the sea's lag."""
    return float(np.sin(2 * np.pi * (day - 125) / 365))


def background(grid: EvenGrid, planet: Geography, season: float, draw: np.random.Generator) -> State:
    """The air of one moment, in a season as `summer` gives it."""
    synoptic, tracer = kinetic_spectrum(), tracer_spectrum()
    spectra = np.stack([synoptic, kinetic_spectrum(5), tracer, tracer, tracer_spectrum(20, 1.5), tracer])
    stream, shear, moist, warm, showers, calm = random_fields(grid, draw, spectra)
    latitude, land = grid.column, planet.land
    thermal_equator = 7 * season
    storminess = 0.4 + 0.6 * (1 - np.exp(-((latitude / 28) ** 2))) * (1 - 0.15 * season * np.sign(latitude))

    stream = 9.5 * storminess * stream
    zonal = _zonal_wind(latitude, season)
    east, north = grid.derivatives(stream)
    u850, v850 = zonal - north, east + 0 * zonal
    # Linear balance: near the equator only a small pressure signal is left of geostrophy.
    # The mean wind is weaker at the surface.
    psl = _zonal_pressure(grid, 0.85 * zonal) + AIR_DENSITY * grid.coriolis * stream + 60 * calm

    # Thermal wind: thickness from 1000 to 200 hPa is in balance with the shear of the stream function.
    thickness = grid.coriolis / GRAVITY * (18 * storminess * shear + 0.9 * stream)
    anomaly = thickness / (GAS_CONSTANT / GRAVITY * 1.1)
    surface, air = _surface(latitude, land, season, thermal_equator)
    surface, air = surface + (0.7 + 2 * land) * warm, air + (0.9 + 2 * land) * warm + 0.5 * anomaly
    mean = _sea_temperature(latitude, season, thermal_equator)
    polar = np.sin(np.radians(latitude)) ** 4
    t500 = 266.3 + 0.76 * (mean - 300) + 6 * season * np.sin(np.radians(latitude)) + anomaly + 0.6 * calm
    t200 = 217.5 + polar * (-12 + 25 * season * np.sign(latitude)) - 0.6 * anomaly + calm

    turn = np.radians(20) * np.tanh(latitude / 10)
    slow = 0.9 - 0.35 * land
    trades = -1.6 * np.exp(-((latitude / 28) ** 2))
    inflow = -2.5 * np.tanh((latitude - thermal_equator) / 8) * np.exp(-(((latitude - thermal_equator) / 22) ** 2))
    ubot = slow * (u850 * np.cos(turn) - v850 * np.sin(turn) + trades)
    vbot = slow * (u850 * np.sin(turn) + v850 * np.cos(turn) + inflow)

    rising = np.exp(-(((latitude - thermal_equator) / 9) ** 2))
    sinking = np.exp(-(((np.abs(latitude - thermal_equator) - 24) / 9) ** 2))
    column = (0.86 + 0.2 * rising - 0.12 * sinking) * np.exp(0.19 * moist * (1 - 0.4 * rising))
    # Hot land is dry.
    humidity = 0.8 + 0.05 * moist - land * (0.08 + 0.3 * sinking + 0.03 * (air - 299).clip(0))
    humidity = humidity.clip(0.15, 0.98)
    wet = 1 + 2.5 * rising - 0.65 * sinking
    rain = 3e-9 * wet * np.exp(1.5 * showers + 1.4 * moist) * (1 - 0.3 * land)
    cells = np.exp(1.2 * showers - 0.72)
    maps = psl, surface, air, t500, t200, u850, v850, ubot, vbot, humidity, column, np.zeros_like(land), rain, cells
    return State(*(np.ascontiguousarray(part, np.float32) for part in maps))


def _zonal_wind(latitude: np.ndarray, season: float) -> np.ndarray:
    """Mean eastward wind at 850 hPa, m/s: trades; westerlies, stronger in winter and the south; polar easterlies."""
    winter = 1 - 0.3 * season * np.sign(latitude)
    trades = -7.5 * np.exp(-(((np.abs(latitude - 4 * season) - 13) / 9) ** 2))
    westerlies = np.where(latitude > 0, 8, 14) * winter * np.exp(-(((np.abs(latitude) - 47) / 12) ** 2))
    return (trades + westerlies - 2.5 * np.exp(-(((np.abs(latitude) - 74) / 8) ** 2))).astype(np.float32)


def _zonal_pressure(grid: EvenGrid, zonal: np.ndarray) -> np.ndarray:
    """Pressure at sea level whose geostrophic wind is the zonal one: the sum of -density f u from pole to pole."""
    slope = -AIR_DENSITY * grid.coriolis * zonal * (np.pi * EARTH_RADIUS / (grid.height - 1))
    steps = np.vstack([np.zeros((1, 1)), np.cumsum((slope[1:] + slope[:-1]) / 2, axis=0)])
    return (steps - steps.mean() + _MEAN_PRESSURE).astype(np.float32)


def _sea_temperature(latitude: np.ndarray, season: float, thermal_equator: float) -> np.ndarray:
    """K: to 60 degrees FLAT of Neale and Hoskins (2000), Atmos. Sci. Lett. 1, 101, plus 1.5 K; beyond, ice."""
    away = latitude - thermal_equator * np.cos(np.radians(latitude)) ** 2
    flat = 28.5 * (1 - np.sin(np.radians(1.5 * np.minimum(np.abs(away), 60))) ** 4)
    cold = (24 - 13 * season * np.sign(latitude)) * ((np.abs(latitude) - 57).clip(0) / 33) ** 1.3
    return (273.15 + flat - cold).astype(np.float32)


def _surface(latitude, land, season, thermal_equator) -> tuple[np.ndarray, np.ndarray]:
    """Temperatures of the surface and the air at 2 m, reduced to sea level: land follows the season more than sea."""
    sea = _sea_temperature(latitude, season, thermal_equator)
    swing = 11 * season * np.sin(np.radians(latitude)) * np.exp(-((latitude / 75) ** 6))
    surface = sea + land * swing
    return surface, surface - 1.3 * (1 - land) - 0.5 * land
