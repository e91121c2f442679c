"""Photographs of tiles with drawn defects: three ways to shards, and what the commands say of them."""

import h5py
import numpy as np
import pytest
from photographs import HEIGHT, WIDTH, tiles
from PIL import Image

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.fields.options import FieldOptions
from hpc_train.data.inspect import command as inspect
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack import command as shard
from hpc_train.data.statistics import command as stats
from hpc_train.data.statistics import load_statistics
from hpc_train.data.verify import command as verify
from hpc_train.prepare.arrays import command as arrays
from hpc_train.prepare.masks import command as masks

NAMES = ("glaze", "crack", "hole")


@pytest.fixture
def photographs(tmp_path):
    """(folder with tiles.h5, tiles.npz, images/ and masks/, pictures, labels)."""
    pictures, labels = tiles(10)
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["x"], file["y"] = pictures, labels
    np.savez(tmp_path / "tiles.npz", x=pictures, y=labels)
    for name, values in (("images", pictures), ("masks", labels)):
        (tmp_path / name).mkdir()
        for number, one in enumerate(values):
            Image.fromarray(one).save(tmp_path / name / f"tile{number}.png")
    return tmp_path, pictures, labels


def test_files_pictures_with_masks_and_npz_become_the_same_shards(photographs, capsys):
    folder, pictures, labels = photographs
    named = {"class_names": NAMES, "ignore_label": 255, "shards": 1}
    plain = {"inputs": "x", "targets": "y", "channels": "none", "geometry": "picture", "test_fraction": 0.0}
    places = {"images": str(folder / "images"), "masks": str(folder / "masks"), "test_fraction": 0.0}
    masks.run(masks.Masks(**places, **named, output=folder / "a"))
    arrays.run(arrays.Arrays(**plain, **named, data=folder / "tiles.npz", output=folder / "b"))
    stored = {"inputs": ("x",), "targets": ("y",), "channels": "none", "geometry": "picture"}
    shard.run(shard.Shard(data=folder / "tiles.h5", **stored, **named, output=folder / "c"))
    for name in "abc":
        catalogue = Catalogue.open(folder / name)
        assert (catalogue.class_names, catalogue.geometry, catalogue.ignore_label) == (NAMES, "picture", 255)
        x, y = Reader(catalogue, ignore=255).read(np.arange(10))
        np.testing.assert_array_equal(x, pictures[..., None])
        np.testing.assert_array_equal(y, labels)


def test_every_command_takes_them_for_pictures_of_three_classes(photographs, capsys):
    folder, pictures, labels = photographs
    places = {"images": str(folder / "images"), "masks": str(folder / "masks"), "test_fraction": 0.0}
    data = folder / "shards"
    masks.run(masks.Masks(**places, class_names=NAMES, ignore_label=255, output=data))
    inspect.run(inspect.Inspect(data=data))
    verify.run(verify.Verify(data=data))
    stats.run(stats.Stats(data=data))
    said = capsys.readouterr().out
    for line in ("classes: 3: glaze, crack, hole", "geometry: picture", "no faults found", "1 crack"):
        assert line in said
    found = load_statistics(data / "statistics.h5")
    np.testing.assert_allclose(found.mean, [pictures.mean()])
    np.testing.assert_array_equal(found.class_counts, np.bincount(labels[labels != 255]))
    options = FieldOptions(data, random_crop=(96, 64), augment=("flip", "mirror"))
    catalogue = options.catalogue()
    top, left, _ = options.transform(catalogue).draw(0, 0, np.arange(500)).T
    assert (top.max(), left.max()) == (HEIGHT - 96, WIDTH - 64)
    assert options.classes_of(catalogue).apply(labels[0]).min() == -1
