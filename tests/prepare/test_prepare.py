"""`hpc-train prepare`: from the sources' own formats to shards."""

import gzip
import struct
import sys
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import tyro
from realdata import real_data

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError
from hpc_train.prepare import sources
from hpc_train.prepare.command import Prepare, run

IDX_NAMES = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}


def arrays(train=20, test=10):
    generator = np.random.default_rng(4)
    return {
        "x_train": generator.integers(0, 256, (train, 5, 4), dtype=np.uint8),
        "y_train": (np.arange(train) % 3).astype(np.uint8),
        "x_test": generator.integers(0, 256, (test, 5, 4), dtype=np.uint8),
        "y_test": (np.arange(test) % 3).astype(np.uint8),
    }


def idx_bytes(array, kind=8):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def write_idx(folder, data, rename=lambda name: name, pack=lambda raw: raw):
    folder.mkdir(exist_ok=True)
    for key, name in IDX_NAMES.items():
        (folder / rename(name)).write_bytes(pack(idx_bytes(data[key])))
    return folder


def prepare(*arguments):
    run(tyro.cli(Prepare, args=[str(argument) for argument in arguments]))


def read_all(folder, split):
    catalogue = Catalogue.open(folder, split)
    return Reader(catalogue).read(np.arange(catalogue.samples))


def refusal(function, *args):
    """The one line of the UserError that the call ends with."""
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_digits_without_scikit_learn_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UserError, match="pip install scikit-learn"):
        prepare("digits", "--output", tmp_path / "digits")


def test_digits_become_shards_of_a_stratified_split(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare("digits")
    assert capsys.readouterr().out.splitlines() == [
        "train: 1438 samples of (8, 8, 1) uint8, 10 classes, 4 shards in shards/digits",
        "test: 359 samples of (8, 8, 1) uint8, 10 classes, 4 shards in shards/digits",
    ]
    parts = [read_all(tmp_path / "shards" / "digits", split) for split in ("train", "test")]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))

    from sklearn.datasets import load_digits

    bunch = load_digits()
    expected = np.rint(bunch.images * 255 / 16).astype(np.uint8)

    def rows(x, y):
        return sorted((label, image.tobytes()) for image, label in zip(x, y.tolist(), strict=True))

    assert rows(images, labels) == rows(expected, bunch.target)
    assert images.max() == 255
    share = np.bincount(parts[1][1]) / np.bincount(bunch.target)
    assert np.abs(share - 0.2).max() < 0.01
    assert Catalogue.open(tmp_path / "shards" / "digits", "train").class_names == tuple("0123456789")


def test_preparing_again_gives_the_same_shards(tmp_path):
    for output in ("a", "b"):
        prepare("digits", "--output", tmp_path / output, "--shards", 2)
    first, second = (Catalogue.open(tmp_path / output, "test").fingerprint for output in ("a", "b"))
    assert first == second


def test_shards_are_compressed_when_asked(tmp_path):
    prepare("digits", "--output", tmp_path / "plain")
    prepare("digits", "--output", tmp_path / "small", "--compression", "zstd")
    for plain, small in zip(read_all(tmp_path / "plain", "test"), read_all(tmp_path / "small", "test"), strict=True):
        np.testing.assert_array_equal(plain, small)
    plain, small = (tmp_path / name / "train-00000-of-00004.h5" for name in ("plain", "small"))
    assert small.stat().st_size < plain.stat().st_size
    with h5py.File(small) as file:
        assert file["inputs"].chunks
        assert file["inputs"].fletcher32


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_idx_files_in_the_spellings_that_exist(tmp_path, packed, dotted, capsys):
    data = arrays()
    write_idx(
        tmp_path / "raw",
        data,
        rename=lambda name: name.replace("-idx", ".idx" if dotted else "-idx") + ".gz" * packed,
        pack=gzip.compress if packed else bytes,
    )
    prepare("idx", "--input", tmp_path / "raw", "--output", tmp_path / "out", "--shards", 3)
    assert "train: 20 samples of (5, 4, 1) uint8, 3 classes, 3 shards" in capsys.readouterr().out
    for split in ("train", "test"):
        images, labels = read_all(tmp_path / "out", split)
        np.testing.assert_array_equal(images[..., 0], data[f"x_{split}"])
        np.testing.assert_array_equal(labels, data[f"y_{split}"])


