"""`hpc-train prepare masks`: pictures and their masks become shards of label maps with the same pixels."""

import numpy as np
import pytest
import tyro
from PIL import Image

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError
from hpc_train.prepare.masks.command import Masks, run

SHAPE = (10, 8)


def prepare(folder, *arguments):
    run(tyro.cli(Masks, args=[*map(str, arguments), "--output", str(folder)]))


def read_all(folder, split="train", ignore=None):
    catalogue = Catalogue.open(folder, split)
    return catalogue, *Reader(catalogue, ignore=ignore).read(np.arange(catalogue.samples))


def make(root, pictures=6, mode="L", labels=(0, 1, 255), suffix="", ending=".png"):
    """Folders images and masks below `root`; returns the pixels and labels in the order of the names."""
    draw = np.random.default_rng(0)
    channels = {"L": (), "RGB": (3,), "I;16": ()}[mode]
    high, kind = (65536, "u2") if mode == "I;16" else (256, "u1")
    pixels = draw.integers(0, high, (pictures, *SHAPE, *channels)).astype(kind)
    masks = np.array(labels, "u1")[draw.integers(0, len(labels), (pictures, *SHAPE))]
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for number in range(pictures):
        Image.fromarray(pixels[number]).save(root / "images" / f"tile{number}{ending}")
        Image.fromarray(masks[number]).save(root / "masks" / f"tile{number}{suffix}.png")
    return pixels, masks


@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
def test_pictures_and_masks_keep_their_pixels(tmp_path, mode):
    pixels, masks = make(tmp_path, mode=mode, suffix="_mask")
    (tmp_path / "images" / "notes.txt").write_text("not a picture")
    folders = "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--mask-suffix", "_mask"
    named = "--class-names", "glaze", "crack", "--ignore-label", 255, "--test-fraction", 0
    prepare(tmp_path / "shards", *folders, *named)
    catalogue, x, y = read_all(tmp_path / "shards", ignore=255)
    np.testing.assert_array_equal(x, pixels if mode == "RGB" else pixels[..., None])
    assert x.dtype == pixels.dtype
    np.testing.assert_array_equal(y, masks)
    assert (catalogue.classes, catalogue.class_names) == (2, ("glaze", "crack"))
    assert (catalogue.geometry, catalogue.ignore_label) == ("picture", 255)


def test_black_and_white_masks_palettes_and_bits_are_class_numbers(tmp_path):
    _, masks = make(tmp_path, labels=(0, 255))
    bits = Image.fromarray(masks[0] > 0)
    bits.save(tmp_path / "masks" / "tile0.png")
    folders = "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--test-fraction", 0
    with pytest.raises(UserError, match=r"tile0\.png: has label 1, which --label-values does not name"):
        prepare(tmp_path / "shards", *folders, "--label-values", 0, 255)
    for number, mask in enumerate(masks):
        palette = Image.fromarray((mask > 0).astype("u1"), "P")
        palette.putpalette([0, 0, 0, 200, 10, 10])
        (palette if number else bits).save(tmp_path / "masks" / f"tile{number}.png")
    prepare(tmp_path / "shards", *folders)
    catalogue, _, y = read_all(tmp_path / "shards")
    np.testing.assert_array_equal(y, masks > 0)
    assert catalogue.classes == 2
    make(tmp_path / "grey", labels=(0, 255, 7))
    folders = "--images", tmp_path / "grey" / "images", "--masks", tmp_path / "grey" / "masks", "--test-fraction", 0
    prepare(tmp_path / "two", *folders, "--label-values", 0, 255, "--ignore-label", 7)
    catalogue, _, y = read_all(tmp_path / "two", ignore=2)
    assert (catalogue.classes, catalogue.ignore_label, np.unique(y).tolist()) == (2, 2, [0, 1, 2])


