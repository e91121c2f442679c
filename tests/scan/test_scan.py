"""Whole scans: real trainings on the cores of this machine, as a user starts, stops, breaks and goes on with them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import REPOSITORY, environment

from hpc_train.scan.study import COMPLETE, FAILED, PRUNED, Study

pytest.importorskip("optuna")
pytest.importorskip("horovod")

TINY = """
def build(catalogue, units, lr=None):
    from keras import Input, Sequential, layers
    return Sequential([Input((8, 8, 1)), layers.Rescaling(1 / 255), layers.Flatten(), layers.Dense(units, "relu"),
                       layers.Dense(10)])

def compiled(catalogue, units, lr):
    import keras
    model = build(catalogue, units)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(lr), loss, metrics=["accuracy"])
    return model
"""


def begin(study, *words, cwd, slots=2, **variables):
    """`hpc-train scan` in the background, on as many cores as slots."""
    line = [sys.executable, "-m", "hpc_train.cli", "scan", str(study), "--at-once", str(slots), *map(str, words)]
    env = environment(PYTHONPATH=str(REPOSITORY), **variables)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "start_new_session": True}
    return subprocess.Popen(line, env=env, cwd=cwd, **pipes)


def scan(study, *words, cwd, **more):
    """(status, output) of a whole `hpc-train scan`."""
    process = begin(study, *words, cwd=cwd, **more)
    output, _ = process.communicate(timeout=240)
    return process.returncode, output


def of_digits(digits, *words, epochs=2):
    return ["--", "mnist", "--data", digits, "--epochs", epochs, "--no-histograms", *words]


def until(holds, seconds=120):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def of_study(process):
    """Processes of a scan that still run, by the variable that all of them have."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"HPC_TRAIN_TEST_SCAN={process}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_scan_keeps_its_best_model_and_says_how_to_train_it_again(digits, tmp_path):
    space = ["--space", "lr=log:1e-3..1e-1", "model=fc,cnn", "--objective", "val_accuracy", "--trials", "3"]
    status, output = scan("study", *space, *of_digits(digits), cwd=tmp_path)
    assert status == 0, output
    study = Study(tmp_path / "study")
    trials = study.trials()
    assert [trial.state for trial in trials] == [COMPLETE] * 3
    best = max(trials, key=lambda trial: trial.value)
    assert study.best()["number"] == best.number
    assert (tmp_path / "study" / "best.keras").read_bytes() == (best.folder / "best.keras").read_bytes()
    for trial in trials:
        lines = [json.loads(line) for line in (trial.folder / "metrics.jsonl").read_text().splitlines()]
        assert trial.value == max(line["val_accuracy"] for line in lines)
        options = json.loads((trial.folder / "run.json").read_text())["options"]
        assert {name: options[name] for name in trial.params} == trial.params
    assert "3 done of 3" in output
    # The command trains the same model.
    command = study.best()["command"].split()
    assert command[:3] == [Path(sys.executable).name, "-m", "hpc_train.mnist"]
    run = [sys.executable, *command[1:], "--run", str(tmp_path / "again"), "--threads", "1"]
    subprocess.run(run, check=True, env=environment(PYTHONPATH=str(REPOSITORY)), cwd=tmp_path, capture_output=True)
    again = [json.loads(line) for line in (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()]
    assert max(line["val_accuracy"] for line in again) == best.value
    # More trials are added to the same study.
    status, output = scan("study", "--trials", "4", cwd=tmp_path)
    assert status == 0, output
    assert len(study.trials()) == 4
    status, output = scan("study", "--show", cwd=tmp_path)
    assert "study: 4 done of 4" in output


def test_ctrl_c_stops_trials_at_a_checkpoint_and_the_same_command_goes_on(digits, tmp_path):
    words = ["--space", "lr=0.01,0.02", "--search", "grid", "--objective", "accuracy", *of_digits(digits, epochs=40)]
    mark = {"HPC_TRAIN_TEST_SCAN": str(tmp_path)}
    process = begin("study", *words, cwd=tmp_path, **mark)
    trials = tmp_path / "study" / "trials"
    until(lambda: len(list(trials.glob("*/checkpoints/step-*.h5"))) >= 2)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    assert "stopping, by SIGINT: 2 trials stop at a checkpoint" in output
    assert output.endswith("stopped; the same command goes on\n")
    assert not of_study(tmp_path)
    assert "stopped by SIGUSR1 after step" in (trials / "00000" / "log.txt").read_text()
    # The seed decides the values, so that few epochs are enough to see that each is made once.
    status, output = scan("study", cwd=tmp_path)
    assert status == 0, output
    for trial in Study(tmp_path / "study").trials():
        epochs = [json.loads(line)["epoch"] for line in (trial.folder / "metrics.jsonl").read_text().splitlines()]
        assert epochs == list(range(1, 41))
        assert len(json.loads((trial.folder / "run.json").read_text())["starts"]) == 2


def test_trials_end_with_a_scan_that_is_killed(digits, tmp_path):
    words = ["--space", "lr=0.01,0.02", "--search", "grid", "--objective", "accuracy", *of_digits(digits, epochs=500)]
    process = begin("study", *words, cwd=tmp_path, HPC_TRAIN_TEST_SCAN=str(tmp_path))
    until(lambda: len(list(tmp_path.glob("study/trials/*/checkpoints/step-*.h5"))) >= 2)
    process.kill()
    process.communicate(timeout=30)
    until(lambda: not of_study(tmp_path), 30)


def test_a_scan_that_runs_is_named_and_can_be_joined(digits, tmp_path):
    words = ["--space", "lr=log:1e-3..1e-1", "--trials", "4", "--objective", "accuracy", *of_digits(digits, epochs=6)]
    first = begin("study", *words, cwd=tmp_path, slots=1)
    until(lambda: (tmp_path / "study" / "scan.json").exists())
    alone = begin("study", *words, cwd=tmp_path, slots=1)
    joined = begin("study", "--join", cwd=tmp_path, slots=1)
    said = alone.communicate(timeout=120)[0]
    assert alone.returncode == 2
    assert "study is being written by node" in said
    assert said.rstrip().endswith("add --join to work on it too, or wait for that")
    # The one that joined becomes the writer.
    first.kill()
    first.communicate(timeout=30)
    output = joined.communicate(timeout=240)[0]
    assert joined.returncode == 0, output
    study = Study(tmp_path / "study")
    assert [trial.state for trial in study.trials()] == [COMPLETE] * 4
    assert "4 done of 4" in output


def test_values_become_arguments_of_the_users_function_and_failures_cost_only_themselves(digits, tmp_path):
    (tmp_path / "mine.py").write_text(TINY)
    common = ["--objective", "accuracy", "--", "fit", "mine.py:compiled", "--data", digits, "--epochs", "2"]
    # The last rate is no number for Keras.
    space = ["--space", "units=8,32", "build.lr=0.001,1e30", "--search", "grid"]
    status, output = scan("study", *space, *common, cwd=tmp_path)
    assert status == 0, output
    trials = Study(tmp_path / "study").trials()
    states = {trial.params["build.lr"]: trial.state for trial in trials}
    assert states["1e30"] == FAILED
    assert states["0.001"] == COMPLETE
    assert all("nan" in trial.reason or "inf" in trial.reason for trial in trials if trial.state == FAILED)
    arguments = json.loads((trials[0].folder / "run.json").read_text())["facts"]["build_args"]
    assert str(arguments["units"]) == trials[0].params["units"]
    # Both an option and an argument.
    status, output = scan("other", "--space", "lr=0.001,0.01", "--trials", "2", *common, cwd=tmp_path)
    assert (status, output.count("\n")) == (2, 1)
    assert "write build.lr=... for the argument" in output


def test_a_trial_of_two_ranks_trains_as_such_and_stops_at_a_checkpoint(digits, tmp_path):
    words = ["--space", "lr=0.01,0.02", "--search", "grid", "--objective", "loss", "--ranks-per-trial", "2"]
    process = begin("study", *words, *of_digits(digits, epochs=60), cwd=tmp_path, slots=1)
    until(lambda: len(list(tmp_path.glob("study/trials/*/checkpoints/step-*.h5"))) >= 1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output
    (log,) = tmp_path.glob("study/trials/*/log.txt")
    assert "stopped by SIGUSR1 after step" in log.read_text()
    status, output = scan("study", cwd=tmp_path, slots=1)
    assert status == 0, output
    for trial in Study(tmp_path / "study").trials():
        assert json.loads((trial.folder / "run.json").read_text())["starts"][0]["world_size"] == 2
    assert "horovodrun --gloo -np 2" in output


def test_bad_trials_are_pruned_early(digits, tmp_path):
    # Rates that learn nothing, and one that learns.
    space = ["--space", "lr=1e-7,0.05", "--search", "random", "--trials", "6", "--prune", "median"]
    words = [*space, "--objective", "accuracy", *of_digits(digits, epochs=12)]
    status, output = scan("study", *words, cwd=tmp_path, slots=1)
    assert status == 0, output
    trials = Study(tmp_path / "study").trials()
    assert len(trials) == 6
    assert {trial.state for trial in trials} <= {COMPLETE, PRUNED}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--trials", "2", "--space", "lrr=0.1,0.2", "--objective", "loss", "--", "mnist"], "did you mean lr?"),
        (["--trials", "2", "--space", "lr=a,b", "--objective", "loss", "--", "mnist"], "does not take the value a"),
        (["--trials", "2", "--space", "lr=-1,1", "--objective", "loss", "--", "mnist"], "--lr is -1.0"),
        (["--trials", "2", "--space", "lr=1,2", "--objective", "acuracy", "--", "mnist"], "did you mean accuracy?"),
        (["--trials", "2", "--space", "lr=1,2", "--objective", "loss", "--", "mnits"], "did you mean mnist?"),
        (["--trials", "2", "--space", "lr=1,2", "--objective", "loss", "--", "mnist", "--run", "x"], "leave --run out"),
        (["--trials", "2", "--space", "lr=1,2", "--objective", "loss", "--", "none.py"], "no file none.py"),
        (["--trials", "2", "--space", "lr=1,2", "--objective", "loss"], "holds no study yet: say what to scan"),
        (["--trials", "2", "--space", "lr=1,2", "--", "mnist"], "--objective is missing"),
        (["--space", "lr=1,2", "--objective", "loss", "--", "mnist"], "--trials is missing"),
        (["--trials", "-1", "--space", "lr=1,2", "--objective", "loss", "--", "mnist"], "--trials is -1"),
        (["--show"], "is no study (it has no scan.json)"),
        (["--json"], "--json is for --show"),
        (
            ["--space", "lr=0.1..1.0", "--search", "grid", "--objective", "loss", "--", "mnist"],
            "lr has no list of values",
        ),
        (
            ["--trials", "2", "--launcher", "x", "--space", "lr=1,2", "--objective", "loss", "--", "mnist"],
            "is for --ranks",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, words, said):
    words = [*words, "--data", "synthetic"] if "mnist" in words else words
    status, output = scan("study", *words, cwd=tmp_path)
    assert (status, output.count("\n")) == (2, 1), output
    assert said in output
    assert not (tmp_path / "study").exists()


def test_trials_see_only_their_gpus_and_cores(tmp_path, monkeypatch):
    from hpc_train.errors import UserError
    from hpc_train.scan.crew import slots

    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8, 16)))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,2,5,7")
    found = slots(1)
    assert [slot.gpus for slot in found] == [("0",), ("2",), ("5",), ("7",)]
    assert [slot.cores for slot in found] == [(8, 9), (10, 11), (12, 13), (14, 15)]
    assert [slot.gpus for slot in slots(2)] == [("0", "2"), ("5", "7")]
    assert found[1].variables == {"CUDA_VISIBLE_DEVICES": "2"}
    for ranks, at_once, said in ((5, 0, "this one has 4 GPUs; give fewer"), (1, 5, "GPUs for 4 trials at once")):
        with pytest.raises(UserError, match=said):
            slots(ranks, at_once)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [slot.cores for slot in slots(1, 3)] == [(8, 9), (10, 11, 12), (13, 14, 15)]
    assert len(slots(1)) == 8
