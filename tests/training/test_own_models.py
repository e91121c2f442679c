"""Models that users bring, on real ranks: one launch a world size."""

import json
import re

import pytest
from launch import RANKS, REPOSITORY, launch, outcomes_of, sizes

SCRIPT = RANKS / "own_models.py"
FILE = REPOSITORY / "tests" / "own_models.py"
ON_TWO = (
    "a_compiled_model_keeps_its_loss_metrics_and_optimizer",
    "rates_of_a_compiled_model_are_multiplied_where_asked_for",
    "metrics_over_the_ranks_are_those_of_one_process",
    "the_best_model_has_the_least_error_and_the_largest_score",
    "what_does_not_fit_is_refused_before_the_first_step",
    "a_model_without_weights_and_a_loss_of_ones_own",
    "a_run_begins_with_the_weights_of_another_and_trains_what_is_not_frozen",
    "gradients_applied_by_hand_end_in_one_line",
)
ON_ANY = (
    "ten_steps_are_those_of_one_process_on_the_whole_batches",
    "replicas_of_models_with_their_own_steps_are_bit_equal_after_fifty_steps",
    "a_vae_with_its_own_step_keeps_equal_replicas_and_reports_its_losses",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Columns with targets of several kinds, and a part of the digits as shards."""
    import own_models

    return own_models.write(tmp_path_factory.mktemp("own") / "data")


@pytest.fixture(scope="module")
def outcomes_on(data, digits, tmp_path_factory):
    """A function that runs the checks on a number of ranks, once."""
    done = {}

    def run(ranks):
        if ranks not in done:
            folder = tmp_path_factory.mktemp(f"ranks-{ranks}")
            (folder / "data").symlink_to(data)
            (folder / "digits").symlink_to(digits)
            done[ranks] = outcomes_of(SCRIPT, ranks, folder)
        return done[ranks]

    return run


@pytest.mark.parametrize("check", ON_ANY)
@pytest.mark.parametrize("ranks", sizes(2, 3))
def test_on_any_number_of_ranks(outcomes_on, ranks, check):
    outcome = outcomes_on(ranks)[check]
    assert not outcome, outcome


@pytest.mark.parametrize("check", ON_TWO)
def test_on_two_ranks(outcomes_on, check):
    outcome = outcomes_on(2)[check]
    assert not outcome, outcome


def test_the_throughput_of_a_model_with_its_own_step_is_measured(data, tmp_path):
    words = ("--data", str(data), "--inputs", "x", "--targets", "y", "--batch-size", "8", "--no-timeline")
    words += ("--ways", "fit", "device", "--steps", "3", "--rounds", "1", "--build-args", "units=7")
    words += ("--output", str(tmp_path / "throughput.json"))
    ended = launch(2, "-m", "hpc_train.cli", "bench", "throughput", "fit", f"{FILE}:gan", *words)
    assert ended.status == 0, ended.output
    assert re.search(r"fit / device\s+\d", ended.output), ended.output
    figures = json.loads((tmp_path / "throughput.json").read_text())
    assert figures["options"]["build_args"] == ["units=7"]
    # A generator of 3, 7 and 5 units, and a critic of 5, 6 and 1.
    assert figures["parameters"] == (4 * 7 + 8 * 5) + (6 * 6 + 7 * 1)


def test_the_row_of_a_target_that_is_not_a_number_is_named(data, tmp_path):
    words = ("--data", str(data), "--inputs", "x", "--targets", "nan", "--loss", "mse", "--run", str(tmp_path / "run"))
    ended = launch(2, "-m", "hpc_train.fit", f"{FILE}:one", *words, "--epochs", "1", "--batch-size", "8")
    assert ended.status != 0
    errors = [line for line in ended.output.splitlines() if "error: " in line]
    assert len(errors) == 1
    assert f"{data}/train/a.h5: row 17 (sample 17 of 'train') holds NaN or infinity (nan) in its target" in errors[0]
    assert "Traceback" not in ended.output
