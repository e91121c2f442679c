"""Batches of fields as training and validation have them: turned, mirrored, cut out and with the classes asked for."""

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from hpc_train.data.fields.options import FieldOptions
from hpc_train.data.options import ReadOptions
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError
from hpc_train.training.options import HeldOutOptions

SAMPLES, SHAPE, SEED = 12, (10, 16), 3


@dataclass(frozen=True)
class Stored:
    """Data on disk and in memory; values: float64 (n, height, width, channels), what the stored numbers mean."""

    folder: Path
    names: tuple[str, ...]
    stored: np.ndarray
    values: np.ndarray
    labels: np.ndarray
    options: dict


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """Shards (height, width, channels) of float32."""
    folder = tmp_path_factory.mktemp("floats")
    draw = np.random.default_rng(0)
    values = draw.normal(size=(SAMPLES, *SHAPE, 3)).astype("f4")
    labels = draw.integers(0, 3, (SAMPLES, *SHAPE)).astype("u1")
    names = ("U850", "V850", "TMQ")
    write_shards(folder, "train", values, labels, classes=3, class_names=("background", "tc", "ar"))
    return Stored(folder, names, values, values.astype("f8"), labels, {"meridional": ("V850",)})


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A NetCDF-4 file of int16 variables u10, v10 and q, which become (channels, height, width)."""
    folder = tmp_path_factory.mktemp("packed")
    draw = np.random.default_rng(1)
    names, packing = ("u10", "v10", "q"), ((0.05, 1.0), (0.05, 2.0), (1e-3, 0.0))
    stored = draw.integers(-32768, 32767, (SAMPLES, 3, *SHAPE)).astype("i2")
    labels = draw.integers(0, 3, (SAMPLES, *SHAPE)).astype("u1")
    with h5py.File(folder / "a.nc", "w") as file:
        file["y"] = labels
        for number, (name, (scale, offset)) in enumerate(zip(names, packing, strict=True)):
            file[name] = stored[:, number]
            file[name].attrs.update(scale_factor=scale, add_offset=offset)
    scale, offset = np.array(packing).T[..., None, None]
    values = np.moveaxis(stored * scale + offset, 1, -1)
    options = {"inputs": names, "targets": ("y",), "classes": 3}
    return Stored(folder, names, stored, values, labels, options)


def opened(stored, **options):
    """(the transform, the input) for the options."""
    from hpc_train.data.tensors.pipeline import Input

    turned = stored.options if "flip" in options.get("augment", ()) else {**stored.options, "meridional": ()}
    chosen = FieldOptions(stored.folder, **(turned | options))
    catalogue = replace(chosen.catalogue(), channel_names=stored.names)
    transform = chosen.transform(catalogue)
    return transform, Input(Reader(catalogue, ignore=chosen.ignore_label), transform=transform)


def meant(stored, batch):
    """What a batch as stored means: float64 (b, height, width, channels)."""
    if stored.stored.dtype.kind == "f":
        return batch.astype("f8")
    scale, offset = (0.05, 0.05, 1e-3), (1.0, 2.0, 0.0)
    return np.moveaxis(batch, 1, -1) * np.array(scale) + np.array(offset)


def epoch(stored, source, batch=2, ranks=1, epoch=0, position=0):
    """{sample: (values, classes)} of an epoch, from all ranks."""
    plan = TrainPlan(SAMPLES, batch, ranks, SEED)
    found = {}
    for rank in range(ranks):
        steps = plan.steps(position)
        for step, (x, y) in enumerate(source.training(plan, rank, epoch, position, steps)):
            rows = zip(plan.indices(epoch, step, rank, position), meant(stored, x.numpy()), y.numpy(), strict=True)
            found |= {int(sample): (values, classes) for sample, values, classes in rows}
    return found


@pytest.mark.parametrize("kind", ["floats", "packed"])
def test_training_takes_the_parts_that_were_drawn_and_turns_the_sign_of_mirrored_winds(request, kind):
    stored = request.getfixturevalue(kind)
    height, width = 6, 11
    transform, source = opened(stored, augment=("roll", "flip"), random_crop=(height, width), class_map=(0, 2, 1))
    shape = (2, height, width, 3) if kind == "floats" else (2, 3, height, width)
    assert source.training(TrainPlan(SAMPLES, 2, 1, SEED), 0, 0, 0, 2).element_spec[0].shape == shape
    mirrored, across = 0, 0
    for number in (0, 1):
        found = epoch(stored, source, epoch=number)
        assert len(found) == SAMPLES
        for sample, (values, classes) in found.items():
            top, left, flip = transform.draw(SEED, number, np.array([sample]))[0]
            rows = np.arange(top, top + height)[:: -1 if flip else 1]
            columns = np.arange(left, left + width) % SHAPE[1]
            expected = stored.values[sample][np.ix_(rows, columns)]
            expected *= (1, -1 if flip else 1, 1)
            # Half a step of the packing; and the lowest number has no opposite.
            tolerance = 0 if kind == "floats" else (1e-9, 0.0251, 1e-9)
            lowest = 0 if kind == "floats" else -expected
            near = np.abs(values - expected) <= tolerance
            assert (near | (lowest > 32768 * 0.05)).all()
            np.testing.assert_array_equal(classes, np.array([0, 2, 1])[stored.labels[sample][np.ix_(rows, columns)]])
            mirrored, across = mirrored + flip, across + (left + width > SHAPE[1])
    assert 0 < mirrored < 2 * SAMPLES
    assert across


def test_maps_of_a_part_of_the_earth_are_neither_turned_nor_mirrored_and_parts_stay_within_them(tmp_path):
    latitudes, longitudes = np.arange(10.0), np.arange(-70.0, -54.0)
    values, labels = np.zeros((2, *SHAPE, 1), "f4"), np.zeros((2, *SHAPE), "u1")
    places = {"latitude": latitudes, "longitude": longitudes}
    write_shards(tmp_path, "train", values, labels, classes=2, shards=1, coordinates=places, channel_names=("V850",))
    for option, said in (("roll", "16 longitudes, which do not go"), ("flip", "10 latitudes, which are not symmetric")):
        chosen = FieldOptions(tmp_path, augment=(option,))
        with pytest.raises(UserError, match=f"train-00000-of-00001.h5: has {said}.*leave --augment {option} out"):
            chosen.transform(chosen.catalogue())
    chosen = FieldOptions(tmp_path, random_crop=(4, 6))
    lefts = chosen.transform(chosen.catalogue()).draw(SEED, 0, np.arange(300))[:, 1]
    assert (lefts.min(), lefts.max()) == (0, SHAPE[1] - 6)


def test_every_row_column_and_side_of_the_equator_is_drawn_about_as_often(floats):
    transform, _ = opened(floats, augment=("roll", "flip"), random_crop=(7, 5))
    drawn = transform.draw(SEED, 0, np.arange(3000))
    for column, values in enumerate((SHAPE[0] - 7 + 1, SHAPE[1], 2)):
        counts = np.bincount(drawn[:, column], minlength=values)
        assert len(counts) == values
        # Six standard deviations of a binomial count.
        expected = 3000 / values
        assert np.abs(counts - expected).max() < 6 * np.sqrt(expected)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_sample_varies_alike_on_any_number_of_ranks_and_after_a_resume(floats, batch):
    _, source = opened(floats, augment=("roll", "flip"), random_crop=(5, 5))
    whole = epoch(floats, source, 2)
    other = epoch(floats, source, batch, ranks=2)
    resumed = epoch(floats, source, 2, position=6)
    assert len(other) == SAMPLES
    assert len(resumed) == SAMPLES - 6
    for found in (other, resumed):
        for sample, parts in found.items():
            for mine, theirs in zip(parts, whole[sample], strict=True):
                np.testing.assert_array_equal(mine, theirs)
    again = epoch(floats, source, 2, epoch=1)
    assert any((again[sample][0] != whole[sample][0]).any() for sample in whole)


def test_validation_has_whole_maps_with_the_classes_asked_for(packed):
    _, source = opened(packed, augment=("roll",), random_crop=(4, 4), class_map=(0, 1, 1), ignore_label=2)
    batches = list(source.validation(ValidationPlan(SAMPLES, 5, 1), 0))
    np.testing.assert_array_equal(np.concatenate([x for x, _ in batches]), packed.stored)
    classes = np.concatenate([y for _, y in batches])
    np.testing.assert_array_equal(classes, np.array([0, 1, -1])[packed.labels])


def test_maps_that_nothing_is_asked_of_come_as_they_are_stored(floats):
    transform, source = opened(floats)
    assert transform is None
    for x, y in source.training(TrainPlan(SAMPLES, 4, 1, SEED), 0, 0, 0, 1):
        indices = TrainPlan(SAMPLES, 4, 1, SEED).indices(0, 0, 0)
        np.testing.assert_array_equal(x, floats.stored[indices])
        assert y.dtype == "uint8"


def test_a_mirrored_cyclone_turns_the_other_way():
    """By the curl of the wind, taken with NumPy: a mirror image has the opposite one at the opposite latitude."""
    from hpc_train.data.catalogue.class_map import ClassMap
    from hpc_train.data.tensors.field_transform import FieldTransform

    y, x = np.meshgrid(np.arange(12.0), np.arange(20.0), indexing="ij")
    bump = np.exp(-((y - 3) ** 2 + (x - 9) ** 2) / 8)
    wind = np.stack([-(y - 3) * bump, (x - 9) * bump], -1).astype("f4")
    curl = lambda wind: np.gradient(wind[..., 1], axis=1) - np.gradient(wind[..., 0], axis=0)  # noqa: E731
    stored = SimpleNamespace(
        channel_axis=2,
        input_shape=(12, 20, 2),
        target_shape=(12, 20),
        packing=((1.0, 0.0),),
        input_dtype=np.dtype("f4"),
        channel_names=("U850", "V850"),
    )
    transform = FieldTransform(stored, ClassMap((0, 1)), flip=True, turned=(1,))
    winds, _ = transform.training(wind[None], np.zeros((1, 12, 20), "u1"), np.array([[0, 0, 1]], "i4"))
    np.testing.assert_allclose(curl(winds[0].numpy())[::-1], -curl(wind), atol=1e-6)
    assert curl(wind)[3, 9] > 1.5


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"random_crop": (11, 4)}, "--random-crop 11 x 4 is larger than the maps, 10 x 16"),
        (
            {"augment": ("flip",), "meridional": ("W",)},
            "has no channel 'W' for --meridional; it has U850, V850, TMQ",
        ),
    ],
)
def test_maps_that_cannot_be_varied_as_asked_are_refused(floats, options, expected):
    with pytest.raises(UserError) as raised:
        opened(floats, **options)
    assert expected in str(raised.value)
    assert raised.value.every_rank


def test_winds_without_a_sign_or_without_names_are_not_mirrored(tmp_path):
    inputs, labels = np.zeros((4, *SHAPE, 2), "u1"), np.zeros((4, *SHAPE), "u1")
    write_shards(tmp_path / "shards", "train", inputs, labels, classes=2)
    chosen = FieldOptions(tmp_path / "shards", augment=("flip",))
    with pytest.raises(UserError, match="does not name its channels, so --augment flip cannot find the winds"):
        chosen.transform(chosen.catalogue())
    with h5py.File(tmp_path / "a.nc", "w") as file:
        file["u"], file["v"], file["y"] = inputs[..., 0], inputs[..., 1], labels
    chosen = FieldOptions(tmp_path / "a.nc", inputs=("u", "v"), targets=("y",), classes=2, augment=("flip",))
    with pytest.raises(UserError, match="uint8 cannot hold negative winds"):
        chosen.transform(chosen.catalogue())


@dataclass(frozen=True)
class Chosen(HeldOutOptions, FieldOptions):
    """What a trainer on fields has besides, of which these tests need little."""

    image_size: int = 224
    synthetic_samples: int = 50
    batch_size: int = 2
    seed: int = SEED


def test_synthetic_fields_have_every_class_and_the_statistics_they_say():
    from hpc_train.parallel.world import World
    from hpc_train.training.feed import open_feed

    chosen = Chosen(Path("synthetic"), field_size=(64, 96))
    feed = open_feed(chosen, World())
    plan = TrainPlan(feed.training.samples, 2, 1, SEED, feed.order(None))
    batches = [(x.numpy(), y.numpy()) for x, y in feed.batches(plan, 0, 0, 3)]
    assert len(batches) == 3
    x, y = batches[0]
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((2, 64, 96, 16), np.float32, (2, 64, 96), np.uint8)
    assert feed.description(plan) == ["synthetic: the same 2 random maps of 64 x 96 x 16 float32 at every step"]
    statistics = chosen.load_statistics()
    np.testing.assert_allclose(x.mean((0, 1, 2)), statistics.mean, atol=0.05)
    np.testing.assert_allclose(x.std((0, 1, 2)), statistics.std, atol=0.05)
    share = chosen.class_counts(statistics, 3) / chosen.class_counts(statistics, 3).sum()
    np.testing.assert_allclose(np.bincount(y.ravel()) / y.size, share, atol=0.03)
    with pytest.raises(UserError, match="--random-crop goes with data in files"):
        open_feed(Chosen(Path("synthetic"), random_crop=(4, 4)), World())
    with pytest.raises(UserError, match="--image-size is for images; --field-size"):
        open_feed(Chosen(Path("synthetic"), image_size=64), World())


@dataclass(frozen=True)
class Training(HeldOutOptions, ReadOptions, FieldOptions):
    """What a trainer on fields reads by."""

    batch_size: int = 2
    seed: int = SEED


def test_held_out_maps_have_the_channels_of_those_for_training_in_their_order(tmp_path, monkeypatch):
    from hpc_train import parallel
    from hpc_train.parallel.mpi import Alone
    from hpc_train.parallel.world import World
    from hpc_train.training.feed import open_feed

    # One process, without Horovod.
    monkeypatch.setattr(parallel, "Ranks", lambda world: Alone())
    values, labels = np.zeros((2, *SHAPE, 2), "f4"), np.zeros((2, *SHAPE), "u1")
    for folder, names in (("alike", ("u10", "v10")), ("turned", ("v10", "u10"))):
        for split, channels in (("train", ("u10", "v10")), ("test", names)):
            write_shards(tmp_path / folder, split, values, labels, classes=2, shards=1, channel_names=channels)
    assert open_feed(Training(tmp_path / "alike"), World()).held_out.channel_names == ("u10", "v10")
    with pytest.raises(UserError, match=r"test-00000-of-00001\.h5: has the channels v10, u10, but .* u10, v10"):
        open_feed(Training(tmp_path / "turned"), World())
    with pytest.raises(UserError, match="--field-size is for --data synthetic"):
        open_feed(Training(tmp_path / "alike", field_size=(64, 96)), World())
