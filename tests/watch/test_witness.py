"""What a guard says of its rank in the report of a hang, with a process of its own as rank."""

import signal
import subprocess
import time

import pytest

from hpc_train.files.whole import NotWritten
from hpc_train.watch import witness
from hpc_train.watch.neighbours import STOPPED


@pytest.fixture
def rank():
    process = subprocess.Popen(["sleep", "60"])
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "hang" / "job"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def watch(rank, report):
    """Begins to look after the rank; ends it with the test."""
    silent, made = [10.0], []

    def begin():
        made.append(witness.Witness(rank.pid, lambda: {"rank": "1", "reports": str(report)}, lambda: silent[0]))
        made[0].look()
        return made[0]

    yield begin
    silent[0] = 0.0
    made[0]._thread.join(5)


def until(true):
    deadline = time.monotonic() + 10
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


def test_a_stopped_rank_is_told_of_and_ends_with_the_report(watch, rank, report):
    watching = watch()
    assert until(lambda: witness.read(report) == {1: STOPPED})
    assert witness.ranks(report) == [1]
    assert rank.poll() is None
    (report / "over").touch()
    assert rank.wait(10) == -signal.SIGKILL
    assert watching.over


def test_a_rank_that_has_begun_to_write_speaks_for_itself(watch, rank, report):
    (report / "rank-1.txt").touch()
    (report / "over").touch()
    watching = watch()
    time.sleep(2.5)
    assert (witness.ranks(report), rank.poll(), watching.over) == ([], None, False)


def test_a_folder_that_cannot_be_written_is_tried_again(watch, report, monkeypatch):
    def full(path):
        raise NotWritten("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(witness, "atomic_path", full)
        watch()
        time.sleep(1.5)
        assert not witness.ranks(report)
    assert until(lambda: witness.ranks(report))
