"""`hpc-train bench input`: what it measures, what it refuses, and the slow storage that it uses."""

import json
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
from jpegs import jpeg, smooth

from hpc_train.bench.input import command as bench
from hpc_train.bench.input.other_readers import H5py, TorchLoader
from hpc_train.bench.input.slow_storage import SlowStorage
from hpc_train.bench.input.steps import Steps
from hpc_train.bench.input.ways import Copy
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.data.hdf5.raw_file import File
from hpc_train.data.plan import TrainPlan
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.encoded import write_encoded_shards
from hpc_train.errors import UserError

WAIT = 20  # seconds until a test that would hang fails instead


def measure(folder, output, **options):
    bench.run(bench.InputBench(data=folder, rounds=2, seconds=0.01, batch_size=16, output=output, **options))
    return json.loads(output.read_text())


def climate(folder, samples=6):
    """Files of one sample each: inputs (4, 6, 3) float32, labels (4, 6) uint8."""
    draw = np.random.default_rng(0)
    inputs = draw.normal(size=(samples, 4, 6, 3)).astype("float32")
    labels = draw.integers(0, 3, (samples, 4, 6)).astype("uint8")
    (folder / "train").mkdir(parents=True)
    for number in range(samples):
        with h5py.File(folder / "train" / f"data-{number:02d}.h5", "w") as file:
            file["climate/data"], file["climate/labels_0"] = inputs[number], labels[number]
    return inputs, labels


def test_every_way_is_measured_in_every_round_and_written(digits, tmp_path, capsys):
    ways = ("copy", "arrays", "h5py", "h5py-threads", "memory")
    figures = measure(digits, tmp_path / "figures.json", ways=ways, threads=(1, 2))
    names = {"copy 1", "copy 2", "arrays 1", "arrays 2", "h5py", "h5py-threads 1", "h5py-threads 2"}
    assert set(figures["ways"]) == names
    for way in figures["ways"].values():
        assert len(way["samples_per_second"]) == 2
        assert min(way["samples_per_second"]) > 0
    assert figures["ways"]["arrays 1"]["sample_bytes"] == 64 + 8  # int64 labels
    stored = sum(path.stat().st_size for path in digits.glob("train-*")) / 1400
    assert figures["ways"]["copy 1"]["sample_bytes"] == pytest.approx(stored)
    assert len(figures["ratios"]["arrays 2 / copy 2"]) == len(figures["ratios"]["arrays 2 / arrays 1"]) == 2
    assert "arrays 2 / copy 1" not in figures["ratios"]
    memory = figures["memory"]
    assert memory["start"] > 0
    assert memory["epoch"] == 1400 // 16 * 16 * 72
    printed = capsys.readouterr().out
    assert all(f"\n{name} " in printed for name in names)
    assert "memory over an epoch" in printed


def test_ratios_are_those_of_the_same_round(digits, tmp_path):
    figures = measure(digits, tmp_path / "figures.json", ways=("arrays", "h5py"), threads=(1,))
    ours, theirs = (figures["ways"][name]["samples_per_second"] for name in ("arrays 1", "h5py"))
    assert figures["ratios"]["arrays 1 / h5py"] == pytest.approx([a / b for a, b in zip(ours, theirs, strict=True)])


def test_files_of_one_sample_and_read_aheads_are_measured(tmp_path):
    climate(tmp_path / "data", samples=20)
    figures = measure(tmp_path / "data", tmp_path / "figures.json", threads=(2,), read_ahead=(1, 3), ways=("arrays",))
    assert set(figures["ways"]) == {"arrays 2 ahead 1", "arrays 2 ahead 3"}


def test_blocks_are_measured(digits, tmp_path):
    figures = measure(digits, tmp_path / "figures.json", shuffle="blocks", threads=(2,), ways=("arrays", "h5py"))
    assert set(figures["ways"]) == {"arrays 2", "h5py"}


