"""Pictures and their masks: found by their names, checked, and read when they are needed."""

import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from hpc_train.data.catalogue.class_map import number_of
from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.prepare.splits import Rows

_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I;16", "I;16B", "I;16L", "I")
_MOST_LABELS = 2**16
_SHOWN = 3


def find_pairs(images: Path, masks: Path, suffix: str) -> list[tuple[str, str]]:
    """Paths of the pictures of a folder, in the order of their names, each with that of its mask.

    Raises:
        UserError: a folder holds no pictures, or pictures and masks do not belong together one by one.
    """
    found, known = _by_stem(images, "--images"), _by_stem(masks, "--masks")
    wanted = {stem: f"{stem}{suffix}" for stem in found}
    if missing := [found[stem] for stem, mask in wanted.items() if mask not in known]:
        raise UserError(
            f"{_some(missing)}: no mask of this name in {masks}; give --mask-suffix if masks have another ending of "
            "their names, or move the picture away"
        )
    if left := sorted(known[stem] for stem in known.keys() - set(wanted.values())):
        raise UserError(f"{_some(left)}: no picture of this name in {images}; move the mask away")
    return [(found[stem], known[mask]) for stem, mask in sorted(wanted.items())]


class Pairs:
    """The pictures and masks of all splits as what `write_splits` takes.

    Args:
        found: {split: [(picture, mask)]}.
        size: height and width to scale to, or None.
        labels: stored labels of the classes 0, 1, 2, ..., or () where they are these numbers.
        ignore: a stored label that does not count, or None.
        classes: their number; 0 for one more than the largest label.

    Attributes:
        splits: {split: (pictures, masks)}.
        classes: their number.
        ignored: the number with which `ignore` is delivered, or None.

    Raises:
        UserError: a picture cannot be read, pictures differ in size, or a mask holds no class numbers.
    """

    def __init__(self, found, size: tuple[int, int] | None, labels: tuple[int, ...], ignore, classes: int):
        self._labels, self._ignore, self.ignored = np.array(labels, np.int64), ignore, number_of(ignore, labels)
        every = [pair for pairs in found.values() for pair in pairs]
        kinds = [_kind(image) for image, _ in every]
        self._size = size or kinds[0][0]
        for (path, mask), (sides, _) in zip(every, kinds, strict=True):
            if not size and sides != self._size:
                raise UserError(
                    f"{path}: is {_sides(sides)}, but {every[0][0]} is {_sides(self._size)}; give --size "
                    f"{self._size[0]} {self._size[1]} to scale all to one size"
                )
            if (theirs := _kind(mask)[0]) != sides:
                raise UserError(f"{mask}: is {_sides(theirs)}, but its picture is {_sides(sides)}; fix the mask")
        modes = {mode for _, mode in kinds}
        # Grey only if all are; 16 bits only if all have them.
        self._mode = modes.pop() if len(modes) == 1 else "RGB"
        # Read once, for the largest label and for messages that name the file.
        largest = [int(self._numbers(mask).max()) for _, mask in every]
        for (_, mask), label in zip(every, largest, strict=True):
            if classes and label >= classes:
                raise UserError(
                    f"{mask}: has label {label}, outside the {classes} classes; fix the mask or the number of classes, "
                    f"or give --ignore-label {label} or --label-values"
                )
        self.classes = classes or max(largest) + 1
        dtype = np.result_type(*map(np.min_scalar_type, (self.classes - 1, self.ignored or 0)))
        self.splits = {split: self._rows(pairs, dtype) for split, pairs in found.items()}

    def _rows(self, pairs: list[tuple[str, str]], dtype) -> tuple[Rows, Rows]:
        channels, kind = (3, "u1") if self._mode == "RGB" else (1, "u2" if self._mode == "16" else "u1")
        images = lambda rows: np.stack([self._pixels(image) for image, _ in pairs[rows]])  # noqa: E731
        masks = lambda rows: np.stack([self._numbers(mask) for _, mask in pairs[rows]])  # noqa: E731
        # The writer checks that labels are classes; negative numbers are ignored ones.
        inputs = Rows(len(pairs), (*self._size, channels), kind, images)
        return inputs, Rows(len(pairs), self._size, dtype, lambda rows: self._delivered(masks(rows)))

    def _delivered(self, numbers: np.ndarray) -> np.ndarray:
        return np.where(numbers < 0, self.ignored if self._ignore is not None else 0, numbers)

    def _pixels(self, path: str) -> np.ndarray:
        image = _opened(path)
        if self._mode != "16":
            image = image.convert(self._mode)
        if image.size != self._size[::-1]:
            image = image.resize(self._size[::-1], Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels if pixels.ndim == 3 else pixels[..., np.newaxis]

    def _numbers(self, path: str) -> np.ndarray:
        """The classes of a mask, int64 (height, width); -1 where they do not count."""
        image = _opened(path)
        # Transparency says nothing about classes.
        image = image.convert({"LA": "L", "La": "L", "PA": "P", "RGBA": "RGB"}.get(image.mode, image.mode))
        if image.size != self._size[::-1]:
            image = image.resize(self._size[::-1], Image.Resampling.NEAREST)
        stored = np.asarray(image)
        if stored.ndim == 3:
            if (stored != stored[..., :1]).any():
                raise UserError(
                    f"{path}: is a mask of colours; save it with the number of a class in each pixel, in grey"
                )
            stored = stored[..., 0]
        stored = stored.astype(np.int64)
        counts = stored != self._ignore if self._ignore is not None else np.ones(stored.shape, bool)
        numbers = stored
        if len(self._labels):
            order = np.argsort(self._labels)
            places = np.searchsorted(self._labels, stored, sorter=order).clip(max=len(order) - 1)
            numbers = order[places]
            if len(wrong := stored[counts & (self._labels[numbers] != stored)]):
                raise UserError(f"{path}: has label {wrong[0]}, which --label-values does not name; fix one of them")
        numbers = np.where(counts, numbers, -1)
        if len(wrong := numbers[counts & ((numbers < 0) | (numbers >= _MOST_LABELS))]):
            raise UserError(f"{path}: has label {wrong[0]}, which is no class number; fix the mask")
        return numbers


def _by_stem(folder: Path, option: str) -> dict[str, str]:
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        raise UserError(f"{option} {folder}: cannot be listed ({reason(error)}); give the right folder") from error
    found: dict[str, str] = {}
    for name in names:
        stem, ending = os.path.splitext(name)
        if name.startswith(".") or ending.lower() not in _ENDINGS:
            continue
        if stem in found:
            raise UserError(
                f"{folder / name}: {os.path.basename(found[stem])} has the same name; keep only one of them"
            )
        found[stem] = os.fspath(folder / name)
    if not found:
        raise UserError(f"{option} {folder}: holds no pictures ({' '.join(_ENDINGS)}); give the right folder")
    return found


def _kind(path: str) -> tuple[tuple[int, int], str]:
    """(height, width) of a picture and how it becomes pixels: "L", "RGB", or "16" for grey of 16 bits."""
    image = _opened(path)
    if image.mode in _DEEP:
        return image.size[::-1], "16"
    return image.size[::-1], "L" if image.mode in _GREY else "RGB"


def _opened(path: str) -> Image.Image:
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except UnidentifiedImageError as error:
        raise UserError(f"{path}: is not an image, or damaged; fix it or move it away") from error
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        most = 2 * Image.MAX_IMAGE_PIXELS
        raise UserError(
            f"{path}: has more than {most} pixels by its header; shrink it, or allow that with --max-pixels"
        ) from error
    # Pillow raises many kinds of errors for damaged files.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as an image ({reason(error)}); fix it or move it away") from error


def _some(paths: list[str]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(paths[:_SHOWN]) + more


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
