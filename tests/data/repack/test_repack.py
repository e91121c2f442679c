"""`hpc-train shard`: what is in the files, restarts, and what is refused."""

import os
import signal
import subprocess
import sys
import time
from collections import namedtuple

import h5py
import hdf5plugin  # noqa: F401 (h5py reads zstd with it)
import numpy as np
import pytest
import tyro
from launch import REPOSITORY, run_mpi
from shard_contents import contents

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack import command as repack
from hpc_train.data.repack import split
from hpc_train.data.repack.command import Shard
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError

SHARD = (
    "from hpc_train import command_line; from hpc_train.data.repack.command import Shard, run;"
    "command_line.main(Shard, run, 'shard')"
)


def shard(*arguments):
    repack.run(tyro.cli(Shard, args=[str(argument) for argument in arguments]))


def refusal(*arguments):
    """The one line of the UserError that repacking ends with."""
    with pytest.raises(UserError) as caught:
        shard(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def names(folder):
    return sorted(os.listdir(folder))


def cam5(folder, split="train", files=7, shape=(6, 8, 3)):
    """A folder of one-sample files in the published CAM5 layout; returns the arrays."""
    draw = np.random.default_rng(5)
    inputs = draw.normal(size=(files, *shape)).astype("f4")
    labels = draw.integers(0, 3, (files, *shape[:2])).astype("f4")
    (folder / split).mkdir(parents=True, exist_ok=True)
    for number in range(files):
        with h5py.File(folder / split / f"data-{number:02d}.h5", "w") as file:
            file["climate/data"], file["climate/labels_0"] = inputs[number], labels[number]
    return inputs, labels


def one_file(path, rows=40, dtype="f4", shape=(4, 5, 2)):
    """A file with data sets x and y; returns the arrays."""
    draw = np.random.default_rng(6)
    inputs = draw.integers(-100, 100, (rows, *shape)).astype(dtype)
    targets = draw.integers(0, 3, rows).astype("u1")
    with h5py.File(path, "w") as file:
        file["x"], file["y"] = inputs, targets
    return inputs, targets


OWN = ("--inputs", "x", "--targets", "y")


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd", "blosc"])
def test_a_folder_of_one_sample_files_becomes_shards(tmp_path, capsys, compression):
    train, test = cam5(tmp_path / "cam5"), cam5(tmp_path / "cam5", "validation", 3)
    shard("--data", tmp_path / "cam5", "--output", tmp_path / "out", "--compression", compression, "--classes", 3)
    for name, (inputs, labels) in (("train", train), ("validation", test)):
        got = contents(tmp_path / "out", name)
        np.testing.assert_array_equal(got[0], inputs)
        np.testing.assert_array_equal(got[1], labels)
        catalogue = Catalogue.open(tmp_path / "out", name)
        assert (catalogue.classes, catalogue.channel_axis) == (3, 2)
        np.testing.assert_array_equal(Reader(catalogue).read([2, 0])[0], inputs[[2, 0]])
    said = capsys.readouterr().out
    assert "train: 7 samples of (6, 8, 3) float32, " in said
    assert "4 shards in" in said
    assert "validation: 3 samples" in said


def test_stacked_data_sets_become_channels_first(tmp_path):
    inputs, targets = one_file(tmp_path / "a.h5", shape=(4, 5))
    shard(
        *("--data", tmp_path / "a.h5", "--inputs", "x", "x", "--targets", "y", "--output", tmp_path / "out"),
        *("--split", "test", "--shards", 3),
    )
    got = contents(tmp_path / "out", "test")
    np.testing.assert_array_equal(got[0], np.stack([inputs, inputs], axis=1))
    np.testing.assert_array_equal(got[1], targets)
    assert Catalogue.open(tmp_path / "out", "test").channel_axis == 0
    assert names(tmp_path / "out") == [f"test-0000{k}-of-00003.h5" for k in range(3)]


def test_packed_values_are_unpacked_and_missing_ones_refused(tmp_path):
    stored, _ = one_file(tmp_path / "a.h5", dtype="i2")
    arguments = ("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"].attrs.update(scale_factor=np.array([0.05]), add_offset=2.0, _FillValue=np.int16(-999))
    shard(*arguments)
    np.testing.assert_allclose(contents(tmp_path / "out")[0], stored * 0.05 + 2, rtol=1e-6)
    assert contents(tmp_path / "out")[0].dtype == np.float32
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][17, 1, 1, 1] = -999
    assert f"{tmp_path / 'a.h5'}: row 17 (sample 17 of 'train') holds the missing value -999 of x;" in refusal(
        *arguments
    )


