"""How fast is the input path? hpc-train bench input --data shards/mnist --batch-size 128

It reads the same shuffled batches in several ways, which take turns in one process, round after round:

    copy          the limit: as many bytes from the same files, copied as they are stored (`ways.Copy`)
    arrays        the suite's reader: batches as NumPy arrays, read ahead in threads
    fit           the same as tensors, as a step of training takes them on CPUs
    tf.data       the same through `tf.data`, as training takes them on GPUs, iterated from Python
    h5py          one fancy index for each batch and file, then put in order
    h5py-threads  the same in a pool of threads
    torch         torch.utils.data.DataLoader: sample by sample with h5py, in worker processes in place of threads
    lmdb          sample by sample from an LMDB, into which they are copied before, in --scratch
    tfrecord      a copy as TFRecord files, through `tf.data` with a shuffle buffer of 1,000 samples
    webdataset    a copy as tar files, with WebDataset and the same buffer
    litdata       a copy in chunks of LitData, which shuffles the chunks and within them
    memory        no speed: the memory that the reader takes over an epoch

Before, every file is read once, so the page cache is warm if it is large enough. The first batch of every way is
compared with that of h5py; of those with an order of their own, from tfrecord on, the first samples. With one thread,
WebDataset and LitData read in this process, else in as many worker processes. An uncounted round finds how many steps
fill --seconds, and by how much memory the process and its workers grow. Rates are of delivered samples; GB/s are of
their bytes in memory, and for the copy of those in the files. GB/core-s is what a core delivers in a second of its
time; other work on the machine disturbs it less.

Images of JPEG shards are decoded, which takes images of one size: by the suite's reader without TensorFlow, and with
Pillow otherwise, by TensorFlow from TFRecord.
"""

import importlib.util
import json
import os
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from hpc_train.bench.input.report import report
from hpc_train.data.options import DataOptions
from hpc_train.errors import UserError
from hpc_train.units import MIB

_COPIES = "lmdb", "tfrecord", "webdataset", "litdata"
Kind = Literal[("copy", "arrays", "fit", "tf.data", "h5py", "h5py-threads", "torch", *_COPIES, "memory")]
_NEEDS: dict[str, tuple[str, ...]] = dict.fromkeys(("fit", "tf.data", "tfrecord"), ("tensorflow",))
_NEEDS |= {
    "torch": ("torch",),
    "lmdb": ("lmdb",),
    "webdataset": ("webdataset", "torch"),
    "litdata": ("litdata", "torch"),
}


@dataclass(frozen=True)
class InputBench(DataOptions):
    """Measure the reader on any data set, beside a plain copy of its bytes and other ways to read it."""

    split: str = "train"
    """Split to read."""
    batch_size: int = 128
    """Samples in a batch."""
    ways: tuple[Kind, ...] = ()
    """What to measure; by default copy, arrays, h5py, h5py-threads, and torch if PyTorch is installed."""
    threads: tuple[int, ...] = ()
    """Numbers of threads (torch: worker processes), each measured; by default 1, and one for each core."""
    read_ahead: tuple[int, ...] = ()
    """Numbers of batches in memory or being read, each measured; by default the number that a trainer reads ahead."""
    shuffle: Literal["full", "blocks"] = "full"
    """Order: all samples permuted, or blocks of consecutive samples mixed in windows."""
    how: Literal["auto", "map", "read", "h5py"] = "auto"
    """How the suite's reader reads. map: from files mapped in memory; read: by positioned reads; h5py: through h5py;
    auto: map or read, depending on the size of a sample."""
    check: bool = True
    """Look for NaN and for labels outside the classes, as training does."""
    rounds: int = 7
    """Counted rounds. Each has every way once, in an order that rotates."""
    seconds: float = 1
    """Seconds of one way in one round, approximately."""
    latency: float = 0
    """Milliseconds that every read waits for its first byte. With it, files are not mapped."""
    bandwidth_mib: float | None = None
    """With --latency: MiB/s that all reads share."""
    scratch: Path | None = None
    """Folder for the copies that lmdb, tfrecord, webdataset and litdata read, which are removed; by default the
    system's temporary one."""
    seed: int = 0
    """Seed of the order."""
    output: Path | None = None
    """JSON file for the figures."""


def run(options: InputBench) -> None:
    """Measure and print.

    Raises:
        UserError: options or data that cannot be used.
    """
    kinds = _kinds(options)
    _check(options, kinds)
    catalogue = options.catalogue(options.split)
    if catalogue.encoding and "torch" in options.ways:
        raise UserError("--ways torch reads arrays, and --data holds JPEG images; leave torch out")
    kinds = [kind for kind in kinds if kind != "torch" or not catalogue.encoding]
    figures = _measure(options, kinds, catalogue)
    report(figures)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=2, default=str) + "\n")


