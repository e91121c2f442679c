"""A scan on a disk that is full or fails ends with one line, and goes on when there is room again."""

import subprocess
import sys

import pytest
from launch import REPOSITORY, environment

from hpc_train.scan.study import COMPLETE, Study

sys.path.append(str(REPOSITORY / "tests" / "storage"))
import failing

pytest.importorskip("optuna")
pytest.importorskip("horovod")

TRIAL = """
import json, pathlib, sys
run = pathlib.Path(sys.argv[sys.argv.index("--run") + 1])
(run / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "step": 1, "val_score": 0.5}) + "\\n")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return failing.build(tmp_path_factory.mktemp("library"))


def scan(folder, **variables):
    (folder / "trial.py").write_text(TRIAL)
    words = [
        "scan",
        "study",
        "--trials",
        "2",
        "--space",
        "x=0.0..1.0",
        "--search",
        "random",
        "--objective",
        "score:max",
    ]
    line = [sys.executable, "-m", "hpc_train.cli", *words, "--", "trial.py"]
    env = environment(PYTHONPATH=str(REPOSITORY), **variables)
    ended = subprocess.run(line, env=env, cwd=folder, capture_output=True, text=True, timeout=120)
    return ended.returncode, [text for text in ended.stderr.splitlines() if text]


@pytest.mark.parametrize(
    ("call", "pattern"),
    [
        ("write", "*scan.json"),
        ("fsync", "*trial.json"),
        ("write", "*hparams-*"),
        ("write", "*claim-1"),
        ("open", "*/log.txt"),
        ("rename", "*result-1.json"),
        ("write", "*/trials.jsonl"),
    ],
)
def test_a_file_of_a_study_that_cannot_be_written_is_one_line_and_the_same_command_goes_on(
    library, tmp_path, call, pattern
):
    status, said = scan(tmp_path, **failing.environment(library, call, pattern, "ENOSPC"))
    assert status == 2, said
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert "cannot write" in said[0]
    status, said = scan(tmp_path)
    assert (status, said) == (0, [])
    study = Study(tmp_path / "study")
    assert [trial.state for trial in study.trials()] == [COMPLETE, COMPLETE]
    assert not list(tmp_path.rglob(".hpc-train*"))
