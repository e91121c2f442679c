"""Encoded shards: what a catalogue says of them, their bytes by sample numbers, and damage by file and row."""

import json
import re

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jpegs import flipped, hollow, overwrite, without_checksums, write

from hpc_train.data.catalogue import Catalogue, survey
from hpc_train.data.inspect import command as inspect
from hpc_train.data.reading.encoded_reader import EncodedReader, open_reader
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack import command as repack
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.verify import command as verify
from hpc_train.errors import UserError
from hpc_train.files.seal import sealed_text


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpeg")
    return folder, write(folder)


@pytest.fixture
def damaged(tmp_path):
    write(tmp_path)
    return tmp_path


def test_a_catalogue_says_what_decoding_makes_of_the_images(images):
    catalogue = Catalogue.open(images[0])
    assert (catalogue.encoding, catalogue.samples, catalogue.classes) == ("jpeg", 24, 3)
    assert (catalogue.input_shape, catalogue.input_dtype) == ((224, 224, 3), np.uint8)
    assert catalogue.channel_axis == 2
    assert catalogue.resized(32).input_shape == (32, 32, 3)
    assert catalogue.resized(32).sample_bytes == 32 * 32 * 3 + catalogue.target_dtype.itemsize
    assert EncodedReader(catalogue).sample_bytes == catalogue.sizes.sum() // 24


def test_arrays_are_not_resized(tmp_path):
    write_shards(tmp_path, "train", np.zeros((4, 8, 8, 3), "u1"), np.zeros(4, int), classes=1)
    catalogue = Catalogue.open(tmp_path)
    assert catalogue.encoding == ""
    assert catalogue.resized(32) is catalogue
    assert type(open_reader(catalogue)) is Reader


@settings(max_examples=40, deadline=None)
@given(indices=st.lists(st.integers(0, 23), min_size=1, max_size=40), how=st.sampled_from(["auto", "map", "read"]))
def test_any_samples_come_as_the_bytes_that_were_written(images, indices, how):
    folder, files = images
    inputs, targets = EncodedReader(Catalogue.open(folder), how=how).read(indices)
    assert list(inputs) == [files["train"][index] for index in indices]
    np.testing.assert_array_equal(targets, np.array(indices) % 3)


def test_neighbours_are_one_request(images):
    from hpc_train.data.hdf5.raw_file import File

    requests = []

    class Counted(File):
        def read_into(self, offset, buffer):
            requests.append(len(buffer))
            super().read_into(offset, buffer)

    reader = EncodedReader(Catalogue.open(images[0]), how="read", open_file=Counted)
    reader.read(np.arange(24))
    # One for the images and one for the labels of each of two files.
    assert len(requests) == 4
    assert max(requests) == sum(map(len, images[1]["train"][:12]))


@pytest.mark.parametrize("block", [None, 4])
def test_the_loader_gives_them_in_the_order_of_the_plan_and_says_which(images, block):
    folder, files = images
    groups = [np.random.default_rng(seed).permutation(24).reshape(2, 12) for seed in range(3)]
    loader = Loader(EncodedReader(Catalogue.open(folder)), iter(groups), 3, block=block, horizon=1)
    for group in groups:
        inputs, targets = loader.next()
        assert inputs.tolist() == [[files["train"][index] for index in step] for step in group]
        np.testing.assert_array_equal(loader.given, group)
        np.testing.assert_array_equal(targets, group % 3)
    loader.close()


@pytest.mark.parametrize(
    ("change", "checksums", "said"),
    [
        (flipped, True, "differs from what was written (checksum)"),
        (lambda image: b"\0" + image[1:], False, "does not begin as a JPEG file does"),
        (lambda image: image[:-1] + b"\0", False, "does not end as a JPEG file does"),
    ],
)
def test_a_damaged_image_is_named_by_file_and_row(damaged, change, checksums, said):
    path = damaged / "train-00001-of-00002.h5"
    overwrite(path, 3, change)
    if not checksums:
        without_checksums(path)
    reader = EncodedReader(Catalogue.open(damaged))
    reader.read(np.delete(np.arange(24), 15))
    with pytest.raises(UserError) as caught:
        reader.read(np.arange(24))
    assert str(caught.value).startswith(f"{path}: row 3 (sample 15 of 'train') {said}; `hpc-train verify`")


def test_a_damaged_extent_is_named_and_takes_no_memory(damaged):
    catalogue = Catalogue.open(damaged)
    with h5py.File(damaged / "train-00000-of-00002.h5", "r+") as file:
        file["extents"][6] = 2**50
    for how in ("map", "read"):
        with pytest.raises(UserError, match=r"row 5 \(sample 5 of 'train'\) has an extent outside the images"):
            EncodedReader(catalogue, how=how).read([5])


@pytest.mark.parametrize("how", ["map", "read"])
def test_a_file_that_has_shrunk_is_an_error_and_no_crash(damaged, how):
    path = damaged / "train-00000-of-00002.h5"
    reader = EncodedReader(Catalogue.open(damaged), how=how)
    reader.read([0])
    with open(path, "r+b") as file:
        file.truncate(4096)
    with pytest.raises(UserError, match=r"train-00000-of-00002.h5: cannot be read \(the file ends at byte 4096"):
        reader.read(np.arange(12))


