"""JPEG files and encoded shards for tests."""

import io

import numpy as np
from PIL import Image

from hpc_train.data.shards.encoded import write_encoded_shards


def encode(pixels, kind="JPEG", **options):
    """The file of uint8 pixels (height, width, 3) or (height, width), or of a Pillow image."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def jpeg(pixels, **options):
    """The same as a JPEG file that is near the original."""
    return encode(pixels, **{"quality": 95, **options})


def smooth(height, width, seed=0):
    """Smooth random pixels, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def jpegs(count, low=20, high=60, seed=0):
    """Files of images of many sizes."""
    draw = np.random.default_rng(seed)
    return [jpeg(smooth(*draw.integers(low, high, 2), number)) for number in range(count)]


def write(folder, train=24, test=11, classes=3, **options):
    """Shards of the splits train and test; returns the files of both."""
    files = {"train": jpegs(train, **options), "test": jpegs(test, seed=1, **options)}
    for split, images in files.items():
        write_encoded_shards(folder, split, images, np.arange(len(images)) % classes, classes=classes, shards=2)
    return files


def overwrite(path, row, change):
    """Change an image of a shard where it lies: change(bytes) -> bytes of the same length."""
    import h5py

    with h5py.File(path, "r+") as file:
        start, stop = file["extents"][row : row + 2]
        changed = change(file["inputs"][start:stop].tobytes())
        assert len(changed) == stop - start
        file["inputs"][start:stop] = np.frombuffer(changed, np.uint8)


def without_checksums(path):
    """Take the checksums out of a shard, as another program may write it."""
    import h5py

    with h5py.File(path, "r+") as file:
        del file["checksums"]


def flipped(image):
    """An image with one byte changed in its middle."""
    middle = len(image) // 2
    return image[:middle] + bytes([image[middle] ^ 0x10]) + image[middle + 1 :]


def hollow(image):
    """The first and last bytes of a JPEG file, and nothing that could be decoded between them."""
    return image[:3] + bytes(len(image) - 5) + image[-2:]
