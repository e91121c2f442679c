"""Class folders of small images for tests, and the shards that `hpc-train prepare image-folder` makes of them."""

import io
from itertools import pairwise

import h5py
import jpegs
import numpy as np
import pytest
import tyro
from PIL import Image

from hpc_train.errors import UserError
from hpc_train.prepare.command import Prepare, run


def pixels(height=24, width=32, seed=0):
    """A smooth picture, (height, width, 3) uint8, which JPEG keeps within a few values."""
    y, x = np.mgrid[:height, :width]
    return np.stack([3 * x + seed, 4 * y, 2 * x + 2 * y], -1).astype(np.uint8)


def jpeg(seed=0, **options):
    return jpegs.jpeg(pixels(seed=seed), **options)


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
