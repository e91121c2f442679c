"""Whatever goes wrong, on one rank or on all: every rank ends within 30 s, non-zero, and one message says why."""

import re

import h5py
import numpy as np
import pytest
from launch import RANKS, launch, unread

FAILS = str(RANKS / "fails.py")
PROMPTLY = 30


def errors(ended):
    return [line for line in ended.output.splitlines() if "error: " in line]


def train(data, *arguments, ranks=2, controller=None):
    arguments = ("--data", str(data), "--model", "fc", "--batch-size", "8", "--run", f"{data}-run", *arguments)
    return launch(ranks, "-m", "hpc_train.mnist", *arguments, controller=controller, timeout=60)


@pytest.mark.parametrize("controller", ["--mpi", "--gloo"])
@pytest.mark.parametrize(("how", "says"), [("raise", "the planted bug"), ("user", "the planted mistake; fix it")])
def test_a_rank_that_raises_while_the_others_wait_ends_them_all(how, says, controller):
    ended = launch(2, FAILS, how, controller=controller, timeout=PROMPTLY)
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert says in errors(ended)[0]
    assert "rank 1" in errors(ended)[0]
    assert ended.output.count("Traceback") == (how == "raise")
    assert "went on" not in ended.output


@pytest.mark.parametrize("controller", ["--mpi", "--gloo"])
def test_a_killed_rank_is_named_once_with_its_signal_and_its_memory(controller):
    ended = launch(2, FAILS, "kill", controller=controller, timeout=PROMPTLY)
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    says = r"error: rank 1 of 2 \(on \S+\) was ended by SIGKILL: .*; it had at most [\d.]+ MB of memory, and may have"
    assert re.search(says, errors(ended)[0])
    assert "went on" not in ended.output


def test_a_rank_that_vanishes_ends_the_others():
    ended = launch(2, FAILS, "exit", timeout=PROMPTLY)
    assert ended.status != 0
    assert "went on" not in ended.output


def test_a_trainer_whose_output_nothing_reads_any_more_says_so(blobs):
    data = blobs()
    ended = unread("-m", "hpc_train.mnist", "--data", data, "--model", "fc", "--run", f"{data}-run")
    assert ended.returncode == 1
    assert "nothing reads the output any more" in ended.stderr.splitlines()[-1]
    assert "Traceback" not in ended.stderr


def test_an_unknown_option_names_the_nearest_once():
    ended = launch(2, "-m", "hpc_train.mnist", "--data", "x", "--epoch", "3", timeout=PROMPTLY)
    assert ended.status != 0
    assert ended.output.count("Unrecognized options: --epoch") == 1
    assert "--epochs" in ended.output


def test_a_missing_folder_is_one_line(tmp_path):
    ended = train(tmp_path / "nowhere")
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert "nowhere" in errors(ended)[0]
    assert "Traceback" not in ended.output


def test_a_truncated_shard_is_one_line(blobs):
    folder = blobs()
    shard = sorted(folder.glob("train-*.h5"))[1]
    shard.write_bytes(shard.read_bytes()[:-500])
    ended = train(folder)
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert shard.name in errors(ended)[0]


def test_fewer_samples_than_a_global_batch_name_a_batch_size_that_fits(blobs):
    ended = train(blobs(train=12))
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert "12 training samples" in errors(ended)[0]
    assert "at most 6" in errors(ended)[0]


def test_nan_in_one_input_names_file_and_sample(blobs):
    folder = blobs()
    shard = sorted(folder.glob("train-*.h5"))[1]
    with h5py.File(shard, "r+") as file:
        file["inputs"][5, 0, 0, 0] = np.nan
    ended = train(folder, "--epochs", "3")
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert shard.name in errors(ended)[0]
    assert "37" in errors(ended)[0]


def test_a_damaged_record_of_the_run_to_resume_is_one_line(blobs):
    folder = blobs()
    run = folder.with_name(f"{folder.name}-run")
    run.mkdir()
    (run / "run.json").write_text("{")
    ended = train(folder, "--resume")
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert "run.json: is not JSON" in errors(ended)[0]


def test_a_label_outside_the_classes_is_one_line(blobs):
    folder = blobs()
    shard = sorted(folder.glob("train-*.h5"))[0]
    with h5py.File(shard, "r+") as file:
        file["targets"][3] = 77
    ended = train(folder, "--epochs", "3")
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert "77" in errors(ended)[0]


def test_a_loss_that_is_no_number_names_step_and_rank(blobs):
    ended = train(blobs(), "--lr", "1e30", "--lr-scaling", "none", "--epochs", "9")
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert "the loss is " in errors(ended)[0]
    assert "at step " in errors(ended)[0]
    assert "rank " in errors(ended)[0]


@pytest.mark.parametrize(("ranks", "controller", "why"), [(3, None, "2, 4, 8"), (2, "--gloo", "needs MPI")])
def test_adasum_where_horovod_has_none_is_one_line(blobs, ranks, controller, why):
    ended = train(blobs(), "--reduction", "adasum", "--lr-scaling", "none", ranks=ranks, controller=controller)
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert why in errors(ended)[0]


def test_a_run_folder_in_use_is_not_overwritten(blobs):
    folder = blobs()
    assert train(folder, "--epochs", "1").status == 0
    ended = train(folder, "--epochs", "1")
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert "--resume" in errors(ended)[0]


@pytest.mark.parametrize("controller", ["--mpi", "--gloo"])
def test_a_sites_keras_that_is_too_old_is_one_line_in_a_script_of_ones_own(tmp_path, controller):
    keras = tmp_path / "site" / "keras"
    (keras / "src").mkdir(parents=True)
    (keras / "__init__.py").write_text("raise ImportError('it must not be imported')\n")
    (keras / "src" / "version.py").write_text('__version__ = "3.3.3"\n')
    script = tmp_path / "site" / "script.py"
    script.write_text("from hpc_train import parallel\n\nparallel.init()\nprint('went on')\n")
    ended = launch(2, str(script), controller=controller, timeout=PROMPTLY)
    assert ended.status != 0
    assert len(errors(ended)) == 1, ended.output
    assert f"Keras 3.3.3 in {tmp_path / 'site'} is too old: hpc-train needs 3.12 or newer" in errors(ended)[0]
    assert "Traceback" not in ended.output
    assert "went on" not in ended.output