GOOD = idx_bytes(arrays()["x_train"])
BAD_IDX = {
    "empty": (b"", "not an IDX file (it begins with nothing)"),
    "another format": (b"PNG and so on", "not an IDX file (it begins with 504e4720)"),
    "floats": (GOOD[:2] + b"\x0d" + GOOD[3:], "IDX type 0x0d, not unsigned bytes"),
    "labels for images": (idx_bytes(np.zeros(20, np.uint8)), "has 1 dimensions instead of 3"),
    "cut in the header": (GOOD[:9], "truncated within its header of 16 bytes"),
    "cut in the data": (GOOD[:-1], "truncated: 415 bytes, but its header (20, 5, 4) needs 416"),
    "too long": (GOOD + b"!", "too long: 417 bytes"),
    "absurd header": (GOOD[:4] + b"\xff" * 12 + GOOD[16:], "truncated: 416 bytes"),
    "other count": (
        idx_bytes(arrays(19)["x_train"]),
        "holds 19 images, but train-labels-idx1-ubyte holds 20 labels",
    ),
}


@pytest.mark.parametrize("case", BAD_IDX)
def test_bad_idx_file_is_named(tmp_path, case):
    content, expected = BAD_IDX[case]
    folder = write_idx(tmp_path / "raw", arrays())
    path = folder / IDX_NAMES["x_train"]
    path.write_bytes(content)
    message = refusal(prepare, "idx", "--input", folder, "--output", tmp_path / "out")
    assert message.startswith(f"{path}: ")
    assert expected in message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", [lambda raw: raw[:-20], lambda raw: raw[:30] + b"x" * 50])
def test_damaged_gzip_file_is_named(tmp_path, damage):
    folder = write_idx(tmp_path / "raw", arrays(), rename=lambda name: name + ".gz", pack=gzip.compress)
    path = folder / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    message = refusal(prepare, "idx", "--input", folder)
    assert message.startswith(f"{path}: damaged or truncated gzip file")


def test_missing_idx_files_and_folders(tmp_path):
    folder = write_idx(tmp_path / "raw", arrays())
    (folder / "t10k-labels-idx1-ubyte").unlink()
    message = refusal(prepare, "mnist", "--input", folder)
    assert f"{folder}: no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz" in message
    assert "nowhere: not a folder" in refusal(prepare, "idx", "--input", tmp_path / "nowhere")


def test_mnist_and_fashion_mnist_have_ten_named_classes(tmp_path):
    folder = write_idx(tmp_path / "raw", arrays())
    for source, name in (("mnist", "9"), ("fashion-mnist", "Ankle boot")):
        prepare(source, "--input", folder, "--output", tmp_path / source)
        catalogue = Catalogue.open(tmp_path / source, "test")
        assert (catalogue.classes, catalogue.class_names[9]) == (10, name)


def test_mnist_from_an_npz_file(tmp_path):
    np.savez(tmp_path / "mnist.npz", **arrays())
    prepare("mnist", "--input", tmp_path / "mnist.npz", "--output", tmp_path / "out")
    np.testing.assert_array_equal(read_all(tmp_path / "out", "test")[0][..., 0], arrays()["x_test"])


def test_fashion_mnist_takes_debians_package_where_it_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "DEBIAN_FASHION_MNIST", write_idx(tmp_path / "raw", arrays()))
    prepare("fashion-mnist", "--output", tmp_path / "out")
    np.testing.assert_array_equal(read_all(tmp_path / "out", "train")[1], arrays()["y_train"])


def pretend_keras(monkeypatch, load_data):
    datasets = SimpleNamespace(mnist=SimpleNamespace(load_data=load_data))
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(datasets=datasets))


