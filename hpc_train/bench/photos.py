"""Made-up photographs, where there are none at hand to measure decoding with."""

import io
from pathlib import Path

import numpy as np

_DISTINCT = 64


def write_photos(directory: Path, count: int, height: int, width: int, quality: int = 90) -> None:
    """Shards of `count` JPEG files, split train, in a folder.

    Noise whose amplitude falls with frequency as it does in photographs (1/f; Field 1987), in three channels that go
    together; 64 different ones, which are repeated: at 500 x 375 and quality 90 of about 117 kB each.
    """
    from hpc_train.data.shards.encoded import write_encoded_shards

    files = [_photo(np.random.default_rng(number), height, width, quality) for number in range(min(count, _DISTINCT))]
    images = [files[number % len(files)] for number in range(count)]
    write_encoded_shards(directory, "train", images, np.zeros(count, np.int64), classes=1, source="1/f noise")


def _photo(draw: np.random.Generator, height: int, width: int, quality: int) -> bytes:
    from PIL import Image

    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    fields = np.fft.irfft2(np.fft.rfft2(draw.normal(size=(4, height, width))) / frequency, (height, width))
    # Brightness, and a third as much of each colour.
    pixels = np.moveaxis(fields[0] + fields[1:] / 3, 0, -1)
    pixels = 128 + 50 * pixels / pixels.std()
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()
