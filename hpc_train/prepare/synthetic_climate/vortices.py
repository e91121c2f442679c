"""Cyclones: warm-core tropical cyclones, which are labelled, and cold-core ones of higher latitudes, which are not."""

from dataclasses import dataclass

import numpy as np

from hpc_train.prepare.synthetic_climate.background import AIR_DENSITY, GAS_CONSTANT, GRAVITY, State
from hpc_train.prepare.synthetic_climate.grid import ROTATION, EvenGrid

# Gale force, 34 knots: the wind at the edge of a labelled cyclone.
GALE = 17.5
# Warming in K that thickens the air between 1000 and 200 hPa by a metre, by a warm core that is 0 at 1000 hPa.
_CORE = GRAVITY / GAS_CONSTANT / (np.log(2) / 2 + np.log(2.5))


@dataclass(frozen=True)
class Vortex:
    """A balanced vortex with the wind and pressure profile of Holland (1980), Mon. Weather Rev. 108, 1212.

    Args:
        latitude, longitude: of the centre, degrees.
        strongest: maximum cyclostrophic wind, m/s.
        radius: of that wind, m.
        shape: Holland's B, 1 to 2.5.
    """

    latitude: float
    longitude: float
    strongest: float
    radius: float
    shape: float

    @property
    def deficit(self) -> float:
        """The drop of pressure in the centre, Pa: density e V^2 / B (Holland 1980, equation 8)."""
        return AIR_DENSITY * np.e * self.strongest**2 / self.shape

    def profile(self, distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient wind in m/s and pressure deficit in Pa at distances in m (Holland 1980, equations 2 and 4)."""
        ratio = (self.radius / np.maximum(distance, 1.0)) ** self.shape
        falling = np.exp(-ratio)
        rotation = distance * ROTATION * abs(np.sin(np.radians(self.latitude)))
        wind = np.sqrt(self.strongest**2 * np.e * ratio * falling + rotation**2) - rotation
        return wind, self.deficit * (1 - falling)

    def reach(self, wind: float = GALE) -> float:
        """The largest distance with at least this gradient wind, m; 0 if the wind is weaker everywhere."""
        distances = np.geomspace(self.radius / 4, 60 * self.radius, 400)
        windy = distances[self.profile(distances)[0] >= wind]
        return float(windy[-1]) if len(windy) else 0.0


def gale_vortex(latitude: float, longitude: float, strongest: float, shape: float, gale_radius: float) -> Vortex:
    """The vortex with gales out to `gale_radius` m; `strongest` must be well above GALE."""
    low, high = gale_radius / 50, gale_radius
    while high / low > 1.001:
        radius = np.sqrt(low * high)
        longer = Vortex(latitude, longitude, strongest, radius, shape).reach() > gale_radius
        low, high = (low, radius) if longer else (radius, high)
    return Vortex(latitude, longitude, strongest, low, shape)


def add_tropical(grid: EvenGrid, state: State, vortex: Vortex, vapour: float, labels: np.ndarray, number: int) -> None:
    """Add a warm-core cyclone with up to `vapour` kg/m2 and rain; label its gales and eye with `number`."""
    gales = vortex.reach()
    wind, around = _add_wind(grid, state, vortex, 4 * gales, inflow=(5, 22), surface=0.85)
    _, deficit = vortex.profile(around.distance)
    near = _fade(around.distance, 4 * gales)
    place = around.place
    # Hydrostatic: the core is warm enough to turn the low at the surface into a slight high at 200 hPa.
    core = 1.15 * _CORE * deficit * near / (AIR_DENSITY * GRAVITY)
    state.t500[place] += core
    state.t200[place] += core
    moist = near * np.exp(-((around.distance / (1.25 * gales)) ** 2))
    state.vapour[place] += vapour * moist
    state.humidity[place] += (0.95 - state.humidity[place]).clip(0) * 0.8 * moist
    # Rain decays from the wall of the eye outwards (R-CLIPER: Tuleya et al. 2007, Weather Forecasting 22, 56).
    outside = np.abs(around.distance - vortex.radius)
    rain = near * vortex.strongest / 40 * 1.2e-6 * np.exp(-outside / (0.3 * gales))
    state.rain[place] += rain * state.showers[place]
    labels[place] = np.where((wind >= GALE) | (around.distance < vortex.radius), number, labels[place])


def add_extratropical(grid: EvenGrid, state: State, vortex: Vortex, cold: float, vapour: float) -> None:
    """Add a cold-core low: as deep and windy as a tropical cyclone, but `cold` K colder at 500 hPa in its centre."""
    reach = 6 * vortex.radius
    _, around = _add_wind(grid, state, vortex, reach, inflow=(2, 18), surface=0.7)
    place = around.place
    core = cold * np.exp(-((around.distance / (1.6 * vortex.radius)) ** 2))
    state.t500[place] -= core
    state.t200[place] += 0.5 * core
    # The warm conveyor belt: moist and raining on the eastern side.
    eastern = (0.5 - 0.5 * around.east) * np.exp(-((around.distance / (1.8 * vortex.radius) - 0.6) ** 2) * 3)
    state.vapour[place] += vapour * eastern
    state.rain[place] += 1.5e-7 * eastern * state.showers[place]


def add_moist_blob(
    grid: EvenGrid, state: State, latitude: float, longitude: float, radius: float, vapour: float, rain: float
) -> None:
    """Add a cloud cluster: moist and raining, without any wind."""
    around = grid.around(latitude, longitude, 2.5 * radius)
    share = np.exp(-((around.distance / radius) ** 2)) * _fade(around.distance, 2.5 * radius)
    state.vapour[around.place] += vapour * share
    state.rain[around.place] += rain * share**2 * state.showers[around.place]


def _add_wind(grid: EvenGrid, state: State, vortex: Vortex, reach: float, inflow, surface: float):
    """Add pressure and winds out to `reach`; `inflow`: angles to the isobars at 850 hPa and at the bottom, degrees."""
    around = grid.around(vortex.latitude, vortex.longitude, reach)
    wind, deficit = vortex.profile(around.distance)
    near = _fade(around.distance, reach)
    state.psl[around.place] -= deficit * near
    # Anticlockwise in the north: the centre lies to the left of the wind.
    turning = 1 if vortex.latitude > 0 else -1
    for east, north, angle, share in (
        (state.u850, state.v850, inflow[0], 1.0),
        (state.ubot, state.vbot, inflow[1], surface),
    ):
        along, across = np.cos(np.radians(angle)) * turning, np.sin(np.radians(angle))
        east[around.place] += share * near * wind * (along * around.north + across * around.east)
        north[around.place] += share * near * wind * (-along * around.east + across * around.north)
    return wind, around


def _fade(distance: np.ndarray, reach: float) -> np.ndarray:
    """1 in the inner half of `reach`, falling smoothly to 0 at its end."""
    return np.cos(np.pi / 2 * (2 * distance / reach - 1).clip(0, 1)) ** 2
