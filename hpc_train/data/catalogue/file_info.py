"""What one data file holds, read with HDF5 once and then kept in the catalogue."""

from math import prod
from typing import NamedTuple

import h5py
import numpy as np

from hpc_train.data.catalogue.layout import SHARDS, Layout, datasets_of, split_name, unreadable
from hpc_train.data.hdf5.access import lies_in, open_hdf5, packing
from hpc_train.data.shards.format import ENCODED_VERSION, FORMAT
from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError

NOT_CONTIGUOUS = -1
NEWEST_VERSION = ENCODED_VERSION
JPEG = "jpeg"
PREPARE = "run `hpc-train prepare` again"


class Common(NamedTuple):
    """What all files of a split must have in common. Shapes are of one sample as delivered, dtypes as stored.

    Args:
        encoding: "jpeg" where the inputs are JPEG files, which have no common shape: input_shape is then ().
        channel_names: as recorded in a shard, else ().
    """

    input_shape: tuple[int, ...]
    input_dtype: str
    target_shape: tuple[int, ...]
    target_dtype: str
    packing: tuple[tuple[float, float], ...]
    total: int
    classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    channels: str
    encoding: str = ""
    channel_names: tuple[str, ...] = ()


class FileInfo(NamedTuple):
    """One file, as plain values that can be cached and gathered from other ranks.

    Args:
        samples: number of rows.
        first: as recorded in a shard, else -1.
        target_min: as recorded in a shard, else 0.
        target_max: as recorded in a shard, else -1.
        at: byte offset of each data set, NOT_CONTIGUOUS (-1) where it is chunked, compressed or otherwise not one run
            of bytes. Encoded shards have two more: those of the images' extents, and of their checksums, -1 where
            there are none.
        common: what all files of the split have in common.
    """

    samples: int
    first: int
    target_min: int
    target_max: int
    at: tuple[int, ...]
    common: Common


def inspect_file(path: str, layout: Layout, split: str | None) -> FileInfo:
    """Look into the file at `path`; UserError where it does not fit `layout`."""
    try:
        with open_hdf5(path) as file:
            return _inspect_shard(file, path, split) if layout == SHARDS else _inspect(file, path, layout)
    # h5py raises many kinds of errors for damaged metadata.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        text = unreadable(path, error)
        raise UserError(f"{text}, or {PREPARE}" if layout == SHARDS else text) from error


def _inspect(file: h5py.File, path: str, layout: Layout) -> FileInfo:
    datasets = [_dataset(file, path, name) for name in layout.datasets]
    rows = {len(dataset) if layout.rows and dataset.ndim else 1 for dataset in datasets}
    if len(rows) > 1:
        shapes = ", ".join(f"{name} {dataset.shape}" for name, dataset in zip(layout.datasets, datasets, strict=True))
        raise UserError(
            f"{path}: the data sets differ in their number of samples, the first axis ({shapes}); choose others"
        )
    (samples,) = rows
    if samples == 0 or any(dataset.size == 0 for dataset in datasets):
        raise UserError(f"{path}: holds no samples; leave the file out")
    half = len(layout.inputs)
    input_shape, input_dtype = _stack(path, layout, layout.inputs, datasets[:half])
    target_shape, target_dtype = _stack(path, layout, layout.targets, datasets[half:])
    common = Common(
        input_shape=input_shape,
        input_dtype=input_dtype,
        target_shape=target_shape,
        target_dtype=target_dtype,
        packing=tuple(map(packing, datasets[:half])),
        total=0,
        classes=0,
        class_names=(),
        fingerprint="",
        channels=layout.channels,
    )
    return FileInfo(samples, -1, 0, -1, tuple(_byte_offset(file, dataset) for dataset in datasets), common)


def _dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset:
    dataset = file.get(split_name(name)[0])
    if not isinstance(dataset, h5py.Dataset):
        there = ", ".join(list(datasets_of(file))[:12]) or "none"
        raise UserError(f"{path}: has no data set {split_name(name)[0]!r}; it has {there}")
    if dataset.shape is None:
        raise UserError(f"{path}: {name} is empty; choose another data set")
    if dataset.dtype.kind not in "uif":
        raise UserError(f"{path}: {name} holds {dataset.dtype}, not numbers; choose another data set")
    return dataset


