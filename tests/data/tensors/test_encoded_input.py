"""JPEG images from shards to batches: what is cut out of them, in which order, and what damaged ones say."""

import io
import math

import numpy as np
import pytest
from jpegs import flipped, hollow, jpeg, overwrite, smooth, without_checksums, write
from PIL import Image
from realdata import real_data

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reading.encoded_reader import EncodedReader
from hpc_train.data.shards.encoded import write_encoded_shards
from hpc_train.errors import UserError

SIZE = 16
COUNTS = {"train": 24, "test": 11}


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("jpeg")
    return folder, write(folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Images of the wanted size, but for one among the training data; another one is grey."""
    folder = tmp_path_factory.mktemp("whole")
    files = {split: [jpeg(smooth(SIZE, SIZE, number)) for number in range(count)] for split, count in COUNTS.items()}
    files["train"][2] = jpeg(smooth(SIZE + 4, SIZE + 7))
    files["train"][5] = jpeg(smooth(SIZE, SIZE, 5)[..., 0])
    for split, count in COUNTS.items():
        write_encoded_shards(folder, split, files[split], np.arange(count) % 3, classes=3, shards=2)
    return folder, files


@pytest.fixture(params=["images", "whole"])
def either(request):
    return request.getfixturevalue(request.param)


def opened(folder, split="train", size=SIZE, **options):
    from hpc_train.data.tensors.jpeg_input import JpegInput

    return JpegInput(EncodedReader(Catalogue.open(folder, split).resized(size)), threads=2, **options)


def pixels(file):
    import tensorflow as tf

    return tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE").numpy()


def bilinear(image, size):
    """Resized with the centres of pixels at halves, float64; nothing is averaged."""
    ranges = []
    for length in image.shape[:2]:
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        ranges.append((low, np.minimum(low + 1, length - 1), at - low))
    (top, bottom, down), (left, right, across) = ranges
    down, across = down[:, None, None], across[None, :, None]
    image = image.astype(float)
    upper = image[top][:, left] * (1 - across) + image[top][:, right] * across
    lower = image[bottom][:, left] * (1 - across) + image[bottom][:, right] * across
    return upper * (1 - down) + lower * down


def window_of(draws, height, width):
    """The random part of an image, one try after the other (Szegedy et al. 2015, section 6)."""
    for area, aspect, y, x in draws.reshape(10, 4).astype(float):
        area = (0.08 + 0.92 * area) * height * width
        aspect = (3 / 4) ** (1 - aspect) * (4 / 3) ** aspect
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if h <= height and w <= width:
            return int(y * (height - h + 1)), int(x * (width - w + 1)), h, w
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side, side


@pytest.mark.parametrize(("height", "width"), [(375, 500), (40, 30), (20, 200)])
def test_random_parts_are_those_of_the_paper(height, width):
    import tensorflow as tf

    from hpc_train.data.tensors.jpeg import random_window

    found, fallen_back = [], 0
    draws = np.random.default_rng(0).random((200, 40), np.float32)

    @tf.function
    def windows(draws):
        return tf.map_fn(lambda numbers: random_window([height, width], numbers), draws, fn_output_signature=tf.int32)

    for window, numbers in zip(windows(draws).numpy().tolist(), draws, strict=True):
        assert window == list(window_of(numbers, height, width))
        y, x, h, w = window
        assert 0 <= y <= height - h
        assert 0 <= x <= width - w
        fallen_back += (h, w) == (min(height, width),) * 2
        found.append((h * w / (height * width), w / h))
    areas, aspects = np.array(found).T
    if height == 20:
        # Ten times as wide as high: nothing above a tenth of the area fits.
        assert fallen_back > 10
        assert areas.max() < 0.15
    else:
        assert areas.min() > 0.07
        assert 0.70 < aspects.min() < 0.85
        assert 1.2 < aspects.max() < 1.4
        # Small parts fit more easily than those of nearly the whole area.
        assert 0.4 < areas.mean() < 0.54


@pytest.mark.parametrize(("height", "width", "size"), [(48, 64, 16), (64, 40, 32), (128, 96, 16)])
def test_validation_takes_seven_eighths_of_the_shorter_side_from_the_centre(height, width, size):
    from hpc_train.data.tensors.jpeg import validation_transform

    file = jpeg(smooth(height, width), quality=100, subsampling=0)
    side = round(min(height, width) * 224 / 256)
    top, left = (height - side) // 2, (width - side) // 2
    # Decoding shrinks it, by averaging 2 x 2 or 4 x 4 pixels, while it stays at least as large as is wanted.
    ratio = 2 ** int(math.log2(max(1, side // size)))
    shrunk = pixels(file).reshape(height // ratio, ratio, width // ratio, ratio, 3).mean((1, 3))
    top, left, side = top // ratio, left // ratio, side // ratio
    expected = bilinear(shrunk[top : top + side, left : left + side], size)
    found = validation_transform(size)(file).numpy()
    assert (found.shape, found.dtype) == ((size, size, 3), np.uint8)
    assert np.abs(found - expected).max() <= (1.5 if ratio == 1 else 8)
    assert np.abs(found - expected).mean() < 2


def test_an_image_of_the_size_that_is_wanted_is_taken_as_it_is():
    from hpc_train.data.tensors.jpeg import training_transform, validation_transform

    file = jpeg(smooth(32, 32), subsampling=0)
    np.testing.assert_array_equal(validation_transform(32)(file), pixels(file))
    np.testing.assert_array_equal(training_transform(32, "centre")(file, [1, 2]), pixels(file))


def test_training_resizes_the_random_part_and_mirrors_half_of_the_images():
    import tensorflow as tf

    from hpc_train.data.tensors.jpeg import training_transform

    file = jpeg(smooth(30, 25), quality=100, subsampling=0)
    transform = training_transform(SIZE)
    seeds = np.stack([np.full(40, 9), np.arange(40)], 1)

    @tf.function
    def images(seeds):
        return tf.map_fn(lambda seed: transform(file, seed), seeds, fn_output_signature=tf.uint8)

    mirrored = 0
    for sample, found in enumerate(images(seeds).numpy()):
        draws = tf.random.stateless_uniform([41], [9, sample], alg="philox").numpy()
        y, x, h, w = window_of(draws[1:], 30, 25)
        expected = bilinear(pixels(file)[y : y + h, x : x + w], SIZE)
        expected = expected[:, ::-1] if draws[0] < 0.5 else expected
        mirrored += draws[0] < 0.5
        assert np.abs(found - expected).max() <= 1.5
    assert 8 < mirrored < 32


@pytest.mark.parametrize("mode", ["L", "CMYK", "progressive"])
def test_jpegs_of_other_kinds_become_rgb(mode):
    from hpc_train.data.tensors.jpeg import training_transform, validation_transform

    image = Image.fromarray(smooth(40, 50))
    file = jpeg(image, progressive=True) if mode == "progressive" else jpeg(image.convert(mode))
    for found in (validation_transform(SIZE)(file), training_transform(SIZE)(file, [0, 1])):
        assert found.shape == (SIZE, SIZE, 3)
    if mode == "L":
        np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_batches_are_the_same_on_any_number_of_ranks_and_after_a_resume(images):
    folder, _ = images
    source = opened(folder)
    one, two = TrainPlan(24, 4, 1, 5), TrainPlan(24, 2, 2, 5)
    steps = 2 * one.steps()
    whole = [(x.numpy(), y.numpy()) for x, y in source.training(one, 0, 0, 0, steps)]
    assert len(whole) == steps
    parts = [list(source.training(two, rank, 0, 0, steps)) for rank in range(2)]
    for (x, y), *shares in zip(whole, *parts, strict=True):
        np.testing.assert_array_equal(x, np.concatenate([part for part, _ in shares]))
        np.testing.assert_array_equal(y, np.concatenate([labels for _, labels in shares]))
    resumed = list(opened(folder, read_ahead=1).training(one, 0, 0, 8, steps - 2))
    for (x, y), (again, labels) in zip(whole[2:], resumed, strict=True):
        np.testing.assert_array_equal(x, again)
        np.testing.assert_array_equal(y, labels)
    other = next(iter(source.training(TrainPlan(24, 4, 1, 6), 0, 0, 0, 1)))[0].numpy()
    assert (whole[0][0] != other).any()


def test_a_sample_is_cut_otherwise_in_every_epoch(images):
    plan = TrainPlan(24, 24, 1, 0)
    epochs = []
    for number, (x, _) in enumerate(opened(images[0]).training(plan, 0, 0, 0, 2)):
        order = np.argsort(plan.indices(number, 0, 0))
        epochs.append(x.numpy()[order])
    same = [(first == second).all() for first, second in zip(*epochs, strict=True)]
    assert not any(same)


@pytest.mark.parametrize("blocks", [False, True])
def test_labels_go_with_their_images_in_the_order_of_the_plan(either, blocks):
    from hpc_train.data.plan.order import BlockOrder
    from hpc_train.data.tensors.jpeg import validation_transform

    folder, files = either
    order = BlockOrder(24, 5, block=3, window=6, lanes=1, stride=6) if blocks else None
    plan = TrainPlan(24, 6, 1, 5, order)
    source = opened(folder, crop="centre")
    assert (source._whole is not None) == folder.name.startswith("whole")
    data = source.training(plan, 0, 2, 0, 4)
    assert data.element_spec[0].shape == (6, SIZE, SIZE, 3)
    assert data.cardinality() == 4
    transform = validation_transform(SIZE)
    for step, (x, y) in enumerate(data):
        indices = plan.indices(2, step, 0)
        np.testing.assert_array_equal(y, indices % 3)
        np.testing.assert_array_equal(x, [transform(files["train"][index]) for index in indices])


# In the last case one rank has no share.
@pytest.mark.parametrize(("samples", "batch", "ranks"), [(11, 4, 1), (11, 4, 3), (2, 1, 3)])
def test_validation_gives_every_image_once_and_can_be_repeated(either, samples, batch, ranks):
    from hpc_train.data.tensors.jpeg import validation_transform

    folder, files = either
    source, transform = opened(folder, "test"), validation_transform(SIZE)
    plan = ValidationPlan(samples, batch, ranks)
    for _ in range(2 if ranks == 1 else 1):
        rows = []
        for rank in range(ranks):
            data = source.validation(plan, rank)
            assert data.cardinality() == plan.steps
            batches = [x.numpy() for x, _ in data]
            assert len(batches) == plan.steps
            assert [len(x) for x in batches] == [max(1, plan.valid(step, rank)) for step in range(plan.steps)]
            rows += batches[: plan.real_steps(rank)]
        np.testing.assert_array_equal(np.concatenate(rows), [transform(file) for file in files["test"][:samples]])


@pytest.mark.parametrize(("change", "batch"), [(flipped, 4), (hollow, 1), (hollow, 4), (hollow, 24)])
def test_a_damaged_image_ends_fit_and_is_named(tmp_path, batch, change):
    import keras
    import tensorflow as tf

    write(tmp_path)
    path = tmp_path / "train-00001-of-00002.h5"
    overwrite(path, 3, change)
    if change is hollow:
        # Begins and ends as it should: it is known by its failure to decode alone.
        without_checksums(path)
    source = opened(tmp_path)
    model = keras.Sequential([keras.Input((SIZE, SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    with pytest.raises(tf.errors.OpError):
        model.fit(source.training(TrainPlan(24, batch, 1, 0), 0, 0, 0, 24 // batch), shuffle=False, verbose=0)
    assert isinstance(source.error, UserError)
    what = "differs from what was written" if change is flipped else "cannot be decoded as JPEG"
    assert f"{path}: row 3 (sample 15 of 'train') {what}" in str(source.error)


def cut(image):
    """A file whose second half is zeros, as after a crash."""
    return image[: len(image) // 2] + bytes(len(image) - len(image) // 2)


def test_a_cut_image_is_not_filled_up():
    from hpc_train.data.reading.whole_images import decode

    out = np.empty((SIZE, SIZE, 3), np.uint8)
    image = jpeg(smooth(SIZE, SIZE))
    assert decode(image, out)
    assert not any(decode(broken, out) for broken in (cut(image), image[:-2], image[: len(image) // 2]))


@pytest.mark.parametrize("change", [flipped, hollow])
def test_a_damaged_image_of_the_wanted_size_is_named(tmp_path, change):
    import tensorflow as tf

    from hpc_train.data.reading.whole_images import are_whole

    files = [jpeg(smooth(SIZE, SIZE, number)) for number in range(24)]
    write_encoded_shards(tmp_path, "train", files, np.zeros(24, int), classes=1, shards=2)
    # One that tells nothing of the size of all.
    path = tmp_path / "train-00000-of-00002.h5"
    overwrite(path, 2, change)
    if change is hollow:
        without_checksums(path)
    source = opened(tmp_path, crop="centre")
    assert are_whole(source.reader)
    with pytest.raises(tf.errors.OpError):
        list(source.training(TrainPlan(24, 4, 1, 0), 0, 0, 0, 6))
    what = "differs from what was written" if change is flipped else "cannot be decoded as JPEG"
    assert f"{path}: row 2 (sample 2 of 'train') {what}" in str(source.error)


def test_no_error_is_made_up_when_another_operation_fails(images):
    source = opened(images[0])
    next(iter(source.training(TrainPlan(24, 4, 1, 0), 0, 0, 0, 2)))
    assert source.error is None


def test_images_read_as_arrays_equal_those_of_validation_and_damage_is_named(tmp_path):
    from hpc_train.data.tensors.jpeg import DecodedReader, validation_transform

    files = write(tmp_path)
    reader = DecodedReader(EncodedReader(Catalogue.open(tmp_path, "test").resized(SIZE)))
    inputs, targets = reader.read(np.array([7, 0, 7]))
    np.testing.assert_array_equal(inputs, [validation_transform(SIZE)(files["test"][index]) for index in (7, 0, 7)])
    np.testing.assert_array_equal(targets, [1, 0, 1])
    path = tmp_path / "test-00000-of-00002.h5"
    overwrite(path, 2, hollow)
    without_checksums(path)
    damaged = DecodedReader(EncodedReader(Catalogue.open(tmp_path, "test").resized(SIZE)))
    with pytest.raises(UserError, match=r"test-00000-of-00002.h5: row 2 \(sample 2 of 'test'\) cannot be decoded"):
        damaged.read(np.arange(11))
    reader.close()
    damaged.close()


def test_statistics_are_of_the_decoded_images(images):
    from hpc_train.data.statistics.command import count
    from hpc_train.data.tensors.jpeg import validation_transform

    folder, files = images
    total = count(Catalogue.open(folder, "test").resized(SIZE), 0, 11)
    decoded = np.stack([validation_transform(SIZE)(file) for file in files["test"]]).astype(float)
    np.testing.assert_allclose(total.mean, decoded.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(total.std, decoded.std((0, 1, 2)), rtol=1e-6)
    np.testing.assert_array_equal(total.class_counts, np.bincount(np.arange(11) % 3))


def test_a_trained_model_predicts_images_decoded_to_the_size_that_it_takes(images, tmp_path, capsys):
    import h5py
    import keras

    from hpc_train import predict
    from hpc_train.data.tensors.jpeg import validation_transform

    folder, files = images
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    x = inputs = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x))
    model = keras.Model(inputs, keras.layers.Dense(3, name="logits")(x))
    model.save(run / "best.keras")
    predict.run(predict.Predict(run=run, data=folder, output=run / "p.h5", batch_size=4))
    assert "of 11 samples" in capsys.readouterr().out
    decoded = np.stack([validation_transform(SIZE)(file) for file in files["test"]])
    expected = keras.ops.softmax(model.predict_on_batch(decoded))
    with h5py.File(run / "p.h5") as file:
        np.testing.assert_allclose(file["probabilities"], expected, atol=1e-5)


def test_shards_of_one_image_can_be_read(tmp_path):
    write_encoded_shards(tmp_path, "train", [jpeg(smooth(20, 20))], np.array([0]), classes=1)
    ((x, y),) = opened(tmp_path).training(TrainPlan(1, 1, 1, 0), 0, 0, 0, 1)
    assert x.shape == (1, SIZE, SIZE, 3)
    assert y == [0]


def test_real_photographs_decode_as_with_another_decoder(tmp_path):
    from hpc_train.data.tensors.jpeg import DecodedReader

    with np.load(real_data("cifar10_jpeg") / "cifar10_test_jpeg.npz") as held:
        content, offset, labels = held["jpeg"], held["offset"], held["label"]
    chosen = np.random.default_rng(0).choice(len(labels), 64, replace=False)
    files = [content[offset[k] : offset[k + 1]].tobytes() for k in chosen]
    write_encoded_shards(tmp_path, "test", files, labels[chosen], classes=10)
    inputs, targets = DecodedReader(EncodedReader(Catalogue.open(tmp_path, "test").resized(32))).read(np.arange(64))
    expected = np.stack([np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in files]).astype(int)
    np.testing.assert_array_equal(targets, labels[chosen])
    # Two JPEG libraries may round differently.
    assert np.abs(inputs - expected).mean() < 0.5
