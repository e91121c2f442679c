"""`hpc-train shard`: repack any data set that the suite reads into shards."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_train.console import ProgressLine, say
from hpc_train.data.catalogue.class_map import number_of
from hpc_train.data.fields.geometry import GeometryOptions
from hpc_train.data.options import IgnoreOptions
from hpc_train.data.shards.compression import Compression, Storage
from hpc_train.errors import UserError
from hpc_train.units import MIB, size


@dataclass(frozen=True, kw_only=True)
class Shard(GeometryOptions, IgnoreOptions):
    """Repack a data set into shards: alone, or over ranks with `mpirun -np 4 hpc-train shard ...`.

    To continue after an interruption, give the same command again: shards that are complete are kept.
    """

    output: Path
    """Folder for the shards."""
    split: str | None = None
    """Split to repack; by default all splits of the data."""
    shards: int | None = None
    """Number of shards of each split; by default at least 4, of about 256 MiB each."""
    shard_mib: float | None = None
    """Size of a shard before compression, in MiB, instead of --shards."""
    compression: Compression = "none"
    """none: the fastest to read. The others store compressed chunks: zstd is small and fast."""
    chunk_mib: float = 1.0
    """Size of a compressed chunk before compression, in MiB; reading any sample decodes its whole chunk."""
    float16: bool = False
    """Store floating-point inputs in half precision: half the bytes, three digits, values up to 65504."""
    shuffle_seed: int | None = None
    """Store the samples in a random order with this seed; by default in the order of the source."""


def run(options: Shard) -> None:
    """Write the shards of every split, and print one line for each split."""
    from hpc_train.parallel.mpi import job

    _check_options(options)
    with job() as comm:
        try:
            catalogues = [options.catalogue(split, comm, mixed=True) for split in _splits(options)]
            for catalogue in catalogues:
                _repack(options, catalogue, [other for other in catalogues if other is not catalogue], comm)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("complete shards are kept; give the same command again to continue") from None


def _check_options(options: Shard) -> None:
    from hpc_train.data.shards.names import parse_shard_name, shard_name

    if options.shards is not None and options.shard_mib is not None:
        raise UserError("--shards and --shard-mib both set the number of shards; give one of them")
    for name, value in (("shards", options.shards), ("shard-mib", options.shard_mib), ("chunk-mib", options.chunk_mib)):
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{name} is {value}; give a number above 0")
    if options.split is not None and parse_shard_name(shard_name(options.split, 0, 1)) is None:
        raise UserError(
            f"--split {options.split!r} cannot be part of a shard's name; use lower-case letters, digits and _"
        )


def _splits(options: Shard) -> list[str]:
    from hpc_train.data.catalogue.layout import find_splits

    return [options.split] if options.split else find_splits(options.data) or ["train"]


def _repack(options: Shard, catalogue, beside: list, comm) -> None:
    from hpc_train.data.repack.conversion import loss_warnings
    from hpc_train.data.repack.split import source_hash
    from hpc_train.parallel.mpi import on_root

    split = catalogue.split
    catalogue.stored_only("`hpc-train shard`")
    if options.geometry:
        catalogue = replace(catalogue, geometry=options.geometry)
    # As recorded in the shards: a number, not a stored label.
    ignore = options.ignored_label(catalogue)
    catalogue = replace(catalogue, ignore_label=number_of(ignore, catalogue.labels))
    work = _plan(options, catalogue, beside, ignore, on_root(comm, lambda: source_hash(catalogue)))
    # Before any rank writes, so that all agree on which shards are complete.
    kept = on_root(comm, work.begin)
    mine = [shard for shard in range(work.shards) if shard not in kept][comm.rank :: comm.size]
    left = sum(map(work.samples, mine))
    progress = ProgressLine(split, left, comm.rank == 0)
    for shard in mine:
        work.check_space(left * comm.size)
        work.write(shard, progress)
        left -= work.samples(shard)
    progress.close()
    losses = sum(comm.allgather(work.conversion.losses))
    stored = on_root(comm, work.publish)
    if comm.rank == 0:
        raw = catalogue.samples * work.sample_bytes
        packed = options.compression != "none"
        smaller = f", {raw / stored:.2f} times smaller by {options.compression}" if packed else ""
        there = f", {len(kept)} of them already there" if kept else ""
        say(
            f"{split}: {catalogue.samples} samples of {work.conversion.sample_text}, "
            f"{size(stored)}{smaller}, {work.shards} shards in {options.output}{there}"
        )
        for warning in loss_warnings(losses):
            say(f"warning: {split}: {warning}", sys.stderr)


def _plan(options: Shard, catalogue, beside: list, ignore: int | None, source: str):
    from hpc_train.data.repack.conversion import Conversion
    from hpc_train.data.repack.split import SplitShards

    if options.output.resolve() in {Path(path).resolve().parent for path in catalogue.files}:
        raise UserError(f"--output {options.output}: the source is in this folder; give another folder")

    def shards(sample_bytes: int) -> int:
        total = catalogue.samples * sample_bytes
        return options.shards or min(catalogue.samples, max(1, round(total / (options.shard_mib * MIB))))

    return SplitShards(
        catalogue,
        source,
        f"{len(catalogue.files)} {catalogue.layout.name} files of {options.data.resolve().name}",
        options.output,
        Conversion(catalogue, options.float16, options.shuffle_seed, beside, ignore),
        Storage(options.compression, max(1, int(options.chunk_mib * MIB))),
        shards if options.shards or options.shard_mib else None,
    )
