"""A study's folder: who runs which trial, what is kept, and what is damaged or in the way."""

import dataclasses
import json
import os

import pytest

from hpc_train.errors import UserError
from hpc_train.scan import writer
from hpc_train.scan.search import Search
from hpc_train.scan.show import as_json, table, use
from hpc_train.scan.space import read
from hpc_train.scan.study import (
    COMPLETE,
    DONE,
    FAILED,
    KILLED,
    OPEN,
    PRUNED,
    STOPPED,
    WRONG,
    Settings,
    Study,
)
from hpc_train.scan.trainer import Trainer
from hpc_train.scan.writer import Writer
from hpc_train.training.ownership import NAME, Lock, Owner, owned

pytest.importorskip("optuna")

SPACE = ["x=0.0..1.0"]


def settings(**more):
    given = {"trials": 4, "prune": "none", **more}
    return Settings(
        trainer="trial.py", options=[], space=SPACE, search="random", objective="score", direction="max", seed=0,
        ranks_per_trial=1, folder=os.getcwd(), **given,
    )  # fmt: skip


class Scan:
    """A writer without a crew: the test plays the scan processes that run trials."""

    def __init__(self, path, slots=2, **more):
        self.study, self.settings, self.lines = Study(path), settings(**more), []
        self.slots = slots
        self.study.make()
        self.study.write_settings(self.settings)
        self.study.join("me", slots)
        self.start()

    def start(self, retry=False):
        """Become the writer, as after a kill."""
        lock = Lock(self.study.path / NAME, Owner.this())
        (self.study.path / NAME).unlink(missing_ok=True)
        assert lock.attempt()
        space, trainer = read(SPACE), Trainer("trial.py", ())
        self.writer = Writer(
            self.study, self.settings, space, trainer, lock, "me", self.slots, self.lines.append, retry
        )
        self.writer.step()

    def run(self, number, how=DONE, why="", values=(0.5,), member="me", turn=None):
        """Claim a trial, and end it."""
        turn = turn or self.writer.board.open[number]
        assert self.study.claim(number, turn, member)
        metrics(self.study.folder(number), values)
        self.study.write_result(number, turn, how, why)
        self.writer.step()

    def states(self):
        return [trial.state for trial in self.study.trials()]


def metrics(folder, values):
    lines = [json.dumps({"epoch": place, "step": place, "val_score": value}) for place, value in enumerate(values, 1)]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))


@pytest.fixture
def scan(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "_LOOK", 0)
    return lambda **more: Scan(tmp_path / "study", **more)


def test_trials_are_made_as_slots_become_free_and_the_best_epoch_counts(scan):
    one = scan()
    assert one.states() == [OPEN, OPEN]
    one.run(0, values=[0.1, 0.7, 0.3])
    assert one.states() == [COMPLETE, OPEN, OPEN]
    trial = one.study.trial(0)
    assert (trial.value, trial.epoch, trial.told) == (0.7, 2, 0)
    for number in (1, 2, 3):
        one.run(number, values=[0.2])
    assert one.states() == [COMPLETE] * 4
    assert one.study.board().over
    assert one.study.best()["number"] == 0
    assert one.lines[0].startswith("trial 0 done: score 0.7 in epoch 2  x=")


def test_a_claim_succeeds_once(scan):
    one = scan()
    assert [one.study.claim(0, 1, name) for name in ("me", "you")] == [True, False]
    assert one.study.claimed(0, 1).member == "me"


def test_a_trial_that_stopped_or_lost_its_process_is_started_again(scan):
    one = scan()
    one.run(0, how=STOPPED)
    assert one.writer.board.open[0] == 2
    # Claimed by a scan process that is gone.
    assert one.study.claim(1, 1, "gone")
    one.writer.step()
    assert one.writer.board.open == {0: 2, 1: 2}
    one.run(0)
    # What a process that was believed dead says later does not count.
    one.study.write_result(1, 1, WRONG, "late")
    one.run(1)
    assert one.states()[:2] == [COMPLETE, COMPLETE]