def test_tensorflow_is_not_imported_for_the_ways_that_do_not_need_it(digits, tmp_path):
    code = (
        "import sys; from pathlib import Path; from hpc_train.bench.input.command import InputBench, run\n"
        f"run(InputBench(data=Path({str(digits)!r}), rounds=1, seconds=0.01, threads=(1,),"
        " ways=('copy', 'arrays', 'h5py', 'h5py-threads', 'memory')))\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_pipeline_of_fit_is_measured(digits, tmp_path):
    pytest.importorskip("tensorflow")
    figures = measure(digits, tmp_path / "figures.json", ways=("tf.data", "h5py"), threads=(2,))
    assert min(figures["ways"]["tf.data 2"]["samples_per_second"]) > 0
    assert "tf.data 2 / h5py" in figures["ratios"]


@pytest.fixture
def images(tmp_path):
    """40 JPEG images of 24 x 24, in two shards."""
    files = [jpeg(smooth(24, 24, number)) for number in range(40)]
    write_encoded_shards(tmp_path / "images", "train", files, np.arange(40) % 3, classes=3, shards=2)
    return tmp_path / "images"


# The first batch of each way is compared with h5py's.
def test_jpeg_images_of_one_size_are_decoded_by_every_way(images, tmp_path):
    pytest.importorskip("lmdb")
    pytest.importorskip("tensorflow")
    ways = ("copy", "arrays", "fit", "tf.data", "h5py", "h5py-threads", "lmdb", "tfrecord", "memory")
    figures = measure(images, tmp_path / "figures.json", ways=ways, threads=(1,), scratch=tmp_path)
    ours, theirs = {"copy 1", "arrays 1", "fit 1", "tf.data 1"}, {"h5py", "h5py-threads 1", "lmdb", "tfrecord 1"}
    assert figures["ways"].keys() == ours | theirs
    assert "fit 1 / arrays 1" in figures["ratios"]
    assert figures["ways"]["tfrecord 1"]["bytes_on_disk"] != figures["ways"]["arrays 1"]["bytes_on_disk"] > 40 * 300
    assert figures["input"] == "(24, 24, 3) uint8"
    assert figures["ways"]["lmdb"]["sample_bytes"] == 24 * 24 * 3 + 8
    assert len(figures["ratios"]["arrays 1 / lmdb"]) == 2
    assert not list(tmp_path.glob("hpc-train-copy-*"))


def test_images_of_several_sizes_are_refused(tmp_path):
    files = [jpeg(smooth(24 + number, 24, number)) for number in range(40)]
    write_encoded_shards(tmp_path, "train", files, np.zeros(40, int), classes=1)
    with pytest.raises(UserError, match=r"images of different sizes.*bench decode"):
        bench.run(bench.InputBench(data=tmp_path, ways=("arrays",), batch_size=8))


def test_an_lmdb_of_arrays_holds_the_same_samples(digits, tmp_path):
    pytest.importorskip("lmdb")
    figures = measure(digits, tmp_path / "figures.json", ways=("arrays", "lmdb"), threads=(1,), scratch=tmp_path)
    assert "arrays 1 / lmdb" in figures["ratios"]


def test_a_way_that_delivers_other_samples_ends_the_run(digits, tmp_path, monkeypatch):
    right = H5py.threaded

    def wrong(self, indices, threads, read_ahead):
        return right(self, (chosen[::-1] for chosen in indices), threads, read_ahead)

    monkeypatch.setattr(H5py, "threaded", wrong)
    with pytest.raises(RuntimeError, match="h5py-threads 1 delivers other samples"):
        measure(digits, tmp_path / "figures.json", ways=("h5py-threads",), threads=(1,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "must be at least 1"),
        ({"threads": (2, 0)}, "must be at least 1"),
        ({"read_ahead": (0,)}, "must be at least 1"),
        ({"seconds": 0}, "must be at least 1"),
        ({"latency": -1}, "must not be negative"),
        ({"bandwidth_mib": 10}, "give both"),
        ({"latency": 1, "bandwidth_mib": 10, "ways": ("torch",)}, "cannot share it"),
        ({"latency": 1, "how": "map"}, "cannot be mapped"),
        ({"latency": 1, "ways": ("lmdb",)}, "cannot be slowed down"),
        ({"scratch": "missing"}, "missing does not exist"),
        ({"output": "missing/figures.json"}, "missing does not exist"),
        ({"split": "validation"}, "validation"),
        ({"batch_size": 2000}, "fewer than one global batch"),
    ],
)
def test_a_mistake_is_one_line(digits, tmp_path, monkeypatch, options, message):
    monkeypatch.setattr(bench, "_installed", lambda module: True)
    options = {name: tmp_path / value if name in ("output", "scratch") else value for name, value in options.items()}
    with pytest.raises(UserError, match=message) as refused:
        bench.run(bench.InputBench(data=digits, **options))
    assert "\n" not in str(refused.value)


def test_a_library_that_is_not_installed_is_refused_if_named_and_left_out_by_default(digits, monkeypatch):
    monkeypatch.setattr(bench, "_installed", lambda module: module != "torch")
    with pytest.raises(UserError, match="it needs torch; `pip install torch`"):
        bench.run(bench.InputBench(data=digits, ways=("torch",)))
    assert "torch" not in bench._kinds(bench.InputBench(data=digits))
    monkeypatch.setattr(bench, "_installed", lambda module: True)
    assert "torch" in bench._kinds(bench.InputBench(data=digits))


def test_a_copy_reads_the_bytes_of_the_files_in_their_order(digits):
    catalogue = Catalogue.open(digits)
    asked = []

    class Counted(File):
        def read_into(self, offset, buffer):
            asked.append((self.path, offset, len(buffer)))
            super().read_into(offset, buffer)

    assert list(Copy(catalogue, Counted, 1, 0).pieces(2 * catalogue.samples)) == []
    once = [(path, 0, size) for path, size in zip(catalogue.files, catalogue.sizes.tolist(), strict=True)]
    assert asked == once * 2


