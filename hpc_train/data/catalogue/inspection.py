"""Looking into one data file with HDF5, once: the catalogue keeps what it holds."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice

import h5py
import numpy as np

from hpc_train.data.catalogue.conventions import Missing, numbers_of
from hpc_train.data.catalogue.file_info import NOT_CONTIGUOUS, PREPARE, Common, FileInfo, byte_offset, check_claims
from hpc_train.data.catalogue.headers import Header, headers_of
from hpc_train.data.catalogue.layout import SHARDS, Layout, Place
from hpc_train.data.catalogue.part import Kind
from hpc_train.data.catalogue.shard_inspection import inspect_shard
from hpc_train.data.hdf5.access import elsewhere, open_hdf5
from hpc_train.data.hdf5.contents import UNREADABLE, dataset_at, datasets_of, not_opened, path_at, split_name
from hpc_train.data.hdf5.filters import missing_filter
from hpc_train.data.hdf5.number_types import not_numbers
from hpc_train.data.hdf5.open_errors import of_newer, unreadable
from hpc_train.data.hdf5.ragged import read_lengths
from hpc_train.data.hdf5.sources import MissingSource, broken_link, outside, sources
from hpc_train.errors import UserError

_MOST_KNOWN = 1000

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
        info = inspect_shard(file, path, split, layout)
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


def _inspect(file: h5py.File, path: str, layout: Layout) -> FileInfo:
    datasets = [_dataset(file, path, name) for name in layout.datasets]
    check_claims(path, layout, datasets)
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
    at = tuple(byte_offset(file, dataset) for dataset in datasets)
    return FileInfo(samples, -1, 0, -1, at, common, tuple(int(lengths.max()) for lengths in sequences))


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