def test_a_trial_of_a_process_that_joined_a_moment_ago_is_its_own(scan, monkeypatch):
    one = scan()
    monkeypatch.setattr(one.writer, "_look_at_others", lambda: True)
    with owned(one.study.join("new", 2)):
        assert one.study.claim(0, 1, "new")
        one.writer.step()
        assert one.writer.board.open[0] == 1
    one.writer._others.clear()
    one.writer.step()
    assert one.writer.board.open[0] == 2


def test_a_result_of_a_process_that_is_gone_counts(scan):
    one = scan()
    one.run(0, member="gone")
    assert one.states()[0] == COMPLETE


def test_a_trial_that_is_killed_without_progress_fails_after_five_starts(scan):
    one = scan()
    for _ in range(5):
        assert one.states()[0] == OPEN
        one.run(0, how=KILLED, why="ended by SIGKILL (out of memory?)")
    trial = one.study.trial(0)
    assert trial.state == FAILED
    assert trial.reason == "started 5 times without a newer checkpoint: ended by SIGKILL (out of memory?)"


def test_a_trial_that_is_tried_again_has_all_its_starts_again(scan):
    one = scan()
    for _ in range(5):
        one.run(0, how=KILLED, why="ended by SIGKILL")
    assert one.states()[0] == FAILED
    one.start(retry=True)
    for _ in range(4):
        one.run(0, how=KILLED, why="ended by SIGKILL")
        # As after a kill of the scan.
        one.start()
    assert one.states()[0] == OPEN
    one.run(0, how=KILLED, why="ended by SIGKILL")
    assert one.study.trial(0).reason == "started 5 times without a newer checkpoint: ended by SIGKILL"


def test_a_trial_with_newer_checkpoints_may_be_killed_often(scan):
    one = scan()
    folder = one.study.folder(0) / "checkpoints"
    folder.mkdir()
    for start in range(9):
        (folder / f"step-{start:010}.h5").touch()
        one.run(0, how=KILLED, why="ended by SIGKILL")
    assert one.states()[0] == OPEN


def test_a_failed_trial_costs_only_itself_and_can_be_tried_again(scan):
    one = scan()
    one.run(0)
    one.run(1, how=WRONG, why="the loss is nan")
    one.run(2)
    one.run(3)
    assert one.states() == [COMPLETE, FAILED, COMPLETE, COMPLETE]
    assert one.study.trial(1).reason == "the loss is nan"
    before = one.study.trial(1).params
    one.start(retry=True)
    assert one.states()[1] == OPEN
    one.run(1)
    assert one.states() == [COMPLETE] * 4
    assert one.study.trial(1).params == before


def test_a_scan_whose_first_trials_all_fail_ends_with_the_reason(scan):
    one = scan(trials=50)
    for number in range(3):
        one.run(number, how=WRONG, why="no such metric")
    board = one.study.board()
    assert board.failed.startswith("the first 3 trials have failed, this one so: no such metric; read ")
    assert len(one.states()) < 6


