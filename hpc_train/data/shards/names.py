"""The files of a split: their names, their number, and how they get these names once they are complete."""

import os
import re
import shutil

from hpc_train.data.shards.writer import sync
from hpc_train.errors import UserError
from hpc_train.units import MIB

_FILE_NAME = re.compile(r"(?P<split>[a-z][a-z0-9_]*)-(?P<shard>\d{5,})-of-(?P<shards>\d{5,})\.h5")
_TARGET_BYTES = 256 * MIB
_LEAST_SHARDS = 4
_UNFINISHED = (".tmp", ".whole")


def shard_name(split, shard, shards):
    """File name of shard number `shard` of `shards`."""
    return f"{split}-{shard:05d}-of-{shards:05d}.h5"


def parse_shard_name(name):
    """(split, shard, shards) of a shard's file name; None for any other name."""
    match = _FILE_NAME.fullmatch(name)
    return match and (match["split"], int(match["shard"]), int(match["shards"]))


def check_split(where, split, samples, shards):
    """Check the name of a split and its number of shards.

    Args:
        where: how messages name the data.

    Raises:
        ValueError: for a name that a split cannot have.
        UserError: for more shards than samples, or none.
    """
    if parse_shard_name(shard_name(split, 0, 1)) is None:
        raise ValueError(f"{split!r} cannot name a split; use lower-case letters, digits and _")
    if not 1 <= shards <= samples:
        raise UserError(f"{where}: {samples} samples do not fill {shards} shards; use 1 to {samples}")


def default_shards(samples, sample_bytes, shard_bytes=_TARGET_BYTES):
    """Number of shards of about 256 MiB each, but at least 4, so that several ranks can stage them at once."""
    return min(samples, max(_LEAST_SHARDS, -(-samples * sample_bytes // shard_bytes)))


def shard_edges(samples, shards):
    """Number of each shard's first sample, then the number of all samples. Shards differ by at most one sample."""
    return [shard * samples // shards for shard in range(shards + 1)]


def temporary_name(path, ending=".tmp"):
    """Path of a shard while it is written (".tmp"), or once it is complete and its split is not (".whole")."""
    return path.with_name(f".{path.name}{ending}")


def publish(paths, ending=".tmp"):
    """Give the shards of a split their own names where they do not have them, and remove its other files."""
    for path in paths:
        if ending == ".tmp" or temporary_name(path, ending).exists():
            os.replace(temporary_name(path, ending), path)
    directory, (split, _, _) = paths[0].parent, parse_shard_name(paths[0].name)
    remove_stale(directory, split, {path.name for path in paths})
    sync(directory)


def remove_stale(directory, split, keep):
    """Remove the shards of `split`, published or not, whose file names are not in `keep`."""
    for path in directory.iterdir():
        name = path.name
        ending = next((ending for ending in _UNFINISHED if name.startswith(".") and name.endswith(ending)), "")
        parsed = parse_shard_name(name[1 : -len(ending)] if ending else name)
        if parsed and parsed[0] == split and name not in keep:
            path.unlink()


def check_space(directory, needed):
    """UserError unless the disk of `directory` has `needed` bytes free."""
    # Checked beforehand, since HDF5 may notice a full disk only when it closes the file.
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise UserError(
            f"{directory}: the shards need {needed / MIB:.0f} MiB but {free / MIB:.0f} MiB are free; "
            "free space or choose another output folder"
        )
