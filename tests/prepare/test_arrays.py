"""`hpc-train prepare arrays`: NumPy arrays of any shape and type become shards with the same values."""

import subprocess
import sys

import numpy as np
import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError
from hpc_train.prepare.arrays.command import Arrays, run

TYPES = ("u1", "<i2", ">i4", "<u8", "<f2", ">f4", "<f8", "?")


def prepare(folder, *arguments):
    run(tyro.cli(Arrays, args=[*map(str, arguments), "--output", str(folder)]))


def read_all(folder, split="train"):
    catalogue = Catalogue.open(folder, split)
    return Reader(catalogue).read(np.arange(catalogue.samples))


def saved(folder, **arrays):
    """Save each array as NAME.npy; returns the options that name inputs and targets."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=True)
    return "--inputs", folder / "x.npy", "--targets", folder / "y.npy"


def refusal(*arguments):
    """The one line of the UserError that preparing ends with."""
    with pytest.raises(UserError) as caught:
        prepare(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


@st.composite
def pairs(draw):
    """Inputs and targets of any shapes and types, in C or Fortran order, of finite values."""
    samples = draw(st.integers(1, 12))

    def array():
        kind = np.dtype(draw(st.sampled_from(TYPES)))
        shape = samples, *draw(st.lists(st.integers(1, 4), max_size=3))
        limits = {"allow_nan": False, "allow_infinity": False} if kind.kind == "f" else {}
        values = draw(arrays_of.arrays(kind, shape, elements=arrays_of.from_dtype(kind, **limits)))
        return np.asfortranarray(values) if draw(st.booleans()) else values

    return array(), array()


@settings(max_examples=40, deadline=None)
@given(pairs(), st.booleans())
def test_values_shapes_and_types_stay_as_they_are(tmp_path_factory, pair, packed):
    folder = tmp_path_factory.mktemp("arrays")
    if packed:
        np.savez(folder / "pairs.npz", a=pair[0], b=pair[1])
        source = "--data", folder / "pairs.npz", "--inputs", "a", "--targets", "b"
    else:
        source = saved(folder, x=pair[0], y=pair[1])
    prepare(folder / "out", *source, "--test-fraction", 0)
    for found, expected in zip(read_all(folder / "out"), pair, strict=True):
        np.testing.assert_array_equal(found, expected)
        assert found.shape == expected.shape
        assert found.dtype == (np.uint8 if expected.dtype == bool else expected.dtype.newbyteorder("="))


def test_the_test_part_is_the_same_share_of_every_class_and_always_the_same(tmp_path):
    labels = np.repeat([0, 1], [80, 20])
    source = saved(tmp_path, x=np.arange(100.0), y=labels[:, None].astype(np.float32))
    for output, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare(tmp_path / output, *source, "--test-fraction", 0.25, "--seed", seed, "--classes", 2)
    train, test = read_all(tmp_path / "a"), read_all(tmp_path / "a", "test")
    assert np.bincount(test[1]).tolist() == [20, 5]
    assert test[1].dtype == np.uint8
    np.testing.assert_array_equal(np.sort(np.concatenate([train[0], test[0]])), np.arange(100))
    np.testing.assert_array_equal(test[1], labels[test[0].astype(int)])
    np.testing.assert_array_equal(test[0], read_all(tmp_path / "b", "test")[0])
    assert not np.array_equal(test[0], read_all(tmp_path / "c", "test")[0])


def test_test_arrays_channels_and_their_names(tmp_path, capsys):
    draw = np.random.default_rng(0)
    data = {name: draw.random((samples, 2, 5)) for name, samples in (("x", 9), ("y", 9), ("u", 4), ("v", 4))}
    source = saved(tmp_path, **data)
    test = "--test-inputs", tmp_path / "u.npy", "--test-targets", tmp_path / "v.npy"
    prepare(tmp_path / "out", *source, *test, "--channels", "first", "--channel-names", "wind", "rain", "--shards", 2)
    assert capsys.readouterr().out.splitlines() == [
        f"train: 9 samples of (2, 5) float64, targets (2, 5) float64, 2 shards in {tmp_path / 'out'}",
        f"test: 4 samples of (2, 5) float64, targets (2, 5) float64, 2 shards in {tmp_path / 'out'}",
    ]
    for found, name in zip(read_all(tmp_path / "out", "test"), "uv", strict=True):
        np.testing.assert_array_equal(found, data[name])
    catalogue = Catalogue.open(tmp_path / "out", "test")
    assert (catalogue.channels, catalogue.channel_names) == ("first", ("wind", "rain"))


def test_arrays_larger_than_the_memory_that_the_process_may_have(tmp_path):
    limit = 300 * 2**20
    inputs = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (2 * limit // 4096, 1024))
    inputs[:: len(inputs) - 1] = 7
    np.save(tmp_path / "y.npy", np.arange(len(inputs), dtype=np.float32))
    script = f"""
