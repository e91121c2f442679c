"""The formats that `hpc-train bench input` copies samples into."""

from importlib import import_module
from itertools import chain

import numpy as np
import pytest
from jpegs import jpeg, smooth

from hpc_train.bench.input.formats.lmdb import Lmdb
from hpc_train.bench.input.ways import STREAMS
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.shards.encoded import write_encoded_shards
from hpc_train.errors import UserError

PACKAGES = {"tfrecord": ("tensorflow",), "webdataset": ("webdataset",), "litdata": ("torch", "litdata")}


@pytest.fixture(params=STREAMS)
def stream(request):
    """A function that copies a catalogue's samples into this format."""
    for package in PACKAGES[request.param]:
        pytest.importorskip(package)
    module, name = STREAMS[request.param]
    return getattr(import_module(f"hpc_train.bench.input.formats.{module}"), name)


def known(inputs, targets):
    return [(np.asarray(x).tobytes(), int(y)) for x, y in zip(inputs, targets, strict=True)]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_stream_delivers_the_samples_shuffled_again_and_again(stream, digits, tmp_path, threads):
    if threads > 1 and stream.__name__ == "WebDataset":
        pytest.importorskip("torch")
    catalogue = Catalogue.open(digits)
    samples = known(*Reader(catalogue).read(np.arange(catalogue.samples)))
    copied = stream(catalogue, tmp_path, threads, 16, 0)
    assert known(*copied.first()) == samples[:16]
    # An epoch has 89 batches and a half.
    found = list(chain.from_iterable(known(*batch) for batch in copied.batches(100)))
    assert len(found) == 1600
    assert set(found) <= set(samples)
    assert len(set(found)) > 0.9 * len(set(samples))
    assert found[:64] != samples[:64]
    assert known(*next(iter(copied.batches(1)))) != found[:16]
    if threads == 2 and stream.__name__ == "WebDataset":
        assert len(list(copied.folder.glob("*.tar"))) == threads
    assert copied.bytes_on_disk >= 65 * catalogue.samples


def test_a_stream_decodes_images(stream, tmp_path):
    (tmp_path / "copies").mkdir()
    files = [jpeg(smooth(24, 24, number)) for number in range(40)]
    write_encoded_shards(tmp_path, "train", files, np.arange(40) % 3, classes=3, shards=2)
    catalogue = Catalogue.open(tmp_path)
    copied = stream(catalogue, tmp_path / "copies", 1, 8, 0)
    inputs, targets = next(iter(copied.batches(1)))
    assert (inputs.shape, inputs.dtype) == ((8, 24, 24, 3), np.uint8)
    want = [copied.input_of(file) for file in files]
    assert set(known(inputs, targets)) <= set(known(want, np.arange(40) % 3))


@pytest.mark.parametrize("dtype", ["u2", "u4", "u8", "f2", ">f4"])
def test_a_stream_holds_numbers_of_any_type(stream, tmp_path, dtype):
    (tmp_path / "copies").mkdir()
    inputs = np.random.default_rng(2).integers(0, 60000, (20, 3, 2)).astype(dtype)
    write_shards(tmp_path, "train", inputs, np.arange(20) % 3, classes=3)
    first, _ = stream(Catalogue.open(tmp_path), tmp_path / "copies", 1, 8, 0).first()
    np.testing.assert_array_equal(first, inputs[:8])


def test_a_folder_that_takes_no_copy_is_refused(stream, digits, tmp_path):
    with pytest.raises(UserError, match=r"--scratch .*missing: no folder can be made there"):
        stream(Catalogue.open(digits), tmp_path / "missing", 1, 8, 0)


def test_a_copy_goes_with_the_object_that_reads_it(digits, tmp_path):
    pytest.importorskip("lmdb")
    copied = Lmdb(Catalogue.open(digits), tmp_path)
    assert 0 < copied.bytes_on_disk < 2**30
    assert list(tmp_path.iterdir())
    del copied
    assert not list(tmp_path.iterdir())
