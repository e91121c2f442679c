"""Shards on disk, and the catalogue that opens them."""

import os
import resource
from collections import namedtuple

import h5py
import numpy as np
import pytest
from small_shards import CLASSES, SHARD, names, refusal, samples, write_small

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.shards.names import default_shards, parse_shard_name


@pytest.fixture
def folder(tmp_path):
    """22 train samples in 4 shards and 6 test samples in 2."""
    return write_small(tmp_path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">f4", np.float16])
@pytest.mark.parametrize("shape", [(), (3,), (4, 3, 2)])
def test_what_was_written_is_read(tmp_path, dtype, shape):
    inputs, targets = samples(23, dtype, shape)
    write_shards(tmp_path, "train", inputs, targets, classes=CLASSES, shards=3)
    catalogue = Catalogue.open(tmp_path, "train")
    wanted = np.array([22, 0, 7, 7, 8, 15, 0])
    got_inputs, got_targets = Reader(catalogue).read(wanted)
    np.testing.assert_array_equal(got_inputs, inputs[wanted])
    np.testing.assert_array_equal(got_targets, targets[wanted])
    assert got_inputs.dtype == np.dtype(dtype).newbyteorder("=")
    assert (catalogue.samples, catalogue.input_shape, catalogue.classes) == (23, shape, CLASSES)


def test_files_follow_the_format(folder):
    assert names(folder) == [
        "test-00000-of-00002.h5",
        "test-00001-of-00002.h5",
        "train-00000-of-00004.h5",
        "train-00001-of-00004.h5",
        "train-00002-of-00004.h5",
        "train-00003-of-00004.h5",
    ]
    inputs, targets = samples(22)
    with h5py.File(folder / "train-00001-of-00004.h5") as file:
        attributes = dict(file.attrs)
        fingerprint = attributes.pop("fingerprint")
        assert attributes.pop("class_names").size == 0
        for name in ("format", "split", "source", "channels"):
            attributes[name] = attributes[name].decode()
        assert attributes == {
            "format": "hpc-train shard",
            "version": 2,
            "split": "train",
            "shard": 1,
            "shards": 4,
            "first": 5,
            "total": 22,
            "classes": CLASSES,
            "target_min": targets[5:11].min(),
            "target_max": targets[5:11].max(),
            "source": "made up",
            "channels": "last",
        }
        np.testing.assert_array_equal(file["inputs"], inputs[5:11])
        np.testing.assert_array_equal(file["targets"], targets[5:11])
        assert file["targets"].dtype == "<i4"
        offset = file["inputs"].id.get_offset()
    with h5py.File(folder / "train-00000-of-00004.h5") as file:
        assert file.attrs["fingerprint"] == fingerprint
    raw = (folder / "train-00001-of-00004.h5").read_bytes()
    assert raw[offset : offset + 36] == inputs[5:11].tobytes()


def test_fingerprint_changes_with_the_data_but_not_with_the_number_of_shards(tmp_path):
    inputs, targets = samples(9)
    changed_inputs, changed_targets = inputs.copy(), targets.copy()
    changed_inputs[8, 0, 0, 0] += 1
    changed_targets[0] = (targets[0] + 1) % CLASSES
    fingerprints = []
    for x, y, count in (
        (inputs, targets, 2),
        (inputs, targets, 3),
        (changed_inputs, targets, 3),
        (inputs, changed_targets, 3),
    ):
        write_shards(tmp_path, "train", x, y, classes=CLASSES, shards=count)
        fingerprints.append(Catalogue.open(tmp_path, "train").fingerprint)
    assert fingerprints[0] == fingerprints[1]
    assert len(set(fingerprints)) == 3


def test_shards_differ_by_at_most_one_sample_and_names_go_past_five_digits(folder):
    assert Catalogue.open(folder, "train").rows.tolist() == [5, 6, 5, 6]
    assert parse_shard_name("train-100000-of-123456.h5") == ("train", 100000, 123456)
    assert parse_shard_name("train-00000-of-00004.h5.tmp") is None


