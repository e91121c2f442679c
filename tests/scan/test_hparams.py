"""The HPARAMS tab of TensorBoard, filled without TensorFlow: what a real TensorBoard answers about a study."""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager

import pytest
from made_up_scan import distributions

from hpc_train.files.whole import NotWritten
from hpc_train.scan import hparams

pytest.importorskip("optuna")
# Accuracy by epoch, learning rate, network and state of each trial.
TRIALS = {
    0: ([0.5, 0.7], {"lr": 0.1, "model": "cnn", "units": 16, "nesterov": True, "warmup": "auto"}, "complete"),
    1: ([0.6, 0.9], {"lr": 0.01, "model": "deep", "units": 64, "nesterov": False, "warmup": 1}, "complete"),
    2: ([0.2], {"lr": 0.001, "model": "cnn", "units": 32, "nesterov": True, "warmup": 1}, "pruned"),
    3: ([], {"lr": 0.09, "model": "deep", "units": 16, "nesterov": True, "warmup": 1}, "failed"),
    4: ([0.4], {"lr": 0.02, "model": "deep", "units": 16, "nesterov": True, "warmup": 1}, "open"),
}


def folder_of(study, number):
    return study / "trials" / f"{number:05}"


def write_scores(folder, values):
    """What Keras's callback writes of validation."""
    tensorflow = pytest.importorskip("tensorflow")
    writer = tensorflow.summary.create_file_writer(str(folder / "tensorboard" / "validation"))
    with writer.as_default():
        for epoch, value in enumerate(values):
            tensorflow.summary.scalar("epoch_accuracy", value, step=epoch)
    writer.close()


def write_study(study, states=None):
    """Write the study's and all sessions' events."""
    hparams.write_experiment(study, distributions(), "accuracy", "max")
    for number, (_, params, state) in TRIALS.items():
        state = (states or {}).get(number, state)
        hparams.write_session(folder_of(study, number), number, params, state, distributions())


@contextmanager
def tensorboard(study):
    """A TensorBoard of the study on this machine alone: a function that asks it, with its answers."""
    log = study / "tensorboard.log"
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(study), "--host", "127.0.0.1", "--port", "0"]
    with open(log, "wb") as output:
        process = subprocess.Popen([*command, "--reload_interval", "1"], stdout=output, stderr=output)
    try:
        url = until(lambda: (re.search(r"http://127\.0\.0\.1:\d+", log.read_text()) or [None])[0], log)

        def ask(what, **request):
            query = urllib.parse.urlencode({"request": json.dumps(request)}) if request else ""
            with urllib.request.urlopen(f"{url}/data/plugin/hparams/{what}?{query}", timeout=30) as answer:
                return json.load(answer)

        yield ask
    finally:
        process.terminate()
        process.wait(30)


