"""`hpc-train prepare image-folder`: the shards that images become, their order, and what is left after a failure."""

from itertools import pairwise

import h5py
import numpy as np
import pytest
import xxhash
from image_trees import jpeg, prepare, read, refusal, shards, tree, write

from hpc_train.data.shards.encoded import EncodedWriter, write_encoded_shards
from hpc_train.data.shards.streamed import StreamedSplit
from hpc_train.errors import UserError


def test_the_shards_are_as_the_format_says(tmp_path):
    tree(tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 3, "--seed", 5)
    first, fingerprints = 0, set()
    for number, path in enumerate(shards(tmp_path / "out", "train")):
        with h5py.File(path) as file:
            attributes = dict(file.attrs)
            inputs, extents, targets = (file[name] for name in ("inputs", "extents", "targets"))
            assert [attributes[name] for name in ("format", "encoding", "split", "channels")] == [
                b"hpc-train shard",
                b"jpeg",
                b"train",
                b"last",
            ]
            numbers = [attributes[name] for name in ("version", "shard", "shards", "first", "total", "classes")]
            assert numbers == [3, number, 3, first, 10, 2]
            assert attributes["class_names"].tolist() == [b"cat", b"dog"]
            assert attributes["source"] == b"images of in, shuffled with seed 5"
            assert (attributes["target_min"], attributes["target_max"]) == (min(targets[:]), max(targets[:]))
            assert (inputs.dtype, extents.dtype, targets.dtype) == ("u1", "<i8", "u1")
            assert all(array.chunks is None for array in (inputs, extents, targets))
            edges = extents[:].tolist()
            assert (edges[0], edges[-1], len(edges)) == (0, len(inputs), len(targets) + 1)
            hashes = [xxhash.xxh3_64_intdigest(inputs[a:b].tobytes()) for a, b in pairwise(edges)]
            assert file["checksums/inputs"][:].tolist() == hashes
            assert file["checksums/targets"][:].tolist() == [xxhash.xxh3_64_intdigest(targets[:].tobytes())]
            rows = [file[f"checksums/{name}"].attrs["rows"] for name in ("inputs", "targets")]
            assert rows == [1, len(targets)]
            first += len(targets)
            fingerprints.add(attributes["fingerprint"])
        # Superblock version 2: metadata with checksums, though the attributes were changed after the shard was closed.
        assert path.read_bytes()[8] == 2
    assert first == 10
    assert len(fingerprints) == 1


def test_the_samples_are_shuffled_by_the_seed_alone(tmp_path):
    tree(tmp_path / "in", each=20)
    for output, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare(tmp_path / "in", tmp_path / output, "--seed", seed, "--shards", 2)
    first, again, other = (read(tmp_path / output, "train") for output in "abc")
    assert first == again
    assert first != other
    assert sorted(first[0]) == sorted(other[0])
    # Forty samples of two classes in the order of their folders would change class once.
    assert np.count_nonzero(np.diff(first[1])) > 5
    hashes = [h5py.File(shards(tmp_path / output, "train")[0]).attrs["fingerprint"] for output in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_split_of_bad_images_alone_is_refused(tmp_path):
    tree(tmp_path / "in", splits=("train",))
    write(tmp_path / "in/val/cat/x.jpg", b"text")
    assert "no good image is left for validation" in refusal(tmp_path / "in", tmp_path / "out", "--bad", "skip")
    assert not (tmp_path / "out").exists()


def test_shards_that_no_image_is_left_for_are_not_made(tmp_path):
    tree(tmp_path / "in", splits=("train",), each=2)
    write(tmp_path / "in/train/cat/0.jpg", b"text")
    prepare(tmp_path / "in", tmp_path / "out", "--bad", "skip", "--shards", 4)
    assert [path.name for path in shards(tmp_path / "out", "train")] == [f"train-0000{k}-of-00003.h5" for k in range(3)]
    for number, path in enumerate(shards(tmp_path / "out", "train")):
        with h5py.File(path) as file:
            assert [file.attrs[name] for name in ("shard", "shards", "first", "total")] == [number, 3, number, 3]


def test_pixels_may_be_compressed(tmp_path):
    tree(tmp_path / "in", splits=("train",))
    prepare(tmp_path / "in", tmp_path / "plain", "--size", 16, "--shards", 2)
    prepare(tmp_path / "in", tmp_path / "small", "--size", 16, "--shards", 2, "--compression", "zstd")
    np.testing.assert_array_equal(read(tmp_path / "plain", "train")[0], read(tmp_path / "small", "train")[0])
    with h5py.File(shards(tmp_path / "small", "train")[0]) as file:
        assert file["inputs"].chunks
        assert file.attrs["version"] == 2


def test_an_interruption_leaves_the_shards_that_were_there(tmp_path, monkeypatch):
    tree(tmp_path / "in", each=20)
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 2)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    plain, calls = StreamedSplit.write, []

    def interrupted(self, inputs, targets):
        calls.append(self.split)
        if calls.count("validation") == 3:
            raise KeyboardInterrupt
        plain(self, inputs, targets)

    monkeypatch.setattr(StreamedSplit, "write", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=f"nothing in {tmp_path / 'out'} was changed; give the same command again"
    ):
        prepare(tmp_path / "in", tmp_path / "out", "--seed", 9, "--shards", 3)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_shards_of_an_earlier_data_set_are_replaced_and_those_of_another_split_are_pointed_out(tmp_path, capsys):
    tree(tmp_path / "old", splits=("train", "test"))
    tree(tmp_path / "new")
    prepare(tmp_path / "old", tmp_path / "out", "--size", 16, "--shards", 5)
    assert capsys.readouterr().err == ""
    prepare(tmp_path / "new", tmp_path / "out", "--shards", 3)
    said = f"{tmp_path / 'out'}: also holds older shards of test, which were not changed\n"
    assert capsys.readouterr().err == said
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *(f"{split}-0000{number}-of-00003.h5" for split in ("train", "validation") for number in range(3)),
        *(f"test-0000{number}-of-00005.h5" for number in range(5)),
    }


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tree(tmp_path / "in")
    write(tmp_path / "out", b"a file")
    message = refusal(tmp_path / "in", tmp_path / "out/shards")
    assert message.startswith(f"{tmp_path / 'out/shards'}: cannot be written (")


