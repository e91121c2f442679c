"""When a phase without movement is a hang, and what is seen of the ranks' processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import pytest

from hpc_train.watch import neighbours, record
from hpc_train.watch.neighbours import BLOCKED, GONE, RUNS, STOPPED, Member
from hpc_train.watch.record import Record


def steps(seconds, count=5):
    """A record after steps of this length, inside one more."""
    made = Record()
    made._steps.extend([seconds] * count)
    made.marks_input = made.marks_callbacks = True
    made.enter(record.STEP)
    return made


@pytest.mark.parametrize(("seconds", "limit"), [(0.1, 60), (2.9, 60), (10, 200)])
def test_a_step_may_take_20_times_the_median_and_a_minute(seconds, limit):
    assert steps(seconds).limit(None) == pytest.approx(limit)


def test_what_the_user_gives_holds_for_steps_input_and_callbacks():
    made = steps(100)
    for phase in (record.STEP, record.INPUT, record.CALLBACKS, record.VALIDATION):
        made.enter(phase)
        assert made.limit(10) == 10


@pytest.mark.parametrize("phase", [record.START, record.COMPILE, record.EPOCH_END, record.CHECKPOINT, record.END])
def test_phases_whose_length_nothing_tells_may_take_half_an_hour(phase):
    made = Record()
    made.enter(phase)
    assert made.limit(10) == made.limit(None) == 1800
    assert made.limit(5000) == 5000


def test_storage_and_callbacks_get_minutes_by_default():
    made = steps(0.1)
    made.enter(record.INPUT)
    assert made.limit(None) == 300
    made.enter(record.CALLBACKS)
    assert made.limit(None) == 600


def test_what_is_not_marked_is_part_of_a_step_and_gets_its_time():
    made = steps(0.1)
    made.marks_input = False
    assert made.limit(None) == 300
    made.marks_callbacks = False
    assert made.limit(None) == 600


def test_before_three_steps_nobody_knows_how_long_one_takes():
    made = steps(70, count=2)
    assert made.limit(None) == 1800
    assert made.limit(10) == 10
    made.begin_step(record.STEP)
    made.begin_step(record.STEP)
    assert made.limit(None) < 1800
    made.begin_fit()
    made.enter(record.STEP)
    assert made.limit(None) == 1800


def test_only_steps_in_a_row_count_for_the_median():
    made = Record()
    for phase in (record.COMPILE, record.STEP, record.STEP):
        made.begin_step(phase)
    assert (made.step, len(made._steps)) == (3, 1)
    made.rest()
    made.begin_step(record.STEP)
    assert len(made._steps) == 1


def test_a_phase_inside_another_one_is_left_for_it_also_after_an_error():
    made = Record()
    made.enter(record.CALLBACKS)
    with contextlib.suppress(InterruptedError), made.during(record.CHECKPOINT):
        assert made.phase == record.CHECKPOINT
        raise InterruptedError
    assert made.phase == record.CALLBACKS
    assert [phase for _, phase, _ in made.history] == [record.CALLBACKS, record.CHECKPOINT, record.CALLBACKS]


def test_in_a_phase_of_unknown_length_what_the_main_thread_does_is_a_movement(monkeypatch):
    made = Record()
    did = [("1",), ("1",), ("2",)]
    monkeypatch.setattr(record, "_done_by_main_thread", lambda: did.pop(0))
    moved = []
    while did:
        before = made.since
        time.sleep(0.01)
        made.look()
        moved.append(made.since > before)
    assert moved == [True, False, True]


def test_a_thread_that_computes_or_waits_for_something_that_ends_is_seen():
    before = record._done_by_main_thread()
    time.sleep(0.05)
    assert record._done_by_main_thread() != before


def test_a_phase_that_an_error_has_ended_is_left():
    made = steps(0.1)
    made.look()
    assert made.phase == record.START


def test_a_stopped_an_ended_and_a_running_process_are_told_apart():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mine = neighbours.this_process(0)
    fields = neighbours._fields(process.pid)
    child = Member(1, mine.host, process.pid, fields[neighbours._STARTED], mine.space)
    try:
        assert neighbours.states([mine, child])[1] in (RUNS, BLOCKED)
        os.kill(process.pid, signal.SIGSTOP)
        deadline = time.monotonic() + 10
        while neighbours.states([child])[1] != STOPPED and time.monotonic() < deadline:
            time.sleep(0.01)
        assert neighbours.states([child]) == {1: STOPPED}
        neighbours.end([child])
        assert process.wait(10) == -signal.SIGKILL
        assert neighbours.states([child]) == {1: GONE}
    finally:
        process.kill()
        process.wait()


def test_a_later_process_with_the_same_number_is_another_one_and_is_not_killed():
    mine = neighbours.this_process(0)
    earlier = Member(1, mine.host, os.getpid(), "1", mine.space)
    assert neighbours.states([earlier]) == {1: GONE}
    neighbours.end([earlier])
    elsewhere = [Member(2, "another-host", 1, "1", mine.space), Member(3, mine.host, 1, "1", "pid:[0]")]
    assert neighbours.states(elsewhere) == {}
