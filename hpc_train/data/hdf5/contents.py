"""What an HDF5 file holds, whatever stands beside it: its data sets by name, and attributes of text.

Names are text; bytes that are no UTF-8 are surrogates in it, as in Python's names of files.
"""

import re
from contextlib import suppress

import h5py
import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.files.hdf5 import UNREADABLE, objects


def split_name(dataset: str) -> tuple[str, int | None]:
    """("climate/labels", 0) of "climate/labels[0]"; ("climate/data", None) of a name without an index."""
    match = re.fullmatch(r"(.+)\[(\d+)\]", dataset, re.DOTALL)
    return (match[1], int(match[2])) if match else (dataset, None)


def member(group: h5py.Group, name: str):
    """The object of this name; None where there is none, or it cannot be opened."""
    with suppress(*UNREADABLE):
        return group[name.encode("utf-8", "surrogateescape")]
    return None


def not_opened(file: h5py.File, name: str) -> str | None:
    """Why the object of this name cannot be opened, as HDF5 says; None where it can, or there is none."""
    key = name.encode("utf-8", "surrogateescape")
    try:
        file[key]
    except UNREADABLE as error:
        with suppress(*UNREADABLE):
            return reason(error) if isinstance(file.get(key, getlink=True), h5py.HardLink) else None
    return None


def name_of(dataset: h5py.Dataset) -> str:
    """Its name, without the slash that it begins with."""
    name = dataset.name
    return (name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name).lstrip("/")


def dataset_at(file: h5py.File, name: str) -> tuple[h5py.Dataset | None, int | None]:
    """(data set, index of a sample's first axis or None) that a name means: x[0] is index 0 of x, if no x[0] exists."""
    held, index = id_at(file, name)
    return None if held is None else h5py.Dataset(held, readonly=True), index


def id_at(file: h5py.File, name: str) -> tuple[h5py.h5d.DatasetID | None, int | None]:
    """`dataset_at` as HDF5's own data set."""
    base, index = split_name(name)
    whole = _opened(file, name)
    if whole is not None or index is None:
        return whole, None
    return _opened(file, base), index


def _opened(file: h5py.File, name: str) -> h5py.h5d.DatasetID | None:
    """The data set of this name, of a file that is read; None where there is none, or it cannot be opened."""
    with suppress(*UNREADABLE):
        # In half the time of `file[name]`, which also looks at what else it might be.
        return h5py.h5d.open(file.id, name.encode("utf-8", "surrogateescape"))
    return None


def path_at(file: h5py.File, name: str) -> str:
    """The path of the data set that a name means, without an index."""
    return name if dataset_at(file, name)[1] is None else split_name(name)[0]


def datasets_of(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All data sets of a file that can be opened, by their paths; links to elsewhere are not followed."""
    return {path: item for path, item in objects(file) if isinstance(item, h5py.Dataset)}


def text_attribute(item, name: str) -> str | None:
    """An attribute that is one text; None where there is none, or it is anything else."""
    with suppress(*UNREADABLE):
        value = item.attrs.get(name)
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.ravel()[0]
        if isinstance(value, str | bytes):
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    return None


def texts_attribute(item, name: str) -> tuple[str, ...]:
    """An attribute that is several texts; none where there is none, or it is anything else."""
    with suppress(*UNREADABLE):
        values = np.ravel(item.attrs.get(name, ()))
        if all(isinstance(value, str | bytes) for value in values):
            return tuple(v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values)
    return ()
