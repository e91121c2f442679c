"""`hpc-train prepare cifar10|cifar100`: from the archives as they are published to shards."""

import io
import pickle
import struct
import sys
import tarfile
from types import SimpleNamespace

import numpy as np
import pytest
import tyro

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError
from hpc_train.prepare.cifar import cifar
from hpc_train.prepare.command import Prepare, run

ROWS = 3


def prepare(*arguments):
    run(tyro.cli(Prepare, args=[str(argument) for argument in arguments]))


def batches(files):
    """Rows of 3072 bytes and labels for each file, no two rows alike."""
    generator = np.random.default_rng(7)
    return {
        name: (generator.integers(0, 256, (ROWS, 3072), dtype=np.uint8), generator.integers(0, 10, ROWS))
        for name in files
    }


def python2_pickle(key, data, labels):
    """{"data": array, key: [labels]} in the opcodes of Python 2's cPickle, protocol 2, with its byte strings."""

    def text(value):
        return b"U" + bytes([len(value)]) + value

    def number(value):
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNN" + number(-1) * 2 + b"K\0tb"
    shape = number(data.shape[0]) + number(data.shape[1]) + b"\x86"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R(K\1" + shape + dtype
    )
    array += b"\x89T" + struct.pack("<I", data.size) + data.tobytes() + b"tb"
    numbers = b"](" + b"".join(map(number, labels.tolist())) + b"e"
    return b"\x80\2}(" + text(b"data") + array + text(key) + numbers + b"u."


def as_binary(data, labels, coarse=False):
    columns = [np.full(len(labels), 19)] * coarse + [labels]
    return np.hstack([np.stack(columns, 1).astype(np.uint8), data]).tobytes()


CIFAR10 = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def python10(data):
    return {name: python2_pickle(b"labels", *part) for name, part in data.items()}