@pytest.mark.parametrize("value", [float("nan"), None])
def test_an_objective_that_is_never_a_number_or_never_reported_is_a_failure(scan, value):
    one = scan()
    one.study.claim(0, 1, "me")
    line = {"epoch": 1, "step": 1, "val_loss": 0.1} | ({} if value is None else {"val_score": value})
    (one.study.folder(0) / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    one.study.write_result(0, 1, DONE, "")
    one.writer.step()
    said = "its score was never a number" if value else "validation reports no score; it reports loss"
    assert one.study.trial(0).reason == said


def test_a_scan_that_goes_on_knows_what_was_settled_and_what_ended_meanwhile(scan):
    one = scan(trials=6)
    one.run(0)
    one.study.claim(1, 1, "me")
    metrics(one.study.folder(1), [0.9])
    one.study.write_result(1, 1, DONE, "")
    one.start()
    assert one.states()[:2] == [COMPLETE, COMPLETE]
    assert one.study.best()["number"] == 1
    for number in range(2, 6):
        one.run(number, values=[0.1])
    assert sorted(trial.told for trial in one.study.trials()) == list(range(6))


def test_a_worse_trial_is_pruned_and_keeps_its_best_value(scan):
    one = scan(trials=30, prune="median")
    for number in range(8):
        one.run(number, values=[0.5, 0.6, 0.7])
    one.study.claim(8, 1, "me")
    metrics(one.study.folder(8), [0.1, 0.05])
    one.writer.step()
    assert one.study.board().stop == [8]
    one.study.write_result(8, 1, STOPPED, "")
    one.writer.step()
    trial = one.study.trial(8)
    assert (trial.state, trial.value, trial.epoch) == (PRUNED, 0.1, 1)
    assert one.study.board().stop == []
    one.start()
    assert one.writer.search.told == 9


@pytest.mark.parametrize("name", ["trial.json", "metrics.jsonl"])
def test_a_damaged_file_of_a_trial_is_one_line(scan, name):
    one = scan(prune="median")
    one.run(0)
    file = one.study.folder(0) / name
    file.write_bytes(file.read_bytes().replace(b"0.5", b"0.6", 1).replace(b"1", b"x", 1))
    with pytest.raises(UserError) as told:
        Search(one.settings, read(SPACE), one.study.trials())
    assert str(file) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_missing_trial_is_one_line(scan):
    one = scan()
    (one.study.folder(0) / "trial.json").unlink()
    with pytest.raises(UserError, match="trial 0 is missing; put its folder back"):
        one.start()


def test_a_damaged_result_starts_the_trial_again(scan):
    one = scan()
    one.study.claim(0, 1, "me")
    (one.study.folder(0) / "result-1.json").write_text('{"ended": "done", "reason"')
    one.writer.step()
    assert one.writer.board.open[0] == 2


def test_a_claim_that_is_damaged_is_that_of_a_process_that_has_ended_but_not_at_once(scan, monkeypatch):
    one = scan()
    (one.study.folder(0) / "claim-1").write_text("")
    one.writer.step()
    assert one.writer.board.open[0] == 1
    monkeypatch.setattr(writer, "_DAMAGED", 0)
    one.writer.step()
    assert one.writer.board.open[0] == 2


def test_a_study_keeps_what_it_searches(tmp_path):
    kept = settings()
    for change, said in (
        ({"space": ["x=0.0..2.0"]}, "--space was x=0.0..1.0 and is now x=0.0..2.0"),
        ({"seed": 3}, "--seed was 0 and is now 3"),
        ({"options": ["--epochs", "2"]}, "the options after `--` was  and is now --epochs 2"),
    ):
        with pytest.raises(UserError, match="a study keeps it") as told:
            kept.check_same(tmp_path, dataclasses.replace(kept, **change))
        assert said in str(told.value)
    kept.check_same(tmp_path, dataclasses.replace(kept, trials=99))


def test_a_writer_that_lost_its_lock_writes_nothing_more(scan):
    one = scan()
    other = {**vars(Owner.this()), "token": "another", "host": "n2"}
    (one.study.path / NAME).write_text(json.dumps(other))
    before = (one.study.folder(0) / "trial.json").read_bytes()
    with pytest.raises(UserError, match="was taken over by node n2"):
        one.run(0)
    assert (one.study.folder(0) / "trial.json").read_bytes() == before


def test_the_use_of_slots_comes_from_the_times_of_all_processes(scan):
    one = scan()
    for member, runs in {"a": [(0, 0, 10), (0, 11, 20), (1, 5, 15)], "b": [(0, 100, 110)]}.items():
        one.study.join(member, 2)
        for slot, began, ended in runs:
            one.study.note(member, slot=slot, trial=0, began=float(began), prepared=began + 2.0, ended=float(ended))
    found = use(one.study)
    assert found["inside"] == pytest.approx((19 + 10 + 10) / (20 + 10 + 10))
    assert (found["pause_s"], found["start_s"], found["runs"]) == (1, 2, 4)


def test_the_state_is_shown_as_a_table_and_as_json(scan):
    one = scan()
    one.run(0)
    one.run(1, how=WRONG, why="no memory")
    lines = table(one.study)
    assert lines[0].endswith("study: 1 done, 1 failed of 4")
    assert any(line.startswith("trial 1 failed: no memory  x=") for line in lines)
    shown = json.loads(as_json(one.study))
    assert (shown["best"], len(shown["trials"]), shown["settings"]["objective"]) == (0, 4, "score")
