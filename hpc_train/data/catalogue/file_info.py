"""What one data file holds, read with HDF5 once and then kept in the catalogue."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from typing import NamedTuple

import h5py
import numpy as np

from hpc_train.data.catalogue.conventions import Missing, numbers_of
from hpc_train.data.catalogue.headers import Header, headers_of
from hpc_train.data.catalogue.layout import SHARDS, Layout, Place, layout_of_shard
from hpc_train.data.catalogue.part import Kind
from hpc_train.data.hdf5.access import elsewhere, open_hdf5
from hpc_train.data.hdf5.claims import claim_of
from hpc_train.data.hdf5.contents import (
    UNREADABLE,
    dataset_at,
    datasets_of,
    not_opened,
    path_at,
    split_name,
)
from hpc_train.data.hdf5.filters import missing_filter
from hpc_train.data.hdf5.number_types import is_plain, not_numbers
from hpc_train.data.hdf5.open_errors import of_newer, unreadable
from hpc_train.data.hdf5.ragged import read_lengths
from hpc_train.data.hdf5.sources import MissingSource, broken_link, outside, sources
from hpc_train.data.shards.format import ENCODED_VERSION, FORMAT, PARTS_VERSION
from hpc_train.data.shards.names import parse_shard_name
from hpc_train.errors import UserError

NOT_CONTIGUOUS = -1
NEWEST_VERSION = PARTS_VERSION
JPEG = "jpeg"
# How the differences end that `hpc-train shard` converts.
CONVERTED = ("dtype", "packing", "missing values")
PREPARE = "run `hpc-train prepare` again"

_MOST_KNOWN = 1000


class Common(NamedTuple):
    """What all files of a split must have in common.

    Args:
        kinds: of the layout's places, in their order.
        encoding: "jpeg" where the inputs are JPEG files, which have no common shape: that of the input is then ().
        channel_names: as recorded in a shard, else ().
        geometry: as recorded in a shard, else "".
        ignore_label: likewise, else None.
    """

    kinds: tuple[Kind, ...]
    total: int
    classes: int
    class_names: tuple[str, ...]
    fingerprint: str
    channels: str
    encoding: str = ""
    channel_names: tuple[str, ...] = ()
    geometry: str = ""
    ignore_label: int | None = None


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
        longest: steps of the longest sequence of each place with lengths, in the order of the places.
        common: what all files of the split have in common.
        sources: paths of other files that hold bytes of the data sets.
    """

    samples: int
    first: int
    target_min: int
    target_max: int
    at: tuple[int, ...]
    common: Common
    longest: tuple[int, ...] = ()
    sources: tuple[str, ...] = ()


# Of files whose headers say all, one of each kind.
_known: dict[tuple[Layout, tuple[Header, ...]], FileInfo] = {}


def inspect_file(path: str, layout: Layout, split: str | None, within: str | None = None) -> FileInfo:
    """Look into the file at `path`.

    Args:
        path: of the file.
        layout: of the data.
        split: name of the split.
        within: the folder of the data: bytes in other files must be there, or beside the file; None: anywhere.

    Raises:
        UserError: the file does not fit `layout`, or lacks a part of its data.
    """
    with opened_file(path, layout, split, within) as (_, info):
        return info


@contextmanager
def opened_file(
    path: str, layout: Layout, split: str | None, within: str | None = None
) -> Iterator[tuple[h5py.File, FileInfo]]:
    """The open file and what it holds, as `inspect_file` finds it; the file is closed at the end."""
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_hdf5(path))
            info = _look(file, path, layout, split, within)
        # h5py raises many kinds of errors for damaged metadata.
        except UNREADABLE as error:
            text = unreadable(path, error)
            raise UserError(f"{text}, or {PREPARE}" if layout.name == SHARDS.name else text) from error
        yield file, info


def _look(file: h5py.File, path: str, layout: Layout, split: str | None, within: str | None) -> FileInfo:
    if layout.name == SHARDS.name:
        info = _inspect_shard(file, path, split, layout)
        return info._replace(sources=_sources(file, path, layout, info.at, within))
    found = headers_of(file, layout)
    if found is None:
        info = _inspect(file, path, layout)
        return info._replace(sources=_sources(file, path, layout, info.at, within))
    headers, offsets = found
    known = _known.get((layout, headers))
    if known is None:
        known = _inspect(file, path, layout)
        if len(_known) < _MOST_KNOWN:
            _known[layout, headers] = known
        return known
    places = zip(known.at, offsets, strict=True)
    return known._replace(at=tuple(at if at == NOT_CONTIGUOUS else offset for at, offset in places))