def write_archive(path, folder, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, raw in {"readme.html": b"<html>", **files}.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return path


def write_folder(path, files):
    path.mkdir(parents=True)
    for name, raw in files.items():
        (path / name).write_bytes(raw)
    return path


def check(splits, data, train, test):
    for split, names in (("train", train), ("test", [test])):
        images, labels = splits[split]
        rows = np.concatenate([data[name][0] for name in names])
        assert images.shape == (len(rows), 32, 32, 3)
        assert images.dtype == labels.dtype == np.uint8
        # The page of the data set: 1024 red values, then green, then blue, each row by row.
        row, y, x, channel = np.indices(images.shape)
        np.testing.assert_array_equal(images, rows[row, 1024 * channel + 32 * y + x])
        np.testing.assert_array_equal(labels, np.concatenate([data[name][1] for name in names]))


@pytest.mark.parametrize("packed", [True, False])
def test_the_python_version_of_cifar10_becomes_shards_in_its_order(tmp_path, packed, capsys):
    data = batches(CIFAR10)
    files = python10(data)
    if packed:
        source = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", files)
    else:
        source = write_folder(tmp_path / "cifar-10-batches-py", files)
    prepare("cifar10", "--input", source, "--output", tmp_path / "out", "--shards", 2)
    assert capsys.readouterr().out.splitlines() == [
        f"train: 15 samples of (32, 32, 3) uint8, 10 classes, 2 shards in {tmp_path / 'out'}",
        f"test: 3 samples of (32, 32, 3) uint8, 10 classes, 2 shards in {tmp_path / 'out'}",
    ]
    splits = {}
    for split in ("train", "test"):
        catalogue = Catalogue.open(tmp_path / "out", split)
        splits[split] = Reader(catalogue).read(np.arange(catalogue.samples))
        assert catalogue.class_names[:4] == ("airplane", "automobile", "bird", "cat")
    check(splits, data, CIFAR10[:-1], "test_batch")


@pytest.mark.parametrize("where", ["archive", "folder", "folder above", "folder of the archive"])
def test_the_binary_version_of_cifar10(tmp_path, where):
    data = batches(CIFAR10)
    files = {f"{name}.bin": as_binary(*part) for name, part in data.items()}
    if "archive" in where:
        source = write_archive(tmp_path / "cifar-10-binary.tar.gz", "cifar-10-batches-bin", files)
    else:
        source = write_folder(tmp_path / "cifar-10-batches-bin", files)
    source = tmp_path if where in ("folder above", "folder of the archive") else source
    check(cifar("cifar10", source).splits, data, CIFAR10[:-1], "test_batch")


@pytest.mark.parametrize("binary", [True, False])
def test_cifar100_has_its_fine_labels(tmp_path, binary):
    data = batches(["train", "test"])
    if binary:
        files = {f"{name}.bin": as_binary(*part, coarse=True) for name, part in data.items()}
    else:
        files = {name: python2_pickle(b"fine_labels", *part) for name, part in data.items()}
    source = cifar("cifar100", write_folder(tmp_path / "raw", files))
    check(source.splits, data, ["train"], "test")
    names = source.class_names
    assert source.classes == len(set(names)) == 100
    # They are numbered in alphabetical order.
    assert names == tuple(sorted(names))
    assert (names[0], names[23], names[99]) == ("apple", "cloud", "worm")


def test_a_pickle_of_python_3_is_read_as_well(tmp_path):
    data = batches(CIFAR10)
    files = {name: pickle.dumps({b"data": x, b"labels": y.tolist()}, 2) for name, (x, y) in data.items()}
    check(cifar("cifar10", write_folder(tmp_path / "raw", files)).splits, data, CIFAR10[:-1], "test_batch")


class Harmful:
    def __reduce__(self):
        return open, ("harmed", "w")


def reduced(called, *arguments):
    """A pickle of a batch whose data are what this call returns."""
    made = type("Made", (), {"__reduce__": lambda self: (called, arguments)})
    return pickle.dumps({b"data": made(), b"labels": [0]}, 2)


def endless(levels=60):
    """A list that holds itself twice, as often: 2**60 places in 200 bytes."""
    held = [0]
    for _ in range(levels):
        held = [held, held]
    return pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": held}, 2)


def objects_at_an_address():
    """An array of objects, whose bytes NumPy would take for the places of objects in memory."""
    good = python2_pickle(b"labels", np.zeros((1, 3072), np.uint8), np.zeros(1, int))
    return good.replace(b"cnumpy\ndtype\nU\2u1", b"cnumpy\ndtype\nU\2O8")


GOOD = python10(batches(CIFAR10))
BAD = {
    "cut pickle": (GOOD | {"data_batch_2": GOOD["data_batch_2"][:-500]}, "data_batch_2: not a batch of CIFAR-10"),
    "harmful pickle": (GOOD | {"test_batch": pickle.dumps({b"data": Harmful()})}, "asks for "),
    "another numpy": (
        GOOD | {"test_batch": b"\x80\2}(U\4datacos.path.numpy\nndarray\nK\1\x85Ru."},
        "asks for os.path.numpy.ndarray",
    ),
    "array of any size": (GOOD | {"test_batch": reduced(np.ndarray, (2**40,), "O")}, "not a batch of CIFAR-10"),
    "array of objects": (GOOD | {"test_batch": objects_at_an_address()}, "not a batch of CIFAR-10 (KeyError: O8"),
    "list without end": (GOOD | {"test_batch": endless()}, "not a batch of CIFAR-10 (TypeError"),
    "place 4294967295 of the memo": (GOOD | {"test_batch": b"\x80\2Nr\xff\xff\xff\xff."}, "not a batch of CIFAR-10"),
    "byte array of any size": (
        GOOD | {"test_batch": b"\x80\5\x96" + struct.pack("<Q", 2**38) + b"."},
        "not a batch of CIFAR-10",
    ),
    "other pickle": (GOOD | {"test_batch": pickle.dumps([1, 2])}, "test_batch: not a batch of CIFAR-10 (TypeError"),
    "other shape": (
        GOOD | {"test_batch": python2_pickle(b"labels", np.zeros((3, 3073), np.uint8), np.zeros(3, int))},
        "data of (3, 3073) uint8 with labels of (3,) int64 are not images of CIFAR-10",
    ),
    "other label": (
        GOOD | {"test_batch": python2_pickle(b"labels", np.zeros((2, 3072), np.uint8), np.array([9, 10]))},
        "test_batch: image 1 has label 10, not a class of CIFAR-10",
    ),
    "cut binary": (
        {f"{name}.bin": as_binary(*part)[:-1] for name, part in batches(CIFAR10).items()},
        "data_batch_1.bin: 9218 bytes are not a whole number of images of 3073",
    ),
    "missing batch": ({name: raw for name, raw in GOOD.items() if name != "data_batch_4"}, "no data_batch_4"),
    "CIFAR-100": ({"train": b"", "test": b""}, "does not hold CIFAR-10 (no data_batch_1 or data_batch_1.bin)"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_cifar10_ends_with_one_line(tmp_path, monkeypatch, case):
    files, expected = BAD[case]
    monkeypatch.chdir(tmp_path)
    source = write_folder(tmp_path / "raw", files)
    with pytest.raises(UserError) as caught:
        prepare("cifar10", "--input", source)
    assert str(caught.value).startswith(f"{source}: ")
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["raw"]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda raw: raw[: len(raw) // 2], "cannot be read as CIFAR-10"),
        (lambda raw: b"<html>not found</html>", r"cannot be read as CIFAR-10 \(not a tar archive\); fetch"),
        (lambda raw: b"", "cannot be read as CIFAR-10"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, damage, expected):
    path = write_archive(tmp_path / "cifar-10-python.tar.gz", "cifar-10-batches-py", GOOD)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=expected) as caught:
        cifar("cifar10", path)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_sparse_member_is_not_expanded(tmp_path):
    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("data_batch_1")
        member.pax_headers = {
            "GNU.sparse.major": "0",
            "GNU.sparse.size": str(2**40),
            "GNU.sparse.map": f"0,0,{2**40},0",
        }
        archive.addfile(member)
    with pytest.raises(UserError, match="does not hold CIFAR-10"):
        cifar("cifar10", path)


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere: no such file; give the archive or its folder with --input"):
        cifar("cifar100", tmp_path / "nowhere")


def pretend_keras(monkeypatch, load_data):
    datasets = SimpleNamespace(cifar100=SimpleNamespace(load_data=load_data))
    monkeypatch.setitem(sys.modules, "keras", SimpleNamespace(datasets=datasets))


def test_without_input_keras_downloads_it(tmp_path, monkeypatch):
    images, labels = np.arange(2 * 3072, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 32, 3), np.array([[3], [99]])
    pretend_keras(monkeypatch, lambda: ((images, labels), (images, labels)))
    prepare("cifar100", "--output", tmp_path)
    catalogue = Catalogue.open(tmp_path, "test")
    inputs, targets = Reader(catalogue).read(np.arange(2))
    np.testing.assert_array_equal(inputs, images)
    assert targets.tolist() == [3, 99]
    assert catalogue.class_names[99] == "worm"


def test_without_network_one_line_names_input(monkeypatch):
    def load_data():
        raise Exception("URL fetch failure on https://example.org:\nName or service not known")

    pretend_keras(monkeypatch, load_data)
    with pytest.raises(UserError) as caught:
        cifar("cifar100")
    assert str(caught.value) == (
        "cifar100: Keras could not download it (URL fetch failure on https://example.org: Name or service not known); "
        "without a network, give a python or binary archive, or its folder, with --input"
    )
