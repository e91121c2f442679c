"""The readers of the suite's own files: what was written, or a line; past a checksum, nothing else is believed."""

import contextlib
import functools
import io
import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np


@contextlib.contextmanager
def beside(path, name):
    """A folder that holds the file under its own name; what readers print is not shown."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        shutil.copy(path, os.path.join(folder, name))
        yield Path(folder)


@functools.cache
def _model():
    import keras

    # Another process must give its variables the same names.
    return keras.Sequential([keras.Input((2,), name="x"), keras.layers.Dense(2, name="y")], name="z")


@functools.cache
def _checkpoint(step):
    from hpc_train.training import checkpoint

    _model().set_weights([np.full(weight.shape, step, "f4") for weight in _model().get_weights()])
    with tempfile.TemporaryDirectory() as folder:
        progress = checkpoint.Progress(epoch=step, step=step, metrics=[np.ones(3)])
        return checkpoint.save(Path(folder), _model(), progress).read_bytes()


def resume(path):
    """The newest checkpoint that is whole: the one that may be damaged, else the one before."""
    from hpc_train.training import checkpoint

    with beside(path, "step-0000000002.h5") as folder:
        (folder / "step-0000000001.h5").write_bytes(_checkpoint(1))
        progress = checkpoint.load(checkpoint.newest(folder), _model())
    assert progress.epoch == progress.step
    for weight in _model().get_weights():
        assert (weight == progress.step).all()


RECORD = {
    "options": {"data": "shards", "lr": 0.1, "inputs": ["a", "b"]},
    "facts": {"seed": 1, "loss": "mse"},
    "starts": [{"step": 0, "hosts": {"n1": 2}}],
}


def run_record(path):
    """run.json."""
    from hpc_train.training.run_folder import Run

    with beside(path, "run.json") as folder:
        record = Run(folder).record()
    # Without its checksum, a file counts as changed by hand.
    if b'"checksum"' in Path(path).read_bytes():
        assert {name: record[name] for name in RECORD} == RECORD


def _written(name, value):
    from hpc_train.files.json_file import write_json

    with tempfile.TemporaryDirectory() as folder:
        write_json(Path(folder, name), value)
        return [Path(folder, name).read_bytes()]


def metrics(path):
    """metrics.jsonl, for a report and for a training that is resumed."""
    from hpc_train.errors import UserError
    from hpc_train.training.run_folder import Run

    with beside(path, "metrics.jsonl") as folder:
        run = Run(folder)
        with contextlib.suppress(UserError):
            run.metrics()
        run.forget_metrics_after(10**6)
        assert all(line["epoch"] <= 10**6 for line in run.metrics())


def _metrics():
    lines = [{"epoch": epoch, "step": 10 * epoch, "loss": 1 / epoch, "ranks": 2} for epoch in range(1, 5)]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


def _cache(folder):
    from hpc_train.data.catalogue.layout import CAM5
    from hpc_train.data.catalogue.survey import _Cache

    return _Cache([os.path.join(folder, f"{number}.h5") for number in range(70)], CAM5, "train")


def _entries():
    from hpc_train.data.catalogue.file_info import Common, FileInfo
    from hpc_train.data.catalogue.part import Kind

    common = Common((Kind((12, 16, 4), "<f4"), Kind((12, 16), "|u1")), 0, 0, (), "", "last")
    return {f"{n}.h5": (11000 + n, 10**18 + n, FileInfo(1, -1, 0, -1, (2048, 5120), common)) for n in range(70)}


def catalogue_cache(path):
    """What a survey keeps: all of it, or nothing."""
    with tempfile.TemporaryDirectory() as folder:
        cache = _cache(folder)
        shutil.copy(path, os.path.join(folder, cache.name))
        assert cache.read() in ({}, _entries())


def _caches():
    with tempfile.TemporaryDirectory() as folder:
        cache = _cache(folder)
        cache.write(list(_entries().values()))
        return [Path(folder, cache.name).read_bytes()]


def _statistics():
    from hpc_train.data.statistics import Statistics

    rows, counts = np.arange(1.0, 5), np.arange(4)
    return Statistics(
        7, counts + 9, rows, rows / 2, -rows, 2 * rows, counts, counts, ("a", "b", "c", "d"), split="train"
    )


def statistics(path):
    """statistics.h5."""
    from hpc_train.data.statistics import load_statistics

    found, written = load_statistics(path), _statistics()
    assert found.channel_names == written.channel_names
    for name in ("count", "mean", "min", "max", "class_counts"):
        np.testing.assert_array_equal(getattr(found, name), getattr(written, name))


def _statistics_files():
    from hpc_train.data.statistics.file import write_all

    with tempfile.TemporaryDirectory() as folder:
        return [write_all(Path(folder), _statistics())[0].read_bytes()]


def study(path):
    """A measurement, and the plan of its study."""
    from hpc_train.bench.study.measurements import read
    from hpc_train.bench.study.record import recorded
    from hpc_train.errors import UserError

    with beside(path, "study.json") as folder, contextlib.suppress(UserError):
        recorded(folder)
    with beside(path, "ranks-1.json") as folder:
        ((measurement,), _) = read(folder)
    assert measurement.ranks == 2


def _measurements():
    from made_up_study import measurement

    return _written("ranks-2.json", measurement(2, 100))


def shard(path):
    """What the attributes of a shard say; its samples have checksums that `verify` reads."""
    from hpc_train.data.catalogue import Catalogue

    with beside(path, "train-00000-of-00001.h5") as folder:
        found = Catalogue.open(folder)
    assert (found.samples, found.classes, found.class_names, found.input_shape) == (12, 3, ("a", "b", "c"), (4, 2))


def _shards():
    from hpc_train.data.shards.arrays import write_shards

    inputs, labels = np.arange(96, dtype="u1").reshape(12, 4, 2), np.arange(12) % 3
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), "train", inputs, labels, classes=3, class_names=("a", "b", "c"), shards=1)
        return [path.read_bytes() for path in Path(folder).glob("*.h5")]


OWN_READERS = {
    "checkpoint": (resume, lambda: [_checkpoint(2)], None),
    "record": (run_record, lambda: _written("run.json", RECORD), None),
    "metrics": (metrics, _metrics, None),
    "cache": (catalogue_cache, _caches, None),
    "statistics": (statistics, _statistics_files, None),
    "study": (study, _measurements, None),
    "shard": (shard, _shards, None),
}
