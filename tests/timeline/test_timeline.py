"""The figures, the page and the advice of `hpc-train timeline`, for files made by hand in Horovod's format."""

import json
import math

import pytest
import tyro
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_timeline import START, a_step, begin, end, four_steps, shape, written

from hpc_train.errors import UserError
from hpc_train.timeline import summarise
from hpc_train.timeline.advice import advise, duration
from hpc_train.timeline.command import TimelineSummary, run
from hpc_train.timeline.intervals import length
from hpc_train.timeline.lateness import Rank
from hpc_train.timeline.quantiles import Quantiles


@pytest.fixture
def steps(tmp_path):
    return four_steps(tmp_path / "steps.json")


def test_every_stage_has_its_time_on_the_wall_clock_and_summed_over_tensors(steps):
    found = summarise(steps)
    assert (found["seconds"], found["start"]) == (pytest.approx(0.071), START / 1e6)
    # (wall, sum) in ms of one step
    expected = {
        "negotiation": (2, 2 + 1 + 0.5),
        "queueing": (8, 1 + 1 + 8),
        "fusion copy in": (1, 2),
        "collective": (5, 4 + 4 + 1),
        "fusion copy out": (1.5, 3),
        "other": (0.5, 1),
    }
    for name, (wall, summed) in expected.items():
        stage = found["stages"][name]
        assert (stage["wall"], stage["summed"]) == (pytest.approx(4e-3 * wall), pytest.approx(4e-3 * summed)), name
        assert stage["wall_share"] == pytest.approx(4 * wall / 71)
        assert stage["summed_share"] == pytest.approx(summed / 28.5)
    assert {name for name, stage in found["stages"].items() if stage["summed"]} == set(expected)
    assert found["idle"] == {"wall": pytest.approx(0.027), "wall_share": pytest.approx(27 / 71)}


def test_operations_are_counted_with_their_bytes(steps):
    found = summarise(steps)
    size = 4 * 1000 + 2 * 1000 + 8
    assert found["operations"] == {"ALLREDUCE": {"tensors": 12, "bytes": 4 * size}}
    assert found["collectives"] == {"MPI_ALLREDUCE": {"count": 8, "wall": pytest.approx(20e-3)}}
    assert found["allreduce"] == {"bytes_each": size / 2, "bytes_per_second": pytest.approx(size / 5e-3)}
    assert (found["cycles"], found["tensors"], found["negotiations"]["count"]) == (4, 3, 12)
    assert (found["complete"], found["damaged"], found["open"]["count"]) == (True, 0, 0)


def test_tensors_of_a_group_wait_together_and_the_longest_come_first(steps):
    waits = summarise(steps)["waiting"]
    assert [(one["name"], one["count"]) for one in waits] == [("loss", 4), ("grads", 8)]
    assert (waits[0]["mean"], waits[1]["mean"], waits[1]["max"]) == pytest.approx((8.5e-3, 2.5e-3, 3e-3))
    assert len(summarise(steps, top=1)["waiting"]) == 1


def test_the_rank_that_is_last_is_named_with_its_cost_and_a_tie_counts_for_no_rank(steps):
    found = summarise(steps)
    assert found["ranks"] == 2
    # For the third tensor the ranks come within the tie.
    assert found["ranks_noted"] == {"negotiations": 12, "even": 4}
    (late,) = found["ranks_last"]
    assert (late["rank"], late["times"], late["share"]) == (1, 8, pytest.approx(8 / 12))
    assert (late["p50"], late["max"]) == (pytest.approx(1e-3, rel=0.01), 2e-3)
    # It is late for two tensors at the same time, which counts once.
    assert (late["alone"], late["alone_share"]) == (pytest.approx(8e-3), pytest.approx(8 / 71))


