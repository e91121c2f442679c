"""Random fields on the sphere: isotropic Gaussian noise of a given spectrum, by spherical harmonics."""

from functools import lru_cache

import numpy as np

from hpc_train.prepare.synthetic_climate.grid import EARTH_RADIUS, EvenGrid

# Triangular truncation: the shortest waves are 310 km long.
DEGREES = 127


def kinetic_spectrum(peak: int = 7) -> np.ndarray:
    """Power of a stream function for each degree, (DEGREES + 1,), whose wind has a mean square of 1 m2/s2.

    The wind's energy rises up to degree `peak` and falls as degree^-3 beyond, as observed at synoptic scales (Nastrom
    and Gage 1985, J. Atmos. Sci. 42, 950).
    """
    degree = np.arange(DEGREES + 1.0)
    energy = np.minimum((degree / peak) ** 2, (peak / np.maximum(degree, 1)) ** 3)
    return energy / energy.sum() * EARTH_RADIUS**2 / np.maximum(degree * (degree + 1), 1)


def tracer_spectrum(peak: int = 8, slope: float = 2.0) -> np.ndarray:
    """Power for each degree, (DEGREES + 1,), of a field of variance 1: constant up to `peak`, then as degree^-slope."""
    degree = np.arange(DEGREES + 1.0)
    power = np.where(degree < 1, 0, np.minimum(1, (peak / np.maximum(degree, 1)) ** slope))
    return power / power.sum()


def random_fields(grid: EvenGrid, draw: np.random.Generator, spectra: np.ndarray) -> np.ndarray:
    """One random map for each spectrum; the variance at every point is the sum of the spectrum.

    The same draw gives the same weather on every grid; a coarse grid leaves out the short waves.

    Args:
        spectra: power for each degree, (fields, DEGREES + 1).

    Returns:
        (fields, height, width) float32.
    """
    fields = len(spectra)
    parts = draw.standard_normal((2, fields, DEGREES + 1, DEGREES + 1), dtype=np.float32)
    scale = np.sqrt(spectra / (2 * np.arange(DEGREES + 1) + 1)).astype(np.float32)
    functions = _legendre(grid)
    orders, _, degrees = functions.shape
    # (orders, degrees, fields): the factors of the functions of each order.
    weights = (parts * scale[None, :, :, None])[:, :, :degrees, :orders].transpose(0, 3, 2, 1)
    cosines, sines = (np.matmul(functions, np.ascontiguousarray(part)) for part in weights)
    sines[0] = 0
    waves = (cosines - 1j * sines).astype(np.complex64) / 2
    waves[0] *= 2
    return np.fft.irfft(waves.transpose(2, 1, 0), grid.width, axis=-1, norm="forward").astype(np.float32)


@lru_cache(maxsize=2)
def _legendre(grid: EvenGrid) -> np.ndarray:
    """Associated Legendre functions of the latitudes, (orders, height, degrees) float32; 0 where order > degree.

    Normalised so that the squares of all functions of a degree, times cosine or sine of longitude, sum to 2 degree + 1
    (Holmes and Featherstone 2002, J. Geodesy 76, 279, equations 11 and 12).
    """
    count = min(DEGREES, grid.height // 2 - 1, grid.width // 2 - 1) + 1
    sine, cosine = np.sin(np.radians(grid.latitude)), np.cos(np.radians(grid.latitude))
    found = np.zeros((count, count, grid.height))
    found[0, 0] = 1
    for order in range(1, count):
        factor = np.sqrt(3) if order == 1 else np.sqrt((2 * order + 1) / (2 * order))
        found[order, order] = factor * cosine * found[order - 1, order - 1]
    for degree in range(1, count):
        order = np.arange(degree)[:, None]
        first = np.sqrt((4 * degree**2 - 1) / (degree**2 - order**2))
        found[degree, :degree] = first * sine * found[degree - 1, :degree]
        if degree > 1:
            second = np.sqrt(((degree - 1.0) ** 2 - order**2).clip(0) / (4 * (degree - 1) ** 2 - 1))
            found[degree, :degree] -= first * second * found[degree - 2, :degree]
    return np.ascontiguousarray(found.transpose(1, 2, 0), np.float32)
