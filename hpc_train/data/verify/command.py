"""`hpc-train verify`: read all of a data set and list what is broken."""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from hpc_train.console import ProgressLine, say
from hpc_train.data.options import IgnoreOptions
from hpc_train.errors import UserError
from hpc_train.units import size


@dataclass(frozen=True)
class Verify(IgnoreOptions):
    """Read all of a data set and list what is broken; alone, or over ranks with `mpirun -np 4 hpc-train verify ...`.

    Opens every file and decodes every chunk and every image. Shapes and types of all files must agree, shards must be
    complete and match their checksums, values must be finite, and labels must be whole numbers within the classes.
    """

    split: str | None = None
    """Split to check; by default all splits of the data."""
    most: int = 50
    """Number of faults to list; the rest are only counted."""


def run(options: Verify) -> None:
    """List what is broken, or print one line for each split.

    Raises:
        UserError: something is broken; it gives the number of faults.
    """
    from hpc_train.data.catalogue.layout import find_splits
    from hpc_train.parallel.mpi import job

    with job() as comm:
        problems = []
        for split in [options.split] if options.split else find_splits(options.data) or ["train"]:
            problems += verify(options, split, comm)
        if comm.rank == 0:
            for problem in problems[: options.most]:
                say(f"broken: {problem}")
            if len(problems) > options.most:
                say(f"... and {len(problems) - options.most} more")
        if problems:
            what = "1 thing is" if len(problems) == 1 else f"{len(problems)} things are"
            # What is wrong with the options or the form of a file comes with its own advice.
            advised = all("; " in problem for problem in problems)
            advice = "do what the lines above say" if advised else "fetch or write these files again"
            raise UserError(f"{options.data}: {what} broken; {advice}").agreed()


def verify(options: Verify, split: str, comm) -> list[str]:
    """The faults of a split, one line each, the same on every rank; prints one line if there are none. Collective."""
    from hpc_train.data.catalogue.layout import data_folder
    from hpc_train.data.verify.scan import scan
    from hpc_train.parallel.mpi import on_root

    began = time.perf_counter()
    files, layout, problems = on_root(comm, lambda: _files(options, split))
    mine, classes = files[comm.rank :: comm.size], options.classes or len(options.class_names)
    progress = ProgressLine(f"{split}:", max(1, len(mine)), comm.rank == 0, "files")
    scans, within = [], None if options.follow_external else data_folder(options.data)
    for path in mine:
        scans.append(scan(path, layout, split, classes, options.labels(), options.ignore_label, within))
        progress.add(1, scans[-1].bytes)
    progress.close()
    parts = comm.allgather(scans)
    scans = [parts[number % comm.size][number // comm.size] for number in range(len(files))]
    complete = not problems
    for found in scans:
        problems += found.problems
    problems += _disagreements(scans, layout, complete)
    if not problems and comm.rank == 0:
        _summary(options, split, layout, scans, time.perf_counter() - began)
    return problems


def _files(options: Verify, split: str):
    """(paths, layout, faults of their names); the layout is that of the first file with a known one."""
    from hpc_train.data.catalogue.layout import SHARDS, find_files, listed, recognise
    from hpc_train.data.catalogue.shard_inspection import shard_layout
    from hpc_train.data.shards.names import parse_shard_name

    asked = options.layout_of_files()
    folder = Path(options.data)
    if asked in (None, SHARDS) and folder.is_dir():
        names = [name for name in listed(folder) if (parse_shard_name(name) or ("",))[0] == split]
        if names:
            layout = shard_layout(str(folder / names[0]))
            return [str(folder / name) for name in names], layout, _missing_shards(folder, split, names)
    files = find_files(options.data, split)
    error = None
    for path in files if asked is None else ():
        try:
            return files, recognise(path), []
        except UserError as unknown:
            error = error or unknown
    if error:
        raise error
    return files, asked, []


def _missing_shards(folder: Path, split: str, names: list[str]) -> list[str]:
    from hpc_train.data.catalogue.shard_rules import mixed_generations, shard_paths
    from hpc_train.data.shards.names import parse_shard_name

    counts = {parse_shard_name(name)[2] for name in names}
    if mixed := mixed_generations(folder, split, counts):
        return [mixed]
    there = {str(folder / name) for name in names}
    return [f"{path}: missing" for path in shard_paths(folder, split, *counts) if path not in there]


def _disagreements(scans, layout, complete: bool) -> list[str]:
    """Files whose shapes, types or shared attributes differ from most files, and gaps in the sequence of shards."""
    infos = [(found.path, found.info) for found in scans if found.info]
    if not infos:
        return []
    from hpc_train.data.catalogue.file_info import CONVERTED, differences

    common, _ = Counter(info.common for _, info in infos).most_common(1)[0]
    problems = []
    for path, info in infos:
        alike = info.common._replace(kinds=common.kinds, channels=common.channels)
        found = differences(layout, info.common, common)
        found += [entry for entry in zip(common._fields, alike, common, strict=True) if entry[1] != entry[2]]
        for name, mine, theirs in found:
            remedy = "; bring all into one form with `hpc-train shard`" * str(name).endswith(CONVERTED)
            problems.append(f"{path}: {name.replace('_', ' ')} is {mine!r}, but {theirs!r} in most files{remedy}")
    if complete and len(infos) == len(scans) and infos[0][1].first >= 0 and not problems:
        from hpc_train.data.catalogue.shard_rules import broken_sequence

        problems += filter(None, [broken_sequence(*zip(*infos, strict=True))])
    return problems


def _summary(options: Verify, split: str, layout, scans, seconds: float) -> None:
    read = sum(found.bytes for found in scans)
    samples = sum(found.info.samples for found in scans)
    from hpc_train.data.catalogue.part import Part, labelled

    classes = scans[0].info.common.classes or options.classes or options.class_names or options.labels()
    parts = map(Part.of, layout.places, scans[0].info.common.kinds)
    labels = labelled(layout, 0, [part for part in parts if part.role == "target"])
    unchecked = "; label values are not checked, because --classes is not given" if labels and not classes else ""
    say(
        f"{split}: {len(scans)} file{'s' * (len(scans) > 1)}, {samples} samples, {size(read)}, "
        f"{size(read / seconds)}/s: no faults found{unchecked}"
    )