def test_repacking_keeps_the_fingerprint_unless_the_samples_change(tmp_path):
    draw = np.random.default_rng(0)
    write_shards(
        tmp_path / "a", "train", draw.normal(size=(9, 4)), np.arange(9) % 2, classes=2, class_names=("no", "yes")
    )
    for name, extra in (("same", ["--compression", "gzip"]), ("order", ["--shuffle-seed", 1]), ("half", ["--float16"])):
        shard("--data", tmp_path / "a", "--output", tmp_path / name, "--shards", 2, *extra)
    before, same, order, half = (Catalogue.open(tmp_path / name, "train") for name in ("a", "same", "order", "half"))
    assert same.fingerprint == before.fingerprint
    assert same.class_names == ("no", "yes")
    assert len({catalogue.fingerprint for catalogue in (same, order, half)}) == 3


def test_a_seed_selects_an_order_of_the_same_samples(tmp_path):
    inputs, targets = one_file(tmp_path / "a.h5", rows=200, shape=(3,))
    for name, seed in (("a", 3), ("again", 3), ("b", 4)):
        shard("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / name, "--shuffle-seed", seed)
    (x, y), (again, _), (other, _) = (contents(tmp_path / name) for name in ("a", "again", "b"))
    np.testing.assert_array_equal(x, again)
    assert not np.array_equal(x, other)
    assert not np.array_equal(x, inputs)

    def rows(inputs, targets):
        return sorted((row.tobytes(), int(target)) for row, target in zip(inputs, targets, strict=True))

    assert rows(x, y) == rows(inputs, targets)


def test_half_precision_names_what_it_cannot_hold(tmp_path, capsys):
    inputs, _ = one_file(tmp_path / "a.h5")
    arguments = ("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--float16")
    shard(*arguments)
    np.testing.assert_array_equal(contents(tmp_path / "out")[0], inputs.astype("f2"))
    assert capsys.readouterr().err == ""
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][:20, :, :, 1] = 1e-6
    shard(*arguments)
    # 20 samples in 40 are too small; of the values of the other 20 some are 0.
    share = 400 / (400 + np.count_nonzero(inputs[20:, ..., 1]))
    assert f"warning: train: {share:.2%} of the values of channel 1 other than 0 are below" in capsys.readouterr().err
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][31, 2, 2, 1] = 101_325
    message = refusal(*arguments)
    assert message.startswith(f"{tmp_path / 'a.h5'}: row 31 (sample 31 of 'train'): holds 101325 in channel 1")
    assert "float16 ends at 65504; scale this channel, or leave out --float16" in message


