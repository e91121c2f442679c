"""Checks of samples: inputs are finite, labels are class numbers."""

import numpy as np

from hpc_train.errors import UserError
from hpc_train.units import MIB

_PIECE_BYTES = 64 * MIB
_NONE = np.empty(0, np.int64)


def first_not_finite(inputs):
    """Number of the first row of inputs, (n, ...) of any numeric dtype, that holds NaN or infinity, or None."""
    rows = rows_not_finite(inputs)
    return int(rows[0]) if len(rows) else None


def rows_not_finite(inputs):
    """Numbers, int64, of the rows of inputs, (n, ...) of any numeric dtype, that hold NaN or infinity."""
    if all_finite(inputs):
        return _NONE
    return np.flatnonzero(~np.isfinite(inputs).reshape(len(inputs), -1).all(axis=1))


def all_finite(values):
    """Whether no value is NaN or infinity; any shape, any numeric dtype of native byte order."""
    if values.dtype.kind != "f" or not values.size:
        return True
    # Read as integers, the bits of NaN and infinity are larger than those of all numbers: the positive ones as signed
    # integers, the negative ones as unsigned. Two maxima run at the speed of memory, without a temporary array.
    size = values.dtype.itemsize
    infinity = np.array(np.inf, values.dtype).view(f"i{size}")
    if values.view(f"i{size}").max() >= infinity:
        return False
    return bool(values.view(f"u{size}").max() < np.array(-np.inf, values.dtype).view(f"u{size}"))


def first_outside(targets, classes):
    """Number of the first row that `rows_outside` finds, or None."""
    rows = rows_outside(targets, classes)
    return int(rows[0]) if len(rows) else None


def rows_outside(targets, classes):
    """Numbers, int64, of the rows that hold anything but whole numbers in [0, classes).

    Args:
        targets: (n, ...), any numeric dtype; NaN is not a whole number.
        classes: number of classes.
    """
    if not targets.size:
        return _NONE
    within = targets.min() >= 0 and targets.max() < classes
    # A value that a byte holds exactly is whole; this comparison is the faster one.
    if within and (targets.dtype.kind != "f" or (classes <= 256 and (targets.astype(np.uint8) == targets).all())):
        return _NONE
    good = (targets >= 0) & (targets < classes)
    if targets.dtype.kind == "f":
        good &= targets == np.floor(targets)
    return np.flatnonzero(~good.reshape(len(targets), -1).all(axis=1))


def first_problem(inputs, targets, classes, ignore=None):
    """Find the first row that is not a valid sample.

    Args:
        inputs: (n, ...), which must be finite; None: not checked.
        targets: (n, ...), which must be whole numbers in [0, classes) or `ignore`; None: not checked.
        classes: number of classes.
        ignore: a label that is allowed besides the classes.

    Returns:
        (row, what is wrong with it), or (None, ""). The text names the first wrong value and, in a map, its place.
    """
    row = None if inputs is None else first_not_finite(inputs)
    if row is not None:
        value, at = _first(inputs[row], ~np.isfinite(inputs[row]))
        return row, f"holds NaN or infinity ({value}{at})"
    if targets is None:
        return None, ""
    if ignore is not None:
        targets = np.where(targets == ignore, targets.dtype.type(0), targets)
    row = first_outside(targets, classes)
    if row is None:
        return None, ""
    with np.errstate(invalid="ignore"):
        label = targets[row]
        value, at = _first(label, ~((label >= 0) & (label < classes) & (label == np.floor(label))))
    return row, f"has label {value}{at}, outside the {classes} classes"


def _first(values, wrong):
    """The first wrong value of a sample, and its place, such as " at [3, 4]", or "" for a single number."""
    if not np.ndim(values):
        return values, ""
    index = np.unravel_index(np.argmax(wrong), wrong.shape)
    return values[index], f" at {[int(number) for number in index]}"


def bad_label(target, classes):
    """The first value of one sample's target that is not a whole number in [0, classes)."""
    return next(value for value in np.ravel(target) if not (0 <= value < classes and value == np.floor(value)))


def check_arrays(where, arrays, classes, class_names, ignore=None):
    """Check that a shard can hold the arrays.

    Args:
        where: begins the message.
        arrays: {data set: (n, ...)}.
        classes: as of `write_shards`; those of the one data set of targets.
        class_names: as of `write_shards`.
        ignore: a label that is allowed besides the classes.

    Raises:
        UserError: when a shard cannot hold them.
    """
    if any(array.ndim < 1 for array in arrays.values()):
        shapes = " and ".join(f"{name} of shape {array.shape}" for name, array in arrays.items())
        raise UserError(f"{where}: {shapes} must be {' and '.join(['(n, ...)'] * len(arrays))}; reshape them")
    (first_name, first), *others = arrays.items()
    for name, array in others:
        if len(array) != len(first):
            one = name.rstrip("s") if "/" not in name else "of each"
            raise UserError(
                f"{where}: {len(first)} {first_name} but {len(array)} {name}; give one {one} for each "
                f"{first_name.rstrip('s') if '/' not in first_name else 'sample'}"
            )
    if any(array.size == 0 for array in arrays.values()):
        shapes = ", ".join(f"{name} {array.shape}" for name, array in arrays.items())
        raise UserError(f"{where}: no samples ({shapes.replace(' ', ' have shape ', 1)}); give at least one")
    for name, array in arrays.items():
        if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
            raise UserError(
                f"{where}: {name} have dtype {array.dtype}; convert them to whole or floating numbers of "
                "at most 8 bytes"
            )
    if class_names and len(class_names) != classes:
        raise UserError(f"{where}: {len(class_names)} class names for {classes} classes; give one for each class")
    named = [array for name, array in arrays.items() if name.split("/")[0] == "targets"]
    if classes and len(named) != 1:
        raise UserError(f"{where}: {classes} classes for {len(named)} targets; give classes 0, which means values")
    targets = named[0] if named else None
    for rows in pieces(first, 0, len(first)):
        for name, array in arrays.items():
            row = first_not_finite(array[rows])
            if row is not None:
                place = "" if name in ("inputs", "targets") else f" in {name}"
                raise UserError(f"{where}: sample {rows.start + row} holds NaN or infinity{place}; fix it or drop it")
        labels = targets[rows] if classes else None
        if classes and ignore is not None:
            labels = np.where(labels == ignore, labels.dtype.type(0), labels)
        row = first_outside(labels, classes) if classes else None
        if row is not None:
            raise UserError(
                f"{where}: sample {rows.start + row} has label {bad_label(labels[row], classes)}, "
                f"outside the {classes} classes (0 to {classes - 1}); fix the label or the number of classes"
            )


def pieces(inputs, first, stop):
    """Slices of rows from `first` to `stop`, of about 64 MiB each."""
    rows = max(1, _PIECE_BYTES * len(inputs) // max(1, inputs.nbytes))
    for start in range(first, stop, rows):
        yield slice(start, min(start + rows, stop))
