"""`hpc-train prepare masks`: pictures, each with a picture of its classes, as shards of label maps."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.data.options import DataOptions
from hpc_train.data.shards.compression import Compression
from hpc_train.errors import UserError

_SPLITS = {"train": ("train", "training"), "validation": ("val", "valid", "validation"), "test": ("test", "testing")}
_PLACE = "{split}"
_SEED = 0


@dataclass(frozen=True, kw_only=True)
class Masks:
    """Turn pictures with mask pictures into sharded HDF5 files for the climate trainer, which takes any label maps.

    A mask has the name of its picture, with any ending of a picture, and the number of a class in each pixel: in grey
    or as the index of a palette. Grey pictures have one channel, others red, green and blue.
    """

    images: str
    """Folder of the pictures. With {split} in it, as in 'tiles/{split}/images', there is one for each split: train, val
    (valid, validation) and test."""
    masks: str
    """Folder of the masks, likewise."""
    output: Path
    """Folder for the shards."""
    mask_suffix: str = ""
    """What the names of masks have after those of their pictures, such as _mask for tile7_mask.png."""
    class_names: tuple[str, ...] = ()
    """Names of the classes 0, 1, 2, ..., such as glaze crack hole."""
    classes: int | None = None
    """Number of classes, without --class-names; by default the largest label + 1."""
    label_values: tuple[str, ...] = ()
    """Stored labels of classes 0, 1, 2, ..., where these are other numbers: 0 255 for black and white masks."""
    ignore_label: int | None = None
    """A label, such as 255, of pixels that do not count."""
    test_fraction: float | None = None
    """Without {split}: the share of the pictures to use for testing, such as 0.2; 0: no test part."""
    size: tuple[int, int] | None = None
    """Height and width to which pictures are scaled (masks by their nearest pixel); by default all have one size."""
    max_pixels: int = 2**26
    """Pictures of more pixels are refused: a small file may claim any size, and is decoded whole."""
    shards: int | None = None
    """Number of files of each split; by default at least 4, of about 256 MiB each."""
    compression: Compression = "none"
    """none is the fastest to read. The others store the pictures in compressed chunks; zstd is small and fast."""


def run(options: Masks) -> None:
    """Write the shards, and print a line about each split.

    Raises:
        UserError: an option or a picture is wrong, or the shards cannot be written.
    """
    from hpc_train.prepare.images.files import limit_pixels
    from hpc_train.prepare.masks.pairs import Pairs, find_pairs
    from hpc_train.prepare.splits import held_out, write_splits

    labels = _check_options(options)
    limit_pixels(options.max_pixels)
    found = {}
    for split, (images, masks) in _folders(options).items():
        found[split] = find_pairs(images, masks, options.mask_suffix)
    if options.test_fraction:
        pairs = found["train"]
        testing = held_out(np.zeros(len(pairs), int), options.test_fraction, _SEED)
        found = {
            split: [pair for pair, tests in zip(pairs, testing, strict=True) if tests == (split == "test")]
            for split in ("train", "test")
        }
    classes = len(options.class_names) or options.classes or len(labels)
    made = Pairs(found, options.size, labels, options.ignore_label, classes)
    write_splits(
        options.output,
        made.splits,
        classes=made.classes,
        class_names=options.class_names,
        geometry="picture",
        ignore_label=made.ignored,
        source=f"pictures of {options.images}, masks of {options.masks}",
        shards=options.shards,
        compression=options.compression,
    )


def _check_options(options: Masks) -> tuple[int, ...]:
    """The stored labels of --label-values."""
    apart = [_PLACE in text for text in (options.images, options.masks)]
    if apart[0] != apart[1]:
        raise UserError("--images and --masks: one has {split}, and the other has not; write it in both, or in neither")
    if apart[0] == (options.test_fraction is not None):
        raise UserError(
            "which pictures are for testing? give {split} in --images and --masks, or --test-fraction 0.2 (0: no test "
            "part)"
        )
    if options.test_fraction is not None and not 0 <= options.test_fraction < 1:
        raise UserError(f"--test-fraction is {options.test_fraction}; give at least 0, and less than 1")
    for name in ("classes", "max_pixels"):
        if (value := getattr(options, name)) is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} is {value}; give at least 1")
    if options.size and min(options.size) < 1:
        raise UserError(f"--size {options.size[0]} {options.size[1]}: give a height and width of 1 or more")
    labels = DataOptions(Path(), label_values=options.label_values, classes=options.classes).labels()
    numbers = {len(labels), len(options.class_names), options.classes or 0} - {0}
    if len(numbers) > 1:
        raise UserError(
            f"--class-names, --classes and --label-values give {' and '.join(map(str, sorted(numbers)))} classes; "
            "leave all but one out, or make them agree"
        )
    return labels


def _folders(options: Masks) -> dict[str, tuple[Path, Path]]:
    """{split: (folder of the pictures, folder of the masks)}."""
    if _PLACE not in options.images:
        return {"train": (Path(options.images), Path(options.masks))}
    found = {}
    for split, names in _SPLITS.items():
        for name in names:
            pair = tuple(Path(text.replace(_PLACE, name)) for text in (options.images, options.masks))
            if pair[0].is_dir() and split not in found:
                found[split] = pair
    if "train" not in found:
        raise UserError(
            f"--images {options.images}: there is no such folder with train for {{split}}; give the right one"
        )
    return found