def _stack(path: str, layout: Layout, names, datasets) -> tuple[tuple[int, ...], str]:
    if not names:
        return (), "<u1"
    shapes = [_sample_shape(path, layout, *pair) for pair in zip(names, datasets, strict=True)]
    for name, shape, dataset in zip(names, shapes, datasets, strict=True):
        if shape != shapes[0] or dataset.dtype != datasets[0].dtype:
            raise UserError(
                f"{path}: {name} is {shape} {dataset.dtype}, but {names[0]} is {shapes[0]} {datasets[0].dtype}; "
                "only data sets of one shape and type can be stacked"
            )
    return (len(names), *shapes[0]) if len(names) > 1 else shapes[0], datasets[0].dtype.str


def _sample_shape(path: str, layout: Layout, name: str, dataset: h5py.Dataset) -> tuple[int, ...]:
    if layout.rows and dataset.ndim == 0:
        raise UserError(f"{path}: {name} is one number; if each file is one sample, give --samples files")
    shape = dataset.shape[1:] if layout.rows else dataset.shape
    index = split_name(name)[1]
    if index is None:
        return shape
    if not shape or index >= shape[0]:
        raise UserError(f"{path}: {name} asks for index {index} of a sample of shape {shape}; choose a smaller one")
    return shape[1:]


def _inspect_shard(file: h5py.File, path: str, split: str | None) -> FileInfo:
    attributes = file.attrs
    if _text(attributes.get("format")) != FORMAT:
        raise UserError(f"{path}: not a shard of the suite (attribute format); {PREPARE}")
    version = _integer(attributes, "version", path)
    if not 1 <= version <= NEWEST_VERSION:
        raise UserError(
            f"{path}: shard format version {version}, but this hpc-train reads versions up to {NEWEST_VERSION}; "
            f"use the hpc-train that wrote it or {PREPARE}"
        )
    name = parse_shard_name(path.rsplit("/", 1)[-1])
    held = (_text(attributes.get("split")), *(_integer(attributes, part, path) for part in ("shard", "shards")))
    if held == name and split not in (None, held[0]):
        raise UserError(f"{path}: a shard of split {held[0]!r}, not {split!r}; give the folder, or name this split")
    if held != name:
        raise UserError(f"{path}: holds shard {held[1]} of {held[2]} of {held[0]!r}, not what its name says; {PREPARE}")
    inputs, targets = file.get("inputs"), file.get("targets")
    if not (isinstance(inputs, h5py.Dataset) and isinstance(targets, h5py.Dataset)):
        raise UserError(f"{path}: has no data sets `inputs` and `targets`; {PREPARE}")
    if version == ENCODED_VERSION:
        return _inspect_encoded(file, path, _text(attributes.get("encoding", "")))
    if not inputs.ndim or not targets.ndim or len(inputs) != len(targets) or prod(inputs.shape + targets.shape) == 0:
        raise UserError(
            f"{path}: inputs {inputs.shape} and targets {targets.shape} are not (n, ...) and (n, ...), n > 0; {PREPARE}"
        )
    if inputs.dtype.kind not in "uif" or targets.dtype.kind not in "uif":
        raise UserError(f"{path}: inputs are {inputs.dtype}, targets {targets.dtype}, not numbers; {PREPARE}")
    common = _shard_common(attributes, path, targets, inputs.shape[1:], inputs.dtype.str)
    _check_channel_names(path, common)
    at = _byte_offset(file, inputs), _byte_offset(file, targets)
    return FileInfo(len(targets), *_shard_numbers(attributes, path), at, common)