def test_on_gpus_waiting_for_data_and_for_the_stream_are_stages(tmp_path):
    path = written(
        tmp_path / "gpu.json",
        begin(1, "NEGOTIATE_ALLREDUCE", 0),
        end(1, 10),
        begin(1, "ALLREDUCE", 10),
        begin(1, "WAIT_FOR_DATA", 10),
        end(1, 30),
        begin(1, "WAIT_FOR_OTHER_TENSOR_DATA", 30),
        end(1, 40),
        begin(1, "INIT_NCCL", 40),
        end(1, 45),
        begin(1, "QUEUE", 45),
        end(1, 75),
        begin(1, "NCCL_ALLREDUCE", 75),
        end(1, 100),
        end(1, 100, shape(5)),
    )
    stages = {name: round(stage["wall"] * 1e6) for name, stage in summarise(path)["stages"].items() if stage["summed"]}
    assert stages == {"negotiation": 10, "waiting for data": 30, "preparing": 5, "queueing": 30, "collective": 25}


def test_a_broadcast_from_rank_0_has_no_bytes_and_does_not_change_the_all_reduces(tmp_path):
    broadcast = [
        begin(4, "NEGOTIATE_BROADCAST", 0),
        end(4, 0),
        begin(4, "BROADCAST", 0),
        begin(4, "MPI_BCAST", 0),
        end(4, 90_000),
        end(4, 90_000),
    ]
    names = ("grads_1of2", "grads_2of2", "loss", "kernel")
    found = summarise(written(tmp_path / "t.json", *broadcast, *a_step(100_000), names=names))
    assert found["operations"]["BROADCAST"] == {"tensors": 1, "bytes": None}
    assert found["collectives"]["MPI_BCAST"] == {"count": 1, "wall": pytest.approx(0.09)}
    assert found["allreduce"]["bytes_per_second"] == pytest.approx(6008 / 5e-3)


def test_joins_and_barriers_only_wait_for_ranks(tmp_path):
    path = written(
        tmp_path / "t.json",
        begin(1, "NEGOTIATE_BARRIER", 0),
        end(1, 10),
        begin(2, "NEGOTIATE_ALLREDUCE", 1000),
        end(2, 1010),
    )
    found = summarise(path)
    assert (found["stages"]["queueing"]["summed"], found["open"]["count"]) == (0, 1)
    assert found["stages"]["negotiation"]["wall"] == pytest.approx(20e-6)


def test_the_beginning_can_be_left_out(steps):
    found = summarise(steps, skip=0.0195)
    assert (found["seconds"], found["operations"]["ALLREDUCE"]["tensors"]) == (pytest.approx(0.0515), 9)
    with pytest.raises(UserError, match="has no operation of Horovod after the first 5 s; give a smaller --skip"):
        summarise(steps, skip=5)


def test_the_command_prints_a_page_or_the_same_as_json(steps, capsys):
    run(tyro.cli(TimelineSummary, args=[str(steps), "--json"]))
    assert json.loads(capsys.readouterr().out) == summarise(steps, top=5)
    run(tyro.cli(TimelineSummary, args=[str(steps)]))
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == f"{steps}: 71 ms, {steps.stat().st_size / 1e3:.3g} kB, 140 events of 3 tensors"
    for line in (
        "ALLREDUCE: 12 tensors, 24 kB",
        "sent by 8 MPI_ALLREDUCE in 20 ms",
        "an all-reduce sends 3 kB on average, 1.2 MB/s while it runs",
        "collective 20 ms 28.2% 36 ms 31.6% sent, received and summed",
        "idle 27 ms 38.0% no tensor in any stage",
        "12 negotiations, p50 1 ms, p95 2 ms, max 2 ms",
        "12 of them show which of 2 ranks was last; in 4 of these the last two came at the same time",
        "1 8 66.7% 1 ms 2 ms 2 ms 8 ms 11.3%",
        "4 8.5 ms 8.5 ms loss",
    ):
        assert line in printed
    with pytest.raises(UserError, match="--top must be at least 1"):
        run(TimelineSummary(steps, top=0))


