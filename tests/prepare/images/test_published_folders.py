"""Tiny ImageNet and ImageNet as they are downloaded: validation images in one folder, their classes in a file."""

import h5py
import numpy as np
import pytest
from image_trees import jpeg, prepare, read, refusal, shards, write

CLASSES = ("n01443537", "n01629819", "n02124075")


def tiny(root):
    """Tiny ImageNet with three classes; returns the class of each validation image's content."""
    found = {}
    for number, name in enumerate(CLASSES):
        for k in range(3):
            write(root / "train" / name / "images" / f"{name}_{k}.JPEG", jpeg(number))
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t10\t63\t58\n")
    lines = []
    for k, number in enumerate((2, 0, 1, 0)):
        found[write(root / "val" / "images" / f"val_{k}.JPEG", jpeg(50 + k)).read_bytes()] = number
        # The box has numbers that would be class numbers too.
        lines.append(f"val_{k}.JPEG\t{CLASSES[number]}\t0\t1\t62\t2\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    write(root / "test" / "images" / "test_0.JPEG", jpeg(70))
    (root / "wnids.txt").write_text("\n".join(CLASSES))
    words = [f"n{number:08}\tthing {number}" for number in range(1, 500)] + [f"{name}\tword {name}" for name in CLASSES]
    (root / "words.txt").write_text("\n".join(words))
    return found


def test_tiny_imagenet_is_read_as_it_is_downloaded(tmp_path, capsys):
    expected = tiny(tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 1)
    samples, targets = read(tmp_path / "out", "validation")
    assert dict(zip(samples, targets, strict=True)) == expected
    assert np.bincount(read(tmp_path / "out", "train")[1]).tolist() == [3, 3, 3]
    assert not shards(tmp_path / "out", "test")
    assert "have no class: " in capsys.readouterr().out


def test_a_list_of_words_names_the_classes_that_are_there_and_adds_none(tmp_path, capsys):
    tiny(tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 1, "--class-names", tmp_path / "in" / "words.txt")
    assert "words.txt: 499 of its 502 classes have no folder in" in capsys.readouterr().out
    with h5py.File(shards(tmp_path / "out", "train")[0]) as file:
        assert file.attrs["classes"] == 3
        assert file.attrs["class_names"].tolist() == [f"word {name}".encode() for name in CLASSES]


def test_columns_after_the_class_do_not_count_in_a_list(tmp_path):
    expected = tiny(tmp_path / "in")
    (tmp_path / "in" / "val" / "val_annotations.txt").rename(tmp_path / "in" / "mine.txt")
    text = (tmp_path / "in" / "mine.txt").read_text()
    (tmp_path / "in" / "mine.txt").write_text("".join(f"images/{line}\n" for line in text.splitlines()))
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 1, "--lists", "validation=mine.txt")
    samples, targets = read(tmp_path / "out", "validation")
    assert dict(zip(samples, targets, strict=True)) == expected


def imagenet(root, truth):
    """ImageNet's folders, and its development kit, whose numbers do not follow the order of the names."""
    savemat = pytest.importorskip("scipy.io").savemat
    for number, name in enumerate(CLASSES):
        write(root / "train" / name / f"{name}_0.JPEG", jpeg(number))
    found = [write(root / "val" / f"ILSVRC2012_val_{k:08}.JPEG", jpeg(50 + k)).read_bytes() for k in range(1, 5)]
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O")]
    savemat(kit / "meta.mat", {"synsets": np.array([(1, CLASSES[2]), (2, CLASSES[0]), (3, CLASSES[1])], kinds)})
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
    return found


def test_imagenets_development_kit_gives_the_classes_of_its_validation_images(tmp_path):
    found = imagenet(tmp_path / "in", "1\n3\n2\n1\n")
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 1)
    samples, targets = read(tmp_path / "out", "validation")
    assert dict(zip(samples, targets, strict=True)) == dict(zip(found, (2, 1, 0, 2), strict=True))


def test_a_development_kit_of_other_images_is_refused(tmp_path):
    imagenet(tmp_path / "in", "1\n3\n2\n")
    said = refusal(tmp_path / "in", tmp_path / "out")
    assert "ground_truth.txt: has 3 classes, numbers of meta.mat, for 4 images in" in said
