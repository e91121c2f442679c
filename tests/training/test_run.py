"""Run folders and the files in them: whole or absent, and never mixed up."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from hpc_train.errors import UserError
from hpc_train.files.json_file import read_json, write_json
from hpc_train.files.whole import atomic_path
from hpc_train.parallel import World
from hpc_train.training import run_folder
from hpc_train.training.run_folder import Run
from hpc_train.watch import goodput, record
from hpc_train.watch.record import Record


@dataclass(frozen=True)
class Options:
    data: Path = Path("shards")
    lr: float = 0.1


FACTS = {"trainer": "mnist-fc", "seed": 0}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, {"a": 1})

    def fail():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise InterruptedError

    with pytest.raises(InterruptedError):
        fail()
    assert read_json(path, {}, "") == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def begun(monkeypatch, tmp_path):
    """A start that began a minute ago, four seconds of it in steps and validation."""
    made = Record()
    monkeypatch.setattr(record, "RECORD", made)
    monkeypatch.setattr(run_folder, "RECORD", made)
    monkeypatch.setattr(goodput, "_of_job", dict)
    run = Run(tmp_path)
    run.start(Options(), World(), FACTS, resume=False)
    spent = {record.START: 50.0, record.STEP: 3.0, record.VALIDATION: 1.0, record.CHECKPOINT: 6.0}
    monkeypatch.setattr(made, "spent", lambda: spent)
    return run


def test_a_start_that_is_stopped_notes_its_pace_and_the_limit_that_would_do(begun):
    record.RECORD.saved = 2.5
    begun.note_pace(8)
    numbers, words = (begun.path / "pace").read_text().splitlines()
    assert numbers == "4 60"
    # Twice the 56 s that went elsewhere, and two minutes for the signal: 232 s.
    assert words == (
        "the last start made 8 steps, in 4 of its 60 s, a checkpoint took 2.5 s, and the rest went into starting and "
        "ending; give the job 4 min or more"
    )


def test_where_no_checkpoint_was_finished_more_of_them_are_named_too(begun):
    begun.note_pace(8)
    words = (begun.path / "pace").read_text()
    assert "no checkpoint was finished" in words
    assert words.endswith("give the job 4 min or more, or write checkpoints more often (--checkpoint-every 4)\n")


def test_every_start_is_recorded(tmp_path):
    run = Run(tmp_path / "run")
    run.start(Options(), World(size=2), FACTS, resume=False)
    run.start(Options(lr=0.2), World(size=4), FACTS, resume=True)
    found = Run.open(tmp_path / "run").record()
    assert [start["world_size"] for start in found["starts"]] == [2, 4]
    assert found["options"] == {"data": "shards", "lr": 0.2}
    assert "numpy" in found["versions"]


def test_a_run_is_not_overwritten_by_accident(tmp_path):
    run = Run(tmp_path / "run")
    run.start(Options(), World(), FACTS, resume=False)
    with pytest.raises(UserError, match="add --resume"):
        run.start(Options(), World(), FACTS, resume=False)


def test_another_model_cannot_resume(tmp_path):
    run = Run(tmp_path / "run")
    run.start(Options(), World(), FACTS, resume=False)
    with pytest.raises(UserError, match="its trainer was 'mnist-fc' and is now 'mnist-cnn'"):
        run.start(Options(), World(), {**FACTS, "trainer": "mnist-cnn"}, resume=True)


def test_metrics_of_epochs_to_be_ended_again_are_dropped_with_a_half_written_line(tmp_path):
    run = Run(tmp_path)
    for step in (10, 20, 30):
        run.add_metrics({"epoch": step // 10, "step": step})
    with open(run.metrics_file, "a") as file:
        file.write('{"step": 4')
    run.forget_metrics_after(2)
    assert run.metrics() == [{"epoch": 1, "step": 10}, {"epoch": 2, "step": 20}]


def test_new_runs_never_share_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = set()
    for _ in range(3):
        paths.add(Run.new_path("mnist-fc"))
    assert len(paths) == 3


def test_an_unwritable_run_folder_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the run folder"):
        Run(tmp_path / "file" / "run").start(Options(), World(), FACTS, resume=False)


def test_what_is_not_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match="not a run folder"):
        Run.open(tmp_path)