def test_mnist_is_downloaded_by_keras(tmp_path, monkeypatch):
    data = arrays()
    pretend_keras(monkeypatch, lambda: ((data["x_train"], data["y_train"]), (data["x_test"], data["y_test"])))
    prepare("mnist", "--output", tmp_path / "out")
    np.testing.assert_array_equal(read_all(tmp_path / "out", "train")[0][..., 0], data["x_train"])


def test_no_network_is_said_in_one_line_that_names_input(tmp_path, monkeypatch):
    def load_data():
        raise Exception("URL fetch failure on https://example.org:\nName or service not known")

    pretend_keras(monkeypatch, load_data)
    message = refusal(prepare, "mnist", "--output", tmp_path / "out")
    assert "Name or service not known" in message
    assert "with --input" in message


def test_npz_is_kept_as_it_is_apart_from_float64_and_the_channel(tmp_path):
    generator = np.random.default_rng(0)
    data = {
        "a": generator.random((12, 6, 6)),
        "b": np.arange(12)[:, None] % 4,
        "c": generator.random((4, 6, 6)),
        "d": np.arange(4)[:, None],
    }
    np.savez_compressed(tmp_path / "own.npz", **data)
    arguments = ("npz", "--input", tmp_path / "own.npz", "--output", tmp_path / "out")
    prepare(*arguments, "--keys", "a", "b", "c", "d", "--classes", 6)
    inputs, targets = read_all(tmp_path / "out", "train")
    np.testing.assert_array_equal(inputs, data["a"].astype(np.float32)[..., None])
    np.testing.assert_array_equal(targets, np.arange(12) % 4)
    assert Catalogue.open(tmp_path / "out", "test").classes == 6


@pytest.mark.parametrize("keys", [(), ("--keys", "x_train", "y_train")])
def test_npz_without_a_test_part_is_split_class_by_class(tmp_path, keys):
    inputs = np.arange(100, dtype=np.float32).reshape(100, 1)
    targets = np.repeat([0, 1], [80, 20])
    np.savez(tmp_path / "own.npz", x_train=inputs, y_train=targets)
    arguments = ("npz", "--input", tmp_path / "own.npz", "--output", tmp_path / "out", *keys)
    prepare(*arguments, "--test-fraction", 0.25)
    train, test = read_all(tmp_path / "out", "train"), read_all(tmp_path / "out", "test")
    assert np.bincount(test[1]).tolist() == [20, 5]
    np.testing.assert_array_equal(np.sort(np.concatenate([train[0], test[0]])[:, 0]), inputs[:, 0])
    np.testing.assert_array_equal(test[1], targets[test[0][:, 0].astype(int)])
    assert not np.array_equal(test[0][:20, 0], np.arange(20))
    assert "give --test-fraction" in refusal(prepare, *arguments)
    message = refusal(prepare, *arguments, "--test-fraction", 0.001)
    assert "puts 0 of 100 samples into the test part" in message


BAD_NPZ = {
    "missing array": (arrays(), ["--keys", "x", "y_train"], "has no array 'x', only x_test, x_train, "),
    "missing test targets": (
        arrays() | {"y_test": None},
        [],
        "has no array 'y_test', only x_test, x_train, y_train; name the arrays with --keys",
    ),
    "superfluous fraction": (arrays(), ["--test-fraction", "0.2"], "already has a test part"),
    "lengths": (
        arrays() | {"y_train": np.zeros(3, int)},
        [],
        "y_train is (3,) int64 for inputs (20, 5, 4, 1)",
    ),
    "one-hot targets": (arrays() | {"y_test": np.eye(10)}, [], "y_test is (10, 10) float64"),
    "scalars": (arrays() | {"x_train": np.float32(1)}, [], "for inputs ()"),
    "objects": (arrays() | {"y_train": np.array([None] * 20)}, [], "not a readable npz file"),
    "samples not alike": (
        arrays() | {"x_test": np.zeros((10, 5, 5), np.uint8)},
        [],
        "train samples are (5, 4, 1) uint8, but test samples are (5, 5, 1) uint8",
    ),
    "too few classes": (arrays(), ["--classes", "2"], "sample 2 has label 2, outside the 2 classes"),
    "not finite": (
        arrays() | {"x_train": np.full((20, 5, 4), np.nan, np.float32), "x_test": np.zeros((10, 5, 4), "f4")},
        [],
        "train data from arrays of own.npz: sample 0 holds NaN or infinity",
    ),
}


