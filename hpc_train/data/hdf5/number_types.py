"""Which HDF5 types are numbers as NumPy stores them: HDF5's own description decides, not NumPy's name of the type."""

from functools import lru_cache

import h5py

# The largest numbers that are read, in bytes: NumPy's longer ones differ from machine to machine.
_LARGEST = 8
_NAMES = {
    h5py.h5t.STRING: "text",
    h5py.h5t.VLEN: "sequences of variable length",
    h5py.h5t.COMPOUND: "compound values",
    h5py.h5t.REFERENCE: "references",
    h5py.h5t.OPAQUE: "opaque bytes",
    h5py.h5t.TIME: "HDF5 times",
    h5py.h5t.ARRAY: "arrays in each element",
    # From HDF5 2.0 on.
    getattr(h5py.h5t, "COMPLEX", None): "complex numbers",
}
_REMEDIES = {
    "c": "store the real and the imaginary parts as two data sets",
    "i": "store it as int64",
    "u": "store it as uint64",
    "f": "store it as float64",
}


def not_numbers(dataset: h5py.Dataset) -> str | None:
    """Why the values of a data set cannot be samples, with a remedy; None for whole and floating-point numbers."""
    try:
        dtype = dataset.dtype
    # h5py has no NumPy type for it.
    except (TypeError, ValueError):
        stored = dataset.id.get_type()
        numbers = {h5py.h5t.INTEGER: "whole", h5py.h5t.FLOAT: "floating-point", h5py.h5t.BITFIELD: "whole"}
        kind = numbers.get(stored.get_class())
        if kind is None:
            return f"holds {_NAMES.get(stored.get_class(), 'an unknown type')}, not numbers; choose another data set"
        return f"holds {kind} numbers of {8 * stored.get_size()} bits; store them as 32 or 64 bits"
    if dtype.kind in "uifb" and dtype.itemsize <= _LARGEST:
        return None
    stored, named = dataset.id.get_type(), dtype.kind in _REMEDIES
    what = dtype.name if named else _NAMES.get(stored.get_class(), str(dtype))
    if dtype.kind in "uif":
        return f"holds {what}, numbers beyond 64 bits; {_REMEDIES[dtype.kind]}"
    return f"holds {what}, not numbers; choose another data set{f', or {_REMEDIES[dtype.kind]}' if named else ''}"


def is_plain(dataset: h5py.Dataset) -> bool:
    """Whether the stored bytes are those of the NumPy type: order, precision, offset, padding, sign, exponent alike."""
    return _is_plain(dataset.id.get_type().encode())


# The files of a data set have few types.
@lru_cache(maxsize=256)
def _is_plain(encoded: bytes) -> bool:
    stored = h5py.h5t.decode(encoded)
    return bool(h5py.h5t.py_create(stored.dtype, logical=True).equal(stored))
