"""`hpc-train prepare image-folder`: which images there are in folders and lists, and of which class."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from image_trees import decode, jpeg, prepare, read, refusal, shards, tree, write
from realdata import real_data


def test_class_folders_become_shards_of_the_files_themselves(tmp_path, capsys):
    classes = tree(tmp_path / "in")
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 3)
    output = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in output] == ["train: 10 JPEG images", "validation: 10 JPEG images"]
    assert output[0].endswith(f"2 classes, 3 shards in {tmp_path / 'out'}")
    samples = [sample for split in ("train", "validation") for sample in read(tmp_path / "out", split)[0]]
    targets = [target for split in ("train", "validation") for target in read(tmp_path / "out", split)[1]]
    assert dict(zip(samples, targets, strict=True)) == classes
    assert sorted(samples) == sorted(classes)
    assert not list((tmp_path / "out").glob(".*"))


def test_folders_and_links_within_a_class_belong_to_it_and_other_files_are_passed_over(tmp_path, capsys):
    root = tmp_path / "in"
    classes = tree(root, splits=("train",), each=2)
    for name in ("deep.jpg/x.jpg", "images/more/y.PNG"):
        classes[write(root / "train/dog" / name, jpeg(90 + len(classes))).read_bytes()] = 1
    linked = write(tmp_path / "elsewhere/z.jpg", jpeg(99))
    (root / "train/cat/link.jpg").symlink_to(linked)
    classes[linked.read_bytes()] = 0
    (root / "train/dog/circle").symlink_to(root / "train")
    for name in ("cat/notes.txt", "cat/._0.jpg", "list.csv", "dog/Thumbs.db"):
        write(root / "train" / name, b"?")
    prepare(root, tmp_path / "out", "--shards", 2)
    assert dict(zip(*read(tmp_path / "out", "train"), strict=True)) == classes
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("skipped, because they are not named like images or have no class: ")
    for name in ("train/list.csv", "train/cat/._0.jpg", "train/cat/notes.txt", "train/dog/Thumbs.db", "dog/circle"):
        assert name in line


def test_a_link_to_a_class_folder_is_followed(tmp_path):
    tree(tmp_path / "elsewhere", splits=("train",))
    (tmp_path / "in/train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / "in/train" / name).symlink_to(tmp_path / "elsewhere/train" / name)
    prepare(tmp_path / "in", tmp_path / "out")
    assert len(read(tmp_path / "out", "train")[0]) == 10


def test_names_of_any_bytes_are_printed_in_one_line(tmp_path, capsys):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/in/train/caf\xe9"))
    write(folder / "a.jpg", jpeg())
    write(folder / "b\nc.jpg", b"")
    prepare(tmp_path / "in", tmp_path / "out", "--bad", "skip", "--shards", 1)
    assert (tmp_path / "out/left-out.txt").read_text() == "train/caf\\xe9/b\\nc.jpg\tempty file\n"
    with h5py.File(shards(tmp_path / "out", "train")[0]) as file:
        assert file.attrs["class_names"].tolist() == [b"caf\\xe9"]


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_the_validation_folder_has_the_names_in_use(tmp_path, name):
    tree(tmp_path / "in", splits=("train", name, "test"))
    prepare(tmp_path / "in", tmp_path / "out")
    for split in ("train", "validation", "test"):
        assert len(read(tmp_path / "out", split)[0]) == 10


def test_test_images_without_classes_are_passed_over(tmp_path, capsys):
    tree(tmp_path / "in")
    write(tmp_path / "in/test/0.jpg", jpeg())
    prepare(tmp_path / "in", tmp_path / "out")
    assert capsys.readouterr().out.splitlines()[0].endswith("have no class: test")
    assert not shards(tmp_path / "out", "test")


@pytest.mark.parametrize("splits", [("",), ("train",)])
def test_a_part_of_every_class_is_kept_for_testing(tmp_path, splits):
    classes = tree(tmp_path / "in", splits=splits, each=10)
    prepare(tmp_path / "in", tmp_path / "out", "--test-fraction", 0.2)
    train, test = (read(tmp_path / "out", split) for split in ("train", "test"))
    assert np.bincount(test[1]).tolist() == [2, 2]
    assert dict(zip(train[0] + test[0], train[1] + test[1], strict=True)) == classes


def test_class_names_give_the_order_and_the_names(tmp_path):
    classes = tree(tmp_path / "in", classes=("n02", "n01 x"))
    (tmp_path / "names").write_text("n03\tnobody's class\nn01 x\tcrane, bird\n\nn02 \n")
    prepare(tmp_path / "in", tmp_path / "out", "--class-names", tmp_path / "names", "--shards", 1)
    samples, targets = read(tmp_path / "out", "train")
    # In the file, n02 is the third class and n01 x the second.
    assert targets == [2 - classes[sample] for sample in samples]
    with h5py.File(shards(tmp_path / "out", "train")[0]) as file:
        assert file.attrs["class_names"].tolist() == [b"nobody's class", b"crane, bird", b"n02"]
        assert file.attrs["classes"] == 3


def test_the_synsets_of_imagenet_are_read_with_their_words(tmp_path):
    tree(tmp_path / "in", classes=("n01440764", "n01443537"))
    (tmp_path / "synset_words.txt").write_text("n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n")
    prepare(tmp_path / "in", tmp_path / "out", "--class-names", tmp_path / "synset_words.txt")
    with h5py.File(shards(tmp_path / "out", "train")[0]) as file:
        assert file.attrs["class_names"].tolist() == [b"tench, Tinca tinca", b"goldfish, Carassius auratus"]


@pytest.mark.parametrize("label", [lambda k: str(k), lambda k: ("cat", "dog")[k]])
@pytest.mark.parametrize("below", ["", "val/"])
def test_a_flat_validation_folder_takes_its_classes_from_a_list(tmp_path, label, below):
    classes = tree(tmp_path / "in", splits=("train",))
    lines = []
    for k in range(6):
        raw = write(tmp_path / f"in/val/ILSVRC {k}.JPEG", jpeg(50 + k)).read_bytes()
        classes[raw] = k % 2
        lines.append(f"{below}ILSVRC {k}.JPEG\t {label(k % 2)}\n")
    (tmp_path / "val.txt").write_text("".join(lines))
    prepare(tmp_path / "in", tmp_path / "out", "--lists", f"validation={tmp_path / 'val.txt'}")
    train, validation = (read(tmp_path / "out", split) for split in ("train", "validation"))
    assert (len(train[0]), len(validation[0])) == (10, 6)
    assert dict(zip(train[0] + validation[0], train[1] + validation[1], strict=True)) == classes


@pytest.mark.parametrize(
    ("labels", "classes", "names"),
    [
        (("7", "0"), {"7": 7, "0": 0}, []),
        (("tern", "owl"), {"owl": 0, "tern": 1}, [b"owl", b"tern"]),
    ],
)
def test_lists_alone_number_the_classes_or_name_them(tmp_path, labels, classes, names):
    lines = {}
    for k in range(8):
        raw = write(tmp_path / f"in/{k}.jpg", jpeg(k)).read_bytes()
        lines[raw] = f"{k}.jpg {labels[k % 2]}"
    write(tmp_path / "in/train.txt", "\n".join(lines.values()).encode())
    prepare(tmp_path / "in", tmp_path / "out", "--lists", "train=train.txt", "--shards", 1)
    samples, targets = read(tmp_path / "out", "train")
    assert targets == [classes[lines[sample].split()[1]] for sample in samples]
    with h5py.File(shards(tmp_path / "out", "train")[0]) as file:
        assert file.attrs["classes"] == max(classes.values()) + 1
        assert list(file.attrs["class_names"]) == names


LAYOUTS = {
    "no folder": ("missing", [], "missing: not a folder"),
    "no fraction": ("cat:1", [], "in: has no folder `train`; give --test-fraction"),
    "superfluous fraction": ("train/a:1 test/a:1", ["--test-fraction", "0.5"], "has a test part already"),
    "flat": ("train/:3", [], "train: no class folders; give the classes with --lists train=FILE"),
    "flat validation": ("train/a:2 val/:3", [], "val: no class folders; give the classes with --lists v"),
    "nothing in the classes": ("train/a:0", [], "its class folders hold no images"),
    "class unknown in training": ("train/a:2 val/b:2", [], "val/b: not the name of a class"),
    "two validation folders": ("train/a:1 val/a:1 validation/a:1", [], "has both val and validation"),
    "validation alone": ("val/a:1", [], "no training images, and so no folders that name the classes"),
    "no class of that number": ("train/a:1", ["--lists", "validation=n.txt"], "line 2: no class '3'"),
    "no class number": ("a:0", ["--lists", "train=big.txt"], "no class '9999999999999999999999'; class numbers"),
    "line without a class": ("train/a:1", ["--lists", "validation=short.txt"], "line 1 ('only') is not a path and a"),
    "no list": ("train/a:1", ["--lists", "validation=none.txt"], "none.txt: cannot be read (No such file"),
    "list of no text": ("train/a:1", ["--lists", "validation=train/a/0.jpg"], "0.jpg: is not text"),
    "name too long": ("train/a:1", ["--lists", f"validation={300 * 'x'}"], "x: cannot be read (File name too long)"),
    "empty list": ("train/a:1", ["--lists", "validation=empty.txt"], "empty.txt: is empty"),
    "two lists": ("train/a:1", ["--lists", "test=n.txt", "test=n.txt"], "a second list of test"),
    "no name for a split": ("train/a:1", ["--lists", "Val=n.txt"], "'Val' cannot name a split"),
    "a class twice": ("train/a:1", ["--class-names", "in/twice.txt"], "line 3 repeats the class a"),
    "too many shards": ("train/a:3", ["--shards", "4"], "3 samples do not fill 4 shards; use 1 to 3"),
}


@pytest.mark.parametrize("case", LAYOUTS)
def test_what_cannot_be_prepared_ends_with_one_line(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    images, options, expected = LAYOUTS[case]
    for item in images.split() if ":" in images else ():
        folder, _, count = item.partition(":")
        Path("in", folder).mkdir(parents=True)
        for k in range(int(count)):
            write(Path("in", folder, f"{k}.jpg"), jpeg(k))
    for name, text in (
        ("n", "a.jpg 0\nb.jpg 3"),
        ("short", "only"),
        ("empty", "\n"),
        ("twice", "a\nb\na x"),
        ("big", "a " + 22 * "9"),
    ):
        write(Path("in", f"{name}.txt"), text.encode())
    source = "missing" if images == "missing" else "in"
    assert expected in refusal(source, "out", *options)
    assert not Path("out").exists()


def test_real_photographs_in_class_folders(tmp_path):
    with np.load(next(real_data("cifar10_jpeg").glob("*test*.npz"))) as file:
        jpegs, offset, label = (file[name] for name in ("jpeg", "offset", "label"))
    chosen = range(0, 10000, 25)
    for k in chosen:
        write(tmp_path / f"in/train/{label[k]}/{k}.jpg", jpegs[offset[k] : offset[k + 1]].tobytes())
    prepare(tmp_path / "in", tmp_path / "bytes")
    prepare(tmp_path / "in", tmp_path / "pixels", "--size", 32)
    samples, targets = read(tmp_path / "bytes", "train")
    images, classes = read(tmp_path / "pixels", "train")
    assert targets == classes
    assert np.bincount(targets).tolist() == [40] * 10
    # The same order, and 32 x 32 already: no scaling.
    np.testing.assert_array_equal([decode(sample) for sample in samples], images)
    # The published means of CIFAR-10 are 0.4914, 0.4822, 0.4465; those of 400 images are near.
    np.testing.assert_allclose(np.mean(images, (0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.03)
