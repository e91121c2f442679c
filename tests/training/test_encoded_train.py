"""Trainers on JPEG shards and on synthetic data, on real ranks; messages about damage and impossible options."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from jpegs import hollow, overwrite, without_checksums, write
from launch import launch

from hpc_train.data.options import DataOptions, ReadOptions
from hpc_train.errors import UserError
from hpc_train.training.options import HeldOutOptions


def train(data, run, *arguments, ranks=2):
    options = ("--data", data, "--run", run, "--model", "fc", "--image-size", "16", "--batch-size", "4")
    return launch(ranks, "-m", "hpc_train.mnist", *map(str, options), "--no-histograms", *arguments, timeout=120)


def test_two_ranks_train_on_jpegs_and_name_a_damaged_one_of_the_held_out_split_once(tmp_path):
    write(tmp_path / "data", train=32, test=9)
    path = tmp_path / "data" / "test-00001-of-00002.h5"
    overwrite(path, 2, hollow)
    without_checksums(path)
    # The four steps of an epoch come before its validation.
    ended = train(tmp_path / "data", tmp_path / "run", "--checkpoint-every", "2", "--crop", "centre")
    assert "decoded to 16 x 16" in ended.output
    assert "of each image the centre" in ended.output
    assert list((tmp_path / "run" / "checkpoints").iterdir())
    assert ended.status != 0
    (error,) = [line for line in ended.output.splitlines() if "error: " in line]
    assert f"{path}: row 2 (sample 6 of 'test') cannot be decoded as JPEG" in error
    assert "Traceback" not in ended.output


@pytest.fixture
def options():
    options = vars(DataOptions(data=Path("synthetic"))) | vars(ReadOptions(image_size=8, synthetic_samples=100))
    return SimpleNamespace(**options, **vars(HeldOutOptions()), batch_size=4, seed=3)


def synthetic(options, rank=0):
    from hpc_train.parallel.world import World
    from hpc_train.training.feed import open_feed
    from hpc_train.training.synthetic import Synthetic

    feed = open_feed(options, World(rank, 2))
    assert isinstance(feed, Synthetic)
    return feed


def test_synthetic_data_are_one_batch_a_rank_that_comes_again(options):
    from hpc_train.data.plan import TrainPlan, ValidationPlan

    feed = synthetic(options)
    assert (feed.training.samples, feed.training.classes, feed.training.input_shape) == (100, 1000, (8, 8, 3))
    plan = TrainPlan(feed.training.samples, 4, 2, 3, feed.order(None))
    data = feed.batches(plan, 0, 0, 12)
    assert data.cardinality() == 12
    batches = [(x.numpy(), y.numpy()) for x, y in data]
    for x, y in batches:
        np.testing.assert_array_equal(x, batches[0][0])
        np.testing.assert_array_equal(y, batches[0][1])
    assert (x.shape, x.dtype, y.dtype) == ((4, 8, 8, 3), np.uint8, np.int32)
    # Even in 0 to 255.
    assert 110 < x.mean() < 145
    assert (next(iter(synthetic(options, rank=1).batches(plan, 0, 0, 1)))[0].numpy() != x).any()
    validation = ValidationPlan(feed.held_out.samples, 4, 2)
    assert (feed.held_out.samples, validation.steps) == (8, 1)
    assert feed.validation(validation).cardinality() == 1
    assert feed.error is None
    assert "random images of 8 x 8" in feed.description(plan)[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 0}, "--image-size is 0"),
        ({"synthetic_samples": 0}, "--synthetic-samples is 0"),
        ({"classes": 0}, "--classes is 0"),
        ({"test_data": "shards"}, "--test-data goes with data in files"),
        ({"inputs": ("x",)}, "--inputs goes with data in files"),
        ({"layout": "cam5"}, "--layout goes with data in files"),
    ],
)
def test_impossible_options_of_synthetic_data_are_one_line_on_every_rank(options, change, message):
    vars(options).update(change)
    with pytest.raises(UserError, match=message) as caught:
        synthetic(options)
    assert caught.value.every_rank


@pytest.mark.parametrize(
    ("options", "encoding", "message"),
    [
        ({"image_size": 0}, "jpeg", "--image-size is 0"),
        ({"image_size": 32}, "", "--image-size is for JPEG shards, but --data holds arrays"),
        ({"crop": "centre"}, "", "--crop is for JPEG shards, but --data holds arrays"),
    ],
)
def test_options_of_images_that_would_do_nothing_are_one_line_on_every_rank(options, encoding, message):
    ReadOptions().check_images(encoding)
    with pytest.raises(UserError, match=message) as caught:
        ReadOptions(**options).check_images(encoding)
    assert caught.value.every_rank


def test_synthetic_data_cannot_be_staged(options):
    from hpc_train.training.feed import staged

    assert staged(options) is options
    options.stage = "/tmp"
    with pytest.raises(UserError, match="--data synthetic has none"):
        staged(options)
