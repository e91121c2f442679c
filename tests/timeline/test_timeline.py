"""What `hpc-train timeline` says: of files written by hand in Horovod's format, and of one that it wrote."""

import json
import math
import tracemalloc

import pytest
import tyro
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launch import RANKS, launch

from hpc_train.errors import UserError
from hpc_train.timeline import reader, summarise
from hpc_train.timeline.advice import advise, duration
from hpc_train.timeline.command import TimelineSummary, run
from hpc_train.timeline.intervals import length
from hpc_train.timeline.lateness import TIE, Rank
from hpc_train.timeline.quantiles import Quantiles

START = 1_700_000_000_000_000
LATE = RANKS / "late.py"


# Horovod's own bytes, as common/timeline.cc writes them.


def begin(tensor, name, time):
    return f'{{"ph": "B", "name": "{name}", "ts": {time}, "pid": {tensor}}}'


def end(tensor, time, args=""):
    return f'{{"ph": "E", "ts": {time}, "pid": {tensor}{args and ", " + args}}}'


def ready(tensor, rank, time):
    return f'{{"ph": "X", "name": "{rank}", "ts": {time}, "pid": {tensor}, "dur": 0}}'


def named(tensor, name):
    return (
        f'{{"name": "process_name", "ph": "M", "pid": {tensor}, "args": {{"name": "{name}"}}}},\n'
        f'{{"name": "process_sort_index", "ph": "M", "pid": {tensor}, "args": {{"sort_index": {tensor}}}}},\n'
    )


def shape(*sizes, dtype="float32"):
    return f'"args": {{"dtype": "{dtype}", "shape": "{list(sizes)}"}}'


HEAD = (
    '[\n{"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros":'
    f"{START}}}}},\n"
    '{"name": "process_sort_index", "ph": "M", "pid": 0, "args": {"sort_index": 0}},\n'
)


def written(path, *events, names=("grads_1of2", "grads_2of2", "loss"), head=HEAD):
    path.write_text(head + "".join(named(i, name) for i, name in enumerate(names, 1)) + ",".join(events) + "]")
    return path


