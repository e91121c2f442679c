"""`hpc-train stats`: statistics of a data set in one pass, over any number of ranks."""

import os
import socket
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from hpc_train.console import ProgressLine, say
from hpc_train.data.catalogue.axes import axes_note
from hpc_train.data.catalogue.class_map import number_of
from hpc_train.data.options import LabelOptions
from hpc_train.errors import UserError
from hpc_train.parallel.world import threads_per_rank
from hpc_train.units import size

# Bytes of data that a rank holds at a time, or one sample a thread where that is more.
_BATCH_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Stats(LabelOptions):
    """Compute the statistics of each channel, and of labels the pixels of each class and class weights.

    Targets that are no labels (of floating point, or several) have statistics of their own, as have several inputs.
    Reads every sample once; with `mpirun -np N` (Slurm: `srun`), N ranks share the samples. Writes statistics.h5 (the
    suite's), stats.h5 (as published with CAM5 and DeepCAM) and stats_paper.h5 (as in Kurth et al. 2018). JPEG images
    are counted as validation decodes them at 224 x 224.
    """

    split: str = "train"
    """Split to read; networks normalise their inputs by the statistics of the training split."""
    output: Path | None = None
    """Folder to write to; by default the folder of --data."""
    skip_nan: bool = False
    """Leave out NaN, infinite and missing values and count them, instead of stopping at the first one."""