def test_default_number_of_shards():
    assert default_shards(samples=2, sample_bytes=64) == 2
    assert default_shards(samples=60_000, sample_bytes=784) == 4
    assert default_shards(samples=1000, sample_bytes=16 * 2**20) == 63


def test_writing_again_with_another_number_of_shards_replaces_the_old_ones(folder):
    (folder / ".train-00006-of-00007.h5.tmp").write_bytes(b"left by a killed run")
    (folder / "notes.txt").write_text("not a shard")
    write_shards(folder, "train", *samples(10, seed=2), classes=CLASSES, shards=2)
    assert names(folder) == [
        "notes.txt",
        "test-00000-of-00002.h5",
        "test-00001-of-00002.h5",
        "train-00000-of-00002.h5",
        "train-00001-of-00002.h5",
    ]
    assert Catalogue.open(folder, "train").samples == 10


def test_class_names_and_fingerprint_reach_the_catalogue(tmp_path):
    write_shards(tmp_path, "train", *samples(9), classes=CLASSES, class_names=("a", "b", "c", "d", "é"))
    write_shards(tmp_path, "test", *samples(9, seed=1), classes=CLASSES)
    train, test = Catalogue.open(tmp_path, "train"), Catalogue.open(tmp_path, "test")
    assert train.class_names == ("a", "b", "c", "d", "é")
    assert test.class_names == ()
    assert train.fingerprint != test.fingerprint


INPUTS, TARGETS = samples(8, np.float32)
BAD_DATA = {
    "label too large": (INPUTS, np.full(8, CLASSES), {}, "sample 0 has label 5, outside the 5 classes"),
    "label negative": (INPUTS, np.array([0] * 7 + [-1]), {}, "sample 7 has label -1"),
    "lengths": (INPUTS, TARGETS[:7], {}, "8 inputs but 7 targets"),
    "no samples": (INPUTS[:0], TARGETS[:0], {}, "no samples"),
    "empty samples": (np.empty((8, 0)), TARGETS, {}, "no samples"),
    "no target": (INPUTS, np.empty((8, 0), int), {}, "no samples"),
    "scalar inputs": (np.float32(1), TARGETS, {}, "reshape"),
    "inputs dtype": (INPUTS.astype(complex), TARGETS, {}, "complex128"),
    "targets dtype": (INPUTS, TARGETS.astype(complex), {}, "targets have dtype complex128; convert them"),
    "targets too wide": (INPUTS, TARGETS.astype(np.longdouble), {}, "at most 8 bytes"),
    "label with a fraction": (INPUTS, TARGETS + np.float32(0.5) * (TARGETS == 4), {}, "has label 4.5, outside the 5"),
    "label in a map": (INPUTS, np.full((8, 2, 2), [[0, 1], [5, 0]]), {}, "sample 0 has label 5, outside the 5"),
    "label that is NaN": (INPUTS, np.where(TARGETS == 4, np.nan, TARGETS), {}, "holds NaN or infinity"),
    "class names": (INPUTS, TARGETS, {"class_names": ["a"]}, "1 class names for 5 classes"),
    "too many shards": (INPUTS, TARGETS, {"shards": 9}, "8 samples do not fill 9 shards"),
    "no shards": (INPUTS, TARGETS, {"shards": 0}, "do not fill 0 shards"),
}


@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_data_are_refused_and_change_nothing(folder, case):
    inputs, targets, options, expected = BAD_DATA[case]
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    message = refusal(write_shards, folder, "train", inputs, targets, classes=CLASSES, source="here", **options)
    assert message.startswith("train data from here: ")
    assert expected in message
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_writing_names_the_sample_that_is_not_finite(tmp_path, value, dtype, monkeypatch):
    monkeypatch.setattr("hpc_train.data.sample_checks._PIECE_BYTES", 100)
    inputs, targets = samples(40, dtype)
    inputs[31, 2, 1, 0] = value
    message = refusal(write_shards, tmp_path, "test", inputs, targets, classes=CLASSES)
    assert "sample 31 holds NaN or infinity" in message
    assert names(tmp_path) == []