def test_a_list_of_bad_images_that_cannot_be_written_or_removed_is_named_with_what_to_do(tmp_path):
    tree(tmp_path / "in")
    listed = tmp_path / "out/left-out.txt"
    listed.mkdir(parents=True)
    for bad in (False, True):
        if bad:
            write(tmp_path / "in/train/dog/x.jpg", b"no image")
        message = refusal(tmp_path / "in", tmp_path / "out", "--bad", "skip")
        assert message == f"cannot write {listed}: Is a directory; prepare again with another --output"


def test_images_in_memory_become_shards_too(tmp_path):
    images, labels = [jpeg(k) for k in range(7)], np.array([4, 0, 1, 2, 3, 4, 0])
    paths = write_encoded_shards(tmp_path, "validation", images, labels, classes=5, class_names=list("abcde"), shards=2)
    assert paths == shards(tmp_path, "validation")
    # In the order given.
    assert read(tmp_path, "validation") == (images, labels.tolist())
    write_encoded_shards(tmp_path, "validation", images[:3], labels[:3], classes=5, shards=1)
    assert len(shards(tmp_path, "validation")) == 1


@pytest.mark.parametrize(
    ("images", "labels", "expected"),
    [
        ([jpeg(), b"\x89PNG"], [0, 1], "sample 1 is not a complete JPEG file"),
        ([jpeg()[:-1], jpeg()], [0, 1], "sample 0 is not a complete JPEG file"),
        ([jpeg()], [0, 1], "1 inputs but 2 targets"),
        ([jpeg()], [2], "sample 0 has label 2, outside the 2 classes"),
        ([jpeg()], [0.0], "targets are (1,) float64"),
        ([jpeg()], [[0, 1]], "targets are (1, 2) int64"),
        ([], np.zeros(0, int), "no samples"),
    ],
)
def test_images_in_memory_that_no_shard_can_hold_are_refused(tmp_path, images, labels, expected):
    with pytest.raises(UserError) as caught:
        write_encoded_shards(tmp_path, "train", images, labels, classes=2)
    assert expected in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_encoded_shard_that_was_not_finished_leaves_no_file(tmp_path, error):
    def write_half():
        with EncodedWriter(tmp_path / "x.h5", "u1", {"classes": 2}) as writer:
            writer.write([jpeg()], [0])
            raise error

    with pytest.raises(error):
        write_half()
    assert not list(tmp_path.iterdir())


def test_an_encoded_shard_without_samples_is_not_made(tmp_path):
    with pytest.raises(ValueError, match="no samples were written"), EncodedWriter(tmp_path / "x.h5", "u1", {}):
        pass
    assert not list(tmp_path.iterdir())
