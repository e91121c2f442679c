"""A run of a model with two optimizers and a training step of its own, killed and resumed: the same bits."""

import os
import shutil
import signal
import time

import h5py
import numpy as np
import own_models
import pytest
from launch import REPOSITORY, finish, launch, start

FILE = REPOSITORY / "tests" / "own_models.py"
OPTIONS = ("--inputs", "x", "--targets", "y", "--batch-size", "4", "--epochs", "3", "--checkpoint-every", "3")
OPTIONS += ("--monitor", "critic_loss:min", "--no-histograms")


def words(data, run, *more):
    return ("-m", "hpc_train.fit", f"{FILE}:evaluated_gan", "--data", str(data), "--run", str(run), *OPTIONS, *more)


def variables(run):
    with h5py.File(max((run / "checkpoints").glob("step-*.h5"))) as file:
        return {stored.attrs["name"]: stored[()] for stored in file["variables"].values()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return own_models.write(tmp_path_factory.mktemp("own") / "data")


def test_a_killed_run_goes_on_with_the_same_bits(data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    ended = launch(2, *words(data, whole))
    assert ended.status == 0, ended.output
    process = start(2, *words(data, killed))
    deadline = time.monotonic() + 120
    while not list(killed.glob("checkpoints/step-*.h5")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process, 30)
    # The ranks may be in sessions of their own: none may outlive the launcher and write.
    os.system(f"pkill -9 -f -- '--run {killed}'")
    time.sleep(0.5)
    resumed = launch(2, *words(data, killed, "--resume"))
    assert resumed.status == 0, resumed.output
    assert "resuming after step" in resumed.output
    got, want = variables(killed), variables(whole)
    assert got.keys() == want.keys()
    assert any("momentum" in name for name in want)
    assert any("velocity" in name for name in want)
    assert not [name for name in want if not np.array_equal(got[name], want[name])]
    other = launch(2, *words(data, killed, "--resume", "--monitor", "critic_loss:max"))
    assert "its monitor was 'critic_loss:min' and is now 'critic_loss:max'" in other.output


def test_sequences_and_scaled_values_go_on_with_the_same_bits(tmp_path):
    """Two named inputs, one of them sequences of different lengths, and normalised targets with sample weights."""
    draw = np.random.default_rng(0)
    for split in ("train", "validation"):
        (tmp_path / "data" / split).mkdir(parents=True)
        lengths = draw.integers(1, 6, 48)
        with h5py.File(tmp_path / "data" / split / "a.h5", "w") as file:
            file["tokens"], file["lengths"] = draw.integers(1, 9, lengths.sum()), lengths
            file["x"], file["w"] = draw.normal(size=(48, 3)).astype("f4"), draw.random(48).astype("f4")
            file["y"] = draw.normal(100, 5, 48).astype("f4")
    names = ["--inputs", "words=tokens", "numbers=x", "--targets", "y", "--lengths", "words=lengths"]
    ended = launch(1, "-m", "hpc_train.cli", "stats", "--data", "data", *names, cwd=tmp_path)
    assert ended.status == 0, ended.output
    train = ["-m", "hpc_train.fit", f"{FILE}:words_and_numbers", "--data", "data", *names, "--sample-weights", "w"]
    train += ["--normalise", "targets", "--loss", "mse", "--batch-size", "4", "--checkpoint-every", "4"]
    ended = launch(2, *train, "--run", "whole", "--epochs", "2", "--no-histograms", cwd=tmp_path)
    assert ended.status == 0, ended.output
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    # As if killed after the ninth step: later checkpoints are not there.
    for path in (tmp_path / "part" / "checkpoints").glob("step-*.h5"):
        if int(path.stem.split("-")[1]) > 8:
            path.unlink()
    ended = launch(2, *train, "--run", "part", "--resume", "--epochs", "2", "--no-histograms", cwd=tmp_path)
    assert "resuming after step" in ended.output
    got, want = variables(tmp_path / "part"), variables(tmp_path / "whole")
    assert got.keys() == want.keys()
    assert not [name for name in want if not np.array_equal(got[name], want[name])]
