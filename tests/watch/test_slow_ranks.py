"""A rank that the others wait for in step after step is named, and how much it costs; noise is not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.watch import slow


def rows(own, jitter=0.0, steps=200, reading=None):
    """What ranks tell of their steps, which take as long as the slowest one's own part and its all-reduce."""
    draw = np.random.default_rng(0)
    own = np.array(own)[:, None] * draw.uniform(1 - jitter, 1 + jitter, (len(own), steps))
    every = own.max(axis=0) + 1
    reading = np.zeros(len(own)) if reading is None else reading
    return np.array(
        [
            slow.row(zip(every, every - mine, [wait] * steps, strict=True))
            for mine, wait in zip(own, reading, strict=True)
        ]
    )


@given(ranks=st.integers(2, 40), late=st.integers(0, 39), by=st.floats(0.3, 3), jitter=st.floats(0, 0.1))
def test_the_slow_one_of_many_is_named_with_what_it_costs(ranks, late, by, jitter):
    late %= ranks
    own = np.full(ranks, 10.0)
    own[late] *= 1 + by
    found = slow.slow_ranks(rows(own, jitter))
    assert [one.rank for one in found] == [late]
    assert found[0].by == pytest.approx(by, abs=0.1 * (1 + by))
    assert found[0].cost == pytest.approx(10 * by / (10 * (1 + by) + 1), abs=0.1)


@given(ranks=st.integers(2, 40), spread=st.floats(0, 0.1), jitter=st.floats(0, 0.2))
def test_ranks_that_differ_by_a_little_are_not_named(ranks, spread, jitter):
    own = 10 * np.linspace(1, 1 + spread, ranks)
    assert slow.slow_ranks(rows(own, jitter)) == []


def test_a_rank_that_is_late_now_and_then_is_not_named():
    pace = [(11.0, 1.0, 0.0)] * 100
    now_and_then = [(11.0, 1.0, 0.0)] * 80 + [(61.0, 1.0, 0.0)] * 20
    assert slow.slow_ranks(np.array([slow.row(pace), slow.row(now_and_then)])) == []


def test_few_steps_and_a_horovod_that_does_not_say_how_long_it_waits_name_nobody():
    steps = [(11.0, 8.0, 0.0)] * 100
    for other in (steps[: slow.FEWEST - 1], [(11.0, float("nan"), 0.0)] * 100):
        assert slow.slow_ranks(np.array([slow.row(steps), slow.row(other)])) == []


def test_half_of_the_ranks_may_be_slow_and_three_are_named():
    found = slow.slow_ranks(rows([10, 10, 10, 10, 13, 14, 15, 16], reading=[0, 0, 0, 0, 0, 0, 4, 5]))
    assert [one.rank for one in found] == [7, 6, 5, 4]
    told = slow.told(found, [f"node{rank // 4}" for rank in range(8)])
    assert told == (
        "rank 7 on node1 is 60% slower, waiting for data, rank 6 on node1 is 50% slower, waiting for data, "
        "rank 5 on node1 is 40% slower, 1 more: costs all ranks 35%"
    )
