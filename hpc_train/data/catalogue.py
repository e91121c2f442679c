"""The catalogue: which samples a split has, in which shard each is, and where in the file its bytes are."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hpc_train.data.shards import FORMAT, VERSION, open_hdf5, parse_shard_name, reason, shard_name
from hpc_train.errors import UserError

_REMEDY = "run `hpc-train prepare` again"
NOT_CONTIGUOUS = -1


class ShardInfo(NamedTuple):
    """What one shard says about itself: plain values, which can be cached or gathered from other ranks."""

    samples: int
    first: int
    total: int
    classes: int
    class_names: tuple[str, ...]
    target_min: int
    target_max: int
    fingerprint: str
    input_shape: tuple[int, ...]
    input_dtype: np.dtype
    target_dtype: np.dtype
    inputs_at: int
    targets_at: int


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The samples of one split, numbered from 0 in the order of its shards.

    files: paths of the shards; offsets: int64 (files + 1,), number of the first sample of each file, then the
    number of all; inputs_at, targets_at: int64 (files,), byte offset of the file's data, NOT_CONTIGUOUS (-1)
    where it is chunked, compressed or otherwise not one run of bytes; input_shape: shape of one sample;
    input_dtype, target_dtype: as stored; classes: labels lie in [0, classes); class_names: may be empty;
    fingerprint: hash of the data, empty where the writer gave none.
    """

    directory: str
    split: str
    files: tuple[str, ...]
    offsets: np.ndarray
    inputs_at: np.ndarray
    targets_at: np.ndarray
    input_shape: tuple[int, ...]
    input_dtype: np.dtype
    target_dtype: np.dtype
    classes: int
    class_names: tuple[str, ...]
    fingerprint: str

    @classmethod
    def open(cls, directory, split, classes=None):
        """Read the catalogue of `split` from the shards in `directory`.

        classes: the number of classes the labels must fit, where it is not the one that the shards give (say
        the training split's). Raises UserError, which names the file and the remedy, when the folder or a
        shard is missing, damaged, of another format, or does not fit the others.
        """
        files = _list_shards(directory, split)
        infos = [inspect_shard(path, split, shard, len(files)) for shard, path in enumerate(files)]
        _check_agreement(files, infos)
        head = infos[0]
        if classes is None:
            classes, class_names = head.classes, head.class_names
        else:
            class_names = head.class_names if classes == head.classes else ()
        _check_labels(files, infos, classes)
        return cls(
            directory=os.fspath(directory),
            split=split,
            files=tuple(files),
            offsets=np.cumsum([0] + [info.samples for info in infos], dtype=np.int64),
            inputs_at=np.array([info.inputs_at for info in infos], dtype=np.int64),
            targets_at=np.array([info.targets_at for info in infos], dtype=np.int64),
            input_shape=head.input_shape,
            input_dtype=head.input_dtype,
            target_dtype=head.target_dtype,
            classes=classes,
            class_names=class_names,
            fingerprint=head.fingerprint,
        )

    @property
    def samples(self):
        """Number of samples of the split."""
        return int(self.offsets[-1])

    @property
    def rows(self):
        """Number of samples of each file, int64 (files,)."""
        return np.diff(self.offsets)

    def locate(self, indices):
        """(file numbers, rows in the file), int64, of sample indices; IndexError for one outside."""
        indices = np.asarray(indices, dtype=np.int64)
        if indices.size and not (indices.min() >= 0 and indices.max() < self.samples):
            raise IndexError(f"a sample index is not in [0, {self.samples})")
        files = np.searchsorted(self.offsets, indices, side="right") - 1
        return files, indices - self.offsets[files]


def inspect_shard(path, split, shard, shards):
    """ShardInfo of the file at `path`; UserError unless it is shard number `shard` of `shards` of `split`."""
    try:
        with open_hdf5(path) as file:
            return _inspect(file, path, (split, shard, shards))
    # What h5py raises for damaged metadata is of many kinds.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UserError(f"{path}: cannot be read ({reason(error)}); {_REMEDY}") from error
        raise UserError(f"{path}: truncated, damaged or not an HDF5 file; {_REMEDY}") from error


