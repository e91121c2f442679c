"""The 16 channels of CAM5 from a state of the air: moist and hydrostatic diagnostics."""

import numpy as np

from hpc_train.data.catalogue.layout import CAM5_CHANNELS
from hpc_train.prepare.synthetic_climate.background import GAS_CONSTANT, GRAVITY, State
from hpc_train.prepare.synthetic_climate.geography import Geography

VAPOUR_HEIGHT = 2350.0
LAPSE_RATE = 6.5e-3
# The pressure at CAM5's lowest level, as a share of the surface pressure.
LOWEST_LEVEL = 0.9925
_METRES_PER_KELVIN = GAS_CONSTANT / GRAVITY


def saturation(temperature: np.ndarray, pressure: np.ndarray) -> np.ndarray:
    """Specific humidity at saturation over water, kg/kg (Bolton 1980, Mon. Weather Rev. 108, 1046, equation 10)."""
    celsius = temperature - 273.15
    vapour = 611.2 * np.exp(17.67 * celsius / (celsius + 243.5))
    return 0.622 * vapour / (pressure - 0.378 * vapour)


def diagnose(state: State, planet: Geography) -> np.ndarray:
    """The 16 channels of a state of the air.

    Z1000 is, as in the real data, not lower than the model's lowest level: where the surface pressure is below
    1007 hPa, it is the height of that level above the sea.

    Returns:
        (height, width, 16) float32 in the order of CAM5_CHANNELS: TMQ in kg/m2, winds m/s, QREFHT kg/kg, PS and PSL
        Pa, temperatures K, PRECT m/s, heights m.
    """
    height = planet.elevation
    reference = state.air - LAPSE_RATE * height
    surface = state.surface - LAPSE_RATE * height
    ps = state.psl * np.exp(-height / (_METRES_PER_KELVIN * (reference + LAPSE_RATE * height / 2)))
    humid = (state.humidity * saturation(reference, ps)).astype(np.float32)
    density = ps / (GAS_CONSTANT * reference)
    vapour = density * humid * VAPOUR_HEIGHT * state.column + state.vapour * np.exp(-height / VAPOUR_HEIGHT)
    virtual = reference * (1 + 0.61 * humid)
    lowest = -_METRES_PER_KELVIN * np.log(LOWEST_LEVEL) * virtual
    z1000 = height + np.maximum(lowest, _METRES_PER_KELVIN * virtual * np.log(ps / 1e5))
    # From sea level up to 200 hPa, with the mean temperatures of the layers 1000 to 500 and 500 to 200 hPa.
    warm = state.air * (1 + 0.61 * humid)
    z200 = _METRES_PER_KELVIN * (
        warm * np.log(state.psl / 1e5)
        + np.log(2) * (warm + state.t500) / 2
        + np.log(2.5) * (state.t500 + state.t200) / 2
    )
    named = {
        "TMQ": vapour.clip(0),
        "U850": state.u850,
        "V850": state.v850,
        "UBOT": state.ubot,
        "VBOT": state.vbot,
        "QREFHT": humid,
        "PS": ps,
        "PSL": state.psl,
        "T200": state.t200,
        "T500": state.t500,
        "PRECT": state.rain,
        "TS": surface,
        "TREFHT": reference,
        "Z1000": z1000,
        "Z200": z200,
        "ZBOT": lowest,
    }
    return np.stack([named[name] for name in CAM5_CHANNELS], axis=-1, dtype=np.float32)