def _sources(file: h5py.File, path: str, layout: Layout, at: tuple[int, ...], within: str | None) -> tuple[str, ...]:
    """Paths of the other files that hold bytes of the layout's data sets, which are at `at`."""
    # Opening a data set takes a while: those that are contiguous are in this file.
    names = [name for name, start in zip(layout.datasets, at, strict=False) if start == NOT_CONTIGUOUS]
    names += [place.lengths for place in layout.places if place.lengths]
    found: dict[str, None] = {}
    for name in dict.fromkeys(names):
        if elsewhere(file, dataset_at(file, name)[0]):
            try:
                found |= dict.fromkeys(sources(file, path_at(file, name)))
            except MissingSource as missing:
                raise UserError(f"{path}: {missing}") from missing
    if found and within is not None and (stranger := outside(found, (within, os.path.dirname(os.path.realpath(path))))):
        raise UserError(
            f"{path}: takes numbers from {stranger}, outside the folder of the data; copy that file there, or give "
            "--follow-external if you trust it"
        )
    return tuple(found)


def shard_layout(path: str) -> Layout:
    """The layout of the shard at `path`; that of plain shards where it cannot be opened, which `inspect_file` says."""
    with suppress(*UNREADABLE), open_hdf5(path) as file:
        return layout_of_shard(file)
    return SHARDS


def differences(layout: Layout, mine: Common, theirs: Common) -> list[tuple[str, object, object]]:
    """(what, mine, theirs) of the shapes, dtypes, packings and channels in which two files of a layout differ."""
    found: list[tuple[str, object, object]] = []
    for place, one, other in zip(layout.places, mine.kinds, theirs.kinds, strict=True):
        found.append((f"{place.label} shape", one.shape, other.shape))
        found.append((f"{place.label} dtype", np.dtype(one.dtype), np.dtype(other.dtype)))
        found.append((f"{place.label} packing", one.packing, other.packing))
        found.append((f"{place.label} missing values", _plain(one.missing), _plain(other.missing)))
    found.append(("channels", mine.channels, theirs.channels))
    return [entry for entry in found if entry[1] != entry[2]]


def _plain(missing: tuple[Missing, ...]) -> tuple:
    return tuple(map(tuple, missing))


def _inspect(file: h5py.File, path: str, layout: Layout) -> FileInfo:
    datasets = [_dataset(file, path, name) for name in layout.datasets]
    _check_claims(path, layout, datasets)
    sequences = _sequences(file, path, layout)
    flat = {place.datasets[0] for place in layout.places if place.lengths}
    held = dict(zip(layout.datasets, datasets, strict=True)) | {
        place.lengths: _dataset(file, path, place.lengths) for place in layout.places if place.lengths
    }
    held = {name: dataset for name, dataset in held.items() if name not in flat}
    rows = {len(dataset) if layout.rows and dataset.ndim else 1 for dataset in held.values()}
    if len(rows) > 1:
        shapes = ", ".join(f"{name} {dataset.shape}" for name, dataset in held.items())
        raise UserError(
            f"{path}: the data sets differ in their number of samples, the first axis ({shapes}); choose others"
        )
    (samples,) = rows
    if samples == 0 or any(0 in dataset.shape for dataset in (*datasets, *held.values())):
        raise UserError(f"{path}: holds no samples; leave the file out")
    kinds, left = [], iter(datasets)
    for place in layout.places:
        kinds.append(_stack(file, path, layout, place, list(islice(left, len(place.datasets)))))
    common = Common(
        kinds=tuple(kinds),
        total=0,
        classes=0,
        class_names=(),
        fingerprint="",
        channels="first" if layout.channels == "first" else "last",
    )
    at = tuple(_byte_offset(file, dataset) for dataset in datasets)
    return FileInfo(samples, -1, 0, -1, at, common, tuple(int(lengths.max()) for lengths in sequences))


def _check_claims(path: str, layout: Layout, datasets: list[h5py.Dataset]) -> None:
    for name, dataset in zip(layout.datasets, datasets, strict=True):
        if claim := claim_of(dataset, layout.rows):
            raise UserError(f"{path}: {name} {dataset.shape}: {claim}; fetch or write the file again")


def _sequences(file: h5py.File, path: str, layout: Layout) -> list[np.ndarray]:
    """The lengths of the sequences of each place that has them."""
    found = []
    for place in layout.places:
        if not place.lengths:
            continue
        if not layout.rows or len(place.datasets) > 1 or dataset_at(file, place.datasets[0])[1] is not None:
            raise UserError(f"{path}: lengths are for one data set of many sequences, not for the {place.label}")
        steps, lengths = (_dataset(file, path, name) for name in (place.datasets[0], place.lengths))
        try:
            found.append(read_lengths(lengths, steps))
        except ValueError as error:
            raise UserError(f"{path}: {error}; name the right data set with --lengths") from error
    return found