def a_step(now):
    """Two tensors fused, 10 ms; a third behind them. Times in us."""
    return [
        f'{{"ph": "i", "name": "CYCLE_START", "ts": {now}, "s": "g"}}',
        begin(1, "NEGOTIATE_ALLREDUCE", now),
        ready(1, 0, now),
        begin(2, "NEGOTIATE_ALLREDUCE", now + 1000),
        ready(2, 0, now + 1000),
        begin(3, "NEGOTIATE_ALLREDUCE", now + 1500),
        ready(3, 1, now + 1500),
        ready(3, 0, now + 1500 + TIE // 2),
        ready(1, 1, now + 2000),
        end(1, now + 2000),
        ready(2, 1, now + 2000),
        end(2, now + 2000),
        end(3, now + 2000),
        begin(1, "ALLREDUCE", now + 3000),
        begin(2, "ALLREDUCE", now + 3000),
        begin(1, "MEMCPY_IN_FUSION_BUFFER", now + 3000),
        begin(2, "MEMCPY_IN_FUSION_BUFFER", now + 3000),
        end(1, now + 4000),
        end(2, now + 4000),
        begin(1, "MPI_ALLREDUCE", now + 4000),
        begin(2, "MPI_ALLREDUCE", now + 4000),
        end(1, now + 8000),
        end(2, now + 8000),
        begin(1, "MEMCPY_OUT_FUSION_BUFFER", now + 8500),
        begin(2, "MEMCPY_OUT_FUSION_BUFFER", now + 8500),
        end(1, now + 10000),
        end(2, now + 10000),
        end(1, now + 10000, shape(100, 10)),
        end(2, now + 10000, shape(1000, dtype="float16")),
        begin(3, "ALLREDUCE", now + 10000),
        begin(3, "MPI_ALLREDUCE", now + 10000),
        end(3, now + 11000),
        end(3, now + 11000, shape(dtype="float64")),
    ]


@pytest.fixture
def steps(tmp_path):
    """Four steps of 11 ms, each followed by 9 ms of nothing but the last."""
    return written(tmp_path / "steps.json", *(event for step in range(4) for event in a_step(500_000 + step * 20_000)))


def test_every_stage_is_told_on_the_wall_clock_and_summed_over_tensors(steps):
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


def test_the_rank_that_is_last_is_told_with_its_cost_and_a_tie_blames_nobody(steps):
    found = summarise(steps)
    assert found["ranks"] == 2
    # Of the third tensor the ranks come within the tie.
    assert found["ranks_noted"] == {"negotiations": 12, "even": 4}
    (late,) = found["ranks_last"]
    assert (late["rank"], late["times"], late["share"]) == (1, 8, pytest.approx(8 / 12))
    assert (late["p50"], late["max"]) == (pytest.approx(1e-3, rel=0.01), 2e-3)
    # What it alone holds up, twice over, counts once.
    assert (late["alone"], late["alone_share"]) == (pytest.approx(8e-3), pytest.approx(8 / 71))


def test_on_gpus_what_waits_for_data_and_for_the_stream_is_told(tmp_path):
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


def test_a_broadcast_from_here_tells_no_bytes_and_does_not_dilute_the_all_reduce(tmp_path):
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


def test_joins_and_barriers_wait_for_ranks_and_for_nothing_after(tmp_path):
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
    with pytest.raises(UserError, match="no operation of Horovod in it after the first 5 s"):
        summarise(steps, skip=5)


def figures_of(path):
    """What is the same however the file ends."""
    found = summarise(path)
    return {key: value for key, value in found.items() if key not in ("file", "file_bytes", "complete", "advice")}


def is_json(text):
    try:
        return bool(json.loads(text))
    except ValueError:
        return False


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_cut_anywhere_says_what_its_whole_events_say(tmp_path, data):
    text = written(tmp_path / "whole.json", *(a_step(500_000) + a_step(520_000))).read_text()
    cut = data.draw(st.integers(text.index('"NEGOTIATE') + 80, len(text) - 1))
    (tmp_path / "cut.json").write_text(text[:cut])
    (tmp_path / "mended.json").write_text(next(filter(is_json, (text[:end] + "]" for end in range(cut, 0, -1)))))
    assert figures_of(tmp_path / "cut.json") == figures_of(tmp_path / "mended.json")
    assert not summarise(tmp_path / "cut.json")["complete"]
    assert summarise(tmp_path / "mended.json")["complete"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.integers(1, 400))
def test_where_the_blocks_of_reading_end_makes_no_difference(steps, block):
    whole = summarise(steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "_BLOCK", block)
        assert summarise(steps) == whole


@pytest.mark.parametrize(
    "junk",
    [
        "\0" * 5_000_000,
        '{"ph": "B", "na',
        '"ts": 5, "pid": 1},',
        "}}}{{{",
        '{"ph": "B", "ts": 1e999, "pid": 1},',
        '{"ph": "B", "ts": "x"},',
    ],
)
def test_damaged_places_are_skipped_and_counted_and_cost_what_is_open_there(tmp_path, junk):
    events = [a_step(500_000 + step * 20_000) for step in range(9)]
    texts = [",".join(step) for step in events]
    texts[2] = ",".join(events[2][:20]) + "," + junk + ",".join(events[2][21:])
    texts[6] = ",".join(events[6][:2]) + "," + junk + ",".join(events[6][3:])
    found = summarise(written(tmp_path / "damaged.json", *texts))
    assert found["damaged"] == 2
    assert found["complete"]
    # Of the third tensor's operations all are known that began after the fault.
    assert 23 <= found["operations"]["ALLREDUCE"]["tensors"] < 27
    assert found["idle"]["wall"] > 8 * 9e-3
    assert found["stages"]["negotiation"]["wall"] <= 9 * 2e-3


def test_a_tensor_whose_name_is_lost_is_counted_all_the_same(tmp_path):
    found = summarise(written(tmp_path / "t.json", *a_step(0), names=("grads_1of2", "grads_2of2")))
    assert [one["name"] for one in found["waiting"]] == ["unnamed", "grads"]


def test_what_a_killed_run_was_waiting_for_is_told_by_rank(tmp_path, capsys):
    steps = [event for step in range(3) for event in a_step(step * 20_000)]
    hung = [begin(1, "NEGOTIATE_ALLREDUCE", 60_000), ready(1, 0, 60_000), begin(2, "NEGOTIATE_ALLREDUCE", 60_010)]
    mark = '{"ph": "i", "name": "CYCLE_START", "ts": 43060000, "s": "g"}'
    path = written(tmp_path / "hung.json", *steps, *hung, mark)
    found = summarise(path)
    assert found["open"]["count"] == 2
    assert found["open"]["longest"][0] == {
        "name": "grads_1of2",
        "stage": "negotiation",
        "for": 43,
        "ranks_ready": [0],
    }
    assert found["advice"][0] == (
        "where the file ends, grads_1of2 has waited 43 s for ranks that did not come; rank 0 came, rank 1 did not: see "
        "what they print"
    )
    run(TimelineSummary(path, top=1))
    printed = capsys.readouterr().out.splitlines()
    assert "where the file ends: grads_1of2, negotiation for 43 s, ready on rank 0 of 2" in printed
    assert "and 1 more tensors on their way" in printed


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty: the run has not communicated yet"),
        (b"epoch 1: loss 0.3\n" * 1000, "no timeline of Horovod in it; `HOROVOD_TIMELINE=FILE"),
        (b'{"step": 1, "loss": 0.3}\n{"step": 2, "loss": 0.2}\n', "no timeline of Horovod in it"),
        (bytes(range(256)) * 2000, "no timeline of Horovod in it"),
        (HEAD.encode(), "no operation of Horovod in it"),
        (None, "cannot be read: No such file or directory; name the file of HOROVOD_TIMELINE"),
    ],
)
def test_what_is_no_timeline_is_refused_in_a_line(tmp_path, content, complaint):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=complaint) as refused:
        summarise(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_is_refused_in_a_line(tmp_path):
    with pytest.raises(UserError, match="Is a directory"):
        summarise(tmp_path)


def test_the_command_prints_a_page_or_the_same_as_json(steps, capsys):
    run(tyro.cli(TimelineSummary, args=[str(steps), "--json"]))
    assert json.loads(capsys.readouterr().out) == summarise(steps, top=5)
    run(tyro.cli(TimelineSummary, args=[str(steps)]))
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert printed[0] == f"{steps}: 71 ms, {steps.stat().st_size / 1e3:.3g} kB, 140 events of 3 tensors"
    for line in (
        "ALLREDUCE: 12 tensors, 24 kB",
        "sent by 8 MPI_ALLREDUCE in 20 ms",
        "an all-reduce carries 3 kB on average, 1.2 MB/s while it runs",
        "collective 20 ms 28.2% 36 ms 31.6% sent, received and summed",
        "idle 27 ms 38.0% no tensor on its way",
        "12 negotiations, p50 1 ms, p95 2 ms, max 2 ms",
        "2 ranks are noted in 12 of them, 4 of which end even",
        "1 8 66.7% 1 ms 2 ms 2 ms 8 ms 11.3%",
        "4 8.5 ms 8.5 ms loss",
    ):
        assert line in printed
    with pytest.raises(UserError, match="--top must be at least 1"):
        run(TimelineSummary(steps, top=0))


def made(**changes):
    """Figures of a run about which there is nothing to say, but for what is changed."""
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
        "rank 3 is last in 92% of the negotiations, by 12 ms (median); the others wait for it alone 21% of the time: "
        "look at its input, its cores and what else runs on its node"
    ]
    # Of two ranks either is last half of the times.
    assert advise(made(ranks=2, ranks_last=[late[0] | {"share": 0.6}])) == []
    # In the first steps alone a rank may be last for its tracing.
    assert advise(made(ranks_last=late, ranks_noted={"negotiations": 60, "even": 0})) == []

    def one(starts_with, **changes):
        (line,) = advise(made(**changes))
        assert line.startswith(starts_with)

    one("ranks wait for each other 30% of the time, and no one rank", wall={"negotiation": 0.3})
    noted = {"negotiations": 60, "even": 0}
    one("ranks wait for each other 30% of the time, and the file does", wall={"negotiation": 0.3}, ranks_noted=noted)
    noted = {"negotiations": 1000, "even": 800}
    one("negotiation takes 30% of the time though most", wall={"negotiation": 0.3}, ranks_noted=noted)
    one("one negotiation took 9 s, of 10 s in all", negotiations={"count": 1000, "max": 9.0})
    one("an all-reduce carries 1.2 kB on average", wall={"collective": 0.4}, allreduce={"bytes_each": 1200})
    one("copies in and out of the fusion buffer take 14 s, the collectives 10 s", wall={"fusion copy in": 0.13})
    one("communication fills 4.0% of the time: it does not bound", idle={"wall_share": 0.96})


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