def test_splits_are_folders_or_a_share(tmp_path):
    for split, pictures in (("train", 4), ("val", 2)):
        make(tmp_path / split, pictures, labels=(0, 1))
    for images, masks in (("{split}/images", "{split}/masks"),):
        prepare(tmp_path / "a", "--images", f"{tmp_path}/{images}", "--masks", f"{tmp_path}/{masks}")
    assert [Catalogue.open(tmp_path / "a", split).samples for split in ("train", "validation")] == [4, 2]
    whole = "--images", tmp_path / "train" / "images", "--masks", tmp_path / "train" / "masks"
    prepare(tmp_path / "b", *whole, "--test-fraction", 0.5)
    assert [Catalogue.open(tmp_path / "b", split).samples for split in ("train", "test")] == [2, 2]
    for more, said in (
        ((), "which pictures are for testing"),
        (("--test-fraction", 1), "--test-fraction is 1"),
        (("--test-fraction", 0, "--classes", 3, "--class-names", "a", "b"), "give 2 and 3 classes"),
    ):
        with pytest.raises(UserError, match=said):
            prepare(tmp_path / "c", *whole, *more)


def test_pictures_that_claim_too_many_pixels_are_refused_by_their_headers(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    make(tmp_path, labels=(0, 1))
    folders = "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--test-fraction", 0
    prepare(tmp_path / "shards", *folders, "--max-pixels", 80)
    assert not [one for one in recwarn if issubclass(one.category, Image.DecompressionBombWarning)]
    with pytest.raises(UserError, match=r"images/tile0\.png: has more than 78 pixels by its header; .*--max-pixels"):
        prepare(tmp_path / "shards", *folders, "--max-pixels", 78)


def test_pictures_of_several_sizes_are_scaled_and_masks_by_their_nearest_pixel(tmp_path):
    make(tmp_path, labels=(0, 3))
    for folder in ("images", "masks"):
        with Image.open(tmp_path / folder / "tile1.png") as image:
            image.resize((16, 20), Image.Resampling.NEAREST).save(tmp_path / folder / "tile1.png")
    folders = "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--test-fraction", 0
    with pytest.raises(UserError, match=r"tile1\.png: is 20 x 16, but .*tile0\.png is 10 x 8; give --size 10 8"):
        prepare(tmp_path / "shards", *folders)
    prepare(tmp_path / "shards", *folders, "--size", 5, 4)
    _, x, y = read_all(tmp_path / "shards")
    assert x.shape == (6, 5, 4, 1)
    assert set(np.unique(y)) <= {0, 3}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda root: (root / "masks" / "tile2.png").unlink(), r"tile2\.png: no mask of this name"),
        (lambda root: (root / "images" / "tile2.png").unlink(), r"tile2\.png: no picture of this name"),
        (
            lambda root: (root / "masks" / "tile2.png").write_bytes(b"\x89PNG"),
            r"masks/tile2\.png: is not an image",
        ),
        (lambda root: (root / "images" / "tile2.png").write_bytes(b""), r"images/tile2\.png: is not an image"),
        (
            lambda root: Image.new("RGB", (8, 10), (1, 2, 3)).save(root / "masks" / "tile2.png"),
            r"masks/tile2\.png: is a mask of colours",
        ),
        (
            lambda root: Image.new("L", (10, 8)).save(root / "masks" / "tile2.png"),
            r"masks/tile2\.png: is 8 x 10, but its picture is 10 x 8",
        ),
        (
            lambda root: Image.new("L", (8, 10), 9).save(root / "masks" / "tile2.png"),
            r"masks/tile2\.png: has label 9, outside the 2 classes.*--ignore-label 9",
        ),
        (lambda root: Image.new("L", (8, 10)).save(root / "images" / "tile2.bmp"), "has the same name"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(tmp_path, spoil, said):
    make(tmp_path, labels=(0, 1))
    spoil(tmp_path)
    folders = "--images", tmp_path / "images", "--masks", tmp_path / "masks", "--test-fraction", 0
    with pytest.raises(UserError, match=said):
        prepare(tmp_path / "shards", *folders, "--classes", 2)
    assert not (tmp_path / "shards").exists()
