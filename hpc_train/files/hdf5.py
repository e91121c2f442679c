"""What an HDF5 file holds and claims, before any of it is believed: its objects and links, and sizes against its own.

Names are text; bytes that are no UTF-8 are surrogates in it, as in Python's names of files.
"""

from collections.abc import Iterator
from contextlib import suppress
from math import prod
from typing import Any

import h5py

from hpc_train.units import size

# What h5py raises for what it cannot read: damaged objects, types without a NumPy type, text of another encoding.
UNREADABLE = (OSError, RuntimeError, KeyError, TypeError, ValueError)
# Deflate makes at most 1032 bytes of one; values that were never written take none.
_RATIO = 1032
_AT_ONCE, _IN_ALL = 2**28, 2**33
# Of chunks: what HDF5 looks up in some seconds. Each that was written has its place and size in the file.
_CHUNKS, _CHUNK_ENTRY = 2**20, 16


def external_links_of(file: h5py.File, left_out=UNREADABLE) -> dict[str, h5py.ExternalLink]:
    """All links of a file to other files, by their paths; what raises an error in `left_out` is left out."""
    found = {}
    for path, group in objects(file, left_out):
        for name in _names(group, left_out) if isinstance(group, h5py.Group) else ():
            with suppress(*left_out):
                if isinstance(link := group.get(name, getlink=True), h5py.ExternalLink):
                    found[_below(path, name)] = link
    return found


def objects(file: h5py.File, left_out=UNREADABLE) -> Iterator[tuple[str, Any]]:
    """(path, object) of all that a file holds itself, each once, itself first; errors in `left_out` leave one out."""
    # The addresses of links: HDF5's own information on an object walks its index, and crashes where that is damaged.
    seen, left = {h5py.h5g.get_objinfo(file.id).objno[0]}, [("", file)]
    while left:
        path, item = left.pop()
        yield path, item
        inside = []
        for name in _names(item, left_out) if isinstance(item, h5py.Group) else ():
            with suppress(*left_out):
                link = item.id.links.get_info(name)
                if link.type == h5py.h5l.TYPE_HARD and link.u not in seen:
                    inside.append((_below(path, name), item[name]))
                    seen.add(link.u)
        left += reversed(inside)


def _names(group: h5py.Group, left_out) -> list[bytes]:
    """Names in a group, as far as they can be read."""
    names: list[bytes] = []
    with suppress(*left_out):
        names.extend(group.id)
    return names


def _below(path: str, name: bytes) -> str:
    return f"{path}/{name.decode('utf-8', 'surrogateescape')}".lstrip("/")


def in_other_files(dataset: h5py.Dataset) -> bool:
    """Whether a data set is virtual, or has its bytes in external storage."""
    return dataset.is_virtual or bool(dataset.external)


def claim_of(dataset: h5py.Dataset, rows: bool) -> str | None:
    """What the shape of a data set claims that is hardly in its file; None where it may be, or is in other files.

    Args:
        dataset: the open data set.
        rows: the first axis counts samples.
    """
    shape, chunks = dataset.shape, dataset.chunks or ()
    if not shape or in_other_files(dataset):
        return None
    # HDF5 opens such a file.
    if chunks and len(chunks) != len(shape):
        return f"its chunks {chunks} have another number of axes"
    for what, claimed, ratio in excessive(shape, chunks, dataset.dtype.itemsize, rows):
        if claimed > ratio * (held := dataset.file.id.get_filesize()):
            return f"{what} takes {size(claimed)}, but its whole file has {size(held)}"
    return None


def excessive(shape: tuple[int, ...], chunks: tuple[int, ...], item: int, rows: bool) -> list[tuple[str, int, int]]:
    """(what, bytes, most bytes for one of the file) that a shape claims and that no small file can hold.

    Args:
        shape: of the data set.
        chunks: of as many axes, or () for none.
        item: bytes of a number.
        rows: the first axis counts samples.
    """
    count = prod(-(-extent // step) for extent, step in zip(shape, chunks, strict=True)) if chunks else 0
    claims = (
        (f"an index of {count} chunks", count * _CHUNK_ENTRY, _CHUNKS * _CHUNK_ENTRY, 1),
        ("a sample", prod(shape[1:] if rows else shape) * item, _AT_ONCE, _RATIO),
        ("a chunk", prod(chunks) * item, _AT_ONCE, _RATIO),
        ("all of it", prod(shape) * item, _IN_ALL, _RATIO),
    )
    return [(what, claimed, ratio) for what, claimed, allowed, ratio in claims if claimed > allowed]