def test_a_day_of_waiting_for_a_rank_is_kept_in_little_room():
    rank = Rank()
    for step in range(10_000):
        rank.add(step * 1000, step * 1000 + 400)
    assert rank.alone == 10_000 * 400
    assert len(rank._alone) < 100


def test_durations_are_told_with_three_digits():
    times = (0, 12e-6, 999.6e-6, 1.234e-3, 0.9996, 12.34, 12_345)
    assert [duration(one) for one in times] == ["0 us", "12 us", "1 ms", "1.23 ms", "1 s", "12.3 s", "12,345 s"]


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "_BLOCK", 2**14)
    peaks = []
    for steps in (50, 400):
        path = written(tmp_path / "t.json", *(event for step in range(steps) for event in a_step(step * 20_000)))
        tracemalloc.start()
        assert summarise(path)["operations"]["ALLREDUCE"]["tensors"] == 3 * steps
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.1 * peaks[0]
    assert peaks[1] < path.stat().st_size


def test_in_what_horovod_wrote_until_it_was_killed_the_late_rank_is_found(tmp_path, monkeypatch):
    path = tmp_path / "timeline.json"
    monkeypatch.setenv("HOROVOD_TIMELINE", str(path))
    monkeypatch.setenv("HOROVOD_CACHE_CAPACITY", "0")
    ended = launch(2, str(LATE), "0.03", "40")
    assert ended.status != 0
    found = summarise(path)
    # Its writer keeps at least the last event until there is another.
    assert 70 <= found["operations"]["ALLREDUCE"]["tensors"] < 80
    assert (found["damaged"], found["ranks"]) == (0, 2)
    assert found["collectives"].keys() in ({"MPI_ALLREDUCE"}, {"GLOO_ALLREDUCE"})
    assert found["ranks_noted"]["negotiations"] == found["negotiations"]["count"] >= 70
    late = found["ranks_last"][0]
    assert (late["rank"], late["share"] > 0.8) == (1, True)
    assert late["p50"] > 0.02
    assert any(line.startswith("rank 1 is last in ") for line in found["advice"])
