"""`hpc-train prepare image-folder`: image files in folders or lists, good and bad ones, to shards."""

import io
import os
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import pytest
import tyro
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from realdata import real_data

from hpc_train.data.encoded_writer import EncodedWriter, write_encoded_shards
from hpc_train.data.image_files import BadImage, Treatment, prepare_image
from hpc_train.data.prepare import Prepare, run
from hpc_train.data.streamed_split import StreamedSplit
from hpc_train.errors import UserError


def pixels(height=24, width=32, seed=0):
    """A smooth picture, (height, width, 3) uint8, which JPEG keeps within a few values."""
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x + seed, 4 * y, 2 * x + 2 * y], -1).astype(np.uint8)


def encode(image, kind="JPEG", **options):
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def jpeg(seed=0, **options):
    return encode(pixels(seed=seed), quality=95, **options)


def decode(raw):
    with Image.open(io.BytesIO(raw)) as image:
        assert (image.format, image.mode) == ("JPEG", "RGB")
        return np.asarray(image)


def write(path, raw):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def tree(root, splits=("train", "val"), classes=("cat", "dog"), each=5):
    """Class folders of good images; returns the class of each file's content."""
    found = {}
    for split in splits:
        for number, name in enumerate(classes):
            for k in range(each):
                raw = write(root / split / name / f"{k}.jpg", jpeg(len(found))).read_bytes()
                found[raw] = number
    return found


def prepare(source, output, *options):
    arguments = ["image-folder", "--input", source, "--output", output, *options]
    run(tyro.cli(Prepare, args=[str(argument) for argument in arguments]))


def refusal(*arguments):
    with pytest.raises(UserError) as caught:
        prepare(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def shards(folder, split):
    return sorted(folder.glob(f"{split}-*.h5"))


def read(folder, split):
    """(list of samples, list of targets) of a split, as FORMAT.md says."""
    samples, targets = [], []
    for path in shards(folder, split):
        with h5py.File(path) as file:
            targets += file["targets"][:].tolist()
            inputs = file["inputs"][:]
            if "extents" in file:
                extents = file["extents"][:].tolist()
                samples += [inputs[a:b].tobytes() for a, b in pairwise(extents)]
            else:
                samples += list(inputs)
    return samples, targets


def one(tmp_path, raw, *options, name="x.jpg"):
    """The sample that a file with these bytes becomes, beside a good one of another class."""
    write(tmp_path / "in" / "train" / "a" / name, raw)
    write(tmp_path / "in" / "train" / "b" / "good.jpg", jpeg())
    prepare(tmp_path / "in", tmp_path / "out", "--shards", 1, *options)
    samples, targets = read(tmp_path / "out", "train")
    return samples[targets.index(0)]


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


GREY16 = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85
CHANGED = {
    "grey": (encode(pixels()[..., 0]), pixels()[..., :1].repeat(3, -1), "1 grey"),
    "CMYK": (encode(Image.fromarray(pixels()).convert("CMYK")), pixels(), "1 CMYK"),
    "PNG": (encode(pixels(), "PNG"), pixels(), "1 PNG"),
    "WebP": (encode(pixels(), "WEBP", lossless=True), pixels(), "1 WEBP"),
    "BMP": (encode(pixels(), "BMP"), pixels(), "1 BMP"),
    "alpha": (encode(np.dstack([pixels(), pixels()[..., 1]]), "PNG"), pixels(), "1 PNG, 1 alpha"),
    "grey with alpha": (
        encode(pixels()[..., :2].copy(), "PNG"),
        pixels()[..., :1].repeat(3, -1),
        "1 PNG, 1 grey, 1 alpha",
    ),
    "palette": (
        encode(Image.fromarray(pixels()).quantize(256), "GIF"),
        np.asarray(Image.fromarray(pixels()).quantize(256).convert("RGB")),
        "1 GIF, 1 palette",
    ),
    "16 bit": (encode(GREY16, "PNG"), (GREY16 // 256)[..., None].repeat(3, -1), "1 PNG, 1 16 bit"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_what_is_no_plain_rgb_jpeg_is_encoded_again(tmp_path, kind, capsys):
    raw, expected, said = CHANGED[kind]
    sample = one(tmp_path, raw, "--quality", 100, name="x.JPEG")
    assert sample != raw
    assert np.abs(decode(sample).astype(int) - expected).mean() < 2
    assert f"train: encoded again as RGB JPEG: {said}\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", CHANGED)
def test_as_pixels_any_image_is_rgb(tmp_path, kind):
    raw, expected, _ = CHANGED[kind]
    sample = one(tmp_path, raw, "--size", 24)
    # The shorter side is 24 already; 32 columns lose 4 on each side.
    assert (sample.shape, sample.dtype) == ((24, 24, 3), np.uint8)
    assert np.abs(sample.astype(int) - expected[:, 4:28]).mean() < 3


# What the EXIF standard says row 0 and column 0 of the stored picture are when it is seen upright.
TURNS = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_images_are_turned_upright_as_their_exif_data_say(tmp_path, orientation, capsys):
    exif = Image.Exif()
    exif[0x0112] = orientation
    sample = one(tmp_path, jpeg(exif=exif))
    expected = TURNS[orientation](pixels())
    assert decode(sample).shape == expected.shape
    assert np.abs(decode(sample).astype(int) - expected).mean() < 3
    assert "1 turned as its EXIF data say" in capsys.readouterr().out
    # Else a viewer, or preparing it again, would turn it once more.
    assert 0x0112 not in Image.open(io.BytesIO(sample)).getexif()


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"exif": b"Exif"}])
def test_plain_jpeg_files_keep_their_bytes(tmp_path, options, capsys):
    raw = jpeg(**options)
    assert one(tmp_path, raw) == raw
    assert "again" not in capsys.readouterr().out


