"""The climate trainer from end to end: real ranks on synthetic weather, masks and scores of what they trained."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from launch import launch

from hpc_train import climate
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.statistics.command import Stats
from hpc_train.data.statistics.command import run as count
from hpc_train.errors import UserError
from hpc_train.predict import Predict
from hpc_train.predict import run as predict
from hpc_train.prepare.synthetic_climate.command import ClimateSynthetic
from hpc_train.prepare.synthetic_climate.command import run as prepare
from hpc_train.training import transfer

TRAIN = ("-m", "hpc_train.climate", "--model", "tiramisu-small", "--epochs", "6", "--batch-size", "2", "--lr", "5e-3")
TRAIN += ("--base-batch", "4", "--lag", "1", "--augment", "roll", "flip", "--peak-tflops", "1", "--no-histograms")
TRAIN += ("--track", "mlperf")


@pytest.fixture(scope="module")
def weather(tmp_path_factory):
    """A folder of small synthetic maps, with their statistics."""
    folder = tmp_path_factory.mktemp("weather")
    prepare(ClimateSynthetic(output=folder, size=(48, 72), train=24, validation=5, test=1))
    count(Stats(data=folder))
    return folder


@pytest.fixture(scope="module")
def trained(weather, tmp_path_factory):
    """A run of 2 ranks, whose shares of the held-out maps differ, and its output."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    ended = launch(2, *TRAIN, "--data", str(weather), "--run", str(folder))
    assert ended.status == 0, ended.output
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return SimpleNamespace(folder=folder, output=ended.output, metrics=metrics)


def test_it_learns_more_than_background_and_says_how_once(trained):
    assert max(line["val_mean_iou"] for line in trained.metrics) > 0.4
    assert {f"val_{score}_{name}" for score in ("iou", "precision", "recall") for name in ("tc", "ar")} < set(
        trained.metrics[-1]
    )
    for said in ("weights: background 0.", "48 x 72 padded to 48 x 80", "TFLOP/s (", "validation mean_iou"):
        assert trained.output.count(said) == 1, trained.output


def test_mlperfs_own_checker_only_misses_what_did_not_happen(trained):
    pytest.importorskip("mlperf_logging", reason="no mlperf-logging here")
    from mlperf_logging.compliance_checker.mlp_compliance import make_checker

    log = trained.folder / "tracking" / "mlperf.log"
    events = [json.loads(line.removeprefix(":::MLLOG ")) for line in log.read_text().splitlines()]
    values = {event["key"]: event["value"] for event in events}
    for key, value in (("global_batch_size", 4), ("train_samples", 24), ("eval_samples", 5), ("opt_name", "Adam")):
        assert values[key] == value
    accuracies = [event["value"] for event in events if event["key"] == "eval_accuracy"]
    assert accuracies == [line["val_mean_iou"] for line in trained.metrics]
    assert events[-1]["metadata"]["status"] == "aborted", "success is for 0.82"
    times = [event["time_ms"] for event in events]
    assert times == sorted(times)
    checker = make_checker("hpc", "3.0.0", quiet=False, werror=False)
    assert not checker.check_file(str(log), "hpc_3.0.0/common.yaml")
    # Who submits on what machine is said in the environment. Nobody cleared a cache, and the target was not reached.
    assert sorted(checker.overwritable.values()) == [
        "Required AT_LEAST_ONE occurrence of 'cache_clear' but found 0",
        "Required EXACTLY_ONE occurrence of 'submission_org' but found 0",
        "Required EXACTLY_ONE occurrence of 'submission_platform' but found 0",
        "Required EXACTLY_ONE occurrence of 'submission_status' but found 0",
    ]
    assert checker.not_overwritable == ["Failed checks for eval_accuracy : v['value'] >= 0.82 and v['value'] <= 1."]
    assert not checker.warnings


def test_the_first_gradient_with_lag_is_applied_in_the_second_step(trained):
    assert trained.metrics[-1]["step"] == 36
    import keras

    assert int(keras.models.load_model(trained.folder / "model.keras").optimizer.iterations) == 35


def test_masks_of_one_process_have_the_scores_that_the_ranks_have_counted(trained, weather, tmp_path, capsys):
    predict(
        Predict(
            run=trained.folder, data=weather, split="validation", which="last", output=tmp_path / "masks.nc", maps=1
        )
    )
    last = trained.metrics[-1]
    printed = capsys.readouterr().out
    assert f"mean IoU {last['val_mean_iou']:.4f}" in printed, printed
    assert f"accuracy {last['val_accuracy']:.4f}" in printed, printed
    assert list(tmp_path.glob("*.png"))


def test_a_trained_trunk_takes_a_new_head_for_maps_that_are_padded(trained, weather):
    catalogue = Catalogue.open(weather, "train", classes=2)
    new = transfer.build(climate.Options(weather, init=trained.folder), catalogue)
    assert new.output_shape == (None, 48, 72, 2)


@pytest.mark.parametrize(
    ("sides", "part", "whole", "message"),
    [
        ((None, None), (16, 20), (64, 96), "parts of maps are 16 x 20"),
        ((None, None), (16, 32), (48, 72), "whole maps are 48 x 72"),
        ((None, None), None, (48, 72), "whole maps are 48 x 72"),
        ((48, 72), (16, 16), (48, 72), "--init only takes maps of"),
    ],
)
def test_maps_that_a_network_does_not_take_are_an_error(sides, part, whole, message):
    network = SimpleNamespace(name="tiramisu-small", input_shape=(None, *sides, 16))
    chosen = climate.Options(Path("data"), random_crop=part)
    with pytest.raises(UserError, match=message):
        climate.task(chosen).fits(network, SimpleNamespace(target_shape=whole))


def test_a_network_for_parts_takes_whole_maps_too(weather):
    catalogue = Catalogue.open(weather, "train", classes=3)
    network = climate.build(climate.Options(weather, model="deeplab-small", random_crop=(16, 16)), catalogue)
    for size in ((16, 16), (48, 72)):
        assert network(np.zeros((1, *size, 16), "float32"), training=False).shape == (1, *size, 3)


def test_options_that_would_do_nothing_are_refused():
    for chosen, message in (
        ({"init": Path("run"), "fields": ("TMQ",)}, "--fields is for a new network"),
        ({"init": Path("run"), "normalise": "min-max"}, "--normalise is for a new network"),
        ({"loss": "dice", "class_weights": "inverse"}, "--class-weights"),
        ({"loss_scale": 1024.0}, "--precision float16"),
        ({"peak_tflops": 0.0}, "--peak-tflops is 0.0"),
    ):
        with pytest.raises(UserError, match=message):
            climate.run(climate.Options(Path("data"), **chosen))