def _inspect_encoded(file: h5py.File, path: str, encoding: str) -> FileInfo:
    if encoding != JPEG:
        raise UserError(
            f"{path}: shard format version 3 with {encoding!r} images, but this hpc-train reads {JPEG!r}; {PREPARE}"
        )
    inputs, targets, extents = (file.get(name) for name in ("inputs", "targets", "extents"))
    if not isinstance(extents, h5py.Dataset) or extents.dtype != np.dtype("<i8") or extents.ndim != 1:
        raise UserError(f"{path}: has no data set `extents` of little-endian int64; {PREPARE}")
    if inputs.dtype != np.uint8 or targets.dtype.kind not in "ui" or targets.ndim != 1 or not len(targets):
        raise UserError(
            f"{path}: inputs are {inputs.dtype}, targets {targets.shape} {targets.dtype}, not uint8 and whole numbers "
            f"(n,), n > 0; {PREPARE}"
        )
    ends = (int(extents[0]), int(extents[-1])) if len(extents) == len(targets) + 1 else None
    if inputs.ndim != 1 or ends != (0, len(inputs)):
        raise UserError(
            f"{path}: extents {extents.shape} do not divide the {inputs.size} bytes of the inputs into {len(targets)} "
            f"images; {PREPARE}"
        )
    at = [_byte_offset(file, dataset) for dataset in (inputs, targets, extents)]
    if NOT_CONTIGUOUS in at:
        raise UserError(f"{path}: inputs, targets and extents of an encoded shard must be contiguous; {PREPARE}")
    at.append(_checksums_offset(file, len(targets)))
    common = _shard_common(file.attrs, path, targets, (), "|u1", encoding)
    return FileInfo(len(targets), *_shard_numbers(file.attrs, path), tuple(at), common)


def _checksums_offset(file: h5py.File, images: int) -> int:
    checksums = file.get("checksums/inputs")
    usable = isinstance(checksums, h5py.Dataset) and checksums.shape == (images,) and checksums.dtype == np.dtype("<u8")
    return _byte_offset(file, checksums) if usable and checksums.attrs.get("rows") == 1 else NOT_CONTIGUOUS


def _shard_common(attributes, path: str, targets: h5py.Dataset, input_shape, input_dtype: str, encoding="") -> Common:
    return Common(
        input_shape=input_shape,
        input_dtype=input_dtype,
        target_shape=targets.shape[1:],
        target_dtype=targets.dtype.str,
        packing=((1.0, 0.0),),
        total=_integer(attributes, "total", path),
        classes=_integer(attributes, "classes", path),
        class_names=tuple(map(_text, attributes.get("class_names", ()))),
        fingerprint=_text(attributes.get("fingerprint", "")),
        channels=_text(attributes.get("channels", "last")),
        encoding=encoding,
        channel_names=tuple(map(_text, attributes.get("channel_names", ()))),
    )


def _check_channel_names(path: str, common: Common) -> None:
    shape, names = common.input_shape, common.channel_names
    channels = shape[0 if common.channels == "first" else -1] if shape else 0
    if names and len(names) != channels:
        raise UserError(
            f"{path}: {len(names)} channel_names ({', '.join(names)}) for {channels} channels of samples {shape}; "
            f"{PREPARE}"
        )


def _shard_numbers(attributes, path: str) -> tuple[int, int, int]:
    first, low, high = (_integer(attributes, name, path) for name in ("first", "target_min", "target_max"))
    return first, low, high


def _integer(attributes, name: str, path: str) -> int:
    value = attributes.get(name)
    if not isinstance(value, (int, np.integer)):
        raise UserError(f"{path}: not a shard of the suite (attribute {name} is {value!r}); {PREPARE}")
    return int(value)


def _text(value) -> str:
    # Strings of fixed length come as bytes.
    return value.decode() if isinstance(value, bytes) else str(value)


def _byte_offset(file: h5py.File, dataset: h5py.Dataset) -> int:
    if not lies_in(file, dataset) or dataset.chunks or dataset.external or dataset.is_virtual:
        return NOT_CONTIGUOUS
    offset = dataset.id.get_offset()
    return NOT_CONTIGUOUS if offset is None else offset
