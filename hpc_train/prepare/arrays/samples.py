"""NumPy files as the samples of splits: checked, and read row by row."""

from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.sample_checks import first_problem, pieces
from hpc_train.errors import UserError
from hpc_train.prepare.npz import reading_npz
from hpc_train.prepare.splits import Rows, held_out


def read_splits(options, names: dict[str, tuple[str, str]]) -> dict[str, tuple[Rows, Rows]]:
    """The inputs and targets of each split, not read yet but checked.

    Args:
        options: `Arrays`.
        names: {split: files or names of its inputs and targets}.

    Raises:
        UserError: an array cannot be read, or does not fit the others; a value is not finite or not a class number.
    """
    wanted = [name for pair in names.values() for name in pair]
    arrays = _of_npz(options.data, wanted) if options.data else {name: _of_npy(name) for name in wanted}
    # What messages call them.
    shown = {name: f"{options.data}: {name}" if options.data else name for name in wanted}
    for name in wanted:
        _check_kind(shown[name], arrays[name])
    splits = {split: tuple(arrays[name] for name in pair) for split, pair in names.items()}
    shown = {split: tuple(shown[name] for name in pair) for split, pair in names.items()}
    for split, (inputs, targets) in splits.items():
        if len(inputs) != len(targets):
            raise UserError(
                f"{shown[split][0]} has {len(inputs)} samples (first axis), but {shown[split][1]} has {len(targets)}; "
                "give one target for each input"
            )
        if options.classes:
            targets = _labels(shown[split][1], targets, options.classes)
            splits[split] = inputs, targets
        _check_values(shown[split][0], inputs)
        _check_values(shown[split][1], targets, options.classes, options.ignore_label)
        if options.channels == "none":
            splits[split] = inputs[..., np.newaxis], targets
    _check_channels(options, splits["train"][0])
    _check_same(shown, splits)
    if not options.test_fraction:
        return {split: _rows(*pair, slice(None), options) for split, pair in splits.items()}
    inputs, targets = splits["train"]
    groups = np.asarray(targets) if options.classes and targets.ndim == 1 else np.zeros(len(targets), int)
    testing = held_out(groups, options.test_fraction, options.seed)
    chosen = {"train": np.flatnonzero(~testing), "test": np.flatnonzero(testing)}
    return {split: _rows(inputs, targets, numbers, options) for split, numbers in chosen.items()}


def _rows(inputs, targets, chosen, options) -> tuple[Rows, Rows]:
    """The chosen rows, an array of their numbers or slice(None), of both arrays."""
    samples = len(inputs) if isinstance(chosen, slice) else len(chosen)

    def rows(array, dtype):
        take = array.__getitem__ if isinstance(chosen, slice) else lambda part: array[chosen[part]]
        # Masks of truth values are numbers.
        return Rows(samples, array.shape[1:], np.uint8 if dtype.kind == "b" else dtype, take)

    dtype = targets.dtype
    if options.classes and dtype.kind == "f":
        numbers = options.classes - 1, options.ignore_label or 0
        dtype = np.result_type(*map(np.min_scalar_type, numbers))
    return rows(inputs, inputs.dtype), rows(targets, dtype)


def _of_npy(name: str) -> np.ndarray:
    try:
        array = np.load(name, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"{name}: no such file; give a .npy file, or the npz file of the arrays with --data") from error
    # NumPy's parser of headers raises many kinds of errors.
    except Exception as error:
        # NumPy takes what it does not know for a pickle.
        why = "not in NumPy's format" if "pickled" in str(error) else reason(error)
        raise UserError(f"{name}: not a readable .npy file of numbers ({why}); write it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        array.close()
        raise UserError(f"{name}: is an npz file; give it with --data, and name its arrays in --inputs and --targets")
    return array


def _of_npz(path: Path, names: list[str]) -> dict[str, np.ndarray]:
    with reading_npz(path, "--data") as file:
        missing = [name for name in names if name not in file.files]
        if missing:
            raise UserError(f"{path}: has no array {missing[0]!r}, only {', '.join(sorted(file.files)) or 'none'}")
        return {name: file[name] for name in names}


def _check_kind(name: str, array: np.ndarray) -> None:
    if array.dtype.kind not in "buif" or array.dtype.itemsize > 8:
        raise UserError(f"{name}: holds {array.dtype}; convert it to whole or floating numbers of at most 8 bytes")
    if not array.ndim or not array.size:
        raise UserError(f"{name}: has no samples (its shape is {array.shape}); give an array (samples, ...)")


def _check_values(name: str, array: np.ndarray, classes: int | None = None, ignore: int | None = None) -> None:
    """Check all values, piece by piece, so that messages have the rows of the file."""
    for rows in pieces(array, 0, len(array)):
        block = np.ascontiguousarray(array[rows], array.dtype.newbyteorder("="))
        row, problem = first_problem(None, block, classes, ignore) if classes else first_problem(block, None, 0)
        if row is not None:
            remedy = "class numbers count from 0: fix them, or --classes" if classes else "fix it, or leave the row out"
            raise UserError(f"{name}: row {rows.start + row} {problem}; {remedy}")


def _labels(name: str, targets: np.ndarray, classes: int) -> np.ndarray:
    """Class numbers (n,) where they are (n, 1); refuses one-hot ones."""
    if targets.shape[1:] == (1,):
        return targets[:, 0]
    if targets.shape[1:] == (classes,):
        some = targets[next(pieces(targets, 0, len(targets)))]
        if ((some == 0) | (some == 1)).all() and (some.sum(axis=1) == 1).all():
            raise UserError(f"{name}: is one-hot, {targets.shape}; give class numbers: numpy.argmax(targets, axis=1)")
    return targets


def _check_channels(options, inputs: np.ndarray) -> None:
    shape, names = inputs.shape, options.channel_names
    channels = shape[1 if options.channels == "first" else -1] if len(shape) > 1 else 0
    if names and len(names) != channels:
        raise UserError(
            f"--channel-names has {len(names)} names, but {options.inputs} {shape} has {channels} channels, which are "
            f"{options.channels}; give one name for each, or change --channels"
        )


def _check_same(names: dict[str, tuple[str, str]], splits: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    for split, pair in splits.items():
        for name, array, first, trained in zip(names[split], pair, names["train"], splits["train"], strict=True):
            kinds = [f"{one.shape[1:]} {one.dtype.newbyteorder('=')}" for one in (array, trained)]
            if kinds[0] != kinds[1]:
                raise UserError(f"{name}: a sample is {kinds[0]}, but {kinds[1]} in {first}; give both the same")
