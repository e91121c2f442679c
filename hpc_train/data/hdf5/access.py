"""What the suite needs of HDF5 beyond h5py: opening without locks, one-line errors, text of fixed length."""

import os
import stat
from functools import cache

import h5py
import numpy as np

from hpc_train.data.hdf5.guarded import GuardedFile
from hpc_train.errors import UserError
from hpc_train.files.hdf5 import in_other_files

_VERSION = h5py.version.hdf5_version_tuple
_LOCKS_CAN_BE_LEFT = _VERSION >= (1, 12, 1) or (1, 10, 7) <= _VERSION < (1, 11)


def open_hdf5(path, mode="r", **options):
    """Open an h5py.File without file locking, where the HDF5 library allows it; to write, a `GuardedFile`.

    Locks fail on read-only and on many parallel file systems, and data files are never changed in place.

    Raises:
        UserError: for what is no file but a pipe or a device, from which HDF5 might wait to read.
    """
    if mode != "r":
        return GuardedFile(path, mode, **options)
    # A Python file that HDF5 reads through has no path.
    if isinstance(path, str | os.PathLike):
        kind = stat.S_IFMT(os.stat(path).st_mode)
        if kind not in (stat.S_IFREG, stat.S_IFDIR):
            raise UserError(f"{path}: is no file but a pipe or a device; leave it out")
    if _LOCKS_CAN_BE_LEFT and not options and isinstance(path, str):
        # As h5py.File does it, with one access list for all files.
        return h5py.File(h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY, _access()))
    if _LOCKS_CAN_BE_LEFT:
        options["locking"] = False
    return h5py.File(path, mode, **options)


@cache
def _access():
    """How files are opened: without locks."""
    plist = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    plist.set_libver_bounds(h5py.h5f.LIBVER_EARLIEST, h5py.h5f.LIBVER_LATEST)
    plist.set_file_locking(False, ignore_when_disabled=False)
    return plist


def reason(error):
    """Why a file operation failed, in one line; HDF5's own messages have several."""
    code = getattr(error, "errno", None)
    # The text of a KeyError is quoted.
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return os.strerror(code) if code else " ".join(str(text).split())


def fixed_length(text):
    """UTF-8 strings of fixed length: HDF5 keeps those of variable length in a heap without checksums."""
    encoded = np.char.encode(np.array(text, dtype=str), "utf-8")
    return encoded.astype(h5py.string_dtype("utf-8", max(1, encoded.dtype.itemsize)))


def lies_in(file, dataset):
    """Whether the data set is in this file, not in another one that an external link points to."""
    return h5py.h5f.get_name(dataset.id) == h5py.h5f.get_name(file.id)


def elsewhere(file, dataset):
    """Whether bytes of a data set may be in other files: by a link, as a virtual data set, or as external storage."""
    return in_other_files(dataset) or not lies_in(file, dataset)