def _list_shards(directory, split):
    try:
        names = os.listdir(directory)
    except OSError as error:
        raise UserError(
            f"{directory}: the folder of shards cannot be read ({reason(error)}); "
            "make it with `hpc-train prepare`, or give the right folder"
        ) from error
    present = [parsed for parsed in map(parse_shard_name, names) if parsed]
    generations = {}
    for found, shard, shards in present:
        if found == split:
            generations.setdefault(shards, set()).add(shard)
    if not generations:
        others = ", ".join(sorted({found for found, _, _ in present}))
        there = f"the splits there are: {others}" if others else "nor of any other split"
        raise UserError(f"{directory}: no shards of split {split!r}, {there}; {_REMEDY} or name another")
    if len(generations) > 1:
        counts = " and ".join(map(str, sorted(generations)))
        raise UserError(
            f"{directory}: shards of two generations of {split!r} (of {counts} files) are mixed; {_REMEDY}"
        )
    ((shards, numbers),) = generations.items()
    paths = [str(Path(directory, shard_name(split, shard, shards))) for shard in range(shards)]
    missing = [path for shard, path in enumerate(paths) if shard not in numbers]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(f"{missing[0]}{more}: missing, {shards} shards belong to {split!r}; {_REMEDY}")
    return paths


def _inspect(file, path, place):
    attributes = file.attrs
    if _text(attributes.get("format")) != FORMAT:
        raise UserError(f"{path}: not a shard of the suite (attribute format); {_REMEDY}")
    version = _integer(attributes, "version", path)
    if version != VERSION:
        raise UserError(
            f"{path}: shard format version {version}, but this hpc-train reads version {VERSION}; "
            f"use the hpc-train that wrote it or {_REMEDY}"
        )
    said = (
        _text(attributes.get("split")),
        *(_integer(attributes, name, path) for name in ("shard", "shards")),
    )
    if said != place:
        raise UserError(
            f"{path}: holds shard {said[1]} of {said[2]} of {said[0]!r}, not what its name says; {_REMEDY}"
        )
    inputs, targets = file.get("inputs"), file.get("targets")
    if not (isinstance(inputs, h5py.Dataset) and isinstance(targets, h5py.Dataset)):
        raise UserError(f"{path}: has no data sets `inputs` and `targets`; {_REMEDY}")
    if inputs.ndim < 1 or targets.ndim != 1 or len(inputs) != len(targets) or inputs.size == 0:
        raise UserError(
            f"{path}: inputs {inputs.shape} and targets {targets.shape} are not (n, ...) and (n,), n > 0; "
            f"{_REMEDY}"
        )
    if inputs.dtype.kind not in "uif" or targets.dtype.kind not in "ui":
        raise UserError(
            f"{path}: inputs are {inputs.dtype}, targets {targets.dtype}, not numbers and integers; {_REMEDY}"
        )
    integers = ("first", "total", "classes", "target_min", "target_max")
    return ShardInfo(
        **{name: _integer(attributes, name, path) for name in integers},
        samples=len(targets),
        class_names=tuple(map(_text, attributes.get("class_names", ()))),
        fingerprint=_text(attributes.get("fingerprint", "")),
        input_shape=inputs.shape[1:],
        input_dtype=inputs.dtype,
        target_dtype=targets.dtype,
        inputs_at=_byte_offset(inputs),
        targets_at=_byte_offset(targets),
    )


def _integer(attributes, name, path):
    value = attributes.get(name)
    if not isinstance(value, (int, np.integer)):
        raise UserError(f"{path}: not a shard of the suite (attribute {name} is {value!r}); {_REMEDY}")
    return int(value)


def _text(value):
    # Strings of fixed length come as bytes.
    return value.decode() if isinstance(value, bytes) else str(value)


def _byte_offset(dataset):
    offset = dataset.id.get_offset()
    return NOT_CONTIGUOUS if dataset.chunks or dataset.external or offset is None else offset


def _check_agreement(files, infos):
    head, first = infos[0], 0
    for path, info in zip(files, infos, strict=True):
        for name in ("input_shape", "input_dtype", "target_dtype"):
            mine, theirs = getattr(info, name), getattr(head, name)
            if mine != theirs:
                what = name.replace("_", " ")
                raise UserError(f"{path}: {what} is {mine}, but {theirs} in {files[0]}; {_REMEDY}")
        for name in ("total", "classes", "class_names", "fingerprint"):
            if getattr(info, name) != getattr(head, name):
                what = name.replace("_", " ")
                raise UserError(f"{path}: of another generation than {files[0]} ({what} differs); {_REMEDY}")
        if info.first != first:
            raise UserError(
                f"{path}: says its first row is sample {info.first}, but {first} rows precede it; {_REMEDY}"
            )
        first += info.samples
    if first != head.total:
        raise UserError(f"{files[-1]}: the shards hold {first} samples but say {head.total}; {_REMEDY}")


def _check_labels(files, infos, classes):
    for path, info in zip(files, infos, strict=True):
        if info.target_min < 0 or info.target_max >= classes:
            raise UserError(
                f"{path}: labels run from {info.target_min} to {info.target_max}, outside the {classes} "
                f"classes (0 to {classes - 1}); mend the labels or the number of classes and {_REMEDY}"
            )
