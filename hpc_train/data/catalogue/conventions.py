"""NetCDF's conventions for the numbers of a data set: sign, packing, missing values (CF 1.11, sections 2.5.1 and 8.1).

The attributes are in the file's units: that of the packed numbers, with the sign that _Unsigned gives.
"""

from math import ceil, floor, isfinite
from typing import NamedTuple

import h5py
import numpy as np

from hpc_train.data.hdf5.contents import UNREADABLE
from hpc_train.errors import UserError

UNPACKED = (1.0, 0.0)
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)
# A larger number is no measurement: NetCDF's own fill value is 9.97e36, others are 1e20 and the largest float32.
_NO_MEASUREMENT = 1e15
_MOST_SHOWN = 60
_NAMES: tuple[str, ...] = ("_Unsigned", "scale_factor", "add_offset", "_FillValue", "missing_value")
_NAMES += ("valid_range", "valid_min", "valid_max")


class Missing(NamedTuple):
    """Which stored numbers of a data set stand for no value.

    Args:
        values: these (_FillValue, missing_value, and a fill value of HDF5 that can be no measurement).
        low, high: and those outside (valid_range, valid_min, valid_max); None for no limit.
        unwritten: HDF5's fill value of floating-point data, which may be a number like others: only statistics take it
            for none.
    """

    values: tuple[float, ...] = ()
    low: float | None = None
    high: float | None = None
    unwritten: float | None = None

    def among(self, stored: np.ndarray) -> bool:
        """Whether one of these numbers, of any shape, stands for no value; NaN does not count."""
        if not stored.size:
            return False
        if any((stored == value).any() for value in self.values):
            return True
        below = self.low is not None and stored.min() < self.low
        return bool(below or (self.high is not None and stored.max() > self.high))

    def find(self, stored: np.ndarray, strict: bool = False) -> np.ndarray:
        """Which of these numbers, of any shape, stand for no value, bool; strict: count `unwritten` as well."""
        found = np.zeros(stored.shape, bool)
        for value in (*self.values, *([self.unwritten] if strict and self.unwritten is not None else [])):
            found |= stored == value
        if self.low is not None:
            found |= stored < self.low
        if self.high is not None:
            found |= stored > self.high
        return found


class Numbers(NamedTuple):
    """What the numbers of a data set mean.

    Args:
        dtype: the stored numbers, with the sign that is meant; of booleans, uint8.
        packing: (scale, offset): value = stored * scale + offset.
        missing: which of them stand for no value.
    """

    dtype: np.dtype
    packing: tuple[float, float]
    missing: Missing


def numbers_of(dataset: h5py.Dataset, where: str) -> Numbers:
    """What the numbers of a data set mean by its attributes.

    Args:
        dataset: of whole or floating-point numbers, or booleans.
        where: file and data set, which messages begin with.

    Raises:
        UserError: an attribute is not what the conventions say; it names the attribute.
    """
    attributes = _Attributes(dataset, where)
    dtype = _signed(attributes)
    scale = attributes.number("scale_factor", 1.0)
    offset = attributes.number("add_offset", 0.0)
    for name, value in (("scale_factor", scale), ("add_offset", offset)):
        size = abs(value)
        if size > _MOST or (name == "scale_factor" and 0 < size < _LEAST):
            raise attributes.wrong(name, "not a number that float32 can hold")
    packing = scale, offset
    packed = packing != UNPACKED
    values = _missing_values(attributes, dtype, packing)
    low, high = _limits(attributes, dtype, packed)
    fill, unwritten = _fill_value(attributes, dtype, packed), None
    if fill is not None and (packed or abs(fill) >= _NO_MEASUREMENT):
        values.append(fill)
    else:
        unwritten = fill
    return Numbers(dtype, packing, Missing(tuple(dict.fromkeys(values)), low, high, unwritten))


def conventions_of(dataset: h5py.h5d.DatasetID) -> set[str]:
    """Names of the attributes of a data set that say what its numbers mean."""
    # By far the most have none at all.
    some = h5py.h5a.get_num_attrs(dataset)
    return {name for name in _NAMES if h5py.h5a.exists(dataset, name.encode())} if some else set()


class _Attributes:
    """The attributes of a data set, checked."""

    def __init__(self, dataset: h5py.Dataset, where: str):
        self.dataset, self._where = dataset, where
        self.names = conventions_of(dataset.id)

    def get(self, name: str):
        """The value as h5py gives it, None where there is none."""
        try:
            return self.dataset.attrs[name] if name in self.names else None
        # h5py raises many kinds of errors for types and text that it cannot read.
        except UNREADABLE as error:
            why = " ".join(str(error).split())
            raise UserError(f"{self._where}: attribute {name} cannot be read ({why}); {self._remedy(name)}") from error

    def vector(self, name: str) -> np.ndarray | None:
        """One or more numbers (n,), None where there are none."""
        value = self.get(name)
        if value is None:
            return None
        array = np.asarray(value)
        if isinstance(value, h5py.Empty) or not array.size:
            raise self.wrong(name, "but empty" if isinstance(value, h5py.Empty) else "empty")
        if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
            raise self.wrong(name, "not a number")
        return array.ravel()

    def one(self, name: str):
        """One number of NumPy's type, None where there is none."""
        vector = self.vector(name)
        if vector is not None and len(vector) > 1:
            raise self.wrong(name, "not one number")
        return None if vector is None else vector[0]

    def number(self, name: str, default: float) -> float:
        """One finite number."""
        value = self.one(name)
        if value is not None and not np.isfinite(value):
            raise self.wrong(name, "not a finite number")
        return default if value is None else float(value)

    def wrong(self, name: str, what: str) -> UserError:
        """The error for an attribute, and what to do."""
        value = np.asarray(self.get(name))
        shown = f"{value.size} numbers" if value.size > 8 else " ".join(repr(value.tolist()).split())
        shown = shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."
        return UserError(f"{self._where}: attribute {name} is {shown}, {what}; {self._remedy(name)}")

    def _remedy(self, name: str) -> str:
        return f"correct it, or delete it (h5py: del file[{self.dataset.name!r}].attrs[{name!r}])"


