"""Where the time of a run went: phases of its starts, what was lost, and what was useful."""

import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch import environment

from hpc_train.report.runs import run_time
from hpc_train.watch import goodput, record
from hpc_train.watch.record import Record

PARTS = st.dictionaries(st.sampled_from(goodput.PARTS), st.floats(0, 1e6))


def times(seconds, first=0, step=100, at=1000.0, ended=False):
    return goodput.Times(seconds=seconds, first=first, step=step, at=at, ended=ended)


def test_a_record_adds_up_its_phases():
    made = Record()
    made.enter(record.COMPILE)
    for _ in range(3):
        made.begin_step(record.STEP)
        time.sleep(0.02)
        with made.during(record.INPUT):
            time.sleep(0.01)
    made.enter(record.VALIDATION)
    before = time.monotonic() - made.began
    spent = made.spent()
    assert before - 0.001 <= sum(spent.values()) <= time.monotonic() - made.began + 0.001
    assert spent[record.STEP] >= 0.06
    assert spent[record.INPUT] >= 0.03
    assert record.VALIDATION in spent


def test_after_a_kill_the_time_since_the_last_checkpoint_is_lost():
    found = goodput.lost(times({"training": 60.0}), step=100, heard=1025.0)
    assert (found["seconds"], found["ended"]) == ({"training": 60.0, "lost": 25.0}, True)


def test_after_an_end_with_a_checkpoint_nothing_is_lost():
    assert goodput.lost(times({"training": 60.0}, ended=True), 100, 2000.0)["seconds"] == {
        "training": 60.0,
        "lost": 0.0,
    }


@given(PARTS, st.integers(0, 100), st.integers(0, 100))
def test_steps_that_are_made_again_were_lost_and_no_second_gets_lost_twice(seconds, first, step):
    before = times(seconds, first=min(first, 100), ended=True)
    after = goodput.lost(before, step, None)["seconds"]
    assert sum(after.values()) == pytest.approx(sum(seconds.values()), abs=0.1 * len(after))
    useful = sum(seconds.get(name, 0) for name in goodput.USEFUL)
    if first <= step < 100:
        again = (100 - step) / (100 - first)
        assert after["lost"] == pytest.approx(seconds.get("lost", 0) + again * useful, abs=0.2)


def test_all_starts_are_added_up_without_the_queue():
    starts = [
        {},
        {"times": times({"queue": 3600.0, "start-up": 60.0, "training": 1800.0, "validation": 90.0, "lost": 50.0})},
        {"times": times({"queue": 7.0, "start-up": 40.0, "compiling": 10.0, "training": 940.0, "checkpoints": 10.0})},
    ]
    assert goodput.in_short(starts) == (
        "useful 94.3% of 50 min in 2 starts, after 1 h in the queue (start-up 3.3%, lost 1.7%, compiling 0.3%)"
    )
    assert [line.split()[0] for line in run_time.lines(starts)] == [
        *("useful", "start-up", "compiling", "training", "validation", "checkpoints", "lost")
    ]


def test_of_a_run_of_an_earlier_version_nothing_is_said():
    assert goodput.in_short([{"step": 0}]) == ""
    assert run_time.lines([{"step": 0}]) == []


def test_slow_ranks_are_summed_up_over_epochs_and_starts():
    one = {"rank": 1, "place": "node0, GPU 1", "by": 0.3, "cost": 0.2}
    other = {"rank": 5, "place": "node1, GPU 1", "by": 0.5, "cost": 0.4}
    starts = [
        {"times": times({"training": 10.0}), "slow": [one | {"epoch": 1}, one | {"epoch": 2, "cost": 0.1}]},
        {"times": times({"training": 10.0}), "slow": [other | {"epoch": 3}]},
    ]
    assert run_time.lines(starts)[-2:] == [
        "rank 1 on node0, GPU 1 was the slowest in 2 epochs: 30% slower than the others, "
        "which cost all ranks 15% of them",
        "rank 5 on node1, GPU 1 was the slowest in 1 epoch: 50% slower than the others, which cost all ranks 40% of it",
    ]


def test_a_process_that_is_forked_begins_its_own_account():
    script = """
import os, sys
from hpc_train.watch.record import RECORD, STEP
before = RECORD.began
RECORD.enter(STEP)
if os.fork() == 0:
    sys.stdout.write(f"{sorted(RECORD.spent())} {RECORD.began > before}")
    sys.stdout.flush()
    os._exit(0)
os.wait()
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment(), check=True
    )
    assert ended.stdout == "['start'] True"
