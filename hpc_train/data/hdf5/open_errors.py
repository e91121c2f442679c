"""Why a file cannot be opened or read as HDF5, and what to do about it: HDF5's own reason, and the kind of file."""

import glob
import re
from contextlib import suppress

import h5py

from hpc_train.data.hdf5.access import reason

_AGAIN = "fetch or write it again"
# The first bytes of other kinds of files.
_OTHERS = {
    b"CDF": "classic NetCDF, not HDF5; convert it with `nccopy -k nc4 in.nc out.nc`",
    b"\x0e\x03\x13\x01": "HDF4, not HDF5; convert it with `h4toh5convert in.hdf out.h5` (The HDF Group's h4h5tools)",
    b"\x1f\x8b": "compressed with gzip; unpack it with gunzip",
    b"PK\x03\x04": "a zip archive; unpack it with unzip",
    b"<": f"a page of the web or XML, not HDF5; {_AGAIN}",
}
_WRITING = (
    "open for writing, or its writer ended without closing it; wait until it is closed, or if nobody writes it, "
    "clear its mark with `h5clear -s FILE`"
)
_SUBFILES = "written in parts (HDF5's subfiling driver); join them with `h5fuse -f CONFIG`"
# In the block of the superblock that names the driver.
_PARTS = {
    b"NCSAfami": "one part of a family of files; join them with `h5repart NAME%d.h5 one.h5`",
    b"NCSAmult": "one part of a file in several (HDF5's multi or split driver); open it with "
    "h5py.File(NAME, driver='split') and copy its data sets to one file",
}
_FIRST = ("-m.h5", "-s.h5")
_HEAD = 1024
_GRIB_WITHIN = 64
GRIB = (
    "GRIB, not HDF5 or NetCDF-4; convert it with ecCodes, `grib_to_netcdf -k 3 -o out.nc in.grib`, or in Python with "
    "cfgrib: xarray.open_dataset('in.grib', engine='cfgrib').to_netcdf('out.nc')"
)


def is_grib(path) -> bool:
    """Whether a file is in GRIB, by the bytes that its first message begins with, after at most a short heading."""
    start = _head(path)[:_GRIB_WITHIN]
    # Heading lines of weather services' bulletins are text before the message.
    return b"GRIB" in start and b"\x89HDF" not in start and start[:3] != b"CDF"


def unreadable(path: str, error: Exception) -> str:
    """Why a file could not be opened or read as HDF5, in one line."""
    if getattr(error, "errno", None):
        return f"{path}: cannot be read ({reason(error)}); check the path and its permissions"
    return f"{path}: {_why(path, reason(error))}"


def _why(path: str, said: str) -> str:
    start = _head(path)
    if is_grib(path):
        return GRIB
    if not start:
        return f"an empty file; {_AGAIN}"
    if "already open for" in said or "flag values don't match" in said:
        return _WRITING
    if ".subfile_" in path or glob.glob(f"{glob.escape(path)}.subfile_*"):
        return _SUBFILES
    if any(word in said for word in ("truncated", "signature not found", "driver should be used")):
        # Parts but the first have no superblock.
        first = [path, re.sub(r"\d+(?=\D*\.\w+$)", "0", path), *(re.sub(r"-\w\.h5$", end, path) for end in _FIRST)]
        heads = b"".join(map(_head, first))
        if kind := next((text for mark, text in _PARTS.items() if mark in heads), None):
            return kind
    if sizes := re.search(r"truncated file: eof = (\d+), .*stored_eof = (\d+)", said):
        return f"truncated: {sizes[1]} of {sizes[2]} bytes; {_AGAIN}"
    if "signature not found" in said:
        return next((text for mark, text in _OTHERS.items() if start.startswith(mark)), f"not an HDF5 file; {_AGAIN}")
    return f"damaged, or beyond this version of HDF5 ({said}); {of_newer(said) or _AGAIN}"


def of_newer(said: str) -> str | None:
    """What to do about what HDF5 said of a version that it does not know; None where it said something else."""
    if "version number" not in said:
        return None
    ours = h5py.version.hdf5_version
    return f"if an HDF5 newer than {ours} wrote it, write it there with h5py's libver='v114'; else {_AGAIN}"


def _head(path: str) -> bytes:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(_HEAD)
    return b""