def test_peers_read_what_was_written(digits, tmp_path):
    catalogue = Catalogue.open(digits)
    with_h5py = [open_hdf5(path) for path in catalogue.files]
    inputs, targets = (np.concatenate([file[name][()] for file in with_h5py]) for name in ("inputs", "targets"))
    batches = [np.array([1399, 0, 7, 7, 466, 467]), np.array([3, 2, 1])]
    peer = H5py(catalogue, open_hdf5)
    for read in (peer.batches(batches), peer.threaded(batches, 2, 1)):
        for chosen, batch in zip(batches, read, strict=True):
            np.testing.assert_array_equal(batch[0], inputs[chosen])
            np.testing.assert_array_equal(batch[1], targets[chosen])
    inputs, labels = climate(tmp_path / "climate")
    chosen = np.array([5, 0, 3])
    (batch,) = H5py(Catalogue.open(tmp_path / "climate"), open_hdf5).batches([chosen])
    np.testing.assert_array_equal(batch[0], inputs[chosen])
    np.testing.assert_array_equal(batch[1], labels[chosen])


def test_worker_processes_of_pytorch_read_what_was_written(digits):
    pytest.importorskip("torch")
    catalogue = Catalogue.open(digits)
    batches = [np.array([1399, 0, 7, 466]), np.array([3, 2, 1])]
    loader = TorchLoader(catalogue, open_hdf5, 2)
    for _ in range(2):  # the second time with the workers of the first
        for chosen, batch in zip(batches, loader.batches(batches), strict=True):
            for ours, theirs in zip(batch, H5py(catalogue, open_hdf5).read(chosen), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_reads_in_flight_reach_the_read_ahead(tmp_path, monkeypatch):
    """Each read waits until all reads of the read-ahead have begun; with fewer at the same time it would never end."""
    inputs, labels = climate(tmp_path / "data", samples=24)
    together = threading.Barrier(4)

    class Meeting(SlowStorage):
        def open(self, path):
            meeting, file = self, super().open(path)

            class MeetingFile(File):
                def read_into(self, offset, buffer):
                    with meeting.request(0):
                        together.wait(WAIT)
                    super().read_into(offset, buffer)

                map = file.map

            return MeetingFile(path)

    storage = Meeting(latency=0)
    catalogue = Catalogue.open(tmp_path / "data")
    steps = Steps(Reader(catalogue, open_file=storage.open), TrainPlan(24, 1, 1, seed=0))
    monkeypatch.setattr("hpc_train.data.reading.read_ahead._GROUP_BYTES", 1)
    # Two reads a sample, of inputs and of labels: two samples ahead are four reads.
    loader = steps.loader(0, 24, threads=4, read_ahead=2)
    order = np.concatenate(list(steps.batches(0, 24)))
    batches = [tuple(map(np.copy, batch)) for batch in loader]
    np.testing.assert_array_equal(np.concatenate([batch[0] for batch in batches]), inputs[order])
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), labels[order])
    assert storage.requests == 48
    assert storage.most == 4
    assert storage.in_flight == 0


def test_h5py_reads_slow_storage_one_request_at_a_time(digits):
    storage = SlowStorage(latency=0.001)
    catalogue = Catalogue.open(digits)
    batches = [np.arange(start, start + 8) for start in range(0, 64, 8)]
    read = list(H5py(catalogue, storage.open_hdf5).threaded(batches, threads=4, read_ahead=4))
    for chosen, batch in zip(batches, read, strict=True):
        for ours, theirs in zip(batch, H5py(catalogue, open_hdf5).read(chosen), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    assert storage.requests > len(batches)
    assert storage.most == 1


def test_slow_files_share_their_bandwidth_and_are_never_mapped(digits, monkeypatch):
    slept = []
    clock = [100.0]
    monkeypatch.setattr("hpc_train.bench.input.slow_storage.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("hpc_train.bench.input.slow_storage.time.sleep", slept.append)
    storage = SlowStorage(latency=0.5, bandwidth=1000)
    file = storage.open(next(map(str, digits.glob("train-*"))))
    assert file.map() is None
    for _ in range(2):  # both begin at the same time: the second waits for the bytes of both
        file.read_into(0, bytearray(250))
    assert slept == pytest.approx([0.5, 0.25, 0.5, 0.5])


def test_latency_is_reported_with_the_reads_at_once(digits, tmp_path):
    figures = measure(
        digits, tmp_path / "figures.json", ways=("arrays", "h5py"), threads=(2,), latency=1, shuffle="blocks"
    )
    assert figures["ways"]["h5py"]["most_reads_at_once"] == 1
    assert figures["ways"]["arrays 2"]["most_reads_at_once"] >= 1
