"""MLflow and W&B, the real packages, over starts, kills and resumes; what they do not get; what their failures do."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from launch import environment

from hpc_train.errors import UserError
from hpc_train.tracking import follow
from hpc_train.tracking.follow import Follower, check, followed
from hpc_train.tracking.subject import clean
from hpc_train.training.run_folder import Run

SECRET = "wq7Planted0Secret1Nobody2May3See4Here567"


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """The run folder of three starts, killed, stopped and finished, the last two with their last epoch done again."""
    for package in ("mlflow", "wandb"):
        pytest.importorskip(package, reason=f"no {package} here: it is in the extra of that name")
    home = tmp_path_factory.mktemp("tracked")
    # A clone whose remote has a token in it, as CI systems make them.
    for folder in ("objects", "refs"):
        (home / ".git" / folder).mkdir(parents=True)
    (home / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    remote = f'[remote "origin"]\n\turl = https://me:{SECRET[::-1]}@example.org/x.git\n'
    (home / ".git" / "config").write_text(remote)
    names = ("PLANTED", "MY_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD")
    variables = environment(HOME=str(home), WANDB_MODE="offline", **dict.fromkeys(names, SECRET))
    script = Path(__file__).with_name("tracked.py")
    for epochs, end, status in ((2, "killed", -9), (3, "stopped", 75), (4, "finished", 0)):
        command = [sys.executable, script, home / "run", str(epochs), end, "--password", SECRET]
        ended = subprocess.run(command, cwd=home, env=variables, capture_output=True, text=True, timeout=300)
        assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "")
    return home / "run"


def test_mlflow_has_one_run_with_every_step_once(tracked):
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tracked}/tracking/mlflow.db")
    [experiment] = [one for one in client.search_experiments() if one.name == "hpc-train"]
    [run] = client.search_runs([experiment.experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    losses = client.get_metric_history(run.info.run_id, "loss")
    assert [(one.step, one.value) for one in losses] == [(21, 1), (42, 1 / 2), (63, 1 / 3), (84, 1 / 4)]
    assert "val_a_b" in run.data.metrics
    # The options of the first start, and what a later one had in their place.
    assert (run.data.params["epochs"], run.data.tags["resumed.epochs"]) == ("2", "4")
    assert (run.data.tags["trainer"], run.data.tags["version.python"]) == ("made-up", sys.version.split()[0])
    assert run.data.params["data"] == "https:/***@example.org/x"


def test_every_offline_folder_of_wandb_has_the_same_id_and_steps_rise(tracked):
    from hpc_train.tracking.wandb_run import steps_in

    files = sorted(tracked.glob("tracking/wandb/offline-run-*/*.wandb"))
    [name] = {file.name for file in files}
    assert {file.parent.name.split("-")[3] for file in files} == {name.removeprefix("run-").removesuffix(".wandb")}
    assert len(files) == 3
    assert [step for file in files for step in steps_in(file)] == [21, 42, 63, 84]


def test_a_file_of_wandb_that_was_cut_gives_the_steps_that_are_whole(tracked, tmp_path):
    from hpc_train.tracking.wandb_run import steps_in

    [whole, *_] = sorted(tracked.glob("tracking/wandb/offline-run-*/*.wandb"))
    data = whole.read_bytes()
    found = []
    for length in range(0, len(data), 997):
        (tmp_path / "cut").write_bytes(data[:length])
        found.append(list(steps_in(tmp_path / "cut")))
    assert [found.index(steps) for steps in ([], [21])] == sorted(map(found.index, ([], [21])))
    assert all(steps in ([], [21], [21, 42]) for steps in found)


def test_no_credential_is_written(tracked):
    run = Run(tracked)
    # What the user gave as an option stands in the run's own record, which `predict` reads the data by.
    assert SECRET not in str(run.record() | {"options": {}})
    ours = {run.record_file, tracked / "run.json.copy"}
    files = [path for path in tracked.parent.rglob("*") if path.is_file() and path not in ours]
    assert len(files) > 10
    holding = [path for path in files for word in (SECRET, SECRET[::-1]) if word.encode() in path.read_bytes()]
    assert holding == [tracked.parent / ".git" / "config"]


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("https://me:pw@host:5000/x", "https://***@host:5000/x"),
        ("postgresql://token@host", "postgresql://***@host"),
        ("https://host/a@b", "https://host/a@b"),
        ("--api-key abc --lr 0.1", "--api-key *** --lr 0.1"),
        ("url?access_token=abc&x=1", "url?access_token=***&x=1"),
        ("--build-args max_tokens=512 token x", "--build-args max_tokens=512 token x"),
        ({"wandb_api_key": "abc", "lr": 0.1, "words": ("password=x",)}, None),
    ],
)
def test_credentials_in_texts_are_hidden(text, cleaned):
    whole = {"wandb_api_key": "***", "lr": 0.1, "words": ["password=***"]}
    assert clean(text) == (cleaned or whole)


class Flaky:
    """A tracker that fails whenever `works` is False, and holds `steps` else."""

    def __init__(self):
        self.steps, self.works, self.status, self.reached = [], False, None, 0

    def reach(self):
        self.reached += 1
        self.log({"step": None})
        return self

    @property
    def last(self):
        return max(self.steps, default=0)

    @last.setter
    def last(self, step):
        assert step == self.last

    def log(self, line):
        if not self.works:
            raise OSError("https://me:pw@host does not answer\nagain")
        self.steps += [line["step"]] if line["step"] else []

    def end(self, status):
        self.log({"step": None})
        self.status = status


def wait(condition):
    while not condition():
        time.sleep(0.01)


def test_a_tracker_that_fails_is_one_line_and_gets_what_it_lacks_when_it_works_again(capsys):
    tracker, lines = Flaky(), [{"step": 1}]
    follower = Follower("mlflow", tracker.reach, lambda: list(lines))
    wait(lambda: tracker.reached == 1)
    lines.append({"step": 2})
    follower.look()
    wait(lambda: tracker.reached == 2)
    tracker.works = True
    lines.append({"step": 3})
    follower.look()
    wait(lambda: tracker.steps == [1, 2, 3])
    follower.look("stopped")
    follower.join()
    assert (tracker.steps, tracker.status) == ([1, 2, 3], "stopped")
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("warning: --track mlflow: OSError: https://***@host does not answer again; training goes")


@pytest.mark.parametrize(
    ("raised", "status"), [(SystemExit(75), "stopped"), (KeyboardInterrupt(), "stopped"), (ValueError(), "failed")]
)
def test_it_says_how_the_training_ended(raised, status, tmp_path, monkeypatch):
    tracker = Flaky()
    tracker.works = True
    monkeypatch.setattr(follow, "_mlflow", lambda subject: tracker.reach())
    run = SimpleNamespace(path=tmp_path, metrics=list, record=lambda: {"options": {}, "facts": {}, "versions": {}})
    with pytest.raises(type(raised)), followed(["mlflow"], run):
        raise raised
    assert tracker.status == status


def test_a_tracker_that_hangs_does_not_hold_the_end_up(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(follow.LIMITS, "finished", 0.1)
    released = threading.Event()
    monkeypatch.setattr(follow, "_wandb", lambda subject: released.wait())
    run = SimpleNamespace(path=tmp_path, metrics=list, record=lambda: {"options": {}, "facts": {}, "versions": {}})
    with followed(["wandb"], run) as [follower]:
        pass
    assert follower.is_alive()
    assert "--track wandb: no answer within 0.1 s" in capsys.readouterr().out
    released.set()


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(follow, "find_spec", lambda name: None)
    for name in ("mlflow", "wandb"):
        with pytest.raises(UserError, match=rf"{name} needs {name}, .*\(the extra {name} of hpc-train\): pip install"):
            check((name,), "")
    monkeypatch.setattr(follow, "find_spec", lambda name: None if name == "sqlalchemy" else os)
    with pytest.raises(UserError, match="--track mlflow needs sqlalchemy"):
        check(("mlflow",), "")
    # A server has its own.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://localhost:5000")
    check(("mlflow",), "")


def test_the_log_of_mlperf_is_for_its_benchmarks():
    with pytest.raises(UserError, match="it is for hpc_train"):
        check(("mlperf",), "")
    check(("mlperf",), "deepcam")
