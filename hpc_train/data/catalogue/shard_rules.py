"""Rules for the shards of a split together; `hpc-train verify` reports what breaks them, a catalogue refuses it."""

from collections.abc import Collection, Sequence
from pathlib import Path

from hpc_train.data.catalogue.file_info import FileInfo
from hpc_train.data.shards.names import shard_name


def mixed_generations(directory: Path, split: str, counts: Collection[int]) -> str | None:
    """What is wrong when the names of a split's shards give different numbers of shards, `counts`; else None."""
    if len(counts) < 2:
        return None
    mixed = " and ".join(map(str, sorted(counts)))
    return f"{directory}: shards of two generations of {split!r} (of {mixed} files) are mixed"


def shard_paths(directory: Path, split: str, count: int) -> list[str]:
    """Paths of all `count` shards of a split."""
    return [str(directory / shard_name(split, shard, count)) for shard in range(count)]


def broken_sequence(files: Sequence[str], infos: Sequence[FileInfo]) -> str | None:
    """The first thing that is wrong with the positions that shards, in their order, record; else None."""
    total, first = infos[0].common.total, 0
    if len(files) == 1 and infos[0].samples < total:
        return f"{files[0]}: holds {infos[0].samples} of the {total} samples of its split"
    for path, info in zip(files, infos, strict=True):
        if info.first != first:
            return f"{path}: records its first row as sample {info.first}, but {first} rows precede it"
        first += info.samples
    return None if first == total else f"{files[-1]}: the shards hold {first} samples, but record {total}"