BROKEN = {
    "no extents": (lambda file: file.pop("extents"), "has no data set `extents`"),
    "another encoding": (lambda file: file.attrs.update(encoding="webp"), "'webp' images, but this hpc-train reads"),
    "more targets": (
        lambda file: (file.pop("targets"), file.create_dataset("targets", data=np.zeros(99, "i8"))),
        "do not divide",
    ),
    "targets that are no class numbers": (
        lambda file: (file.pop("targets"), file.create_dataset("targets", data=np.zeros(12, "f4"))),
        "targets (12,) float32, not uint8 and whole numbers (n,)",
    ),
    "fewer bytes": (
        lambda file: (file.pop("inputs"), file.create_dataset("inputs", data=np.zeros(99, "u1"))),
        "do not divide the 99 bytes of the inputs into 12 images",
    ),
    "compressed": (
        lambda file: (file.pop("extents"), file.create_dataset("extents", (13,), "<i8", compression="gzip")),
        "do not divide",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_shard_that_is_not_as_the_format_says_is_one_line(damaged, case):
    change, said = BROKEN[case]
    path = damaged / "train-00000-of-00002.h5"
    with h5py.File(path, "r+") as file:
        change(file)
    with pytest.raises(UserError) as caught:
        Catalogue.open(damaged)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_chunked_images_are_refused_by_name(damaged):
    with h5py.File(damaged / "train-00000-of-00002.h5", "r+") as file:
        content = file["inputs"][()]
        del file["inputs"]
        file.create_dataset("inputs", data=content, chunks=(64,))
    with pytest.raises(UserError, match="must be contiguous"):
        Catalogue.open(damaged)


def test_commands_that_need_arrays_refuse_encoded_images(images, tmp_path):
    catalogue = Catalogue.open(images[0])
    with pytest.raises(UserError, match="holds JPEG images"):
        Reader(catalogue)
    with pytest.raises(UserError, match="--reader h5py is not for encoded images"):
        EncodedReader(catalogue, how="h5py")
    with pytest.raises(UserError, match="which `hpc-train shard` cannot read"):
        repack.run(repack.Shard(data=images[0], output=tmp_path / "out"))


def test_verify_finds_nothing_in_what_was_written(images, capsys):
    verify.run(verify.Verify(data=images[0]))
    assert "train: 2 files, 24 samples" in capsys.readouterr().out


def test_verify_compares_and_decodes_every_image(damaged, capsys):
    first, second = (damaged / f"train-0000{number}-of-00002.h5" for number in range(2))
    overwrite(first, 4, flipped)
    without_checksums(second)
    overwrite(second, 2, hollow)
    # All of the picture is there, but its end is not marked.
    overwrite(second, 5, lambda image: image[:-1] + b"\0")
    overwrite(second, 7, lambda image: b"PNG" + image[3:])
    # The header stays whole, half of the image is gone.
    overwrite(second, 9, lambda image: image[: len(image) // 2] + bytes(len(image) - len(image) // 2))
    with pytest.raises(UserError, match="things are broken"):
        verify.run(verify.Verify(data=damaged))
    out = capsys.readouterr().out
    assert f"{first}: inputs: row 4 differ from what was written (checksum)" in out
    named = re.findall(rf"{second}: inputs: rows? ([\d, ]+) cannot be decoded", out)
    assert sorted(int(row) for rows in named for row in rows.split(",")) == [2, 5, 7, 9]


def test_verify_reports_checksums_that_cannot_be_compared(damaged, capsys):
    path = damaged / "train-00000-of-00002.h5"
    with h5py.File(path, "r+") as file:
        file["checksums/inputs"].attrs["rows"] = 2
    with pytest.raises(UserError, match="1 thing is broken"):
        verify.run(verify.Verify(data=damaged))
    assert f"{path}: inputs: the checksums are not one 64-bit hash for each image" in capsys.readouterr().out


def test_the_cache_of_the_files_keeps_their_encoding_and_one_of_an_earlier_release_is_read(damaged, monkeypatch):
    monkeypatch.setattr(survey, "LEAST_CACHED", 2)
    write_shards(damaged, "pixels", np.zeros((4, 8, 8, 3), "u1"), np.zeros(4, int), classes=1, shards=2)
    found = {split: Catalogue.open(damaged, split) for split in ("train", "pixels")}
    caches = {path: json.loads(sealed_text(path)[0]) for path in damaged.glob(".hpc-train-catalogue-*.json")}
    assert len(caches) == 2
    for path, held in caches.items():
        if not any(name.startswith("train") for name in held["files"]):
            # Which had no fields for it and for the channels' names.
            assert held["commons"][0][-2:] == ["", []]
            del held["commons"][0][-2:]
            path.write_text(json.dumps({**held, "version": 3}))
    monkeypatch.setattr(survey, "inspect_file", lambda *_: pytest.fail("a file was opened"))
    for split, catalogue in found.items():
        again = Catalogue.open(damaged, split)
        assert (again.encoding, again.input_shape) == (catalogue.encoding, catalogue.input_shape)
        np.testing.assert_array_equal(again.at, catalogue.at)


def test_inspect_says_how_images_are_stored_and_decoded(images, capsys):
    inspect.run(inspect.Inspect(data=images[0], split="train"))
    out = capsys.readouterr().out
    assert "(224, 224, 3) uint8, channels last, once decoded (--image-size)" in out
    assert "encoding: jpeg" in out
    inspect.run(inspect.Inspect(data=images[0], split="train", json=True))
    (report,) = json.loads(capsys.readouterr().out)["splits"]
    assert report["encoding"] == "jpeg"
    mean = sum(map(len, images[1]["train"])) / 24
    # The files hold little besides images.
    assert mean < report["image_bytes"] < mean + 800
