"""Geometry on a sphere: discs on a grid, and points along great circles. Angles are in degrees."""

import numpy as np

# Mean radius of the Earth (IUGG: (2a + b) / 3 of WGS 84). The synthetic climate has the round 6,371 km: its data would
# change with another value.
EARTH_RADIUS_KM = 6371.0088


def km_to_degrees(km: float) -> float:
    """The angle at the centre of the Earth that a distance along its surface has."""
    return float(np.degrees(km / EARTH_RADIUS_KM))


def distance(latitude, longitude, latitudes, longitudes):
    """Great-circle distances in degrees; arrays broadcast. The haversine formula is exact for small distances too."""
    latitude, longitude, latitudes, longitudes = map(np.radians, (latitude, longitude, latitudes, longitudes))
    half = np.sin((latitudes - latitude) / 2) ** 2
    half = half + np.cos(latitude) * np.cos(latitudes) * np.sin((longitudes - longitude) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0, 1))))


def disc(latitudes, longitudes, latitude, longitude, radius):
    """The points of a grid that are in a disc.

    Args:
        latitudes, longitudes: (h,) and (w,), the grid, in any order; longitudes may be outside [-180, 180).
        latitude, longitude: of the centre.
        radius: in degrees.

    Returns:
        Rows that may hold points of the disc, int64 (k,), and which of their points do, bool (k, w).
    """
    rows = np.flatnonzero(np.abs(latitudes - latitude) <= radius)
    return rows, distance(latitude, longitude, latitudes[rows, None], longitudes[None, :]) <= radius


def along_great_circle(start, end, share):
    """The points at a share of the shortest way between pairs of points.

    Shoemake 1985: p(t) = (sin((1-t)a) p0 + sin(ta) p1) / sin a, with a the angle between unit vectors p0 and p1. Two
    opposite points have no shortest way.

    Args:
        start, end: each latitudes (n,) and longitudes (n,).
        share: (n,), from 0 at the start to 1 at the end.

    Returns:
        Latitudes (n,), and longitudes (n,) in [-180, 180).
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
