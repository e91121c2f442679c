"""Read all of one data file and list what is broken in it, as `hpc-train verify` does with every file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod

import h5py
import numpy as np

from hpc_train.data.catalogue.conventions import numbers_of
from hpc_train.data.catalogue.file_info import FileInfo
from hpc_train.data.catalogue.inspection import opened_file
from hpc_train.data.catalogue.layout import SHARDS, Layout
from hpc_train.data.hdf5.access import reason
from hpc_train.data.hdf5.contents import UNREADABLE, dataset_at, split_name
from hpc_train.data.hdf5.filters import load_plugins
from hpc_train.data.sample_checks import bad_label, rows_not_finite, rows_outside
from hpc_train.data.shards.writer import Checksums
from hpc_train.data.verify.scan_images import scan_images
from hpc_train.errors import UserError
from hpc_train.units import MIB

_BLOCK_BYTES = 16 * MIB
# HDF5 takes 6 kB for each chunk of a read, whatever it holds.
_BLOCK_CHUNKS = 2**10
_MOST_RANGES = 8


@dataclass
class Scan:
    """What `scan` found in a file."""

    path: str
    info: FileInfo | None = None
    """What the file holds; None if it cannot be opened."""
    problems: list[str] = field(default_factory=list)
    """What is broken, one line each."""
    bytes: int = 0
    """Bytes that were read, uncompressed."""


def scan(
    path: str,
    layout: Layout,
    split: str | None,
    classes: int = 0,
    labels: tuple[int, ...] = (),
    ignore: int | None = None,
    within: str | None = None,
) -> Scan:
    """Read all of a file with HDF5: decode every chunk and image, check every value, compute every checksum.

    Args:
        path: of the file.
        layout: of the data set.
        split: name of the split.
        classes: labels must lie in [0, classes); 0 if unknown. Shards store the number themselves.
        labels: the stored labels, where these are other numbers.
        ignore: a label that is allowed besides these; by default the one that a shard records.
        within: as in `inspect_file`.

    Returns:
        What was found; a broken file raises no error, its faults are in the result.
    """
    found = Scan(path)
    load_plugins()
    try:
        with opened_file(path, layout, split, within) as (file, info):
            found.info, common = info, info.common
            known = labels or range(common.classes or classes)
            ignore = common.ignore_label if ignore is None else ignore
            roles = [(place.role, name) for place in layout.places for name in place.datasets]
            # A data set that is input and target is read once.
            for role, name in {name: (role, name) for role, name in roles}.values():
                if common.encoding and role == "input":
                    found.bytes += file[name].size
                    texts = scan_images(file, info, ranges)
                else:
                    texts = _scan_array(file, layout, name, known if role == "target" else range(0), ignore, found)
                found.problems += [f"{path}: {name}: {text}" for text in texts]
    except UserError as error:
        found.problems.append(str(error))
    # h5py raises many kinds of errors for damaged metadata.
    except UNREADABLE as error:
        found.problems.append(f"{path}: cannot be read further ({reason(error)})")
    return found


def _scan_array(
    file: h5py.File, layout: Layout, name: str, labels: Sequence[int], ignore: int | None, found: Scan
) -> list[str]:
    dataset, select = dataset_at(file, name)
    stored = file.get(f"checksums/{split_name(name)[0]}") if layout.name == SHARDS.name else None
    checksums = None if stored is None else Checksums(int(stored.attrs["rows"]))
    # With the sign that is meant.
    dtype = numbers_of(dataset, name).dtype
    # Blocks are cut along the samples, or along the first axis of the one sample.
    axis = int(select is not None and not layout.rows)
    unit = "row" if layout.rows else "line"
    problems, unreadable, not_finite, outside, label = [], [], [], [], None
    for block in _blocks(dataset, axis, checksums.run if checksums else 0):
        region = [slice(0, length) for length in dataset.shape]
        if dataset.ndim:
            region[axis] = block
        if select is not None:
            region[1 - axis] = slice(select, select + 1)
        values, bad = _read(dataset, tuple(region))
        values = values.view(dtype)
        problems += bad
        found.bytes += values.nbytes
        # (rows, ...) in every case: the axis of a selection has length 1.
        values = values.reshape(block.stop - block.start, -1)
        if bad:
            unreadable.append(block)
        not_finite += (block.start + rows_not_finite(values)).tolist()
        counted = values if not labels or ignore is None else np.where(values == ignore, labels[0], values)
        rows = _outside(counted, labels) if labels else ()
        if len(rows) and label is None:
            label = bad_label(counted[rows[0]], len(labels))
        outside += [block.start + int(row) for row in rows]
        if checksums:
            checksums.update(np.ascontiguousarray(values, dataset.dtype.newbyteorder("<")))
    if not_finite:
        problems.append(f"NaN or infinity in {ranges(not_finite, unit)}")
    if outside:
        problems.append(
            f"label {label}, outside the {len(labels)} classes ({labels[0]} to {labels[-1]}), in "
            f"{ranges(outside, unit)}"
        )
    if checksums:
        problems += _compare(checksums, stored, len(dataset), unreadable)
    return problems


def _outside(values: np.ndarray, labels: Sequence[int]) -> np.ndarray:
    """Numbers of the rows that hold other values than the labels."""
    if isinstance(labels, range):
        return rows_outside(values, len(labels))
    return np.flatnonzero(~np.isin(values, labels).reshape(len(values), -1).all(axis=1))


def _blocks(dataset: h5py.Dataset, axis: int, run: int):
    """Slices of `axis` of about 16 MiB; they cut no run of rows with a checksum, and no chunk if possible."""
    if dataset.ndim == 0:
        yield slice(0, 1)
        return
    row = max(1, prod(dataset.shape[axis + 1 :]) * dataset.dtype.itemsize)
    whole = run or (dataset.chunks[axis] if dataset.chunks else 1)
    step = whole * (_BLOCK_BYTES // (whole * row)) or max(1, _BLOCK_BYTES // row)
    if dataset.chunks:
        grid = [-(-extent // size) for extent, size in zip(dataset.shape, dataset.chunks, strict=True)]
        across = prod(grid) // grid[axis]
        step = min(step, whole * max(1, _BLOCK_CHUNKS * dataset.chunks[axis] // (across * whole)))
    for start in range(0, dataset.shape[axis], step):
        yield slice(start, min(start + step, dataset.shape[axis]))


def _read(dataset: h5py.Dataset, region: tuple[slice, ...]) -> tuple[np.ndarray, list[str]]:
    """(a region of a data set, with zeros where it cannot be read; one line for each chunk that cannot be read)."""
    try:
        return np.asarray(dataset[region]), []
    except (OSError, RuntimeError) as error:
        if dataset.chunks is None:
            raise
        cause = error
    values, bad = np.zeros([part.stop - part.start for part in region], dataset.dtype), []
    for chunk in dataset.iter_chunks(region):
        try:
            values[tuple(_shifted(part, of) for part, of in zip(chunk, region, strict=True))] = dataset[chunk]
        except (OSError, RuntimeError) as error:
            cause = error
            corner = tuple(part.start // size * size for part, size in zip(chunk, dataset.chunks, strict=True))
            rows = ranges(range(chunk[0].start, chunk[0].stop), "row")
            bad.append(f"the chunk at {corner}, of {rows}, cannot be decoded ({reason(cause)})")
    return values, bad or [f"can only be read chunk by chunk, not at once ({reason(cause)})"]


def _shifted(part: slice, of: slice) -> slice:
    return slice(part.start - of.start, part.stop - of.start)


def _compare(checksums: Checksums, stored: h5py.Dataset, rows: int, unreadable: list[slice]) -> list[str]:
    made, expected = checksums.values(), stored[()]
    if made.shape != expected.shape:
        return [f"has {expected.size} checksums, but {len(made)} runs of {checksums.run} rows"]
    differ = []
    for number in np.flatnonzero(made != expected):
        covered = range(number * checksums.run, min(rows, (number + 1) * checksums.run))
        # Blocks that could not be read have been reported.
        if not any(block.start < covered.stop and covered.start < block.stop for block in unreadable):
            differ += covered
    return [f"{ranges(differ, 'row')} differ from what was written (checksum)"] if differ else []


def ranges(numbers, unit: str) -> str:
    """Sorted numbers as text, such as 'rows 3, 7 to 12 and 4 more'."""
    numbers = np.asarray(numbers)
    parts = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    shown = [f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in parts[:_MOST_RANGES]]
    left = sum(map(len, parts[_MOST_RANGES:]))
    return f"{unit}{'s' * (len(numbers) > 1)} {', '.join(shown)}" + (f" and {left} more" if left else "")