def until(find, log, seconds=120):
    """What `find` returns, once that is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := find():
            return found
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds} s: {log.read_text()[-2000:]}")


def sessions_of(ask, **request):
    statuses = ["STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING"]
    asked = {"startIndex": 0, "sliceSize": 100, "allowedStatuses": statuses, **request}
    return {one["name"]: one for one in ask("session_groups", **asked)["sessionGroups"]}


def status_of(group):
    """The state of a trial; TensorBoard leaves out what is unknown."""
    (session,) = group["sessions"]
    return session.get("status", "STATUS_UNKNOWN")


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    study = tmp_path_factory.mktemp("scan")
    for number, (values, *_) in TRIALS.items():
        write_scores(folder_of(study, number), values)
    write_study(study)
    # As a scan does that goes on after it was killed.
    write_study(study)
    return study


@pytest.fixture(scope="module")
def answers(study):
    """What TensorBoard answers once it has read the study: the experiment, and sessions by their names."""
    with tensorboard(study) as ask:
        log = study / "tensorboard.log"
        until(lambda: sum(bool(one["metricValues"]) for one in sessions_of(ask).values()) == 4, log)
        ordered = {"hparam": "warmup", "order": "ORDER_ASC"}
        yield {
            "experiment": ask("experiment", experimentName=""),
            "sessions": sessions_of(ask),
            "sorted": sessions_of(ask, colParams=[ordered]),
            "failed": sessions_of(ask, allowedStatuses=["STATUS_FAILURE"]),
        }


def test_the_tab_knows_each_parameter_with_its_domain(answers):
    infos = {one["name"]: one for one in answers["experiment"]["hparamInfos"]}
    assert set(infos) == set(distributions())
    assert infos["lr"]["domainInterval"] == {"minValue": 1e-4, "maxValue": 0.1}
    assert infos["model"]["domainDiscrete"] == ["cnn", "deep"]
    assert infos["units"]["domainInterval"] == {"minValue": 16, "maxValue": 64}
    assert infos["nesterov"]["domainDiscrete"] == [False, True]
    # 1 and "auto" cannot be sorted, so both are text.
    assert infos["warmup"]["domainDiscrete"] == ["1", "auto"]
    assert [infos[name]["type"] for name in ("lr", "model", "units", "nesterov", "warmup")] == [
        "DATA_TYPE_FLOAT64",
        "DATA_TYPE_STRING",
        "DATA_TYPE_FLOAT64",
        "DATA_TYPE_BOOL",
        "DATA_TYPE_STRING",
    ]


def test_the_tab_compares_trials_by_the_validation_score_that_keras_wrote(answers):
    (metric,) = answers["experiment"]["metricInfos"]
    assert metric["name"] == {"group": "validation", "tag": "epoch_accuracy"}
    assert metric["displayName"] == "val_accuracy"
    last = {
        name: [one["value"] for one in session["metricValues"]]
        for name, session in answers["sessions"].items()
        if session["metricValues"]
    }
    assert last == {
        "00000": [pytest.approx(0.7)],
        "00001": [pytest.approx(0.9)],
        "00002": [pytest.approx(0.2)],
        "00004": [pytest.approx(0.4)],
    }


def test_each_trial_is_one_session_with_its_parameters_however_often_it_is_written(answers):
    assert list(answers["sessions"]) == [f"{number:05}" for number in TRIALS]
    for number, (_, params, _) in TRIALS.items():
        group = answers["sessions"][f"{number:05}"]
        assert len(group["sessions"]) == 1
        assert group["hparams"] == {**params, "warmup": str(params["warmup"])}


def test_states_can_be_told_apart_by_the_filter(answers):
    assert {name: status_of(group) for name, group in answers["sessions"].items()} == {
        "00000": "STATUS_SUCCESS",
        "00001": "STATUS_SUCCESS",
        "00002": "STATUS_UNKNOWN",
        "00003": "STATUS_FAILURE",
        "00004": "STATUS_UNKNOWN",
    }
    assert list(answers["failed"]) == ["00003"]


def test_choices_of_several_types_can_be_sorted(answers):
    assert list(answers["sorted"])[-1] == "00000"


def test_a_tensorboard_that_runs_sees_a_trial_end(tmp_path):
    study = tmp_path
    write_scores(folder_of(study, 0), [0.5])
    write_study(study, states=dict.fromkeys(TRIALS, "open"))
    with tensorboard(study) as ask:

        def status():
            groups = sessions_of(ask)
            return status_of(groups["00000"]) if "00000" in groups else None

        log = study / "tensorboard.log"
        assert until(status, log) == "STATUS_UNKNOWN"
        hparams.write_session(folder_of(study, 0), 0, TRIALS[0][1], "complete")
        until(lambda: status() == "STATUS_SUCCESS", log)


def test_a_trial_that_is_open_again_has_not_ended(tmp_path):
    hparams.write_session(tmp_path, 3, {"lr": 0.1}, "failed")
    ended = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    hparams.write_session(tmp_path, 3, {"lr": 0.1}, "open")
    left = {path.name for path in (tmp_path / "tensorboard").iterdir()}
    assert len(ended) == 2
    assert len(left & ended) == len(left) == 1


def test_tensorboard_does_not_read_what_a_killed_writer_left(tmp_path):
    script = (
        "import os, pathlib, signal; from hpc_train.scan import hparams\n"
        "pathlib.Path.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)\n"
        "hparams.{call}"
    )
    calls = (
        f"write_session(pathlib.Path({str(tmp_path)!r}), 0, {{}}, 'complete')",
        f"write_experiment(pathlib.Path({str(tmp_path)!r}), {{}}, 'loss', 'min')",
    )
    for call in calls:
        assert subprocess.run([sys.executable, "-c", script.format(call=call)], check=False).returncode == -9
    left = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(left) == 2
    # TensorBoard reads the files that have this in their names.
    assert not [name for name in left if "tfevents" in name]


def test_tensorflow_is_not_imported(tmp_path):
    script = (
        "import pathlib, sys; from hpc_train.scan import hparams\n"
        "from optuna.distributions import FloatDistribution\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "hparams.write_experiment(folder, {'lr': FloatDistribution(0.0, 1.0)}, 'loss', 'min')\n"
        "hparams.write_session(folder, 0, {'lr': 0.1}, 'complete')\n"
        "print(sorted({'tensorflow', 'keras', 'horovod'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "tensorboard").write_text("a file")
    with pytest.raises(NotWritten, match=r"cannot write .*tensorboard"):
        hparams.write_session(tmp_path, 0, {}, "complete")
