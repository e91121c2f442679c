"""`hpc-train shard` and the shard format: what is in the files, restarting, refusing."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import namedtuple

import h5py
import hdf5plugin  # noqa: F401 (h5py reads zstd with it)
import numpy as np
import pytest
import tyro
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import REPOSITORY, mpirun

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack import command as repack
from hpc_train.data.repack import split
from hpc_train.data.repack.command import Shard
from hpc_train.data.sample_checks import first_outside
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.shards.compression import COMPRESSIONS, Storage
from hpc_train.data.shards.writer import ShardWriter
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


def contents(folder, split="train"):
    """(inputs, targets) of all shards of a split, read with h5py alone."""
    inputs, targets = [], []
    for path in sorted(folder.glob(f"{split}-*.h5")):
        with h5py.File(path) as file:
            inputs.append(file["inputs"][()])
            targets.append(file["targets"][()])
    return np.concatenate(inputs), np.concatenate(targets)


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

numbers = st.sampled_from(["u1", "i2", "<u4", "i8", "f2", "<f4", ">f4", "f8"])
shapes = st.lists(st.integers(1, 6), max_size=3).map(tuple)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 30),
    shape=shapes,
    target_shape=st.one_of(st.just(()), shapes),
    dtype=numbers,
    target_dtype=numbers,
    compression=st.sampled_from(COMPRESSIONS),
    chunk_bytes=st.integers(1, 400),
    shards=st.integers(1, 3),
    pieces=st.integers(1, 7),
)
def test_what_was_written_in_pieces_is_read_by_h5py_bit_for_bit(
    tmp_path_factory, rows, shape, target_shape, dtype, target_dtype, compression, chunk_bytes, shards, pieces
):
    folder = tmp_path_factory.mktemp("shards")
    draw = np.random.default_rng(rows)
    inputs = draw.integers(0, 100, (rows, *shape)).astype(dtype)
    targets = draw.integers(0, 100, (rows, *target_shape)).astype(target_dtype)
    storage = Storage(compression, chunk_bytes)
    kinds = shape, inputs.dtype, target_shape, targets.dtype
    with ShardWriter(folder / "a.h5", rows, *kinds, {"classes": 100}, storage) as writer:
        for start in range(0, rows, pieces):
            writer.write(inputs[start : start + pieces], targets[start : start + pieces])
    with h5py.File(folder / "a.h5") as file:
        for name, array in (("inputs", inputs), ("targets", targets)):
            dataset = file[name]
            assert dataset[()].tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes()
            assert dataset.dtype.byteorder in "|<="
            assert dataset.shape == array.shape
            chunked = compression != "none" and (name == "inputs" or array.ndim > 1)
            assert (dataset.chunks is not None) == dataset.fletcher32 == chunked
            if chunked:
                chunk = np.prod(dataset.chunks) * dataset.dtype.itemsize
                assert chunk <= max(chunk_bytes, dataset.dtype.itemsize)
            run = file[f"checksums/{name}"].attrs["rows"]
            little = array.astype(array.dtype.newbyteorder("<"))
            expected = [xxhash.xxh3_64(little[a : a + run].tobytes()).intdigest() for a in range(0, rows, run)]
            assert file[f"checksums/{name}"][()].tolist() == expected
        assert (file.attrs["target_min"], file.attrs["target_max"]) == (targets.min(), targets.max())
    shards = min(shards, rows)
    write_shards(folder, "train", inputs, targets, classes=100, shards=shards, compression=compression)
    got = contents(folder)
    np.testing.assert_array_equal(got[0], inputs)
    np.testing.assert_array_equal(got[1], targets)


def test_chunks_are_of_about_the_size_asked_for():
    # 1 MiB holds 1337 images of 784 bytes; a line of a climate sample has 73,728 bytes, 768 lines make 55 parts.
    assert Storage().chunk_shape((60_000, 28, 28, 1), 1) == (1337, 28, 28, 1)
    assert Storage().chunk_shape((100, 28, 28, 1), 1) == (100, 28, 28, 1)
    assert Storage().chunk_shape((10, 768, 1152, 16), 4) == (1, 14, 1152, 16)
    assert Storage().chunk_shape((10, 16, 768, 1152), 4) == (1, 1, 192, 1152)
    assert Storage(chunk_bytes=8).chunk_shape((10, 3, 5), 4) == (1, 1, 2)


def test_contiguous_arrays_begin_at_a_page(tmp_path):
    paths = write_shards(tmp_path, "train", np.zeros((100, 50, 50)), np.zeros(100, "i8"), classes=1, shards=3)
    for path in paths:
        with h5py.File(path) as file:
            assert file["inputs"].id.get_offset() % 4096 == 0


def test_compressed_files_have_checksums_on_the_index_of_their_chunks(tmp_path):
    write_shards(tmp_path, "train", np.zeros((9, 50)), np.zeros((9, 50)), classes=1, shards=1, compression="zstd")
    raw = (tmp_path / "train-00000-of-00001.h5").read_bytes()
    # HDF5's file format specification: superblock version 3, object headers "OHDR"; no "TREE", whose nodes have none.
    assert raw[8] == 3
    assert b"OHDR" in raw
    assert b"TREE" not in raw


def test_a_shard_that_is_not_finished_is_no_shard(tmp_path):
    def write_half(path, then):
        with ShardWriter(path, 4, (2,), "f4", (), "u1", {"classes": 3}) as writer:
            writer.write(np.zeros((2, 2)), np.zeros(2))
            then()

    with pytest.raises(ZeroDivisionError):
        write_half(tmp_path / "a.h5", lambda: 1 / 0)
    with pytest.raises(ValueError, match="2 of 4 samples"):
        write_half(tmp_path / "b.h5", lambda: None)
    for name in ("a.h5", "b.h5"):
        with h5py.File(tmp_path / name) as file:
            assert "format" not in file.attrs


def read_all(folder):
    catalogue = Catalogue.open(folder, "train")
    return Reader(catalogue).read(np.arange(catalogue.samples))


def test_shards_written_as_the_description_of_the_format_shows_are_read(tmp_path, monkeypatch):
    text = (REPOSITORY / "hpc_train" / "data" / "shards" / "FORMAT.md").read_text()
    code = textwrap.dedent(text.split("## Writing one\n\n")[1].split("\n\n`alignment")[0])
    monkeypatch.chdir(tmp_path)
    images, labels = np.random.default_rng(0).random((10, 4, 4, 2), "f4"), np.arange(10, dtype="u1") % 3
    exec(code, {"images": images, "labels": labels})
    got = read_all(tmp_path)
    np.testing.assert_array_equal(got[0], images)
    np.testing.assert_array_equal(got[1], labels)


def test_shards_of_version_1_are_read(tmp_path):
    inputs, targets = np.random.default_rng(0).random((10, 3)), np.arange(10) % 3
    for path in write_shards(tmp_path, "train", inputs, targets, classes=3, shards=2):
        with h5py.File(path, "r+") as file:
            del file["checksums"], file.attrs["channels"]
            file.attrs["version"] = 1
    np.testing.assert_array_equal(read_all(tmp_path)[0], inputs)
    np.testing.assert_array_equal(read_all(tmp_path)[1], targets)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_targets_may_be_values_instead_of_class_labels(tmp_path, compression):
    draw = np.random.default_rng(0)
    inputs, targets = draw.random((10, 3)), draw.normal(size=(10, 4, 2))
    write_shards(tmp_path, "train", inputs, targets, classes=0, shards=2, compression=compression)
    assert Catalogue.open(tmp_path, "train").classes == 0
    np.testing.assert_array_equal(read_all(tmp_path)[1], targets)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (np.array([0, 2, 1]), None),
        (np.array([0, 3, 1]), 1),
        (np.array([0.0, 2.0]), None),
        (np.array([0.0, 0.5]), 1),
        (np.array([0.0, 1.0, np.nan]), 2),
        (np.array([0.0, -np.inf]), 1),
        (np.array([[[0, 1], [2, 2]], [[0, 1], [-1, 2]]], np.int8), 1),
        (np.array([[0.0, 1.0], [1.0, 1.25]], np.float16), 1),
        (np.array([200, 2], np.uint8), 0),
        (np.zeros((0, 3)), None),
    ],
)
def test_labels_outside_the_classes_are_found_in_any_shape_and_type(targets, expected):
    assert first_outside(targets, 3) == expected


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
    assert f"{tmp_path / 'a.h5'}: row 17 (sample 17 of 'train'): x has missing values" in refusal(*arguments)


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
    # Shard 0, which was whole before, waits under a temporary name.
    assert names(tmp_path / "out") == [".train-00000-of-00008.h5.whole"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--shards", "2", "--shard-mib", "3"], "give one of them"),
        (["--shards", "0"], "--shards is 0; give a number above 0"),
        (["--chunk-mib", "nan"], "--chunk-mib is nan; give"),
        (["--split", "Train!"], "is no name for shards"),
        (["--shards", "41"], "train: 40 samples do not fill 41 shards; use at most 40"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, arguments, expected):
    one_file(tmp_path / "a.h5")
    assert expected in refusal("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", *arguments)


def test_data_that_cannot_become_shards_are_refused(tmp_path):
    one_file(tmp_path / "a.h5", dtype="i2")
    where = ("--data", tmp_path / "a.h5", "--output")
    assert "name the data sets of the targets" in refusal(*where, tmp_path / "out", "--inputs", "x")
    assert "--float16 is for floating inputs, but these are int16" in refusal(
        *where, tmp_path / "out", *OWN, "--float16"
    )
    assert "the source is in this folder; give another" in refusal(*where, tmp_path, *OWN)
    (tmp_path / "file").write_text("")
    assert "cannot be written (File exists)" in refusal(*where, tmp_path / "file", *OWN)


def test_shards_of_about_the_size_asked_for(tmp_path):
    one_file(tmp_path / "a.h5", rows=64, shape=(64, 64))
    shard("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--shard-mib", 0.25)
    assert len(names(tmp_path / "out")) == 4


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    one_file(tmp_path / "a.h5", rows=64, shape=(128, 128))
    usage = namedtuple("usage", "free")(free=2**20)
    monkeypatch.setattr("hpc_train.data.shards.names.shutil.disk_usage", lambda path: usage)
    arguments = ("--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out")
    assert "the shards need 4 MiB but 1 MiB are free" in refusal(*arguments)
    assert names(tmp_path / "out") == []
    # Small integers compress well; how well is known when the first shard is written.
    shard(*arguments, "--compression", "zstd")


def test_a_run_that_failed_goes_on_and_other_options_begin_again(tmp_path, capsys, monkeypatch):
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
    with pytest.raises(KeyboardInterrupt):
        shard(*arguments)
    assert "give the same command to go on" in capsys.readouterr().err
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


def test_old_shards_stay_until_all_new_ones_are_whole(tmp_path):
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
        # Where the tests run in the background, programs are born deaf to Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGINT])
def test_a_run_that_was_killed_midway_completes_without_doing_again_what_was_whole(tmp_path, capsys, blow):
    inputs, _ = one_file(tmp_path / "a.h5", rows=400, shape=(64, 64, 4))
    # gzip is slow: there is time for the blow.
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
    process.send_signal(blow)
    output, _ = process.communicate(timeout=60)
    if blow == signal.SIGINT:
        assert process.returncode == 130
        assert "give the same command to go on" in output
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
    launcher = mpirun()
    inputs, targets = one_file(tmp_path / "a.h5")
    arguments = ["--data", tmp_path / "a.h5", *OWN, "--output", tmp_path / "out", "--shards", 5]

    def ranks():
        return subprocess.run(
            [launcher, "-np", "3", sys.executable, "-c", SHARD, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            capture_output=True,
            text=True,
            timeout=120,
        )

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
