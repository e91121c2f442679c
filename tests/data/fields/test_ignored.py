"""Maps without an axis of channels, and labels that do not count: from verify and stats to shards and training."""

import h5py
import numpy as np
import pytest

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.fields.options import FieldOptions
from hpc_train.data.inspect import command as inspect
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack import command as shard
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.statistics import command as stats
from hpc_train.data.statistics import load_statistics
from hpc_train.data.verify import command as verify
from hpc_train.errors import UserError
from hpc_train.prepare.arrays import command as arrays

SHAPE = (6, 5)
NAMED = {"inputs": ("x",), "targets": ("y",)}
NAMES = ("glaze", "crack")


def made(samples=4):
    draw = np.random.default_rng(2)
    inputs = draw.integers(0, 256, (samples, *SHAPE)).astype("u1")
    return inputs, np.array([0, 1, 255])[draw.integers(0, 3, (samples, *SHAPE))].astype("u1")


@pytest.fixture(params=["contiguous", "chunked"])
def tiles(request, tmp_path):
    """(file, inputs, labels) of maps (n, height, width) of one channel; 255 does not count."""
    inputs, labels = made()
    how = {"chunks": (1, *SHAPE), "compression": "gzip"} if request.param == "chunked" else {}
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file.create_dataset("x", data=inputs, **how)
        file.create_dataset("y", data=labels, **how)
    return tmp_path / "tiles.h5", inputs, labels


@pytest.mark.parametrize("how", ["auto", "h5py"])
def test_maps_of_one_channel_get_an_axis_for_it(tiles, how):
    path, inputs, labels = tiles
    asked = DataOptions(path, **NAMED, channels="none").catalogue(None)
    assert (asked.input_shape, asked.channel_axis, asked.target_shape) == ((*SHAPE, 1), 2, SHAPE)
    # Where labels have the shape of the samples, nothing else can be meant.
    known = FieldOptions(path, **NAMED, ignore_label=255, class_names=NAMES).catalogue(None)
    for catalogue in (asked, known):
        x, y = Reader(catalogue, how=how, ignore=255).read([3, 0])
        np.testing.assert_array_equal(x, inputs[[3, 0]][..., None])
        np.testing.assert_array_equal(y, labels[[3, 0]])
    # Others may mean sequences of steps, or features.
    assert DataOptions(path, **NAMED).catalogue(None).input_shape == SHAPE


def test_what_the_axes_are_taken_for_is_said(tiles, tmp_path, capsys):
    path, inputs, _ = tiles
    inspect.run(inspect.Inspect(data=path, **NAMED))
    said = capsys.readouterr().out
    assert "axes: the last axis of a sample (6, 5) is taken for 5 channels; for maps" in said
    inspect.run(inspect.Inspect(data=path, **NAMED, channels="none"))
    assert "axes: a sample (6, 5) is taken for a map (height, width) of one channel" in capsys.readouterr().out
    stats.run(stats.Stats(data=path, **NAMED, class_names=NAMES, ignore_label=255, output=tmp_path))
    assert "note: a sample (6, 5) is taken for a map (height, width) of one channel" in capsys.readouterr().out
    np.testing.assert_allclose(load_statistics(tmp_path / "statistics.h5").mean, [inputs.mean()])
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"], file["y"] = inputs, np.zeros(4, "u1")
    stats.run(stats.Stats(data=tmp_path / "other.h5", **NAMED, classes=1, output=tmp_path))
    assert "note: the last axis of a sample (6, 5) is taken for 5 channels" in capsys.readouterr().out


def test_an_ignored_label_is_no_fault_and_is_not_counted(tiles, tmp_path, capsys):
    path, _, labels = tiles
    known = {"data": path, **NAMED, "class_names": NAMES}
    with pytest.raises(UserError, match="1 thing is broken"):
        verify.run(verify.Verify(**known))
    assert "label 255, outside the 2 classes" in capsys.readouterr().out
    verify.run(verify.Verify(**known, ignore_label=255))
    assert "no faults found\n" in capsys.readouterr().out
    stats.run(stats.Stats(**known, ignore_label=255, output=tmp_path))
    counts = load_statistics(tmp_path / "statistics.h5").class_counts
    np.testing.assert_array_equal(counts, np.bincount(labels[labels < 255]))