def made(**changes):
    """Figures from which no advice follows, but for the changes."""
    wall = changes.pop("wall", {})
    stages = ("negotiation", "collective", "fusion copy in", "fusion copy out")
    figures = {
        "seconds": 100.0,
        "ranks": 8,
        "stages": {name: {"wall": 100 * wall.get(name, 0.1), "wall_share": wall.get(name, 0.1)} for name in stages},
        "idle": {"wall_share": 0.5},
        "negotiations": {"count": 1000, "max": 0.01},
        "ranks_noted": {"negotiations": 1000, "even": 300},
        "ranks_last": [{"rank": 3, "times": 100, "share": 0.1, "p50": 0.012, "alone_share": 0.01}],
        "open": {"longest": []},
        "allreduce": {"bytes_each": 1e7},
    }
    figures["stages"]["fusion copy in"] = figures["stages"]["fusion copy out"] = {"wall": 1.0, "wall_share": 0.01}
    for name, share in wall.items():
        figures["stages"][name] = {"wall": 100 * share, "wall_share": share}
    return figures | changes


def test_advice_follows_from_the_figures_or_is_not_given():
    assert advise(made()) == []
    late = [{"rank": 3, "times": 920, "share": 0.92, "p50": 0.012, "alone_share": 0.21}]
    assert advise(made(ranks_last=late)) == [
        "rank 3 is last in 92% of the negotiations, by 12 ms (median); the others wait only for it 21% of the time: "
        "check its input, its cores and what else runs on its node"
    ]
    # Each of two ranks is last half of the time.
    assert advise(made(ranks=2, ranks_last=[late[0] | {"share": 0.6}])) == []
    # In the first steps a rank may be last because of its tracing.
    assert advise(made(ranks_last=late, ranks_noted={"negotiations": 60, "even": 0})) == []

    def one(starts_with, **changes):
        (line,) = advise(made(**changes))
        assert line.startswith(starts_with)

    one("ranks wait for each other 30% of the time, and no single rank", wall={"negotiation": 0.3})
    noted = {"negotiations": 60, "even": 0}
    one("ranks wait for each other 30% of the time, and the file does", wall={"negotiation": 0.3}, ranks_noted=noted)
    noted = {"negotiations": 1000, "even": 800}
    one("negotiation takes 30% of the time, although in most", wall={"negotiation": 0.3}, ranks_noted=noted)
    one("one negotiation took 9 s of 10 s in total", negotiations={"count": 1000, "max": 9.0})
    one("an all-reduce sends 1.2 kB on average", wall={"collective": 0.4}, allreduce={"bytes_each": 1200})
    one("copies in and out of the fusion buffer take 14 s, the collectives 10 s", wall={"fusion copy in": 0.13})
    one("communication takes 4.0% of the time: it does not limit", idle={"wall_share": 0.96})


@settings(deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1), st.floats(0.01, 1))
def test_quantiles_are_right_to_a_percent(durations, share):
    quantiles = Quantiles()
    for one in durations:
        quantiles.add(one)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert quantiles.at(share) == pytest.approx(exact, rel=0.01)
    assert (quantiles.count, quantiles.longest) == (len(durations), max(durations))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)).map(sorted), max_size=60))
def test_time_spent_waiting_for_a_rank_counts_once(intervals):
    intervals.sort(key=lambda pair: pair[1])
    rank = Rank()
    for awaited, came in intervals:
        rank.add(awaited, came)
    assert rank.alone == length(intervals)


def test_a_day_of_waiting_for_a_rank_takes_little_memory():
    rank = Rank()
    for step in range(10_000):
        rank.add(step * 1000, step * 1000 + 400)
    assert rank.alone == 10_000 * 400
    assert len(rank._alone) < 100


def test_durations_are_printed_with_three_digits():
    times = (0, 12e-6, 999.6e-6, 1.234e-3, 0.9996, 12.34, 12_345)
    assert [duration(one) for one in times] == ["0 us", "12 us", "1 ms", "1.23 ms", "1 s", "12.3 s", "12,345 s"]
