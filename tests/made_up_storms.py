"""Made-up best tracks and fields of winds, and `hpc-train prepare storm-tracks` on them."""

import gzip

import numpy as np
import pytest
import tyro

from hpc_train.errors import UserError
from hpc_train.prepare.storm_tracks.command import StormTracks, run

netCDF4 = pytest.importorskip("netCDF4")

HEADER = "track_id,basin,time,lat,lon,status,wind"
# Crosses the date line to the east, then turns extratropical; and a weak storm in the North Atlantic.
ROWS = [
    "W1,WP,2018-09-01 00:00:00,10.0,178.0,TS,40",
    "W1,WP,2018-09-01 06:00:00,10.0,-178.0,TY,70",
    "W1,WP,2018-09-01 12:00:00,14.0,-174.0,EX,50",
    "A1,,2018-09-01 00:00:00,20.0,320.0,TD,30",
    "A1,,2018-09-01 12:00:00,20.0,322.0,TS,36",
    "A1,,2018-09-03 12:00:00,30.0,322.0,TS,45",
]


def times(*texts):
    return np.array(texts, "datetime64[s]")


def write_tracks(path, rows=ROWS, header=HEADER):
    text = "\n".join([header, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def write_fields(
    path, hours=(0, 3, 6, 9), rows=37, columns=72, form="NETCDF4", since="2018-09-01", order="north", **more
):
    """Winds on a 5-degree grid, packed as GFS's are; u10 counts the pixels, v10 is the number of the time."""
    latitudes = np.linspace(90, -90, rows) if order == "north" else np.linspace(-90, 90, rows)
    with netCDF4.Dataset(path, "w", format=form) as file:
        for name, values, units in (
            ("time", hours, f"hours since {since} 00:00:00"),
            ("lat", latitudes, "degrees_north"),
            ("lon", np.arange(columns) * 360 / columns, "degrees_east"),
        ):
            file.createDimension(name, len(values))
            file.createVariable(name, "f8", (name,))[:] = values
            file[name].units = units
        for name in ("u10", "v10"):
            wind = file.createVariable(name, "i2", ("time", "lat", "lon"))
            wind.scale_factor, wind.add_offset = 0.05, 1.0
        file["u10"][:] = 1 + 0.05 * np.arange(rows * columns).reshape(rows, columns)
        file["v10"][:] = np.arange(len(hours))[:, None, None]
        for change in more.values():
            change(file)
    return path


def prepare(folder, *arguments, fields="*.nc", splits=("train=2018",), radius=("--radius-degrees", "6")):
    command = ["--fields", str(folder / fields), "--tracks", str(folder / "tracks.csv"), "--splits", *splits]
    command += ["--output", str(folder / "out"), *radius, *map(str, arguments)]
    run(tyro.cli(StormTracks, args=[*command, *([] if "--variables" in arguments else ["--variables", "u10", "v10"])]))
    return folder / "out"


def refusal(function, *arguments, **options):
    """The one line of the UserError that the call ends with."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def angle(latitude, longitude, latitudes, longitudes):
    """Degrees between points, from the dot product of unit vectors."""

    def vector(north, east):
        north, east = np.radians(north), np.radians(east)
        return np.array([np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north) + 0 * east])

    product = np.tensordot(vector(latitude, longitude), vector(latitudes, longitudes), 1)
    return np.degrees(np.arccos(np.clip(product, -1, 1)))