def _kinds(options: InputBench) -> Sequence[str]:
    if not options.ways:
        return ["copy", "arrays", "h5py", "h5py-threads"] + ["torch"] * _installed("torch")
    for kind in options.ways:
        if lacking := [module for module in _NEEDS.get(kind, ()) if not _installed(module)]:
            packages = " ".join(lacking)
            raise UserError(f"--ways {kind}: it needs {packages}; `pip install {packages}`, or leave {kind} out")
    return list(dict.fromkeys(options.ways))


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _check(options: InputBench, kinds: Sequence[str]) -> None:
    numbers = (options.batch_size, options.rounds, *options.threads, *options.read_ahead)
    if min(numbers) < 1 or options.seconds <= 0:
        raise UserError("--batch-size, --rounds, --threads and --read-ahead must be at least 1, --seconds more than 0")
    if options.latency < 0 or (options.bandwidth_mib is not None and options.bandwidth_mib <= 0):
        raise UserError("--latency must not be negative, --bandwidth-mib must be more than 0")
    if options.bandwidth_mib and not options.latency:
        raise UserError("--bandwidth-mib limits the storage that --latency makes slow; give both")
    if options.bandwidth_mib and "torch" in kinds:
        raise UserError("--bandwidth-mib: torch's worker processes cannot share it; leave torch out of --ways")
    if options.latency and (fast := [kind for kind in kinds if kind in _COPIES]):
        raise UserError(f"--latency: reads of {fast[0]} cannot be slowed down; leave it out of --ways")
    if options.scratch and not options.scratch.is_dir():
        raise UserError(f"--scratch {options.scratch} does not exist; make it first")
    if options.latency and options.how == "map":
        raise UserError("--latency: slow files cannot be mapped; leave --how map out")
    if options.output and not options.output.parent.is_dir():
        raise UserError(f"--output {options.output}: the folder {options.output.parent} does not exist; make it first")


def _measure(options: InputBench, kinds: Sequence[str], catalogue) -> dict:
    import hdf5plugin  # noqa: F401 (h5py's filters)

    from hpc_train.bench.input import memory, rounds, ways
    from hpc_train.bench.input.encoded import h5py_reader, open_images
    from hpc_train.bench.input.slow_storage import SlowStorage
    from hpc_train.bench.input.steps import Steps
    from hpc_train.data.hdf5.access import open_hdf5
    from hpc_train.data.hdf5.raw_file import File
    from hpc_train.data.reading.reader import Reader

    cores = len(os.sched_getaffinity(0))
    deque(ways.Copy(catalogue, File, 1, 0).pieces(catalogue.samples), maxlen=0)
    bandwidth = options.bandwidth_mib and options.bandwidth_mib * MIB
    slow = SlowStorage(options.latency / 1e3, bandwidth) if options.latency else None
    opened = (slow.open, slow.open_hdf5) if slow else (File, open_hdf5)
    if catalogue.encoding:
        reader = open_images(catalogue, options.check, options.how, opened[0])
        catalogue = reader.catalogue
    else:
        reader = Reader(catalogue, options.check, options.how, open_file=opened[0])
    steps = Steps(reader, _plan(options, catalogue))
    figures = _circumstances(options, cores, catalogue, steps, reader)
    threads = sorted(set(options.threads)) or sorted({1, cores})
    ahead = sorted(set(options.read_ahead)) or [None]
    if "memory" in kinds:
        # It goes first: memory that other ways leave behind could hide what it takes.
        figures["memory"] = memory.measure(steps, threads[-1], ahead[-1])
    scratch, made = options.scratch or Path(tempfile.gettempdir()), []
    try:
        for kind in (kind for kind in kinds if kind != "memory"):
            for count in [0] if kind in ("h5py", "lmdb") else threads:
                for batches in ahead if kind in ("arrays", "fit", "tf.data", "h5py-threads") else ahead[:1]:
                    made.append(ways.build(kind, count, batches, catalogue, steps, opened, scratch))
        _compare(made, h5py_reader(catalogue, open_hdf5), steps)
        stored = int(catalogue.sizes.sum())
        figures["ways"] = rounds.interleave(made, options.rounds, options.seconds, options.batch_size, stored, slow)
    finally:
        for way in made:
            if way.copy:
                way.copy.close()
    return figures | {"ratios": rounds.ratios(made, figures["ways"])}


def _circumstances(options: InputBench, cores: int, catalogue, steps, reader) -> dict:
    return {
        "options": asdict(options),
        "cores": cores,
        "samples": catalogue.samples,
        "files": len(catalogue.files),
        "layout": catalogue.layout.name,
        "sample_bytes": catalogue.sample_bytes,
        "stored_sample_bytes": int(catalogue.sizes.sum()) / catalogue.samples,
        "steps_together": steps.reading(None).together,
        "input": f"{catalogue.input_shape} {catalogue.input_dtype}",
        "reader": reader.describe(),
    }


def _compare(made: Sequence, reader, steps) -> None:
    import numpy as np

    planned, first = reader.read(next(steps.batches(0, 1))), reader.read(np.arange(steps.plan.batch_size))
    for way in made:
        expected = first if way.first else planned
        for batch in [way.first()] if way.first else way.deliver(0, 1):
            if not all(np.array_equal(ours, theirs) for ours, theirs in zip(batch, expected, strict=True)):
                raise RuntimeError(f"{way.name} delivers other samples than h5py")


def _plan(options: InputBench, catalogue):
    from hpc_train.data.plan import TrainPlan
    from hpc_train.data.plan.order import BlockOrder

    order = None
    if options.shuffle == "blocks":
        size = catalogue.sample_bytes
        order = BlockOrder.fit(catalogue.samples, options.seed, 1, options.batch_size, sample_bytes=size)
    return TrainPlan(catalogue.samples, options.batch_size, 1, options.seed, order)
