"""A run that was killed at any moment resumes as if nothing had happened."""

import json
import os
import re
import signal
import time

import h5py
import numpy as np
import pytest
from launch import finish, launch, start

from hpc_train.data.plan import TrainPlan

OPTIONS = ("-m", "hpc_train.mnist", "--model", "dropout", "--augment", "--batch-size", "32", "--epochs", "4")
OPTIONS += ("--checkpoint-every", "4", "--no-histograms", "--patience", "4")


def train(digits, run, *arguments, ranks=2):
    return launch(ranks, *OPTIONS, "--data", str(digits), "--run", str(run), *arguments)


def final_variables(run):
    """Every variable of the last checkpoint, by name: weights, optimizer, random state."""
    last, found = max((run / "checkpoints").glob("step-*.h5")), {}
    for path in (last, *last.parent.glob(f"part-{last.stem.removeprefix('step-')}-*.h5")):
        with h5py.File(path) as file:
            found |= {stored.attrs["name"]: stored[()] for stored in file["variables"].values()}
    return found


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(digits, run).status == 0
    return run


def kill_after(digits, run, checkpoints, *arguments):
    """Start the run, and kill all of its processes with SIGKILL after this many checkpoints."""
    process = start(2, *OPTIONS, "--data", str(digits), "--run", str(run), *arguments)
    deadline = time.monotonic() + 120
    seen = set()
    while not (run / "run.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    while len(seen) < checkpoints and process.poll() is None and time.monotonic() < deadline:
        seen |= {path.name for path in (run / "checkpoints").glob("step-*.h5")}
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    ended = finish(process, 30)
    # The ranks may be in sessions of their own: none may outlive the launcher and write.
    os.system(f"pkill -9 -f -- '--run {run}'")
    time.sleep(0.5)
    assert len(seen) >= checkpoints, ended.output


@pytest.mark.parametrize("checkpoints", [0, int(np.random.default_rng().integers(1, 14))], ids=["none", "some"])
def test_the_same_ranks_give_the_same_bits(digits, whole, tmp_path, checkpoints):
    run, disk = tmp_path / "killed", tmp_path / "disk"
    # One of the two runs has them on another disk, in parts.
    kept = ["--keep-every", "40", "--checkpoint-parts", "2"] if checkpoints else []
    kill_after(digits, run, checkpoints, *kept, *(["--checkpoints", str(disk)] if kept else []))
    # The run's link tells where its checkpoints are.
    resumed = train(digits, run, "--resume", *kept)
    assert resumed.status == 0, resumed.output
    if kept:
        assert sorted(path.name[5:15] for path in disk.glob("step-*")) == [f"{step:010d}" for step in (40, 80, 84)]
        assert len(list(disk.glob("part-*-1.h5"))) == 3
    assert ("resuming after step" in resumed.output) or checkpoints == 0
    got, want = final_variables(run), final_variables(whole)
    assert got.keys() == want.keys()
    differing = [name for name in want if not np.array_equal(got[name], want[name])]
    assert not differing, resumed.output
    for mine, other in zip(metrics(run), metrics(whole), strict=True):
        for name in ("epoch", "step", "learning_rate", "val_loss", "val_accuracy"):
            assert mine[name] == other[name]
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert mine["accuracy"] == pytest.approx(other["accuracy"], rel=1e-4)
    killed, last = json.loads((run / "run.json").read_text())["starts"]
    # How much was lost is known to a few seconds.
    assert "lost" in killed["times"]["seconds"]
    assert last["times"]["seconds"]["training"] > 0
    assert re.search(r"useful \d+\.\d% of .* in 2 starts \(.*\)", resumed.output)


def test_another_number_of_ranks_goes_on_at_the_next_sample(digits, tmp_path):
    run = tmp_path / "killed"
    kill_after(digits, run, 8)
    resumed = train(digits, run, "--resume", "--batch-size", "16", ranks=3)
    assert resumed.status == 0, resumed.output
    record = json.loads((run / "run.json").read_text())
    assert [entry["world_size"] for entry in record["starts"]] == [2, 3]
    said = next(line for line in resumed.output.splitlines() if "resuming after step" in line)
    step, epoch, position = map(int, re.search(r"after step (\d+): epoch (\d+), sample (\d+)", said).groups())
    assert step == (epoch - 1) * (1400 // 64) + position // 64
    lines = metrics(run)
    steps = {line["epoch"]: line["step"] for line in lines}
    left = TrainPlan(1400, 16, 3, seed=0).steps(position)
    assert steps[epoch] == step + left
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    # Samples counted in the resumed epoch: those before the kill once, those after it once.
    assert lines[epoch - 1]["samples"] == position + left * 48


def test_resuming_a_finished_run_changes_nothing(digits, whole):
    before = final_variables(whole)
    again = train(digits, whole, "--resume")
    assert again.status == 0, again.output
    after = final_variables(whole)
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert len(metrics(whole)) == 4


def test_other_data_or_seed_cannot_resume(digits, whole):
    ended = train(digits, whole, "--resume", "--seed", "5")
    assert ended.status != 0
    assert "its seed was 0 and is now 5" in ended.output
