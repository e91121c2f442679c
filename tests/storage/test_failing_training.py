"""Training on storage that fails: one line, nothing half written, and a resumed run as if nothing had happened."""

import json
import os
import subprocess
import sys
import time

import failing
import h5py
import numpy as np
import pytest
from launch import REPOSITORY, environment, launch

OPTIONS = ["-m", "hpc_train.mnist", "--model", "fc", "--epochs", "2", "--checkpoint-every", "10", "--batch-size", "64"]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return failing.build(tmp_path_factory.mktemp("library"))


def train(digits, run, *arguments, **variables):
    """One process; its status and what it printed."""
    command = [sys.executable, *OPTIONS, "--data", str(digits), "--run", str(run), *map(str, arguments)]
    env = environment(PYTHONPATH=str(REPOSITORY), **variables)
    ended = subprocess.run(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240)
    return ended.returncode, ended.stdout


def begin(digits, run):
    """A long training of one process, when it has written a checkpoint."""
    command = [sys.executable, *OPTIONS, "--epochs", "1000", "--data", str(digits), "--run", str(run)]
    env = environment(PYTHONPATH=str(REPOSITORY))
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/step-*.h5")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    status, output = train(digits, run)
    assert status == 0, output
    # Of 21 steps an epoch.
    assert checkpoints(run) == [40, 42]
    return run


def checkpoints(run):
    return sorted(int(path.stem.removeprefix("step-")) for path in run.glob("checkpoints/step-*.h5"))


def saved(run):
    with h5py.File(max((run / "checkpoints").glob("step-*.h5"))) as file:
        return {stored.attrs["name"]: stored[()] for stored in file["variables"].values()}


def hidden(run):
    return list(run.rglob(".*"))


def the_line(output):
    """The one line of an error."""
    lines = [line for line in output.splitlines() if "error:" in line]
    assert len(lines) == 1, output
    assert "Traceback" not in output
    return lines[0]


def metrics(run):
    file = run / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


# Calls, files, errno: what the line says, and the step from which the run goes on. In the order of a training, in which
# each start resumes from the one before.
FAULTS = [
    (("write", "*step-*10.h5", "ENOSPC"), "step-0000000010.h5: No space left on device (about ", None),
    (("rename", "*/step-*20.h5", "EDQUOT"), "your quota there is used up", 10),
    (("open", "*best.keras", "ESTALE"), "best.keras: Stale file handle", 20),
    (("write", "*/metrics.jsonl", "ENOSPC"), "metrics.jsonl: No space left on device (", 20),
    (("fsync", "*step-*21.h5", "EIO"), "step-0000000021.h5: Input/output error", 20),
    (("write", "*.v2", "ENOSPC"), "tensorboard: No space left on device", 20),
    (("unlink", "*/step-*10.h5", "EIO"), "step-0000000010.h5: Input/output error", 21),
    (("fsync", "*/metrics.jsonl", "EIO"), "metrics.jsonl: Input/output error", 40),
    (("write", "*model.keras", "ENOSPC"), "model.keras: No space left on device (about ", 42),
]


def test_a_failing_write_is_one_line_and_the_last_whole_checkpoint_stands(digits, whole, library, tmp_path):
    run = tmp_path / "run"
    for number, ((calls, pattern, error), told, stands) in enumerate(FAULTS):
        again = ["--resume"] * (number > 0)
        variables = failing.environment(library, calls, f"{run}{pattern}", error)
        status, output = train(digits, run, *again, **variables)
        assert status == 1, output
        line = the_line(output)
        assert told in line
        here = f"the last whole checkpoint is that of step {stands}" if stands else "no checkpoint yet"
        assert f"{here}: the same command{'' if again else ' with --resume'} " in line
        assert checkpoints(run)[-1:] == ([stands] if stands else [])
        assert not hidden(run)
        assert all("step" in line for line in metrics(run))
    status, output = train(digits, run, "--resume")
    assert status == 0, output
    want = saved(whole)
    assert all(np.array_equal(value, want[name]) for name, value in saved(run).items())
    assert [(line["epoch"], line["step"], line["val_loss"]) for line in metrics(run)] == [
        (line["epoch"], line["step"], line["val_loss"]) for line in metrics(whole)
    ]
    assert checkpoints(run) == checkpoints(whole)


def test_two_ranks_on_a_disk_that_fills_up_end_with_one_line(digits, tmp_path):
    with failing.small_disk(tmp_path / "disk", "300k") as disk:
        options = [*OPTIONS, "--optimizer", "adam", "--data", str(digits), "--run", str(disk / "run")]
        ended = launch(2, *options)
        assert ended.status != 0
        line = the_line(ended.output)
        assert "No space left on device" in line
        assert " are free in " in line
        assert not hidden(disk)


def test_a_run_that_was_killed_starts_again_at_once_and_two_never_write_together(digits, tmp_path):
    run = tmp_path / "run"
    first = begin(digits, run)
    status, output = train(digits, run, "--resume")
    assert status == 1
    assert the_line(output).startswith(f"error: {run} is being written by node {os.uname().nodename} (pid {first.pid})")
    assert first.poll() is None
    first.kill()
    first.communicate()
    status, output = train(digits, run, "--resume")
    assert status == 0, output
    assert "waiting" not in output
    assert not hidden(run)
    assert not (run / "owner.lock").exists()


def test_a_run_folder_that_is_gone_is_one_line(digits, tmp_path):
    run = tmp_path / "run"
    process = begin(digits, run)
    run.rename(tmp_path / "elsewhere")
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    line = the_line(output)
    assert f"the folder {run}" in line
    assert "is gone; " in line
    assert line.endswith(
        "is gone; choose another folder; no checkpoint yet: the same command with --resume begins again"
    )


def test_what_a_kill_leaves_is_removed_and_the_users_own_files_stay_and_open_folders_are_named(digits, tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / ".notes").mkdir()
    own = [run / ".gitignore", run / ".notes" / "a.h5", run / "checkpoints" / ".step-by-step.h5", run / "best.txt"]
    left = [run / "checkpoints" / ".step-0000000010-a8_3kx0q.h5", run / ".best-zzzzzzzz.keras"]
    left += [run / ".hpc-train.elsewhere.7.abcdefgh.best.keras"]
    for path in (*own, *left):
        path.write_text("half")
    (run / "checkpoints").chmod(0o777)
    status, output = train(digits, run)
    assert status == 0, output
    assert output.count(f"warning: {run / 'checkpoints'} can be written by every user") == output.count("warning:") == 1
    assert all(path.exists() for path in own)
    assert not any(path.exists() for path in left)
    (run / "best.keras").chmod(0o666)
    predict = [sys.executable, "-m", "hpc_train", "predict", run, "--data", digits]
    ended = subprocess.run(predict, env=environment(PYTHONPATH=str(REPOSITORY)), capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count(f"warning: {run / 'best.keras'} can be written by every user") == 1
    status, output = train(digits, tmp_path / "next", "--init", run / "best.keras", "--epochs", "1")
    assert output.count(f"warning: {run / 'best.keras'} can be written by every user") == 1, output