@pytest.mark.parametrize("case", BAD_NPZ)
def test_bad_npz_file(tmp_path, case):
    data, options, expected = BAD_NPZ[case]
    np.savez(tmp_path / "own.npz", **{key: array for key, array in data.items() if array is not None})
    arguments = ("npz", "--input", tmp_path / "own.npz", "--output", tmp_path / "out")
    message = refusal(prepare, *arguments, *options)
    assert "own.npz" in message
    assert expected in message


@pytest.mark.parametrize("content", [b"", b"plain text", b"PK\x03\x04 cut"])
def test_file_that_is_no_npz(tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    message = refusal(prepare, "npz", "--input", tmp_path / "own.npz")
    assert message.startswith(f"{tmp_path / 'own.npz'}: not a readable npz file")


def test_npz_that_is_missing_or_a_single_array(tmp_path):
    assert "no such file" in refusal(prepare, "npz", "--input", tmp_path / "own.npz")
    np.save(tmp_path / "own.npy", np.zeros(3))
    assert "a single array" in refusal(prepare, "npz", "--input", tmp_path / "own.npy")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("digits", "--input", "x"), "--input is for mnist, fashion-mnist, cifar10, cifar100, idx, npz, "),
        (("mnist", "--classes", "3"), "--classes is for idx, npz, not for mnist"),
        (("idx", "--keys", "a", "b"), "--keys is for npz, not for idx"),
        (("idx", "--test-fraction", "0.2"), "--test-fraction is for npz, image-folder, not for idx"),
        (("npz", "--input", "x", "--size", "8"), "--size is for image-folder; leave it out"),
        (("cifar10", "--bad", "skip"), "--bad is for image-folder"),
        (("mnist", "--lists", "train=a"), "--lists is for image-folder"),
        (("image-folder",), "image-folder needs --input: the folder that holds train/CLASS"),
        (("image-folder", "--input", "x", "--compression", "zstd"), "--compression is for pixels"),
        (("image-folder", "--input", "x", "--size", "0"), "--size is 0; give at least 1"),
        (("image-folder", "--input", "x", "--size", "8", "--max-side", "9"), "--max-side is for JPEG shards"),
        (("image-folder", "--input", "x", "--size", "8", "--quality", "90"), "--quality is for JPEG shards"),
        (("image-folder", "--input", "x", "--quality", "101"), "--quality is 101; give 1 to 100"),
        (("image-folder", "--input", "x", "--lists", "train"), "--lists train: not SPLIT=FILE"),
        (("npz",), "npz needs --input"),
        (("idx",), "idx needs --input"),
        (("npz", "--input", "x", "--keys", "a"), "--keys has 1 names"),
        (("npz", "--input", "x", "--test-fraction", "1"), "--test-fraction is 1.0; give a number between"),
        (("npz", "--input", "x", "--classes", "0"), "--classes is 0; give at least 1"),
        (("digits", "--shards", "0"), "do not fill 0 shards"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(prepare, *arguments)


def test_the_whole_of_mnist(tmp_path, capsys):
    prepare("mnist", "--input", real_data("mnist"), "--output", tmp_path)
    assert capsys.readouterr().out.splitlines() == [
        f"train: 60000 samples of (28, 28, 1) uint8, 10 classes, 4 shards in {tmp_path}",
        f"test: 10000 samples of (28, 28, 1) uint8, 10 classes, 4 shards in {tmp_path}",
    ]
    images, labels = read_all(tmp_path, "train")
    # Known of MNIST: the first labels, the frequency of the digits, the mean grey value 33.318.
    assert labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(labels).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert images.mean() == pytest.approx(33.318, abs=1e-3)
