"""The options of a segmentation's loss: class weights, checks, and what they make; weights need no TensorFlow."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from hpc_train.errors import UserError
from hpc_train.losses.options import LossOptions, make, normalised, weights_of_classes

# Pixels of the classes in the paper's data, of 1e12.
COUNTS = np.array([982_300_000_000, 700_000_000, 17_000_000_000])


def refused(**options):
    with pytest.raises(UserError) as caught:
        LossOptions(**options).check_loss()
    return str(caught.value)


@pytest.mark.parametrize("power", [0, -0.125, -0.5, -1])
def test_the_mean_weight_of_the_data_sets_pixels_is_1(power):
    weights = normalised(COUNTS, power)
    np.testing.assert_allclose(np.sum(weights * COUNTS) / COUNTS.sum(), 1, rtol=1e-12)
    np.testing.assert_allclose(weights / weights[0], (COUNTS / COUNTS[0]) ** power, rtol=1e-12)


def test_the_papers_weights():
    # 1/sqrt(f), which are 1.00897, 37.7964 and 7.66965, over sqrt(0.9823) + sqrt(0.0007) + sqrt(0.017) = 1.14795.
    np.testing.assert_allclose(weights_of_classes(LossOptions(), 3, COUNTS), [0.87893, 32.925, 6.6812], rtol=1e-4)


def test_a_class_that_never_occurs_weighs_1_even_when_the_statistics_end_before_it():
    want = [*normalised([90, 10], -0.5), 1]
    np.testing.assert_allclose(normalised([90, 10, 0], -0.5), want)
    np.testing.assert_allclose(weights_of_classes(LossOptions(), 3, [90, 10]), want)


def test_a_power_and_weights_by_hand_take_the_place_of_a_name():
    got = weights_of_classes(LossOptions(weight_power=-0.25), 3, COUNTS)
    np.testing.assert_allclose(got, normalised(COUNTS, -0.25))
    np.testing.assert_array_equal(weights_of_classes(LossOptions(weights=(1, 30, 8)), 3, None), [1, 30, 8])


@pytest.mark.parametrize("options", [{"class_weights": "none"}, {"weight_power": 0.0}, {"loss": "dice"}])
def test_without_weights_no_statistics_are_needed(options):
    assert weights_of_classes(LossOptions(**options), 3, None) is None


@pytest.mark.parametrize(
    ("options", "counts", "parts"),
    [
        ({}, None, ["--class-weights", "hpc-train stats"]),
        ({}, [0, 0, 0], ["--class-weights", "hpc-train stats"]),
        ({"weight_power": -0.3}, None, ["--weight-power", "hpc-train stats"]),
        ({"weights": (1, 2)}, COUNTS, ["--weights gives 2", "3 classes"]),
        ({}, [1, 2, 3, 4], ["4 classes", "have 3", "hpc-train stats"]),
    ],
)
def test_weights_that_cannot_be_computed_are_a_clear_error(options, counts, parts):
    with pytest.raises(UserError) as caught:
        weights_of_classes(LossOptions(**options), 3, counts)
    assert all(part in str(caught.value) for part in parts)


def test_options_that_make_no_sense_are_refused():
    assert "-2 to 0" in refused(weight_power=0.5)
    assert "--weights 1 -1" in refused(weights=(1, -1))
    assert "--weights 0 0" in refused(weights=(0, 0))
    assert "--focal-gamma is -1" in refused(loss="focal", focal_gamma=-1)
    assert "--tversky 0 1" in refused(loss="tversky", tversky=(0, 1))
    assert "--class-weights and --weights" in refused(class_weights="inverse", weights=(1, 2))
    assert "--loss dice is not a loss of pixels" in refused(loss="dice", weight_power=-0.5)
    assert "--focal-gamma is for --loss focal" in refused(focal_gamma=1.0)
    assert "--tversky is for --loss tversky" in refused(loss="cross-entropy+dice", tversky=(0.5, 0.5))


def test_options_that_fit_pass():
    for options in (
        {},
        {"loss": "dice"},
        {"loss": "focal+tversky", "focal_gamma": 3.0, "tversky": (0.4, 0.6), "weights": (1, 2)},
        {"loss": "cross-entropy+dice", "weight_power": -0.3},
        {"class_weights": "none"},
    ):
        LossOptions(**options).check_loss()


def test_smoothing_is_refused_where_no_pixel_has_a_loss():
    with pytest.raises(UserError, match=r"--label-smoothing.*--loss tversky"):
        make(LossOptions(loss="tversky"), 3, COUNTS, smoothing=0.1)


@pytest.mark.parametrize(
    "name",
    [
        "cross-entropy",
        "focal",
        "dice",
        "tversky",
        *(f"{a}+{b}" for a in ("cross-entropy", "focal") for b in ("dice", "tversky")),
    ],
)
def test_every_loss_is_made_of_the_parts_in_its_name(name):
    pytest.importorskip("tensorflow")
    options = LossOptions(loss=name, focal_gamma=1.5, tversky=(0.4, 0.8))
    loss = make(options, 3, COUNTS, ignore=255)
    parts = getattr(loss, "losses", [loss])
    kinds = {
        "PixelCrossEntropy": "cross-entropy",
        "FocalLoss": "focal",
        "DiceLoss": "dice",
        "TverskyLoss": "tversky",
    }
    assert [kinds[type(part).__name__] for part in parts] == name.split("+")
    for part in parts:
        config = part.get_config()
        assert config["ignore_class"] == 255
        assert config.get("gamma", 1.5) == 1.5
        assert (config.get("alpha", 0.4), config.get("beta", 0.8)) == (0.4, 0.8)
        np.testing.assert_allclose(config.get("class_weights", normalised(COUNTS, -0.5)), normalised(COUNTS, -0.5))


def test_the_choice_of_losses_is_the_one_the_command_line_offers():
    names = next(field for field in dataclasses.fields(LossOptions) if field.name == "loss").type.__args__
    pixels, areas = ("cross-entropy", "focal"), ("dice", "tversky")
    assert set(names) == {*pixels, *areas, *(f"{pixel}+{area}" for pixel in pixels for area in areas)}


def test_options_import_no_keras():
    code = "import sys, hpc_train.losses.options; print(int('keras' in sys.modules or 'tensorflow' in sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "0"
