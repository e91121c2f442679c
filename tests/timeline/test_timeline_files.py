"""Timeline files that are cut off, damaged, large or none at all, and one that Horovod wrote until it was killed."""

import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from launch import RANKS, launch
from made_up_timeline import HEAD, a_step, begin, four_steps, ready, written

from hpc_train.errors import UserError
from hpc_train.timeline import reader, summarise
from hpc_train.timeline.command import TimelineSummary, run

LATE = RANKS / "late.py"


@pytest.fixture
def steps(tmp_path):
    return four_steps(tmp_path / "steps.json")


def figures_of(path):
    """The figures that do not depend on how the file ends."""
    found = summarise(path)
    return {key: value for key, value in found.items() if key not in ("file", "file_bytes", "complete", "advice")}


def is_json(text):
    try:
        return bool(json.loads(text))
    except ValueError:
        return False


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_file_cut_off_anywhere_has_the_figures_of_its_complete_events(tmp_path, data):
    text = written(tmp_path / "whole.json", *(a_step(500_000) + a_step(520_000))).read_text()
    cut = data.draw(st.integers(text.index('"NEGOTIATE') + 80, len(text) - 1))
    (tmp_path / "cut.json").write_text(text[:cut])
    (tmp_path / "closed.json").write_text(next(filter(is_json, (text[:end] + "]" for end in range(cut, 0, -1)))))
    assert figures_of(tmp_path / "cut.json") == figures_of(tmp_path / "closed.json")
    assert not summarise(tmp_path / "cut.json")["complete"]
    assert summarise(tmp_path / "closed.json")["complete"]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(block=st.integers(1, 400))
def test_the_size_of_the_blocks_that_are_read_makes_no_difference(steps, block):
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
def test_damaged_places_are_skipped_and_counted_and_cost_only_open_operations(tmp_path, junk):
    events = [a_step(500_000 + step * 20_000) for step in range(9)]
    texts = [",".join(step) for step in events]
    texts[2] = ",".join(events[2][:20]) + "," + junk + ",".join(events[2][21:])
    texts[6] = ",".join(events[6][:2]) + "," + junk + ",".join(events[6][3:])
    found = summarise(written(tmp_path / "damaged.json", *texts))
    assert found["damaged"] == 2
    assert found["complete"]
    # All operations of the third tensor that began after the fault are counted.
    assert 23 <= found["operations"]["ALLREDUCE"]["tensors"] < 27
    assert found["idle"]["wall"] > 8 * 9e-3
    assert found["stages"]["negotiation"]["wall"] <= 9 * 2e-3


def test_a_tensor_whose_name_is_lost_is_counted_too(tmp_path):
    found = summarise(written(tmp_path / "t.json", *a_step(0), names=("grads_1of2", "grads_2of2")))
    assert [one["name"] for one in found["waiting"]] == ["unnamed", "grads"]


def test_the_ranks_that_a_killed_run_was_waiting_for_are_named(tmp_path, capsys):
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
        "at the end of the file grads_1of2 had waited 43 s for ranks that did not come; rank 0 came, rank 1 did not: "
        "look at the output of rank 1"
    )
    run(TimelineSummary(path, top=1))
    printed = capsys.readouterr().out.splitlines()
    assert "at the end of the file: grads_1of2, negotiation for 43 s, ready on rank 0 of 2" in printed
    assert "and 1 more unfinished tensors" in printed


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty: the run has not communicated yet"),
        (b"epoch 1: loss 0.3\n" * 1000, "is not a timeline of Horovod; `HOROVOD_TIMELINE=FILE"),
        (b'{"step": 1, "loss": 0.3}\n{"step": 2, "loss": 0.2}\n', "is not a timeline of Horovod"),
        (bytes(range(256)) * 2000, "is not a timeline of Horovod"),
        (HEAD.encode(), "has no operation of Horovod: the run has not communicated yet"),
        (None, "cannot be read: No such file or directory; give the file of HOROVOD_TIMELINE"),
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


def test_the_late_rank_is_found_in_the_file_of_a_killed_run(tmp_path, monkeypatch):
    path = tmp_path / "timeline.json"
    monkeypatch.setenv("HOROVOD_TIMELINE", str(path))
    monkeypatch.setenv("HOROVOD_CACHE_CAPACITY", "0")
    ended = launch(2, str(LATE), "0.03", "40")
    assert ended.status != 0
    found = summarise(path)
    # Horovod keeps at least the last event until the next one.
    assert 70 <= found["operations"]["ALLREDUCE"]["tensors"] < 80
    assert (found["damaged"], found["ranks"]) == (0, 2)
    assert found["collectives"].keys() in ({"MPI_ALLREDUCE"}, {"GLOO_ALLREDUCE"})
    assert found["ranks_noted"]["negotiations"] == found["negotiations"]["count"] >= 70
    late = found["ranks_last"][0]
    assert (late["rank"], late["share"] > 0.8) == (1, True)
    assert late["p50"] > 0.02
    assert any(line.startswith("rank 1 is last in ") for line in found["advice"])
