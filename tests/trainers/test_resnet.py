"""The ResNet trainer from end to end, with the whole recipe at once: real ranks, real digits."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from launch import launch
from plain_keras import evaluate

from hpc_train import resnet
from hpc_train.errors import UserError

COMMON = ("--batch-size", "16", "--accumulate", "2", "--base-batch", "64", "--lr", "0.2", "--warmup-epochs", "0.5")
COMMON += ("--clip-norm", "5", "--label-smoothing", "0.1", "--ema", "0.9", "--no-histograms")
RESNET = ("-m", "hpc_train.resnet", "--model", "resnet8", "--epochs", "3", "--decay", "poly", "--sync-batch-norm")
HALF = ("-m", "hpc_train.mnist", "--model", "fc", "--augment", "--epochs", "3", "--precision", "float16")
HALF += ("--checkpoint-every", "10", "--layerwise", "larc", "--weight-decay", "1e-4")


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    """A run of 2 ranks with most of what the recipe has, and its output."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    ended = launch(2, *RESNET, *COMMON, "--data", str(digits), "--run", str(folder))
    assert ended.status == 0, ended.output
    (folder / "output").write_text(ended.output)
    return folder


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def last_checkpoint(run):
    with h5py.File(max((run / "checkpoints").glob("step-*.h5"))) as file:
        return {stored.attrs["name"]: stored[()] for stored in file["variables"].values()}


def test_it_learns_with_the_global_batch_of_all_micro_batches(run):
    assert "global batch 64, rate 0.1 -> 0.2" in (run / "output").read_text()
    assert [line["step"] for line in metrics(run)] == [1400 // 64 * epoch for epoch in (1, 2, 3)]
    assert metrics(run)[-1]["val_accuracy"] > 0.5


def test_what_is_saved_is_what_was_validated_and_needs_neither_horovod_nor_this_package(run, digits, tmp_path):
    saved = evaluate(run / "model.keras", digits, tmp_path)
    assert saved.optimizer == "SGD"
    assert saved.accuracy == pytest.approx(metrics(run)[-1]["val_accuracy"], abs=1e-6)


def test_a_run_in_half_precision_resumed_inside_an_epoch_ends_with_the_same_bits(digits, tmp_path):
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    ended = launch(2, *HALF, *COMMON, "--data", str(digits), "--run", str(whole))
    assert ended.status == 0, ended.output
    # Keras begins at 2^15 and lowers the scale when gradients overflow.
    assert 1 <= metrics(whole)[-1]["loss_scale"] <= 2**15
    shutil.copytree(whole, resumed)
    max((resumed / "checkpoints").glob("step-*.h5")).unlink()
    ended = launch(2, *HALF, *COMMON, "--data", str(digits), "--run", str(resumed), "--resume")
    assert ended.status == 0, ended.output
    assert "resuming after step 60: epoch 3, sample 1152" in ended.output
    got, want = last_checkpoint(resumed), last_checkpoint(whole)
    assert any("average" in name for name in want)
    assert any("scale" in name for name in want)
    assert [name for name in want if not np.array_equal(got[name], want[name])] == []
    assert metrics(resumed)[-1]["val_loss"] == metrics(whole)[-1]["val_loss"]


def test_options_that_would_do_nothing_are_refused():
    for chosen, message in (
        ({"init": Path("run"), "augment": "crop-flip"}, "--augment is for a new network"),
        ({"decay_at": (0.3,)}, "--decay step"),
        ({"reduction": "adasum"}, "--lr-scaling none"),
        ({"reduction": "adasum", "lr_scaling": "none", "wire_dtype": "float16"}, "--wire-dtype float16"),
        ({"decay_power": 1.0}, "--decay poly"),
        ({"momentum": 0.0}, "--no-nesterov"),
    ):
        with pytest.raises(UserError, match=message):
            resnet.run(resnet.Options(Path("data"), **chosen))


def images(shape=(32, 32, 3), dtype="uint8", classes=10):
    """What `build` asks of a catalogue."""
    return SimpleNamespace(
        input_shape=shape,
        input_dtype=np.dtype(dtype),
        targets=("k",),
        target_shape=(),
        target_dtype=np.dtype("int64"),
        classes=classes,
        channel_axis=2,
        packing=((1.0, 0.0),),
        files=["train.h5"],
        channel_names=(),
    )


@pytest.mark.parametrize("model", ["resnet20", "resnet18v2", "keras:MobileNetV2"])
@pytest.mark.parametrize("augment", ["none", "randaugment"])
def test_networks_take_bytes_and_give_float32_logits(model, augment):
    built = resnet.build(resnet.Options(Path("data"), model=model, augment=augment), images())
    batch = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    logits = built(batch, training=False)
    assert logits.shape == (2, 10)
    assert logits.dtype == "float32"
    np.testing.assert_array_equal(logits, built(batch, training=False))


def test_bad_choices_are_one_line():
    for chosen, data, message in (
        ({"model": "resnet21"}, images(), "did you mean resnet"),
        ({"model": "keras:MobileNetV22"}, images(), "MobileNetV2"),
        ({"model": "resnet50"}, images((8, 8, 1)), "32 x 32"),
        ({"augment": "randaugment"}, images(dtype="float32"), "bytes"),
        ({"statistics": Path("no.h5")}, images(), "no.h5"),
        ({"statistics": Path("no.h5"), "model": "keras:MobileNetV2"}, images(), "leave them out"),
        ({"randaugment": (3, 0.5)}, images(), "--augment randaugment"),
        ({}, images((10,)), "images"),
        ({}, images(classes=0), "--classes"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            resnet.build(resnet.Options(Path("data"), **chosen), data)
        assert "\n" not in str(raised.value)