BAD = {
    "NaN": (lambda file: file["x"].__setitem__((7, 0, 0, 0), np.nan), "row 7 (sample 7 of 'train') holds NaN or inf"),
    "label": (lambda file: file["y"].__setitem__(8, 3), "row 8 (sample 8 of 'train') has label 3, outside the 3"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_samples_are_refused_and_nothing_is_published(tmp_path, case):
    change, expected = BAD[case]
    one_file(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        change(file)
    message = refusal("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--classes", 3, "--shards", 8)
    assert message.startswith(f"{tmp_path / 'a.h5'}: ")
    assert expected in message
    # Shard 0, which was complete before, keeps a temporary name.
    assert names(tmp_path / "out") == [".train-00000-of-00008.h5.whole"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--shards", "2", "--shard-mib", "3"], "give one of them"),
        (["--shards", "0"], "--shards is 0; give a number above 0"),
        (["--chunk-mib", "nan"], "--chunk-mib is nan; give"),
        (["--split", "Train!"], "cannot be part of a shard's name"),
        (["--shards", "41"], "train: 40 samples do not fill 41 shards; make at most 40"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, arguments, expected):
    one_file(tmp_path / "a.h5")
    assert expected in refusal("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", *arguments)


def test_data_that_cannot_become_shards_are_refused(tmp_path):
    one_file(tmp_path / "a.h5", dtype="i2")
    where = ("--data", tmp_path / "a.h5", "--output")
    assert "--float16 is for floating-point inputs, but these are int16" in refusal(
        *where, tmp_path / "out", *OWN, "--float16"
    )
    assert "the source is in this folder; give another folder" in refusal(*where, tmp_path, *OWN)
    (tmp_path / "file").write_text("")
    assert "cannot be written (File exists)" in refusal(*where, tmp_path / "file", *OWN)


def test_shards_of_about_the_size_asked_for(tmp_path):
    one_file(tmp_path / "a.h5", rows=64, shape=(64, 64))
    shard("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--shard-mib", 0.25)
    assert len(names(tmp_path / "out")) == 4


def test_a_full_disk_is_found_before_anything_is_written(tmp_path, monkeypatch):
    one_file(tmp_path / "a.h5", rows=64, shape=(128, 128))
    usage = namedtuple("usage", "free")(free=2**20)
    monkeypatch.setattr("hpc_train.data.shards.names.shutil.disk_usage", lambda path: usage)
    arguments = ("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out")
    assert "the shards need 4 MiB but 1 MiB are free" in refusal(*arguments)
    assert names(tmp_path / "out") == []
    # Small integers compress well; the ratio is known when the first shard is written.
    shard(*arguments, "--compression", "zstd")


def test_a_failed_run_continues_and_other_options_start_again(tmp_path, capsys, monkeypatch):
    inputs, _ = one_file(tmp_path / "a.h5")
    arguments = ("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--shards", 4)
    written = []
    write = split.SplitShards.write

    def interrupted(self, number, progress):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, progress)

    monkeypatch.setattr(split.SplitShards, "write", interrupted)
    with pytest.raises(KeyboardInterrupt, match="give the same command again to continue"):
        shard(*arguments)
    assert names(tmp_path / "out") == [f".train-0000{k}-of-00004.h5.whole" for k in (0, 1)]
    times = [os.stat(tmp_path / "out" / name).st_mtime_ns for name in names(tmp_path / "out")]
    monkeypatch.setattr(split.SplitShards, "write", write)
    shard(*arguments)
    assert "4 shards in" in (said := capsys.readouterr().out)
    assert "2 of them already there" in said
    assert names(tmp_path / "out") == [f"train-0000{k}-of-00004.h5" for k in range(4)]
    assert [os.stat(tmp_path / "out" / name).st_mtime_ns for name in names(tmp_path / "out")][:2] == times
    np.testing.assert_array_equal(contents(tmp_path / "out")[0], inputs)
    shard(*arguments, "--float16")
    assert "already there" not in capsys.readouterr().out
    os.utime(tmp_path / "a.h5", (1, 1))
    shard(*arguments, "--float16")
    assert "already there" not in capsys.readouterr().out


def test_a_shard_that_was_removed_is_written_again_and_the_others_are_kept(tmp_path, capsys):
    inputs, _ = one_file(tmp_path / "a.h5")
    arguments = ("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--shards", 4)
    shard(*arguments)
    (tmp_path / "out" / "train-00002-of-00004.h5").unlink()
    (tmp_path / "out" / "train-00003-of-00004.h5").write_bytes(b"not whole")
    shard(*arguments)
    assert "2 of them already there" in capsys.readouterr().out
    np.testing.assert_array_equal(contents(tmp_path / "out")[0], inputs)


def test_old_shards_stay_until_all_new_ones_are_complete(tmp_path):
    inputs, _ = one_file(tmp_path / "a.h5")
    arguments = ("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--classes", 3)
    shard(*arguments, "--shards", 2)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][39] = np.nan
    refusal(*arguments, "--shards", 4)
    assert Catalogue.open(tmp_path / "out", "train").samples == 40
    np.testing.assert_array_equal(contents(tmp_path / "out")[0], inputs)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][39] = 0
    shard(*arguments, "--shards", 4)
    assert names(tmp_path / "out") == [f"train-0000{k}-of-00004.h5" for k in range(4)]


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", SHARD, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background, programs start with Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_after_a_killed_run_only_missing_shards_are_written(tmp_path, capsys, stop):
    inputs, _ = one_file(tmp_path / "a.h5", rows=400, shape=(64, 64, 4))
    # gzip is slow: there is time for the signal.
    arguments = (
        "--data",
        tmp_path / "a.h5",
        *OWN,
        "--output",
        tmp_path / "out",
        "--shards",
        40,
        "--compression",
        "gzip",
    )
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while len(list(tmp_path.glob("out/.*.whole"))) < 3:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(stop)
    output, _ = process.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "give the same command again to continue" in output
        assert "Traceback" not in output
        assert not list(tmp_path.glob("out/*.tmp"))
    whole = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("out/.*.whole")}
    assert not list(tmp_path.glob("out/train-*"))
    assert 3 <= len(whole) < 40
    shard(*arguments)
    assert f"{len(whole)} of them already there" in capsys.readouterr().out
    assert names(tmp_path / "out") == [f"train-{k:05d}-of-00040.h5" for k in range(40)]
    after = {f".{path.name}.whole": path.stat().st_mtime_ns for path in tmp_path.glob("out/*")}
    assert {name: after[name] for name in whole} == whole
    np.testing.assert_array_equal(contents(tmp_path / "out")[0], inputs)


def test_ranks_share_the_shards(tmp_path):
    inputs, targets = one_file(tmp_path / "a.h5")
    arguments = ["--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--shards", 5]

    def ranks():
        return run_mpi(3, "-c", SHARD, *arguments)

    ended = ranks()
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("train: 40 samples") == 1
    np.testing.assert_array_equal(contents(tmp_path / "out")[0], inputs)
    np.testing.assert_array_equal(contents(tmp_path / "out")[1], targets)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][39] = np.inf
    ended = ranks()
    assert ended.returncode != 0
    assert ended.stderr.count("error: ") == 1
    assert "row 39 (sample 39 of 'train') holds NaN or infinity" in ended.stderr