def _signed(attributes: _Attributes) -> np.dtype:
    """The type of the stored numbers, with the sign that _Unsigned gives them."""
    dtype = attributes.dataset.dtype
    if dtype.kind == "b":
        return np.dtype(np.uint8)
    value = attributes.get("_Unsigned")
    if value is None or dtype.kind not in "ui":
        return np.dtype(dtype.str)
    words = np.asarray(value).ravel()
    word = words[0] if len(words) == 1 else ""
    text = word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word)
    kind = {"true": "u", "false": "i"}.get(text.strip("\0 ").lower())
    if not kind:
        raise attributes.wrong("_Unsigned", 'not "true" or "false"')
    return np.dtype(f"{dtype.str[0]}{kind}{dtype.itemsize}")


def _missing_values(attributes: _Attributes, dtype: np.dtype, packing: tuple[float, float]) -> list[float]:
    """The stored numbers that _FillValue and missing_value name."""
    found = []
    for name in ("_FillValue", "missing_value"):
        vector = attributes.vector(name)
        if vector is not None and name == "_FillValue" and len(vector) > 1:
            raise attributes.wrong(name, "not one number")
        for value in () if vector is None else vector:
            number = _as_stored(value, attributes.dataset.dtype, dtype)
            if number is not None:
                found.append(number)
            elif packing != UNPACKED and dtype.kind != "f" and np.isfinite(value):
                ends = [float(end) * packing[0] + packing[1] for end in (np.iinfo(dtype).min, np.iinfo(dtype).max)]
                # Elsewhere no value could be meant, packed or not.
                if min(ends) <= value <= max(ends):
                    raise attributes.wrong(name, f"not a number as it is packed, in {dtype.name}")
    return found


def _limits(attributes: _Attributes, dtype: np.dtype, packed: bool) -> tuple[float | None, float | None]:
    """The lowest and highest valid stored number, None for no limit."""
    pair = attributes.vector("valid_range")
    if pair is not None and len(pair) != 2:
        raise attributes.wrong("valid_range", "not two numbers")
    ends = [] if pair is None else [("valid_range", 0, pair[0]), ("valid_range", 1, pair[1])]
    for place, name in enumerate(("valid_min", "valid_max")):
        if (value := attributes.one(name)) is not None:
            ends.append((name, place, value))
    limits: list[float | None] = [None, None]
    for name, place, value in ends:
        wide = value.dtype.kind == "f" and not (dtype.kind == "f" and value.dtype.itemsize <= dtype.itemsize)
        if np.isnan(value):
            raise attributes.wrong(name, "not a number")
        if wide and packed and np.isfinite(value):
            # NetCDF's User Guide takes such a limit for an unpacked value, CF for a packed one.
            raise attributes.wrong(name, f"not in {dtype.name}, so it may be meant packed or unpacked")
        limit = _limit(value, place, attributes.dataset.dtype, dtype)
        if limits[place] not in (None, limit):
            raise attributes.wrong(name, f"but {limits[place]} by valid_range")
        limits[place] = limit
    low, high = limits
    if low is not None and high is not None and low > high:
        raise attributes.wrong(ends[-1][0], "below the lowest valid number")
    return low, high


def _limit(value, place: int, stored: np.dtype, dtype: np.dtype) -> float | None:
    """A limit in the type of the data; None where all numbers of the type are within it."""
    if not np.isfinite(value):
        return None if (value > 0) == place else float(value)
    number = _as_stored(value, stored, dtype)
    if dtype.kind == "f":
        return number
    if number is None:
        number = (ceil, floor)[place](value.item())
    end = (np.iinfo(dtype).min, np.iinfo(dtype).max)[place]
    return None if (number >= end if place else number <= end) else number


def _as_stored(value, stored: np.dtype, dtype: np.dtype) -> float | None:
    """The number of type `dtype` that an attribute's value means, None where there is none.

    Args:
        value: a number of NumPy's type.
        stored: type of the data set; the value may be in it, with the other sign.
        dtype: with the sign that is meant.
    """
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            # 1e20 means the nearest float32.
            number = float(dtype.type(value))
        return number if np.isfinite(number) else None
    # As Python's: NumPy's integers of 64 bits would be compared as floating-point numbers.
    number = value.item()
    if not isfinite(number) or number != floor(number):
        return None
    number = int(number)
    if np.iinfo(dtype).min <= number <= np.iinfo(dtype).max:
        return number
    if stored.kind in "ui" and np.iinfo(stored).min <= number <= np.iinfo(stored).max:
        return int(np.array(number, stored).astype(dtype))
    return None


def _fill_value(attributes: _Attributes, dtype: np.dtype, packed: bool) -> float | None:
    """HDF5's own fill value, where there is no _FillValue and it may stand for none; programs also set others."""
    dataset = attributes.dataset
    if "_FillValue" in attributes.names or not (packed or dtype.kind == "f"):
        return None
    if dataset.id.get_create_plist().fill_value_defined() != h5py.h5d.FILL_VALUE_USER_DEFINED:
        return None
    return _as_stored(np.ravel(dataset.fillvalue)[0], dataset.dtype, dtype) or None
