"""What one data file holds, as plain values."""

from typing import NamedTuple

import h5py
import numpy as np

from hpc_train.data.catalogue.conventions import Missing
from hpc_train.data.catalogue.layout import Layout
from hpc_train.data.catalogue.part import Kind
from hpc_train.data.hdf5.access import elsewhere
from hpc_train.data.hdf5.number_types import is_plain
from hpc_train.errors import UserError
from hpc_train.files.hdf5 import claim_of

NOT_CONTIGUOUS = -1
JPEG = "jpeg"
# How the differences end that `hpc-train shard` converts.
CONVERTED = ("dtype", "packing", "missing values")
PREPARE = "run `hpc-train prepare` again"


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


def check_claims(path: str, layout: Layout, datasets: list[h5py.Dataset]) -> None:
    """UserError for a data set of the layout that claims more than its file can hold."""
    for name, dataset in zip(layout.datasets, datasets, strict=True):
        if claim := claim_of(dataset, layout.rows):
            raise UserError(f"{path}: {name} {dataset.shape}: {claim}; fetch or write the file again")


def byte_offset(file: h5py.File, dataset: h5py.Dataset) -> int:
    """Where the bytes of a data set begin; NOT_CONTIGUOUS where they are not one run in this file."""
    # Without storage, the offset that HDF5 gives in a file with a user block is no place of data.
    if elsewhere(file, dataset) or dataset.chunks or not dataset.id.get_storage_size() or not is_plain(dataset):
        return NOT_CONTIGUOUS
    offset = dataset.id.get_offset()
    return NOT_CONTIGUOUS if offset is None else offset