def test_bytes_after_the_end_of_a_jpeg_file_are_cut_off(tmp_path):
    # A thumbnail has an end marker of its own.
    raw = jpeg(exif=b"Exif\0\0" + jpeg())
    assert one(tmp_path, raw + b"\0\xff\xd9 and more") == raw


def test_arithmetic_coding_which_tensorflow_cannot_decode_is_encoded_again(tmp_path, monkeypatch):
    # Pillow writes none: the frame of a sequential file is shown as one with arithmetic coding.
    from hpc_train.data import image_files

    plain = image_files._structure
    monkeypatch.setattr(image_files, "_structure", lambda raw: (0xC9, plain(raw)[1]))
    assert one(tmp_path, jpeg()) != jpeg()


TRUNCATED = jpeg()[: len(jpeg()) // 2]
BAD = {
    "truncated": (TRUNCATED, "truncated"),
    "cut by its end marker": (jpeg()[:-2], "truncated"),
    "header only": (jpeg()[:30], "truncated"),
    "text": (b"<html>404 not found</html>", "not an image"),
    "empty": (b"", "empty file"),
    "3 x 3": (encode(pixels(3, 3)), "smaller than 8 pixels (3 x 3)"),
    "one side too short": (encode(pixels(7, 60)), "smaller than 8 pixels (60 x 7)"),
    "floats": (encode(np.zeros((20, 20), np.float32), "TIFF"), "pixels of 32 bits"),
    "broken PNG": (CHANGED["PNG"][0][:60] + b"XXXX" + CHANGED["PNG"][0][64:], "damaged ("),
    "segment that leads past the end": (
        (lambda raw: raw[:-40] + b"\xff\xe5\xff\xff" + raw[-36:])(jpeg()),
        "damaged (no end marker)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_named_and_nothing_is_written(tmp_path, case):
    raw, expected = BAD[case]
    tree(tmp_path / "in")
    write(tmp_path / "in/train/dog/x.jpg", raw)
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'in'}: 1 of 21 images are bad (1 {expected.split(' (')[0]}): ")
    assert f"train/dog/x.jpg ({expected}" in message
    assert message.endswith("leave them out with --bad skip")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [(), ("--size", 16)])
def test_bad_images_are_left_out_counted_and_named(tmp_path, size, capsys):
    tree(tmp_path / "in")
    for number, (raw, _) in enumerate(BAD.values()):
        write(tmp_path / f"in/{'train' if number % 2 else 'val'}/dog/bad{number}.jpg", raw)
    prepare(tmp_path / "in", tmp_path / "out", "--bad", "skip", *size)
    told = capsys.readouterr()
    named = (tmp_path / "out/left-out.txt").read_text().splitlines()
    # As pixels, a JPEG file whose picture is whole needs no end.
    missing = {"segment that leads past the end"} if size else set()
    expected = [
        (f"{'train' if number % 2 else 'val'}/dog/bad{number}.jpg", reason)
        for number, (case, (_, reason)) in enumerate(BAD.items())
        if case not in missing
    ]
    assert len(named) == len(expected)
    for path, reason in expected:
        assert any(line.startswith(f"{path}\t{reason}") for line in named)
    assert len(read(tmp_path / "out", "train")[0]) == 10 + len(missing)
    assert len(read(tmp_path / "out", "validation")[0]) == 10
    assert f"train: left out {len([p for p, _ in expected if 'train' in p])} bad images (" in told.err
    assert f"left out: {len(expected)} images, all named in {tmp_path / 'out/left-out.txt'}" in told.err
    # Once they are mended, the list goes.
    for path in (tmp_path / "in").glob("*/dog/bad*"):
        path.unlink()
    prepare(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out/left-out.txt").exists()


def test_more_bad_images_than_one_line_holds_are_counted(tmp_path):
    tree(tmp_path / "in")
    for number in range(20):
        write(tmp_path / f"in/train/cat/x{number:02d}.jpg", b"" if number < 12 else b"text")
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert "20 of 40 images are bad (12 empty file, 8 not an image): " in message
    assert "train/cat/x00.jpg (empty file)" in message
    assert "x04.jpg (empty file) and 15 more;" in message


def test_the_shortest_side_may_be_chosen(tmp_path):
    assert decode(one(tmp_path, encode(pixels(3, 3)), "--min-side", 3)).shape == (3, 3, 3)


def test_what_is_no_readable_file_is_bad_and_never_waited_for(tmp_path):
    tree(tmp_path / "in")
    folder = tmp_path / "in/train/cat"
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert "3 of 23 images are bad (2 cannot be read, 1 not a file)" in message
    assert "dangling.jpg (cannot be read (No such file or directory))" in message
    assert "loop.jpg (cannot be read (Too many levels of symbolic links))" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads any file")
def test_an_image_without_permission_is_bad(tmp_path):
    tree(tmp_path / "in")
    (tmp_path / "in/train/cat/0.jpg").chmod(0)
    assert "0.jpg (cannot be read (Permission denied))" in refusal(tmp_path / "in", tmp_path / "out")


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
    assert line.startswith("passed over, as they are not named like images or have no class: ")
    for name in ("train/list.csv", "train/cat/._0.jpg", "train/cat/notes.txt", "train/dog/Thumbs.db", "dog/circle"):
        assert name in line


def test_a_link_to_a_class_folder_is_followed(tmp_path):
    tree(tmp_path / "elsewhere", splits=("train",))
    (tmp_path / "in/train").mkdir(parents=True)
    for name in ("cat", "dog"):
        (tmp_path / "in/train" / name).symlink_to(tmp_path / "elsewhere/train" / name)
    prepare(tmp_path / "in", tmp_path / "out")
    assert len(read(tmp_path / "out", "train")[0]) == 10


def test_names_of_any_bytes_are_told_in_one_line(tmp_path, capsys):
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
    "superfluous fraction": ("train/a:1 test/a:1", ["--test-fraction", "0.5"], "has a test part of its own"),
    "flat": ("train/:3", [], "train: no class folders; give the classes of its images with --lists train=FILE"),
    "flat validation": ("train/a:2 val/:3", [], "val: no class folders; give the classes of its images with --lists v"),
    "nothing in the classes": ("train/a:0", [], "its class folders hold no images"),
    "class unknown in training": ("train/a:2 val/b:2", [], "val/b: there is no such class"),
    "two validation folders": ("train/a:1 val/a:1 validation/a:1", [], "has both val and validation"),
    "validation alone": ("val/a:1", [], "no images for training, whose folders would name the classes"),
    "no class of that number": ("train/a:1", ["--lists", "validation=n.txt"], "line 2: no class '3'"),
    "no class number": ("a:0", ["--lists", "train=big.txt"], "no class '9999999999999999999999'; the numbers of"),
    "line without a class": ("train/a:1", ["--lists", "validation=short.txt"], "line 1 ('only') is not a path and a"),
    "no list": ("train/a:1", ["--lists", "validation=none.txt"], "none.txt: cannot be read (No such file"),
    "empty list": ("train/a:1", ["--lists", "validation=empty.txt"], "empty.txt: holds no lines"),
    "two lists": ("train/a:1", ["--lists", "test=n.txt", "test=n.txt"], "a second list of test"),
    "no name for a split": ("train/a:1", ["--lists", "Val=n.txt"], "'Val' is no name for a split"),
    "a class twice": ("train/a:1", ["--class-names", "in/twice.txt"], "line 3 names a again"),
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


def test_pixels_are_scaled_by_averaging_and_cut_from_the_middle(tmp_path):
    picture = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    sample = one(tmp_path, encode(picture, "PNG"), "--size", 20, "--min-side", 20)

    def halved(x):
        """Means of four neighbours with a triangle's weights 1, 3, 3, 1, but for the first and the last."""
        return (x[1:-4:2] + 3 * x[2:-3:2] + 3 * x[3:-2:2] + x[4:-1:2]) / 8

    expected = halved(halved(picture.astype(float)).swapaxes(0, 1)).swapaxes(0, 1)
    assert sample.shape == (20, 20, 3)
    # Of 30 columns, 5 to 25 are kept; what is halved lacks one on each side.
    np.testing.assert_allclose(sample[1:-1], expected[:, 4:24], atol=1.5)


def test_pixels_may_be_compressed(tmp_path):
    tree(tmp_path / "in", splits=("train",))
    prepare(tmp_path / "in", tmp_path / "plain", "--size", 16, "--shards", 2)
    prepare(tmp_path / "in", tmp_path / "small", "--size", 16, "--shards", 2, "--compression", "zstd")
    np.testing.assert_array_equal(read(tmp_path / "plain", "train")[0], read(tmp_path / "small", "train")[0])
    with h5py.File(shards(tmp_path / "small", "train")[0]) as file:
        assert file["inputs"].chunks
        assert file.attrs["version"] == 2


@pytest.mark.parametrize(("longest", "shape"), [(16, (12, 16)), (32, (24, 32)), (100, (24, 32))])
def test_only_images_larger_than_the_longest_side_are_shrunk(tmp_path, longest, shape, capsys):
    sample = one(tmp_path, jpeg(), "--max-side", longest)
    assert decode(sample).shape[:2] == shape
    assert (sample == jpeg()) == (longest >= 32)
    # The good image beside it is as large.
    assert (f"2 larger than {longest}" in capsys.readouterr().out) == (longest < 32)


def test_quality_is_that_of_images_encoded_again(tmp_path):
    sizes = [len(one(tmp_path / str(q), encode(pixels(), "PNG"), "--quality", q)) for q in (30, 95)]
    assert sizes[0] < sizes[1]


def test_an_interruption_leaves_the_shards_that_were_there(tmp_path, monkeypatch, capsys):
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
    with pytest.raises(KeyboardInterrupt):
        prepare(tmp_path / "in", tmp_path / "out", "--seed", 9, "--shards", 3)
    assert capsys.readouterr().err == f"\ninterrupted: nothing in {tmp_path / 'out'} was changed\n"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_shards_of_an_earlier_data_set_are_replaced_and_those_of_another_split_are_pointed_out(tmp_path, capsys):
    tree(tmp_path / "old", splits=("train", "test"))
    tree(tmp_path / "new")
    prepare(tmp_path / "old", tmp_path / "out", "--size", 16, "--shards", 5)
    assert capsys.readouterr().err == ""
    prepare(tmp_path / "new", tmp_path / "out", "--shards", 3)
    said = f"{tmp_path / 'out'}: also holds shards of test, which were there before and stay\n"
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
        ([jpeg(), b"\x89PNG"], [0, 1], "sample 1 is no whole JPEG file"),
        ([jpeg()[:-1], jpeg()], [0, 1], "sample 0 is no whole JPEG file"),
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


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 2000),
    progressive=st.booleans(),
)
def test_a_damaged_file_is_a_bad_image_or_decodes(tmp_path_factory, edits, cut, progressive):
    raw = bytearray(jpeg(progressive=progressive))
    for place, value in edits:
        raw[place % len(raw)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(raw[: len(raw) - cut if cut < 50 else len(raw)])
    try:
        sample = prepare_image(path, Treatment()).data
    except BadImage:
        return
    assert sample.startswith(b"\xff\xd8\xff")
    assert sample.endswith(b"\xff\xd9")
    assert decode(sample).size


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
