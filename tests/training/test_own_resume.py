"""A run of a model with two optimizers and a training step of its own, killed and resumed: the same bits."""

import os
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