def _dataset(file: h5py.File, path: str, name: str) -> h5py.Dataset:
    dataset, _ = dataset_at(file, name)
    if dataset is None:
        base = split_name(name)[0]
        if link := broken_link(file, base):
            raise UserError(f"{path}: {link}")
        if why := not_opened(file, base):
            remedy = of_newer(why) or "choose another data set, or write the file again"
            raise UserError(f"{path}: {base} cannot be opened ({why}); {remedy}")
        there = ", ".join(list(datasets_of(file))[:12]) or "none"
        raise UserError(f"{path}: has no data set {base!r}; it has {there}")
    if dataset.shape is None:
        raise UserError(f"{path}: {name} is empty; choose another data set")
    if why := not_numbers(dataset) or missing_filter(dataset):
        raise UserError(f"{path}: {name} {why}")
    return dataset


def _stack(file: h5py.File, path: str, layout: Layout, place: Place, datasets: list[h5py.Dataset]) -> Kind:
    names = place.datasets
    shapes = [_sample_shape(file, path, layout, *pair) for pair in zip(names, datasets, strict=True)]
    numbers = [numbers_of(dataset, f"{path}: {name}") for name, dataset in zip(names, datasets, strict=True)]
    for name, shape, each in zip(names, shapes, numbers, strict=True):
        if shape != shapes[0] or each.dtype != numbers[0].dtype:
            raise UserError(
                f"{path}: {name} is {shape} {each.dtype}, but {names[0]} is {shapes[0]} {numbers[0].dtype}; "
                f"only data sets of one shape and type can be stacked; for several {place.role}s write "
                f"--{place.role}s NAME={names[0]} OTHER={name}, with the names that the network gives them"
            )
    shape = (len(names), *shapes[0]) if len(names) > 1 else shapes[0]
    if place.lengths:
        # The catalogue knows the longest sequence of all files.
        shape = (0, *shape)
    missing = tuple(each.missing for each in numbers)
    return Kind(
        shape,
        numbers[0].dtype.str,
        tuple(each.packing for each in numbers),
        missing if any(each != Missing() for each in missing) else (),
    )


def _sample_shape(file: h5py.File, path: str, layout: Layout, name: str, dataset: h5py.Dataset) -> tuple[int, ...]:
    if layout.rows and dataset.ndim == 0:
        raise UserError(f"{path}: {name} is one number; if each file is one sample, give --samples files")
    shape = dataset.shape[1:] if layout.rows else dataset.shape
    index = split_name(name)[1]
    if index is not None:
        index = dataset_at(file, name)[1]
    if index is None:
        return shape
    if not shape or index >= shape[0]:
        raise UserError(f"{path}: {name} asks for index {index} of a sample of shape {shape}; choose a smaller one")
    return shape[1:]


def _inspect_shard(file: h5py.File, path: str, split: str | None, layout: Layout) -> FileInfo:
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
    _check_claims(path, layout, arrays)
    common = _shard_common(attributes, path, [Kind(dataset.shape[1:], dataset.dtype.str) for dataset in arrays])
    _check_channel_names(path, common)
    at = tuple(_byte_offset(file, dataset) for dataset in arrays)
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
    at = [_byte_offset(file, dataset) for dataset in (inputs, targets, extents)]
    if NOT_CONTIGUOUS in at:
        raise UserError(f"{path}: inputs, targets and extents of an encoded shard must be contiguous; {PREPARE}")
    at.append(_checksums_offset(file, len(targets)))
    kinds = [Kind((), "|u1"), Kind(targets.shape[1:], targets.dtype.str)]
    common = _shard_common(file.attrs, path, kinds, encoding)
    return FileInfo(len(targets), *_shard_numbers(file.attrs, path), tuple(at), common)


def _checksums_offset(file: h5py.File, images: int) -> int:
    checksums = file.get("checksums/inputs")
    usable = isinstance(checksums, h5py.Dataset) and checksums.shape == (images,) and checksums.dtype == np.dtype("<u8")
    return _byte_offset(file, checksums) if usable and checksums.attrs.get("rows") == 1 else NOT_CONTIGUOUS


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


def _byte_offset(file: h5py.File, dataset: h5py.Dataset) -> int:
    # Without storage, the offset that HDF5 gives in a file with a user block is no place of data.
    if elsewhere(file, dataset) or dataset.chunks or not dataset.id.get_storage_size() or not is_plain(dataset):
        return NOT_CONTIGUOUS
    offset = dataset.id.get_offset()
    return NOT_CONTIGUOUS if offset is None else offset
