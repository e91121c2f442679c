"""What the shards of a split must be to each other; `hpc-train verify` names what is not so, a catalogue refuses it."""

from collections.abc import Collection, Sequence
from pathlib import Path

from hpc_train.data.catalogue.file_info import FileInfo
from hpc_train.data.shards.names import shard_name


def mixed_generations(directory: Path, split: str, counts: Collection[int]) -> str | None:
    """What is wrong where the names of a split's shards tell different numbers of shards, `counts`; else None."""
    if len(counts) < 2:
        return None
    mixed = " and ".join(map(str, sorted(counts)))
    return f"{directory}: shards of two generations of {split!r} (of {mixed} files) are mixed"


def shard_paths(directory: Path, split: str, count: int) -> list[str]:
    """Paths of all shards of a split of so many."""
    return [str(directory / shard_name(split, shard, count)) for shard in range(count)]


def broken_sequence(files: Sequence[str], infos: Sequence[FileInfo]) -> str | None:
    """The first thing that is wrong with what shards, in their order, say of their place in the split; else None."""
    total, first = infos[0].common.total, 0
    if len(files) == 1 and infos[0].samples < total:
        return f"{files[0]}: holds {infos[0].samples} of the {total} samples of its split"
    for path, info in zip(files, infos, strict=True):
        if info.first != first:
            return f"{path}: says its first row is sample {info.first}, but {first} rows precede it"
        first += info.samples
    return None if first == total else f"{files[-1]}: the shards hold {first} samples but say {total}"