def run(options: Stats) -> None:
    """Compute the statistics, each rank those of its part; rank 0 prints and writes them."""
    from hpc_train.parallel.mpi import agree, job

    options.check_annotation()
    with job() as comm:
        catalogue = options.with_channels(options.one_label_map(options.catalogue(options.split, comm), comm))
        ignore = options.ignored_label(catalogue)
        with agree(comm):
            folder = _prepare_output(options) if comm.rank == 0 else None
        began = time.perf_counter()
        first, last = (catalogue.samples * (comm.rank + part) // comm.size for part in (0, 1))
        threads = _threads(comm)
        # Rank 0's share stands for all: the shares are equal.
        with closing(ProgressLine(options.split, last - first, comm.rank == 0)) as progress:
            mine = count(catalogue, first, last, options.skip_nan, threads, progress.add, ignore)
        parts = comm.gather(mine)
        if comm.rank == 0:
            total = parts[0]
            for part in parts[1:]:
                total = total.merge(part)
            _finish(options, catalogue, total, folder, comm.size, time.perf_counter() - began)


def count(
    catalogue,
    first: int,
    last: int,
    skip_nan=False,
    threads: int = 1,
    add=lambda samples, size: None,
    ignore: int | None = None,
):
    """Compute the `Statistics` of the samples [first, last) of a catalogue.

    Packed values are unpacked; images are decoded as in validation.

    Args:
        catalogue: where the samples are.
        first, last: the samples to read.
        skip_nan: leave out NaN, infinite and missing values.
        threads: number of threads that read and count.
        add: called with the samples and bytes of every finished batch.
        ignore: a stored label that is not counted.

    Raises:
        UserError: a sample cannot be read, holds a label that is not a class, or (without `skip_nan`) holds NaN,
            infinity or a missing value; it names the file and the sample.
    """
    from hpc_train.data.statistics import Statistics

    first_input = catalogue.inputs[0]
    total = Statistics.empty(catalogue.channels_of(first_input), catalogue.classes)
    rows = max(1, _BATCH_BYTES // threads // max(1, catalogue.sample_bytes))
    batches = (range(at, min(at + rows, last)) for at in range(first, last, rows))
    reader = _open_reader(catalogue, ignore)
    how = skip_nan, number_of(ignore, catalogue.labels)
    with closing(reader), ThreadPoolExecutor(threads) as pool:
        work = deque(pool.submit(_count_batch, reader, batch, *how) for batch in islice(batches, threads + 1))
        # In the order of the samples: the first bad one is reported.
        while work:
            done = work.popleft().result()
            total = total.merge(done)
            add(done.samples, done.samples * catalogue.sample_bytes)
            work.extend(pool.submit(_count_batch, reader, batch, *how) for batch in islice(batches, 1))
    others = {part.label: part for part in catalogue.parts if part.label in total.others}
    others = {name: _unpacked(total.others[name], part) for name, part in others.items()}
    return replace(_unpacked(total, first_input), others=others)


def _unpacked(statistics, part):
    scale, offset = np.array(part.packing).T
    return statistics.unpacked(scale, offset) if part.packed else statistics


def _open_reader(catalogue, ignore: int | None):
    from hpc_train.data.reading.encoded_reader import open_reader

    if not catalogue.encoding:
        return open_reader(catalogue, check=False, ignore=ignore)
    from hpc_train.parallel.quiet import quiet_import

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet_import():
        import tensorflow as tf

    # Without this, each rank of a node would take memory of its GPUs, which are not used here.
    tf.config.set_visible_devices([], "GPU")
    from hpc_train.data.tensors.jpeg import DecodedReader

    return DecodedReader(open_reader(catalogue))


def _count_batch(reader, batch: range, skip_nan: bool, ignore):
    from hpc_train.data.statistics.moments import BadSample, Statistics

    catalogue = reader.catalogue
    arrays = reader.read(np.arange(batch.start, batch.stop))
    labels = catalogue.labelled
    total, others, label, steps = None, {}, "input", None
    try:
        for part, values in zip(catalogue.parts, arrays, strict=True):
            if labels and part.role == "target":
                continue
            label, axis = part.label, catalogue.channel_axis_of(part)
            steps = reader.steps(part, batch) if part.lengths else None
            if steps is not None:
                # Each step counts, none of the padding does.
                values, axis = values[steps], None if axis is None else axis - 1
            absent = part.absent(values, strict=True)
            if total is None:
                targets = arrays[len(catalogue.inputs)] if labels else None
                total = Statistics.of(values, targets, axis, catalogue.classes, skip_nan, absent, ignore)
            elif part.role != "weight":
                others[label] = Statistics.of(values, None, axis, 0, skip_nan, absent)
    except BadSample as bad:
        place = "" if label == "input" else f" in its {label}"
        row = bad.place if steps is None else int(np.nonzero(steps)[0][bad.place])
        raise _located(catalogue, batch.start + row, bad.problem + place) from bad
    return replace(total, others=others, samples=len(batch))


def _threads(comm) -> int:
    """Number of this rank's cores, where several ranks share a node."""
    ranks_here = comm.allgather(socket.gethostname()).count(socket.gethostname())
    cores = os.cpu_count() or 1
    return threads_per_rank(ranks_here, len(os.sched_getaffinity(0)), cores)


def _located(catalogue, sample: int, problem: str) -> UserError:
    (number,), (row,) = catalogue.locate([sample])
    place = f"row {row} (sample {sample} of {catalogue.split!r})" if catalogue.layout.rows else f"sample {sample}"
    remedy = "fix the labels, or give the number of classes with --classes"
    if not problem.startswith("has label"):
        remedy = "fix the data, or leave out such values with --skip-nan"
    return UserError(f"{catalogue.files[number]}: {place} {problem}; {remedy}")


def _prepare_output(options: Stats) -> Path:
    from hpc_train.data.hdf5.access import reason
    from hpc_train.data.statistics.file import check_replaceable

    folder = options.output or options.data
    if not options.output and not folder.is_dir():
        raise UserError(f"{folder} is not a folder; give a folder for the statistics with --output")
    try:
        if options.output:
            folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise UserError(f"{folder}: cannot be written to ({reason(error)}); give a folder with --output") from error
    check_replaceable(folder, options.split)
    return folder


def _finish(options: Stats, catalogue, total, folder: Path, ranks: int, seconds: float) -> None:
    from hpc_train.data.statistics.file import load_statistics, write_all

    total = replace(
        total,
        channel_names=catalogue.channel_names,
        class_names=tuple(catalogue.class_names) if len(catalogue.class_names) == len(total.class_counts) else (),
        split=options.split,
        fingerprint=catalogue.fingerprint,
    )
    what = catalogue.inputs[0].label if catalogue.inputs[0].name else "channel"
    if note := axes_note(catalogue):
        say(f"note: {note}")
    rate = f"{size(total.samples * catalogue.sample_bytes / seconds)}/s"
    say(
        f"{options.split}: {total.samples} samples of {catalogue.sample_text}, {rate} in "
        f"{seconds:.1f} s by {ranks} rank{'s' * (ranks > 1)}\n\n{tables(total, what)}\n"
    )
    paths = write_all(folder, total)
    lost = np.flatnonzero(np.isnan(load_statistics(paths[1]).std) & (total.count > 0))
    if len(lost):
        channels = ", ".join(map(str, lost))
        say(f"note: float32 squares in {paths[1].name} cannot hold the std of channels {channels}; the other files can")
    say("wrote " + ", ".join(map(str, paths)))


def tables(statistics, what: str = "channel") -> str:
    """Tables of the channels (`what`), of other arrays, and of the classes if there are labels, as text for people."""
    from hpc_train.data.statistics.moments import WEIGHT_POWERS, class_weights

    columns = [("mean", statistics.mean), ("std", statistics.std), ("min", statistics.min), ("max", statistics.max)]
    if statistics.not_finite.any():
        columns.append(("not finite", statistics.not_finite))
    text = _table(what, statistics.channel_names, columns)
    text += "".join(f"\n\n{tables(part, name)}" for name, part in statistics.others.items())
    if not len(statistics.class_counts):
        return text
    counts = statistics.class_counts
    columns = [("count", counts), ("share", counts / max(1, counts.sum()))]
    columns += [(f"weight^{power:g}", class_weights(counts, power)) for power in WEIGHT_POWERS]
    return f"{text}\n\n{_table('class', statistics.class_names, columns)}"


def _table(what: str, names: tuple[str, ...], columns: list[tuple[str, np.ndarray]]) -> str:
    labels = [f"{number} {name}" for number, name in enumerate(names)] or list(map(str, range(len(columns[0][1]))))
    rows = [[what, *(title for title, _ in columns)]]
    rows += [[label, *(_number(values[i]) for _, values in columns)] for i, label in enumerate(labels)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows)


def _number(value) -> str:
    return str(value) if isinstance(value, np.integer) else f"{value:.6g}"