def test_shards_keep_the_ignored_label_and_every_command_knows_it(tiles, tmp_path, capsys):
    path, inputs, labels = tiles
    folder = tmp_path / "shards"
    asked = {"data": path, **NAMED, "channels": "none", "class_names": NAMES, "output": folder, "shards": 1}
    with pytest.raises(UserError, match=r"has label 255 at .*outside the 2 classes"):
        shard.run(shard.Shard(**asked))
    shard.run(shard.Shard(**asked, ignore_label=255))
    with h5py.File(folder / "train-00000-of-00001.h5") as file:
        assert (file.attrs["ignore_label"], file.attrs["target_max"]) == (255, 1)
        np.testing.assert_array_equal(file["inputs"], inputs[..., None])
        np.testing.assert_array_equal(file["targets"], labels)
    verify.run(verify.Verify(data=folder))
    assert "no faults found" in capsys.readouterr().out
    stats.run(stats.Stats(data=folder))
    np.testing.assert_array_equal(
        load_statistics(folder / "statistics.h5").class_counts, np.bincount(labels[labels < 255])
    )
    chosen = FieldOptions(folder)
    catalogue = chosen.catalogue()
    _, stored = Reader(catalogue, ignore=chosen.ignored_label(catalogue)).read([0, 1])
    classes = chosen.classes_of(catalogue).apply(stored)
    np.testing.assert_array_equal(classes, np.where(labels[:2] == 255, -1, labels[:2].astype(int)))
    # A trainer that knows no ignored labels must not take 255 for a class.
    with pytest.raises(UserError, match="has label 255"):
        Reader(DataOptions(folder).catalogue()).read([0])
    again = tmp_path / "again"
    shard.run(shard.Shard(data=folder, output=again, shards=1))
    assert Catalogue.open(again).ignore_label == 255


def test_a_whole_shard_may_be_ignored(tmp_path):
    inputs, labels = np.zeros((2, *SHAPE, 1), "u1"), np.full((2, *SHAPE), 255, "u1")
    labels[1] = 1
    write_shards(tmp_path, "train", inputs, labels, classes=2, shards=2, ignore_label=255)
    assert Catalogue.open(tmp_path).samples == 2


@pytest.mark.parametrize("dtype", ["u1", "f4"])
def test_arrays_become_shards_with_an_axis_of_channels_names_and_an_ignored_label(tmp_path, dtype):
    inputs, labels = made()
    np.savez(tmp_path / "tiles.npz", x=inputs, y=labels.astype(dtype))
    known = {"inputs": "x", "targets": "y", "data": tmp_path / "tiles.npz", "test_fraction": 0.0, "shards": 1}
    more = {"class_names": NAMES, "channels": "none", "geometry": "picture", "output": tmp_path / "shards"}
    with pytest.raises(UserError, match="row 0 has label 255"):
        arrays.run(arrays.Arrays(**known, **more))
    arrays.run(arrays.Arrays(**known, **more, ignore_label=255))
    catalogue = Catalogue.open(tmp_path / "shards")
    assert (catalogue.class_names, catalogue.geometry, catalogue.ignore_label) == (NAMES, "picture", 255)
    x, y = Reader(catalogue, ignore=255).read(range(4))
    np.testing.assert_array_equal(x, inputs[..., None])
    np.testing.assert_array_equal(y, labels)
    with pytest.raises(UserError, match="--ignore-label is for class numbers"):
        arrays.run(arrays.Arrays(**known, output=tmp_path, ignore_label=255))


@pytest.mark.parametrize(("ignored", "expected"), [(0, [-1, 0, 1, 2]), (2, [None, 0, -1, 2])])
def test_an_ignored_label_beside_label_values_is_not_taken_for_a_class(tmp_path, ignored, expected):
    """Labels 1 to 3 are classes 0 to 2: an ignored label 0 must not take class 0 with it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((1, 2, 2, 1), "f4")
        file["y"] = np.array([[[0 if ignored == 0 else 3, 1], [2, 3]]], "u1")
    chosen = FieldOptions(tmp_path / "a.h5", **NAMED, label_values=("1..3",), ignore_label=ignored)
    catalogue = chosen.catalogue(None)
    _, labels = Reader(catalogue, ignore=ignored).read([0])
    classes = chosen.classes_of(catalogue).apply(labels).ravel().tolist()
    assert classes == [expected[0] if ignored == 0 else 2, *expected[1:]]
    total = stats.count(catalogue, 0, 1, ignore=ignored).class_counts
    assert total.tolist() == ([1, 1, 1] if ignored == 0 else [1, 0, 2])
