"""Check a split that is in memory, and write it as shards."""

from contextlib import suppress
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.sample_checks import check_arrays, pieces
from hpc_train.data.shards.compression import Compression, Storage
from hpc_train.data.shards.description import Description
from hpc_train.data.shards.format import PAIR
from hpc_train.data.shards.names import (
    check_space,
    check_split,
    default_shards,
    publish,
    shard_edges,
    shard_name,
    temporary_name,
)
from hpc_train.data.shards.writer import ShardWriter
from hpc_train.errors import UserError
from hpc_train.units import MIB


def write_shards(
    directory,
    split,
    inputs,
    targets,
    *,
    weights=None,
    shards=None,
    compression: Compression = "none",
    chunk_bytes=MIB,
    coordinates=None,
    **description,
):
    """Write one split as shards.

    All shards are written under temporary names, then renamed. Only then are shards of the same split from an earlier
    call with another number of files removed.

    Args:
        directory: folder of the shards; made where it is missing.
        split: name of the split.
        inputs: (n, ...), unsigned, signed or floating: an array, or what gives one for each slice of its rows; or
            several by Keras's names.
        targets: likewise; None where the inputs are the targets.
        weights: (n, ...), sample weights, or None.
        shards: number of files, by default that of `default_shards`.
        compression: "none", or how the chunks are compressed.
        chunk_bytes: size of a chunk before compression, about.
        coordinates: {"latitude": (h,), "longitude": (w,)} of the samples' grid in degrees, or none.
        description: the fields of `Description`: classes=N, and if known class_names, channels, channel_names,
            target_names, source.

    Returns:
        The paths of the shards.

    Raises:
        UserError: for bad data, and for a folder that cannot be written. Then no shard has changed, unless the
            renaming itself failed.
    """
    described, storage = Description(**description), Storage(compression, chunk_bytes)
    where = described.where(split)
    arrays = _by_dataset(inputs, targets, weights)
    check_arrays(where, arrays, described.classes, described.class_names, described.ignore_label)
    first = next(iter(arrays.values()))
    samples = len(first)
    if shards is None:
        shards = default_shards(samples, sum(array.nbytes for array in arrays.values()) // samples)
    check_split(where, split, samples, shards)
    described.check_channel_names(first.shape)
    attributes = {
        "split": split,
        "shards": shards,
        "total": samples,
        **described.attributes(),
        "fingerprint": _fingerprint(arrays),
    }
    paths = [Path(directory, shard_name(split, shard, shards)) for shard in range(shards)]
    _write(paths, arrays, attributes, storage, coordinates)
    return paths


def _by_dataset(inputs, targets, weights) -> dict[str, np.ndarray]:
    arrays = {}
    for name, given in (("inputs", inputs), ("targets", targets), ("weights", weights)):
        named = {f"{name}/{key}": array for key, array in given.items()} if isinstance(given, dict) else {name: given}
        for key, array in named.items():
            if array is not None:
                # What is read row by row, and is not in memory, stays as it is.
                arrays[key] = array if hasattr(array, "dtype") else np.asanyarray(array)
    return arrays


def _write(paths, arrays, attributes, storage, coordinates):
    """Write all shards of a split under temporary names, then give them their own."""
    kinds = {name: (array.shape[1:], array.dtype) for name, array in arrays.items()}
    first_array = next(iter(arrays.values()))
    path = directory = paths[0].parent
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if storage.compression == "none":
            check_space(directory, sum(array.nbytes for array in arrays.values()))
        edges = pairwise(shard_edges(len(first_array), len(paths)))
        for shard, (path, (first, stop)) in enumerate(zip(paths, edges, strict=True)):
            own = attributes | {"shard": shard, "first": first}
            with ShardWriter(temporary_name(path), stop - first, kinds, own, storage, coordinates) as writer:
                for rows in pieces(first_array, first, stop):
                    writer.write(*(array[rows] for array in arrays.values()))
        publish(paths)
    # h5py raises RuntimeError where HDF5 cannot flush a file.
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"{path}: cannot be written ({reason(error)}); free space or choose another output folder"
        ) from error
    finally:
        for path in paths:
            with suppress(OSError):
                temporary_name(path).unlink()


def _fingerprint(arrays):
    plain = list(arrays) == PAIR
    kinds = (f"{'' if plain else name + ' '}{array.dtype} {array.shape}" for name, array in arrays.items())
    digest = blake2b(" ".join(kinds).encode(), digest_size=16)
    for array in arrays.values():
        for rows in pieces(array, 0, len(array)):
            digest.update(np.ascontiguousarray(array[rows]))
    return digest.hexdigest()
