"""Geometry on a sphere: discs on a grid, and ways along great circles. Angles are in degrees."""

import numpy as np

# Mean radius of the Earth (IUGG: (2a + b) / 3 of WGS 84).
EARTH_RADIUS_KM = 6371.0088


def km_to_degrees(km: float) -> float:
    """Angle at the centre of the Earth of a way along its surface."""
    return float(np.degrees(km / EARTH_RADIUS_KM))


def distance(latitude, longitude, latitudes, longitudes):
    """Great-circle distances in degrees by the haversine formula, which is exact for small ones; arrays broadcast."""
    latitude, longitude, latitudes, longitudes = map(np.radians, (latitude, longitude, latitudes, longitudes))
    half = np.sin((latitudes - latitude) / 2) ** 2
    half = half + np.cos(latitude) * np.cos(latitudes) * np.sin((longitudes - longitude) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))))


def disc(latitudes, longitudes, latitude, longitude, radius):
    """Rows, int64 (k,), that may hold points of the disc, and which of their points do, bool (k, w).

    latitudes (h,), longitudes (w,): the grid, in any order, longitudes of any turn; radius: degrees.
    """
    rows = np.flatnonzero(np.abs(latitudes - latitude) <= radius)
    return rows, distance(latitude, longitude, latitudes[rows, None], longitudes[None, :]) <= radius


def along_great_circle(start, end, share):
    """(latitudes, longitudes in [-180, 180)) at a share, 0 to 1, of the shortest way between two points.

    start, end: (latitudes, longitudes), arrays (n,); share: (n,). Shoemake 1985: p(t) = (sin((1-t)a) p0 + sin(ta) p1)
    / sin a, with a the angle between unit vectors p0 and p1. Of two points that are opposite no way is the shortest.
    """
    first, last = _vectors(*start), _vectors(*end)
    angle = np.radians(distance(*start, *end))
    near = angle < 1e-12
    sine = np.where(near, 1, np.sin(angle))
    weights = np.where(near, 1 - share, np.sin((1 - share) * angle) / sine)
    others = np.where(near, share, np.sin(share * angle) / sine)
    x, y, z = weights * first + others * last
    return np.degrees(np.arctan2(z, np.hypot(x, y))), (np.degrees(np.arctan2(y, x)) + 180) % 360 - 180


def _vectors(latitudes, longitudes):
    """Unit vectors, (3, n)."""
    latitudes, longitudes = np.radians(latitudes), np.radians(longitudes)
    cosine = np.cos(latitudes)
    return np.stack([cosine * np.cos(longitudes), cosine * np.sin(longitudes), np.sin(latitudes)])
