"""Looking into one shard with HDF5, by the rules of FORMAT.md."""

from contextlib import suppress

import h5py
import numpy as np

from hpc_train.data.catalogue.file_info import (
    JPEG,
    NOT_CONTIGUOUS,
    PREPARE,
    Common,
    FileInfo,
    byte_offset,
    check_claims,
)
from hpc_train.data.catalogue.layout import SHARDS, Layout, layout_of_shard
from hpc_train.data.catalogue.part import Kind
from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.contents import UNREADABLE
from hpc_train.data.hdf5.number_types import not_numbers
from hpc_train.data.shards.format import ENCODED_VERSION, FORMAT, PARTS_VERSION
from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError

NEWEST_VERSION = PARTS_VERSION


def shard_layout(path: str) -> Layout:
    """The layout of the shard at `path`; that of plain shards where it cannot be opened, which `inspect_file` says."""
    with suppress(*UNREADABLE), open_hdf5(path) as file:
        return layout_of_shard(file)
    return SHARDS


def inspect_shard(file: h5py.File, path: str, split: str | None, layout: Layout) -> FileInfo:
    """What an open shard holds; its arguments are those of `inspect_file`.

    Raises:
        UserError: it is no shard, not one of `layout`, or not the one that its name says.
    """
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
    if layout_of_shard(file) != layout:
        raise UserError(f"{path}: belongs to another generation than the first shard (parts differ); {PREPARE}")
    arrays = [file.get(name) for name in layout.datasets]
    if not all(isinstance(dataset, h5py.Dataset) for dataset in arrays):
        raise UserError(f"{path}: has no data sets {_all(f'`{name}`' for name in layout.datasets)}; {PREPARE}")
    if version == ENCODED_VERSION:
        return _inspect_encoded(file, path, _text(attributes.get("encoding", "")))
    shown = _all(f"{name} {dataset.shape}" for name, dataset in zip(layout.datasets, arrays, strict=True))
    if not all(dataset.shape and dataset.size for dataset in arrays) or len({len(dataset) for dataset in arrays}) > 1:
        shapes = _all(["(n, ...)"] * len(arrays))
        raise UserError(f"{path}: {shown} are not {shapes}, n > 0; {PREPARE}")
    for name, dataset in zip(layout.datasets, arrays, strict=True):
        if why := not_numbers(dataset):
            raise UserError(f"{path}: {name} {why.split(';')[0]}; {PREPARE}")
    check_claims(path, layout, arrays)
    common = _shard_common(attributes, path, [Kind(dataset.shape[1:], dataset.dtype.str) for dataset in arrays])
    _check_channel_names(path, common)
    at = tuple(byte_offset(file, dataset) for dataset in arrays)
    return FileInfo(len(arrays[0]), *_shard_numbers(attributes, path), at, common)


def _all(texts) -> str:
    return " and ".join(texts)


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
    at = [byte_offset(file, dataset) for dataset in (inputs, targets, extents)]
    if NOT_CONTIGUOUS in at:
        raise UserError(f"{path}: inputs, targets and extents of an encoded shard must be contiguous; {PREPARE}")
    at.append(_checksums_offset(file, len(targets)))
    kinds = [Kind((), "|u1"), Kind(targets.shape[1:], targets.dtype.str)]
    common = _shard_common(file.attrs, path, kinds, encoding)
    return FileInfo(len(targets), *_shard_numbers(file.attrs, path), tuple(at), common)


def _checksums_offset(file: h5py.File, images: int) -> int:
    checksums = file.get("checksums/inputs")
    usable = isinstance(checksums, h5py.Dataset) and checksums.shape == (images,) and checksums.dtype == np.dtype("<u8")
    return byte_offset(file, checksums) if usable and checksums.attrs.get("rows") == 1 else NOT_CONTIGUOUS


def _shard_common(attributes, path: str, kinds: list[Kind], encoding="") -> Common:
    return Common(
        kinds=tuple(kinds),
        total=_integer(attributes, "total", path),
        classes=_integer(attributes, "classes", path),
        class_names=tuple(map(_text, attributes.get("class_names", ()))),
        fingerprint=_text(attributes.get("fingerprint", "")),
        channels=_text(attributes.get("channels", "last")),
        encoding=encoding,
        channel_names=tuple(map(_text, attributes.get("channel_names", ()))),
        geometry=_text(attributes.get("geometry", "")),
        ignore_label=_integer(attributes, "ignore_label", path) if "ignore_label" in attributes else None,
    )


def _check_channel_names(path: str, common: Common) -> None:
    shape, names = common.kinds[0].shape, common.channel_names
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
