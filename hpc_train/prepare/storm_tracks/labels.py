"""The grid of the fields, and label maps on it."""

from typing import NamedTuple

import numpy as np

from hpc_train.errors import UserError
from hpc_train.prepare.storm_tracks.great_circle import disc
from hpc_train.prepare.storm_tracks.tracks import Storm


class FileGrid(NamedTuple):
    """The grid that all files have.

    Args:
        path: of the file that it was read from.
        latitudes, longitudes: (h,) and (w,), degrees, in the order of the file.
    """

    path: str
    latitudes: np.ndarray
    longitudes: np.ndarray

    def check(self, path: str, latitudes, longitudes) -> None:
        """Raise a UserError if the grid of the file `path` is another one."""
        for name, mine, theirs in (("lat", self.latitudes, latitudes), ("lon", self.longitudes, longitudes)):
            if not np.array_equal(mine, theirs):
                raise UserError(
                    f"{path}: {name} is not that of {self.path} ({_described(theirs)}, not {_described(mine)}); "
                    "prepare files of different grids separately"
                )

    def check_radius(self, radius: float) -> None:
        """Raise a UserError if a disc of this radius, in degrees, may hold no point of the grid."""
        steps = [np.abs(np.diff(values)).max(initial=0) for values in (self.latitudes, self.longitudes)]
        least = np.hypot(*steps) / 2
        if radius < least:
            raise UserError(
                f"{self.path}: a disc of {radius:.3g} degrees may fall between the points of the grid, which are "
                f"{steps[0]:.3g} x {steps[1]:.3g} apart; give a radius of at least {least:.3g} degrees"
            )

    def label(self, storms, radius: float) -> np.ndarray:
        """uint8 (h, w): 1 within `radius` degrees of a storm, else 0."""
        labels = np.zeros((len(self.latitudes), len(self.longitudes)), np.uint8)
        for storm in storms:
            rows, inside = disc(self.latitudes, self.longitudes, storm.latitude, storm.longitude, radius)
            labels[rows] |= inside
        return labels

    def holds(self, storm: Storm, radius: float) -> bool:
        """Whether any point of the grid is in the storm's disc."""
        return bool(disc(self.latitudes, self.longitudes, storm.latitude, storm.longitude, radius)[1].any())


def _described(values) -> str:
    return f"{len(values)} from {values[0]:g} to {values[-1]:g}"
