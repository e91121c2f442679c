"""A split that is in memory as the suite's shards: checked and written."""

from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.sample_checks import check_arrays, pieces
from hpc_train.data.shards.compression import COMPRESSIONS, Storage
from hpc_train.data.shards.names import (
    check_space,
    default_shards,
    parse_shard_name,
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
    classes,
    class_names=(),
    shards=None,
    source="",
    channels="last",
    compression="none",
    chunk_bytes=MIB,
    channel_names=(),
    coordinates=None,
):
    """Write one split as shards and return their paths.

    inputs: (n, ...), targets: (n, ...), unsigned, signed or floating; classes: targets are whole numbers in
    [0, classes), or 0 where they are no class labels; shards: number of files, by default those of
    `default_shards`; channels: "last" or "first" axis of an input sample; compression: "none", or one of
    COMPRESSIONS, in chunks of about chunk_bytes uncompressed; channel_names: one a channel, or none; coordinates:
    {"latitude": (h,), "longitude": (w,)} of the samples' grid in degrees, or none.

    All shards are written under temporary names, then renamed; only then are shards of the same split from an
    earlier call with another number of files removed. Raises UserError for bad data and for a folder that cannot
    be written; then no shard has changed, unless the renaming itself failed.
    """
    if parse_shard_name(shard_name(split, 0, 1)) is None:
        raise ValueError(f"{split!r} is no name for a split")
    if channels not in ("first", "last") or compression not in COMPRESSIONS:
        raise ValueError(f"no such channels or compression: {channels!r}, {compression!r}")
    directory = Path(directory)
    where = f"{split} data" + (f" from {source}" if source else "")
    inputs, targets = np.asanyarray(inputs), np.asanyarray(targets)
    check_arrays(where, inputs, targets, classes, class_names)
    samples = len(inputs)
    if shards is None:
        shards = default_shards(samples, inputs.nbytes // samples)
    if not 1 <= shards <= samples:
        raise UserError(f"{where}: {samples} samples do not fill {shards} shards; use 1 to {samples}")
    if channel_names and len(channel_names) != inputs.shape[1 if channels == "first" else -1]:
        raise ValueError(f"channel names {channel_names} for inputs of shape {inputs.shape}, channels {channels}")
    shared = {
        "split": split,
        "shards": shards,
        "total": samples,
        "classes": classes,
        "class_names": list(class_names),
        "channels": channels,
        **({"channel_names": list(channel_names)} if channel_names else {}),
        "source": " ".join(source.split()),
        "fingerprint": _fingerprint(inputs, targets),
    }
    storage = Storage(compression, chunk_bytes)
    kinds = inputs.shape[1:], inputs.dtype, targets.shape[1:], targets.dtype
    edges = shard_edges(samples, shards)
    paths = [directory / shard_name(split, shard, shards) for shard in range(shards)]
    path = directory
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if compression == "none":
            check_space(directory, inputs.nbytes + targets.nbytes)
        for shard, path in enumerate(paths):
            first, stop = edges[shard : shard + 2]
            attributes = shared | {"shard": shard, "first": first}
            with ShardWriter(temporary_name(path), stop - first, *kinds, attributes, storage, coordinates) as writer:
                for rows in pieces(inputs, first, stop):
                    writer.write(inputs[rows], targets[rows])
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
    return paths


def _fingerprint(inputs, targets):
    digest = blake2b(f"{inputs.dtype} {inputs.shape} {targets.dtype} {targets.shape}".encode(), digest_size=16)
    for array in (inputs, targets):
        for rows in pieces(array, 0, len(array)):
            digest.update(np.ascontiguousarray(array[rows]))
    return digest.hexdigest()