def test_large_finite_values_are_not_taken_for_infinity(tmp_path):
    inputs = np.full((4, 10), np.finfo(np.float32).max, np.float32)
    write_shards(tmp_path, "train", inputs, np.zeros(4, int), classes=1)
    assert np.array_equal(Reader(Catalogue.open(tmp_path, "train")).read([3, 1])[0], inputs[:2])


def test_a_split_needs_a_plain_name(tmp_path):
    with pytest.raises(ValueError, match="cannot name a split"):
        write_shards(tmp_path, "../train", *samples(4), classes=CLASSES)


def test_a_full_disk_is_noticed_before_writing(folder, monkeypatch):
    usage = namedtuple("usage", "free")(free=1000)
    monkeypatch.setattr("hpc_train.data.shards.names.shutil.disk_usage", lambda path: usage)
    before = names(folder)
    message = refusal(write_shards, folder, "train", *samples(2000), classes=CLASSES)
    assert message.startswith(f"{folder}: the shards need 0 MiB but 0 MiB are free")
    assert names(folder) == before


def test_a_disk_that_fills_up_while_writing_leaves_the_old_shards(folder):
    before = {name: (folder / name).read_bytes() for name in names(folder)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        message = refusal(write_shards, folder, "train", *samples(50_000), classes=CLASSES, shards=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "train-00000-of-00002.h5: cannot be written" in message
    assert {name: (folder / name).read_bytes() for name in names(folder)} == before


def test_an_output_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    message = refusal(write_shards, tmp_path / "file", "train", *samples(4), classes=CLASSES)
    assert message.startswith(f"{tmp_path / 'file'}: cannot be written (File exists)")


def test_an_interrupted_write_leaves_no_temporary_file(folder, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("hpc_train.data.shards.names.os.replace", interrupt)
    before = names(folder)
    with pytest.raises(KeyboardInterrupt):
        write_shards(folder, "train", *samples(10, seed=2), classes=CLASSES, shards=4)
    assert names(folder) == before


def rewrite(path, *, attributes=None, datasets=None):
    with h5py.File(path, "r+") as file:
        for name, value in (attributes or {}).items():
            if value is None:
                del file.attrs[name]
            else:
                file.attrs[name] = value
        for name, value in (datasets or {}).items():
            del file[name]
            if value is not None:
                file[name] = value


DAMAGE = {
    "not HDF5": (lambda path: path.write_bytes(b"plain text"), "not an HDF5 file; fetch or write it again"),
    "empty file": (lambda path: path.write_bytes(b""), "an empty file; fetch or write it again"),
    "truncated": (
        lambda path: os.truncate(path, path.stat().st_size - 1),
        "truncated: ",
    ),
    "missing": (lambda path: path.unlink(), "missing; 'train' has 4 shards"),
    "unreadable": (lambda path: (path.unlink(), path.mkdir()), "cannot be read (Is a directory)"),
    "another kind of file": (
        lambda path: rewrite(path, attributes={"format": None}),
        "not a shard of the suite (attribute format)",
    ),
    "newer version": (lambda path: rewrite(path, attributes={"version": 3}), "shard format version 3"),
    "no total": (
        lambda path: rewrite(path, attributes={"total": None}),
        "not a shard of the suite (attribute total",
    ),
    "attribute of another type": (
        lambda path: rewrite(path, attributes={"classes": "five"}),
        "attribute classes is 'five'",
    ),
    "renamed": (
        lambda path: rewrite(path, attributes={"shard": 2}),
        "holds shard 2 of 4 of 'train', not what its name says",
    ),
    "no inputs": (lambda path: rewrite(path, datasets={"inputs": None}), "no data sets"),
    "fewer targets than inputs": (
        lambda path: rewrite(path, datasets={"targets": np.zeros(3, np.int32)}),
        "targets (3,) are not (n, ...) and (n, ...)",
    ),
    "targets that are no numbers": (
        lambda path: rewrite(path, datasets={"targets": np.zeros(6, complex)}),
        "targets holds complex128, not numbers; run",
    ),
    "targets of another shape": (
        lambda path: rewrite(path, datasets={"targets": np.zeros((6, 3), np.int32)}),
        "target shape is (3,), but () in ",
    ),
    "other shape": (
        lambda path: rewrite(path, datasets={"inputs": np.zeros((6, 3, 3, 1), np.uint8)}),
        "input shape is (3, 3, 1), but (3, 2, 1) in ",
    ),
    "other input dtype": (
        lambda path: rewrite(path, datasets={"inputs": np.zeros((6, 3, 2, 1), np.float32)}),
        "input dtype is float32, but uint8 in ",
    ),
    "other target dtype": (
        lambda path: rewrite(path, datasets={"targets": np.zeros(6, np.uint8)}),
        "target dtype is uint8, but int32 in ",
    ),
    "other total": (lambda path: rewrite(path, attributes={"total": 30}), "another generation"),
    "other data": (lambda path: rewrite(path, attributes={"fingerprint": "x"}), "fingerprint differs"),
    "other classes": (lambda path: rewrite(path, attributes={"classes": 9}), "classes differs"),
    "rows that do not follow on": (
        lambda path: rewrite(path, attributes={"first": 4}),
        "records its first row as sample 4, but 5 rows precede it",
    ),
    "label outside": (
        lambda path: rewrite(path, attributes={"target_max": 5}),
        "to 5, outside the 5 classes (0 to 4)",
    ),
    "label negative": (lambda path: rewrite(path, attributes={"target_min": -2}), "labels run from -2"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_catalogue_names_the_damaged_shard_and_the_remedy(folder, case):
    damage, expected = DAMAGE[case]
    damage(folder / SHARD)
    message = refusal(Catalogue.open, folder, "train")
    assert message.startswith(f"{folder / SHARD}: ")
    assert expected in message
    assert "run `hpc-train prepare` again" in message
    assert Catalogue.open(folder, "test").samples == 6


def test_catalogue_counts_missing_shards(folder):
    for shard in (0, 2, 3):
        (folder / f"train-0000{shard}-of-00004.h5").unlink()
    message = refusal(Catalogue.open, folder, "train")
    assert message.startswith(f"{folder / 'train-00000-of-00004.h5'} and 2 more: missing; 'train' has 4 shards")


def test_catalogue_refuses_shards_that_hold_fewer_samples_than_they_say(tmp_path):
    write_shards(tmp_path, "train", *samples(8), classes=CLASSES, shards=2)
    for shard in (0, 1):
        rewrite(tmp_path / f"train-0000{shard}-of-00002.h5", attributes={"total": 9})
    assert "the shards hold 8 samples, but record 9" in refusal(Catalogue.open, tmp_path, "train")


def test_catalogue_refuses_two_generations(folder, tmp_path):
    write_shards(folder / "new", "train", *samples(22), classes=CLASSES, shards=2)
    for name in names(folder / "new"):
        os.replace(folder / "new" / name, folder / name)
    message = refusal(Catalogue.open, folder, "train")
    assert "two generations of 'train' (of 2 and 4 files) are mixed" in message


def test_catalogue_names_the_splits_that_are_there(folder, tmp_path):
    message = refusal(Catalogue.open, folder, "validation")
    assert "no shards of split 'validation', only of test, train" in message
    (tmp_path / "bare").mkdir()
    message = refusal(Catalogue.open, tmp_path / "bare", "train")
    assert "no data files" in message
    assert "hpc-train prepare" in message


def test_catalogue_of_a_folder_that_is_missing(tmp_path):
    message = refusal(Catalogue.open, tmp_path / "nowhere", "train")
    assert message.startswith(f"{tmp_path / 'nowhere'}: no such file or folder")
    assert "hpc-train prepare" in message


def test_catalogue_takes_the_number_of_classes_from_the_caller(folder):
    assert Catalogue.open(folder, "train", classes=7).classes == 7
    message = refusal(Catalogue.open, folder, "train", classes=3)
    assert "to 4, outside the 3 classes (0 to 2)" in message


def test_locate_finds_file_and_row(folder):
    files, rows = Catalogue.open(folder, "train").locate([0, 4, 5, 10, 11, 21])
    assert files.tolist() == [0, 0, 1, 1, 2, 3]
    assert rows.tolist() == [0, 4, 0, 5, 0, 5]
