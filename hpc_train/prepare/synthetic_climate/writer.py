"""Writes a sample as a file with coordinates, in the layout of the published CAM5 and DeepCAM data."""

from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.files.whole import atomic_path
from hpc_train.prepare.synthetic_climate.grid import EvenGrid
from hpc_train.prepare.synthetic_climate.weather import Moment, Weather

_RUN = 1


def file_name(number: int) -> str:
    """The name of sample `number` of a split: data-YYYY-MM-DD-TT-R.h5."""
    return f"data-{Moment.of(number).name}-{_RUN}.h5"


def write(path: Path, grid: EvenGrid, weather: Weather) -> int:
    """Write one sample, completely or not at all.

    The file has climate/data (height, width, 16) float32; climate/labels_0 (height, width) float32; climate/data_stats
    (4, 16) float32: mean, maximum, minimum and standard deviation of each channel; climate/latitude (height,) and
    climate/longitude (width,) float64, degrees.

    Returns:
        The bytes of the file.

    Raises:
        UserError: it cannot be written.
    """
    flat = weather.data.reshape(-1, weather.data.shape[-1])
    stats = np.stack([flat.mean(0, np.float64), flat.max(0), flat.min(0), flat.std(0, np.float64)], dtype=np.float32)
    with atomic_path(path, "choose another --output, then give the same command again") as temporary:
        with open_hdf5(temporary, "w") as file:
            climate = file.create_group("climate")
            climate["data"] = weather.data
            climate["labels_0"] = weather.labels
            climate["data_stats"] = stats
            climate["latitude"] = grid.latitude
            climate["longitude"] = grid.longitude
            for name, unit in (("latitude", "degrees_north"), ("longitude", "degrees_east")):
                climate[name].attrs.update(units=unit, standard_name=name)
        return temporary.stat().st_size