import resource
resource.setrlimit(resource.RLIMIT_DATA, ({limit}, {limit}))
from hpc_train.cli import main
main()
"""
    source = ("--inputs", "x.npy", "--targets", "y.npy", "--test-fraction", "0.1", "--output", "out")
    line = [sys.executable, "-c", script, "prepare", "arrays", *source]
    ended = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    catalogue = Catalogue.open(tmp_path / "out", "train")
    assert catalogue.samples == len(inputs) - round(0.1 * len(inputs))
    found, targets = Reader(catalogue).read([0, 1, catalogue.samples - 1])
    np.testing.assert_array_equal(found, inputs[targets.astype(int)])


GOOD = np.arange(12.0).reshape(6, 2)
LABELS = np.array([0, 1, 2, 0, 1, 2])
BAD = {
    "lengths": ({"y": GOOD[:5]}, (), "x.npy has 6 samples (first axis), but {y} has 5; give one target"),
    "complex": ({"x": GOOD + 1j}, (), "{x}: holds complex128; convert it"),
    "text": ({"y": np.array(list("abcdef"))}, (), "{y}: holds <U1; convert it"),
    "long double": ({"y": GOOD.astype(np.longdouble)}, (), "{y}: holds float128; convert it"),
    "dates": ({"x": LABELS.astype("datetime64[D]")}, (), "{x}: holds datetime64[D]; convert it"),
    "records": ({"x": np.zeros(6, "f4,i4")}, (), "{x}: holds [('f0', '<f4'), ('f1', '<i4')]; convert it"),
    "objects": ({"y": np.array([None] * 6)}, (), "{y}: not a readable .npy file of numbers (Array"),
    "empty": ({"x": GOOD[:0], "y": GOOD[:0]}, (), "{x}: has no samples (its shape is (0, 2))"),
    "a number": ({"y": np.float32(1)}, (), "{y}: has no samples (its shape is ())"),
    "NaN": ({"x": np.where(GOOD == 7, np.nan, GOOD)}, (), "{x}: row 3 holds NaN or infinity (nan at [1]); fix it"),
    "infinity": ({"y": np.where(GOOD == 4, -np.inf, GOOD)}, (), "{y}: row 2 holds NaN or infinity (-inf at [0])"),
    "from one": ({"y": LABELS + 1}, ("--classes", 3), "{y}: row 2 has label 3, outside the 3 classes; class numbers"),
    "halves": ({"y": LABELS / 2}, ("--classes", 3), "{y}: row 1 has label 0.5, outside the 3 classes"),
    "one-hot": ({"y": np.eye(3)[LABELS]}, ("--classes", 3), "{y}: is one-hot, (6, 3); give class numbers"),
    "names": ({}, ("--channel-names", "a"), "--channel-names has 1 names, but {x} (6, 2) has 2 channels"),
    "fraction": ({}, ("--test-fraction", "0.01"), "puts 0 of 6 samples into the test part"),
    "no fraction": ({}, ("--test-fraction", "1"), "--test-fraction is 1.0; give at least 0, and less than 1"),
    "no classes": ({}, ("--classes", "0"), "--classes is 0; give at least 1"),
    "shards": ({}, ("--shards", "7"), "6 samples do not fill 7 shards; use 1 to 6"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_shards_cannot_hold_is_one_line(tmp_path, case):
    changed, options, expected = BAD[case]
    source = saved(tmp_path, **({"x": GOOD, "y": GOOD} | changed))
    message = refusal(tmp_path / "out", *source, "--test-fraction", "0", *options)
    assert expected.format(x=tmp_path / "x.npy", y=tmp_path / "y.npy") in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", [b"", b"plain text", b"\x93NUMPY\x01\x00", None])
def test_a_damaged_file_is_named(tmp_path, content):
    source = saved(tmp_path, x=GOOD, y=GOOD)
    path = tmp_path / "x.npy"
    path.write_bytes(path.read_bytes()[:-1] if content is None else content)
    message = refusal(tmp_path / "out", *source, "--test-fraction", "0")
    assert message.startswith(f"{path}: not a readable .npy file of numbers (")


def test_what_is_missing_is_named(tmp_path):
    source, out = saved(tmp_path, x=GOOD, y=GOOD, v=GOOD.astype(int)), tmp_path / "out"
    np.savez(tmp_path / "pairs.npz", a=GOOD, b=np.where(GOOD == 3, np.nan, GOOD))
    packed = "--data", tmp_path / "pairs.npz", "--test-fraction", "0"
    test = "--test-inputs", tmp_path / "x.npy"
    assert "--targets is missing: shards hold a target for each input" in refusal(out, *source[:2])
    assert "which samples are for testing?" in refusal(out, *source)
    assert "which samples are for testing?" in refusal(
        out, *source, *test, "--test-targets", "v.npy", "--test-fraction", "0.5"
    )
    assert "--test-inputs and --test-targets belong together" in refusal(out, *source, *test)
    assert "v.npy: a sample is (2,) int64, but (2,) float64 in" in refusal(
        out, *source, *test, "--test-targets", tmp_path / "v.npy"
    )
    assert "no.npy: no such file" in refusal(out, *source[:3], tmp_path / "no.npy", "--test-fraction", "0")
    assert "has no array 'c', only a, b" in refusal(out, *packed, "--inputs", "a", "--targets", "c")
    assert "pairs.npz: b: row 1 holds NaN" in refusal(out, *packed, "--inputs", "a", "--targets", "b")
    assert "is an npz file; give it with --data" in refusal(
        out, "--inputs", tmp_path / "pairs.npz", *source[2:], "--test-fraction", "0"
    )
    assert "no such file; give the npz file with --data" in refusal(
        out, "--data", "no.npz", "--test-fraction", "0", "--inputs", "a", "--targets", "b"
    )


def test_whole_numbers_without_classes_are_values_and_it_is_said(tmp_path, capsys):
    prepare(tmp_path / "out", *saved(tmp_path, x=GOOD, y=LABELS), "--test-fraction", 0)
    assert "whole numbers, stored as values; for class numbers give --classes" in capsys.readouterr().err
    assert Catalogue.open(tmp_path / "out", "train").classes == 0
