"""Augmentation acts on each training image, on no other, and continues from the state of its seeds."""

import numpy as np
import pytest

from hpc_train.errors import UserError


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    import keras

    return keras


def test_crop_flip_shifts_each_image_by_whole_pixels_and_flips_half(keras):
    from hpc_train.models import augment

    inputs = keras.Input((32, 32, 3))
    model = keras.Model(inputs, augment.crop_flip(inputs))
    images = np.random.default_rng(0).uniform(1, 2, (400, 32, 32, 3)).astype("float32")
    np.testing.assert_array_equal(model(images, training=False), images)
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    drawn = []
    for i, got in enumerate(np.asarray(model(images, training=True))):
        found = [
            (y, x, flip)
            for y in range(9)
            for x in range(9)
            for flip in (1, -1)
            if np.array_equal(got, padded[i, y : y + 32, x : x + 32][:, ::flip])
        ]
        assert len(found) == 1
        drawn += found
    for part, values in zip(zip(*drawn, strict=True), (range(9), range(9), (1, -1)), strict=True):
        counts = [part.count(value) for value in values]
        assert min(counts) > 0.4 * len(drawn) / len(values)
        assert max(counts) < 1.8 * len(drawn) / len(values)


def test_rand_augment_changes_training_images_only_and_keeps_their_range(keras):
    from hpc_train.models import augment

    inputs = keras.Input((16, 16, 3), dtype="uint8")
    keras.utils.set_random_seed(1)
    model = keras.Model(inputs, augment.rand_augment(inputs, 2, 0.5))
    images = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3)).astype("uint8")
    np.testing.assert_array_equal(model(images, training=False), images)
    got = np.asarray(model(images, training=True))
    assert got.dtype == np.float32
    assert got.min() >= 0
    assert got.max() <= 255
    assert not np.array_equal(got, images)


def test_augmentation_continues_from_the_state_of_its_seeds(keras):
    from hpc_train.models import augment
    from hpc_train.parallel.variables import is_seed

    inputs = keras.Input((16, 16, 3), dtype="uint8")
    model = keras.Model(inputs, augment.crop_flip(augment.rand_augment(inputs)))
    images = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3)).astype("uint8")
    seeds = [variable for variable in model.variables if is_seed(variable)]
    assert len(seeds) == len(model.variables) > 2
    kept = [np.asarray(seed) for seed in seeds]
    first = [np.asarray(model(images, training=True)) for _ in range(3)]
    assert not np.array_equal(first[0], first[1])
    for seed, value in zip(seeds, kept, strict=True):
        seed.assign(value)
    for earlier in first:
        np.testing.assert_array_equal(model(images, training=True), earlier)


@pytest.mark.parametrize(("operations", "magnitude", "channels"), [(0, 0.5, 3), (2, 0.0, 3), (2, 1.5, 3), (2, 0.5, 4)])
def test_an_impossible_rand_augment_is_refused(keras, operations, magnitude, channels):
    from hpc_train.models import augment

    with pytest.raises(UserError, match="RandAugment"):
        augment.rand_augment(keras.Input((8, 8, channels)), operations, magnitude)
