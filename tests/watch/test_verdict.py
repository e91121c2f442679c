"""What a hang report says, from made-up records of the ranks."""

import pytest

from hpc_train.watch import record
from hpc_train.watch.neighbours import BLOCKED, GONE, RUNS, STOPPED, UNKNOWN, Member
from hpc_train.watch.verdict import paragraph

STEP = "a step that averages gradients"


def members(size=4, nodes=2):
    return [Member(rank, f"node{rank * nodes // size}", 100 + rank, "1", "pid:[1]") for rank in range(size)]


def one(rank, phase=record.STEP, operation=STEP, step=12, tensors=("grads_0",), line="fit.py:30", **more):
    return {
        "rank": rank, "phase": phase, "operation": operation, "step": step, "epoch": 2,
        "own": [], "reads": [], "processes": {},
        "tensors": tensors if tensors is None else list(tensors), **more,
        "place": {"line": line, "source": more.get("source", ""), "waits": more.get("waits", "")},
    }  # fmt: skip


def said(*records, size=4, nodes=2, guards=None):
    return paragraph({each["rank"]: each for each in records}, members(size, nodes), guards)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (STOPPED, "rank 1 of 4 (on node0) is stopped (SIGSTOP"),
        (BLOCKED, "rank 1 of 4 (on node0) is blocked in the kernel"),
        (GONE, "rank 1 of 4 (on node0) has ended without a word"),
        (UNKNOWN, "rank 1 of 4 (on node0) writes nothing, and the other ranks of its node cannot see its process"),
        (RUNS, "rank 1 of 4 (on node0) runs, but its interpreter answers nobody"),
    ],
)
def test_a_rank_that_writes_nothing_is_described_by_those_of_its_node(state, words):
    text = said(one(0, processes={"1": state}), one(2), one(3))
    assert text.startswith(words)
    assert f"ranks 0, 2, 3 wait in step 12 (epoch 2), in {STEP} (fit.py:30), for grads_0. What helps:" in text


def test_a_node_of_which_no_rank_writes_is_named_as_a_node():
    text = said(one(0, processes={"1": RUNS}), one(1))
    assert "ranks 2, 3 of 4 (on node1), each of which is silent, with all ranks of its node" in text
    assert "--exclude" in text


def test_where_no_rank_of_a_node_writes_their_guards_say_what_they_are():
    text = said(one(0), one(1), guards={2: STOPPED, 3: RUNS})
    assert "rank 2 of 4 (on node1) is stopped (SIGSTOP" in text
    assert "rank 3 of 4 (on node1) runs, but its interpreter answers nobody" in text
    assert "its node" not in text


@pytest.mark.parametrize(
    ("late", "words"),
    [
        ({"phase": record.INPUT}, "waits for its data in the phase input of step 12: a read does not return"),
        (
            {"phase": record.VALIDATION, "reads": ["file.py:8"], "waits": "thread"},
            "waits for its data in the phase validation of step 12: a read does not return (file.py:8)",
        ),
        (
            {"phase": record.CALLBACKS, "waits": "lock", "line": "mine.py:7", "source": "lock.acquire()"},
            "waits for a lock of its own process at mine.py:7 (`lock.acquire()`), in the phase callbacks of step 12",
        ),
        ({"phase": record.CALLBACKS, "waits": "thread", "line": "mine.py:7"}, "waits for another thread"),
        ({"phase": record.EPOCH_END, "step": 11}, "has no further step in its epoch after step 11"),
        ({"phase": record.END, "step": 11}, "has ended its training after step 11"),
        ({"phase": record.CALLBACKS, "line": "mine.py:7"}, "stands at mine.py:7, in the phase callbacks of step 12"),
        ({"phase": record.CHECKPOINT, "line": "mine.py:7"}, "stands at mine.py:7, in the phase checkpoint of step 12"),
    ],
)
def test_a_rank_that_is_in_no_collective_is_late_and_its_line_is_told(late, words):
    text = said(one(0), one(1), one(2, operation=None, **late), one(3))
    assert f"rank 2 of 4 (on node1) {words}" in text
    assert "ranks 0, 1, 3 wait in step 12" in text


def test_a_rank_in_the_same_step_that_has_given_no_tensor_is_late():
    text = said(one(0), one(1, tensors=(), own=["mine.py:9"]), one(2), one(3))
    assert "rank 1 of 4 (on node0) is in step 12 (epoch 2), in " in text
    assert ", runs mine.py:9, and has not come to the collective of the others" in text
    assert "ranks 0, 2, 3 wait in" in text


def test_ranks_in_other_collectives_are_each_told_with_theirs():
    other = one(1, operation="Horovod's allreduce 'mine'", tensors=("mine",), line="mine.py:4")
    text = said(one(0), other, one(2), one(3))
    assert "rank 1 of 4 (on node0) is in step 12 (epoch 2), in Horovod's allreduce 'mine' (mine.py:4), for mine" in text
    assert "ranks 0, 2, 3 of 4 (on node0, node1), each of which is in step 12" in text
    assert "the same collectives in the same order" in text


def test_where_all_have_come_the_network_is_asked_for():
    text = said(*(one(rank, tensors=()) for rank in range(4)))
    assert f"all ranks have come to step 12 (epoch 2), in {STEP} (fit.py:30), and it does not end" in text
    assert "NCCL" in text


def test_with_a_horovod_that_does_not_know_the_tensors_nobody_is_blamed():
    assert "all ranks have come to" in said(*(one(rank, tensors=None) for rank in range(4)))


def test_a_job_of_one_process_is_told_too():
    text = said(one(0, phase=record.INPUT, operation=None), size=1, nodes=1)
    assert "rank 0 of 1 (on node0) waits for its data in the phase input of step 12" in text
    assert "; rank" not in text
