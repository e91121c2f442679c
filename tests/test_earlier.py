"""What version 0.1.0 has left on disk is still read: shards, staged data, statistics, runs, checkpoints, a study.

The files in earlier/0.1.0 were made once, with that version's code, by earlier/make.py. Each test works on a copy.

What is copied or stored is compared bit for bit. What TensorFlow computes is so only on one processor: another one has
other vector units, whose matrix products add up in another order. So numbers that the maker's processor computed are
compared with a tolerance, and runs that all continue here are compared bit for bit with each other.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import h5py
import numpy as np
import pytest
from launch import REPOSITORY, environment, launch

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.encoded_reader import open_reader
from hpc_train.data.statistics import load_statistics

EARLIER = Path(__file__).parent / "earlier" / "0.1.0"
EXPECTED = json.loads((EARLIER / "expected.json").read_text())
DATA = ("digits", "digits-zstd", "floats", "photos", "maps")
LOADS = str(Path(__file__).parent / "ranks" / "loads.py")
# As in make.py. 160 samples in global batches of 16 are 10 steps an epoch; the run was stopped after step 14.
TRAIN = ("--data", "digits", "--model", "fc", "--augment", "--batch-size", "8", "--epochs", "3", "--no-histograms")
TRAIN += ("--patience", "4", "--ema", "0.9", "--clip-norm", "1", "--weight-decay", "1e-4", "--threads", "1")
TRAIN += ("--lr", "0.1", "--lr-scaling", "none")
CLIMATE = ("--data", "maps", "--init", "tiny.keras", "--batch-size", "1", "--no-histograms", "--loss", "dice")
CLIMATE += ("--threads", "1", "--lr", "0.02", "--run", "climate", "--resume")
MEASURED = ("mnist", "--data", "digits", "--model", "fc", "--batch-size", "8")
MEASURED += ("--steps", "3", "--warmup", "1", "--rounds", "2", "--threads", "1")
LAST = "checkpoints/step-0000000030.h5"
STOPPED = "checkpoints/step-0000000014.h5"


@pytest.fixture
def folder(tmp_path):
    """A copy of all files, to work in."""
    return shutil.copytree(EARLIER, tmp_path / "earlier")


def hpc_train(folder: Path, *words: str) -> str:
    """Run a command in a folder, without error; what it printed."""
    command = [sys.executable, "-m", "hpc_train.cli", *words]
    variables = environment(PYTHONPATH=str(REPOSITORY), TF_CPP_MIN_LOG_LEVEL="2")
    ended = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def variables(checkpoint: Path) -> dict[str, np.ndarray]:
    """Every variable of a checkpoint, by name: weights, averages, momentum, random state."""
    with h5py.File(checkpoint) as file:
        return {stored.attrs["name"]: stored[()] for stored in file["variables"].values()}


def assert_same_bits(found: Path, wanted: Path) -> None:
    """Two checkpoints hold the same variables."""
    mine, other = variables(found), variables(wanted)
    assert list(mine) == list(other)
    assert [name for name in other if mine[name].tobytes() != other[name].tobytes()] == []


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# Data.


@pytest.mark.parametrize("name", DATA)
def test_shards_give_the_same_bytes(name):
    for split, wanted in EXPECTED[name].items():
        catalogue = Catalogue.open(EARLIER / name, split)
        inputs, targets = open_reader(catalogue).read(np.arange(catalogue.samples))
        raw = b"".join(inputs) if catalogue.encoding else inputs.tobytes()
        assert [hashlib.sha256(data).hexdigest() for data in (raw, targets.tobytes())] == wanted


def test_shards_keep_what_they_say_of_themselves():
    maps = Catalogue.open(EARLIER / "maps")
    assert (maps.channel_names, maps.class_names) == (("TMQ", "U850", "V850"), ("background", "tc", "ar"))
    assert (maps.samples, maps.input_shape, maps.input_dtype) == (6, (16, 24, 3), np.float32)
    photos = Catalogue.open(EARLIER / "photos", "validation")
    assert (photos.samples, photos.encoding, photos.class_names) == (2, "jpeg", ("cat", "dog"))


@pytest.mark.parametrize("name", DATA)
def test_verify_finds_nothing_wrong(folder, name):
    said = hpc_train(folder, "verify", "--data", name)
    assert said.count("no faults found") == 2


def test_what_is_kept_of_many_files_saves_opening_them(folder):
    """The files themselves are not there: empty ones of their size and time would fail if they were opened."""
    (cache,) = (folder / "many").glob(".hpc-train-catalogue-*.json")
    kept = cache.read_bytes()
    for name, (size, time, *_) in json.loads(kept)["files"].items():
        path = folder / "many" / name
        path.touch()
        os.truncate(path, size)
        os.utime(path, ns=(time, time))
    catalogue = Catalogue.open(folder / "many")
    assert (len(catalogue.files), catalogue.samples, catalogue.input_shape) == (64, 128, (8, 8, 1))
    assert cache.read_bytes() == kept


def test_statistics_are_those_of_the_data(folder):
    with h5py.File(folder / "maps" / "train-00000-of-00001.h5") as file:
        values, labels = file["inputs"][()].astype("float64"), file["targets"][()]
    mean, std = values.mean((0, 1, 2)), values.std((0, 1, 2))
    for name, tolerance in (("statistics.h5", 1e-12), ("stats.h5", 1e-5), ("stats_paper.h5", 1e-6)):
        statistics = load_statistics(folder / "maps" / name)
        np.testing.assert_allclose(statistics.mean, mean, rtol=tolerance)
        np.testing.assert_allclose(statistics.std, std, rtol=tolerance)
        np.testing.assert_array_equal(statistics.min, values.min((0, 1, 2)))
        np.testing.assert_array_equal(statistics.max, values.max((0, 1, 2)))
    own = load_statistics(folder / "maps" / "statistics.h5")
    assert own.class_counts.tolist() == np.bincount(labels.ravel(), minlength=3).tolist()
    assert own.fingerprint == Catalogue.open(folder / "maps").fingerprint


def test_statistics_are_replaced_by_the_same_command(folder):
    path = folder / "maps" / "statistics.h5"
    before = path.stat().st_ino
    hpc_train(folder, "stats", "--data", "maps")
    assert path.stat().st_ino != before
    mine, other = load_statistics(path), load_statistics(EARLIER / "maps" / "statistics.h5")
    for name in ("count", "mean", "std", "min", "max", "class_counts"):
        np.testing.assert_allclose(getattr(mine, name), getattr(other, name), rtol=1e-12)
    for name in ("samples", "split", "fingerprint", "channel_names", "class_names"):
        assert getattr(mine, name) == getattr(other, name)


@pytest.fixture
def staged(folder):
    """`folder` as staging left it: a copy has other times and paths than those in the manifest."""
    manifest = folder / "staged" / ".hpc-train-stage" / "manifest.jsonl"
    records = [json.loads(line) for line in manifest.read_text().split("\n") if line]
    for record in records:
        record["source"] = str(folder / record["source"])
        for path, time in ((record["source"], "mtime_ns"), (folder / "staged" / record["file"], "copy_mtime_ns")):
            os.utime(path, ns=(record[time], record[time]))
    manifest.write_text("".join("\n" + json.dumps(record) for record in records))
    return folder


def copies(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in (folder / "staged").glob("*.h5")}


@pytest.mark.parametrize("how", [(), ("--verify",)])
def test_what_was_staged_is_not_copied_again(staged, how):
    before = copies(staged)
    said = hpc_train(staged, "stage", "--data", "digits", "--to", "staged", *how)
    assert "4 copies were already there" in said
    assert copies(staged) == before


def test_a_staged_copy_is_held_against_the_checksum_of_its_record(staged):
    before = copies(staged)
    damaged = staged / "staged" / "train-00001-of-00002.h5"
    time = damaged.stat().st_mtime_ns
    raw = bytearray(damaged.read_bytes())
    raw[-100] ^= 1
    damaged.write_bytes(raw)
    os.utime(damaged, ns=(time, time))
    said = hpc_train(staged, "stage", "--data", "digits", "--to", "staged", "--verify")
    assert "3 copies were already there" in said
    assert {name: raw for name, (_, raw) in copies(staged).items()} == {n: raw for n, (_, raw) in before.items()}


# Runs and checkpoints.


def resume(folder: Path, run: str) -> str:
    """Resume a run on 2 ranks and let it finish; what it printed."""
    ended = launch(2, "-m", "hpc_train.mnist", *TRAIN, "--run", run, "--resume", cwd=folder)
    assert ended.status == 0, ended.output
    return ended.output


@pytest.fixture(scope="module")
def resumed(tmp_path_factory):
    """A copy of all files in which the stopped run has been resumed to its end, and what that printed."""
    folder = shutil.copytree(EARLIER, tmp_path_factory.mktemp("resumed") / "earlier")
    said = resume(folder, "stopped")
    return folder, said


@pytest.fixture(scope="module")
def stopped_again(tmp_path_factory):
    """A copy in which the stopped run has gone on to step 23 and was stopped there; loaded.npz: what it began with."""
    folder = shutil.copytree(EARLIER, tmp_path_factory.mktemp("again") / "earlier")
    words = ("loaded.npz", "SIGUSR1", "train", "23", *TRAIN, "--run", "stopped", "--resume")
    ended = launch(2, LOADS, *words, cwd=folder)
    assert ended.status != 0
    assert "stopped by SIGUSR1 after step 23," in ended.output, ended.output
    return folder


def test_a_checkpoint_is_loaded_bit_for_bit(stopped_again):
    wanted = variables(EARLIER / "stopped" / STOPPED)
    with np.load(stopped_again / "loaded.npz") as loaded:
        assert list(loaded) == list(wanted)
        assert [name for name in wanted if loaded[name].tobytes() != wanted[name].tobytes()] == []


def test_a_run_goes_on_where_it_stopped_and_ends_as_it_did(resumed):
    folder, said = resumed
    assert "resuming after step 14: epoch 2, sample 64" in said
    run = folder / "stopped"
    mine, other = variables(run / LAST), variables(EARLIER / "finished" / LAST)
    assert list(mine) == list(other)
    for name, wanted in other.items():
        # With the vector units of other processors they differ by 1.2e-7; 16 steps changed weights by 0.2.
        np.testing.assert_allclose(mine[name], wanted, rtol=1e-6, atol=1e-6, err_msg=name)
    assert (run / "metrics.jsonl").read_text().startswith((EARLIER / "stopped" / "metrics.jsonl").read_text())
    for line, wanted in zip(lines(run), lines(EARLIER / "finished"), strict=True):
        assert line.keys() == wanted.keys()
        for name in ("epoch", "step", "samples", "ranks"):
            assert line[name] == wanted[name]
        for name in ("loss", "val_loss", "learning_rate"):
            assert line[name] == pytest.approx(wanted[name], rel=1e-5)
    record = json.loads((run / "run.json").read_text())
    assert [start["step"] for start in record["starts"]] == [0, 14]


def test_a_run_stopped_again_ends_with_the_same_bits(stopped_again, resumed):
    folder, (whole, _) = stopped_again, resumed
    resume(folder, "stopped")
    assert_same_bits(folder / "stopped" / LAST, whole / "stopped" / LAST)
    for line, wanted in zip(lines(folder / "stopped"), lines(whole / "stopped"), strict=True):
        for name in ("epoch", "step", "samples", "learning_rate", "val_loss", "val_accuracy"):
            assert line[name] == wanted[name]
        # Sums over the ranks that were rounded once more.
        for name in ("loss", "accuracy"):
            assert line[name] == pytest.approx(wanted[name], rel=1e-4)


def test_a_climate_run_goes_on_for_more_epochs(folder):
    pytest.importorskip("tensorflow")
    ended = launch(2, "-m", "hpc_train.climate", *CLIMATE, "--epochs", "4", cwd=folder)
    assert ended.status == 0, ended.output
    found = lines(folder / "climate")
    assert found[:3] == lines(EARLIER / "climate")
    assert (found[3]["epoch"], found[3]["step"]) == (4, 12)
    assert found[3]["loss"] < found[2]["loss"]


def test_predictions_of_a_class_a_sample_are_the_same(folder):
    pytest.importorskip("tensorflow")
    hpc_train(folder, "predict", "finished", "--data", "digits", "--output", "again.h5")
    with h5py.File(folder / "again.h5") as mine, h5py.File(EARLIER / "finished" / "predictions.h5") as other:
        np.testing.assert_allclose(mine["probabilities"], other["probabilities"], atol=1e-5)
        np.testing.assert_array_equal(mine["predicted"], other["predicted"])
        np.testing.assert_array_equal(mine["targets"], other["targets"])


def test_predictions_of_label_maps_are_the_same(folder):
    pytest.importorskip("tensorflow")
    hpc_train(folder, "predict", "climate", "--data", "maps", "--probabilities", "--output", "again.nc")
    with h5py.File(folder / "again.nc") as mine, h5py.File(EARLIER / "climate" / "predictions.nc") as other:
        # They are stored with three digits.
        np.testing.assert_allclose(mine["probability"], other["probability"], atol=2e-3)
        for name in ("truth", "lat", "lon"):
            np.testing.assert_array_equal(mine[name], other[name])


@pytest.mark.parametrize("run", ["finished", "climate"])
def test_a_run_is_reported(folder, run):
    hpc_train(folder, "report", run)
    for name in ("curves.png", "confusion.png"):
        assert (folder / run / name).read_bytes().startswith(b"\x89PNG")


def test_a_model_with_an_object_of_every_registered_class_is_loaded():
    pytest.importorskip("horovod")
    keras = pytest.importorskip("keras")
    from hpc_train.losses.cross_entropy import SmoothedCrossEntropy
    from hpc_train.losses.overlap import DiceLoss, TverskyLoss
    from hpc_train.losses.pixels import FocalLoss, PixelCrossEntropy
    from hpc_train.losses.sums import SumOfLosses
    from hpc_train.metrics.label_maps import SampleIoU, SegmentationScores
    from hpc_train.optim.loss_scale import StaticLossScale
    from hpc_train.optim.rules import LARC, LARS, ClipByGlobalNorm, WeightDecay
    from hpc_train.optim.update import DecayMatricesOnly, RateMultipliers
    from hpc_train.parallel.optimizer import DistributedOptimizer

    wanted = EXPECTED["parts"]
    model = keras.models.load_model(EARLIER / "parts.keras")
    assert set(wanted["registered"]) <= set(keras.saving.get_custom_objects())
    chain, optimizer = [], model.optimizer
    while hasattr(optimizer, "inner_optimizer"):
        chain.append(type(optimizer))
        optimizer = optimizer.inner_optimizer
    rules = [ClipByGlobalNorm, WeightDecay, LARC, LARS, RateMultipliers, DecayMatricesOnly]
    assert isinstance(model.optimizer, DistributedOptimizer)
    assert issubclass(chain[0], StaticLossScale)
    assert chain[1:] == rules
    assert isinstance(model.loss, SumOfLosses)
    losses = [PixelCrossEntropy, FocalLoss, DiceLoss, TverskyLoss, SmoothedCrossEntropy]
    assert [type(loss) for loss in model.loss.losses] == losses
    for stored, found in (("weights", model.weights), ("optimizer", model.optimizer.variables)):
        assert [np.asarray(value).tobytes().hex() for value in found] == wanted[stored]
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(4, 4, 6, 2)).astype("float32"), draw.integers(0, 3, (4, 4, 6))
    scores = model.evaluate(x, y, return_dict=True, verbose=0)
    assert {SegmentationScores, SampleIoU} <= {type(metric) for metric in model.metrics[-1].metrics}
    assert scores == pytest.approx(wanted["scores"], rel=1e-5)


# A scaling study.


def test_a_study_is_printed_and_nothing_of_it_is_measured_again(folder):
    before = {path.name: path.read_bytes() for path in (folder / "study").glob("ranks-*.json")}
    words = ("bench", "scaling", "study", "--json")
    more = ("--np", "1,2", "--repeats", "1", "--", *MEASURED)
    for asked in (words, (*words, *more)):
        (table,) = json.loads(hpc_train(folder, *asked))["tables"]
        assert [row["ranks"] for row in table["rows"]] == [1, 2]
    assert {path.name: path.read_bytes() for path in (folder / "study").glob("ranks-*.json")} == before


def test_a_study_is_reported(folder):
    hpc_train(folder, "report", "study")
    page = (folder / "study" / "report.html").read_text()
    assert "mnist" in page
    assert (folder / "study" / "weak-scaling.png").read_bytes().startswith(b"\x89PNG")


def test_sizes_not_run_are_predicted_from_a_study(folder):
    found = json.loads(hpc_train(folder, "bench", "predict", "study", "--np", "8", "--json"))
    rates = [json.loads(path.read_text())["rates"]["fit"] for path in sorted((folder / "study").glob("ranks-*.json"))]
    assert found["measured"] == pytest.approx({"1": fmean(rates[0]), "2": fmean(rates[1])})
    assert [row["ranks"] for row in found["predictions"]] == [1, 2, 8]
