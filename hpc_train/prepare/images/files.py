"""Reads one image file, decodes all of it, and turns it into a JPEG file or pixels in RGB."""

import io
import os
import re
import stat
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from hpc_train.data.hdf5.access import reason
from hpc_train.data.shards.format import JPEG_START

# Photographs do not come in Pillow's other formats, and some of those start other programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# EXIF 2.3, tag Orientation: how to turn each image upright.
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Baseline, extended sequential, progressive; with Huffman coding.
_COMMON_FRAMES = (0xC0, 0xC1, 0xC2)
# Within coded data, FF 00 stands for FF, and FF D0 to FF D7 mark places to restart from.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_KINDS = {"1": "grey", "L": "grey", "LA": "grey", "La": "grey", "CMYK": "CMYK", "P": "palette", "PA": "palette"}


class BadImage(Exception):
    """A file that cannot become a sample.

    Args:
        kind: the reason in a few words, by which bad images are counted.
        more: details for the message.
    """

    def __init__(self, kind: str, more: str = ""):
        super().__init__(f"{kind} ({more})" if more else kind)
        self.kind = kind


class Treatment(NamedTuple):
    """How to change images: the options of these names of `hpc-train prepare`."""

    size: int | None = None
    max_side: int | None = None
    quality: int = 95
    min_side: int = 8


class Prepared(NamedTuple):
    """A sample, and how it differs from its file."""

    data: bytes | np.ndarray
    """Bytes of a JPEG file, or pixels (size, size, 3) uint8."""
    changes: tuple[str, ...]
    """What was changed, in a few words each. Cutting off bytes after a JPEG file's end does not count."""


def limit_pixels(most: int) -> None:
    """Let Pillow refuse images of more pixels by their headers, in this process."""
    # Pillow refuses twice the number that it warns of.
    Image.MAX_IMAGE_PIXELS = -(-most // 2)
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


def prepare_image(path: str, treatment: Treatment) -> Prepared:
    """Turn the file at `path` into a sample; its content decides what it is, not its name.

    Raises:
        BadImage: it cannot become a sample.
    """
    raw = _read(path)
    try:
        with Image.open(io.BytesIO(raw), formats=_FORMATS) as image:
            if min(image.size) < treatment.min_side:
                raise BadImage(f"smaller than {treatment.min_side} pixels", f"{image.width} x {image.height}")
            image.load()
            return _prepared(raw, image, treatment)
    except (BadImage, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadImage("damaged" if raw.startswith(JPEG_START) else "not an image") from error
    except Image.DecompressionBombError as error:
        raise BadImage(f"more than {2 * Image.MAX_IMAGE_PIXELS} pixels (--max-pixels)") from error
    # Pillow raises many kinds of errors for damaged files.
    except Exception as error:
        if "truncated" in str(error).lower():
            raise BadImage("truncated") from error
        raise BadImage("damaged", reason(error)) from error


def _read(path: str) -> bytes:
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for its writer.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadImage("not a file")
            raw = file.read()
    except IsADirectoryError as error:
        raise BadImage("not a file") from error
    except OSError as error:
        raise BadImage("cannot be read", reason(error)) from error
    if not raw:
        raise BadImage("empty file")
    return raw


def _prepared(raw: bytes, image: Image.Image, treatment: Treatment) -> Prepared:
    changes, end = [], None
    if treatment.size is None:
        if image.format == "JPEG":
            frame, end = _structure(raw)
            if end is None:
                # Pillow reads such a file, but TensorFlow needs the end marker.
                raise BadImage("damaged", "no end marker")
            if frame not in _COMMON_FRAMES:
                changes.append("rare coding")
        else:
            changes.append(image.format)
    upright = _upright(image)
    rgb = image if image.mode == "RGB" and image.format == "JPEG" else _to_rgb(image, changes)
    if upright is not None:
        rgb = rgb.transpose(upright)
        changes.append("turned as its EXIF data say")
    if treatment.size:
        return Prepared(np.asarray(_square(rgb, treatment.size)), tuple(changes))
    longer = max(rgb.size)
    if treatment.max_side and longer > treatment.max_side:
        rgb = rgb.resize(_scaled(rgb.size, treatment.max_side / longer), Image.Resampling.BILINEAR)
        changes.append(f"larger than {treatment.max_side}")
    if not changes:
        return Prepared(raw[:end], ())
    file = io.BytesIO()
    rgb.save(file, "JPEG", quality=treatment.quality)
    return Prepared(file.getvalue(), tuple(changes))


def _to_rgb(image: Image.Image, changes: list[str]) -> Image.Image:
    """An RGB image of 8 bits without transparency; what it was before is added to `changes`."""
    mode = image.mode
    if mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise BadImage("pixels of 32 bits")
        changes.append("16 bit")
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if mode == "F":
        raise BadImage("pixels of 32 bits")
    if mode in _KINDS:
        changes.append(_KINDS[mode])
    if image.has_transparency_data:
        changes.append("alpha")
        # convert("RGB") would mix the transparency of a palette into its colours.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _upright(image: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION))
    # Damaged EXIF data do not make a bad image.
    except Exception:
        return None


def _square(image: Image.Image, size: int) -> Image.Image:
    shorter = min(image.size)
    if shorter != size:
        image = image.resize(_scaled(image.size, size / shorter), Image.Resampling.BILINEAR)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _scaled(sides: tuple[int, int], factor: float) -> tuple[int, int]:
    return tuple(max(1, round(side * factor)) for side in sides)


def _structure(raw: bytes) -> tuple[int | None, int | None]:
    """The marker of a JPEG file's frame header, which names the coding, and the place behind its end marker.

    Each is None if the file does not have it. ITU-T T.81, section B.1.1 and table B.1.
    """
    place, frame = 2, None
    while found := _MARKER.search(raw, place):
        marker, place = raw[found.end() - 1], found.end()
        if marker == 0xD9:
            return frame, place
        if marker in (0x01, 0xD8):
            continue
        if frame is None and 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            frame = marker
        place += int.from_bytes(raw[place : place + 2], "big")
    return frame, None
