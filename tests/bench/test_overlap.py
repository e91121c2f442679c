"""Sending beside computing: the intervals that a timeline shows, and the share that is hidden."""

import json

import pytest

from hpc_train.bench import overlap
from hpc_train.errors import UserError
from hpc_train.timeline.intervals import collectives, length, union, within

START = 1_700_000_000_000_000


def row(number, name):
    return {"name": "process_name", "ph": "M", "pid": number, "args": {"name": name}}


def event(number, name, begin, end):
    return [{"ph": "B", "name": name, "ts": begin, "pid": number}, {"ph": "E", "ts": end, "pid": number}]


def nested(number, begin, end, *inner):
    outer = event(number, "ALLREDUCE", begin, end)
    return [outer[0], *(e for part in inner for e in event(number, *part)), outer[1]]


@pytest.fixture
def timeline(tmp_path):
    events = [
        {"name": "process_name", "ph": "M", "pid": 0, "args": {"start_time_since_epoch_in_micros": START}},
        {"name": "process_sort_index", "ph": "M", "pid": 0, "args": {"sort_index": 0}},
        row(1, "step/lag1.bucket.0_1of2"),
        row(2, "step/lag1.bucket.0_2of2"),
        row(3, "broadcast"),
        *event(1, "NEGOTIATE_ALLREDUCE", 0, 9e5),
        *nested(
            1, 1_000_000, 5_000_000, ("WAIT_FOR_DATA", 1_000_000, 2_000_000), ("MPI_ALLREDUCE", 2_000_000, 4_000_000)
        ),
        *nested(2, 1_000_000, 5_000_000, ("MEMCPY_OUT_FUSION_BUFFER", 3_500_000, 5_000_000)),
        *nested(3, 0, 9_000_000, ("MPI_BCAST", 0, 9_000_000)),
        # Horovod was stopped here.
        {"ph": "B", "name": "ALLREDUCE", "ts": 9.5e6, "pid": 1},
    ]
    path = tmp_path / "timeline.json"
    path.write_text(json.dumps(events))
    return path


def test_sending_is_all_that_collectives_of_the_named_tensors_do_except_waiting(timeline):
    start = START / 1e6
    assert collectives(timeline, "lag1") == [(start + 2, start + 4), (start + 3.5, start + 5)]
    assert length(collectives(timeline, "lag1")) == 3
    assert collectives(timeline, "lag0") == []


def test_a_file_that_is_not_a_timeline_is_named(tmp_path):
    with pytest.raises(UserError, match=r"absent\.json cannot be read: No such file"):
        collectives(tmp_path / "absent.json", "")
    (tmp_path / "cut.json").write_text("[\n{")
    with pytest.raises(UserError, match=r"cut\.json is not a timeline"):
        collectives(tmp_path / "cut.json", "")


def test_what_was_sent_before_a_run_was_killed_is_known_too(timeline):
    whole = collectives(timeline, "lag1")
    timeline.write_text(timeline.read_text()[:-20])
    assert collectives(timeline, "lag1") == whole


def test_intervals_that_overlap_or_touch_are_joined_and_cut_by_windows():
    assert union([(4, 5), (0, 2), (1, 3), (3, 3.5)]) == [(0, 3.5), (4, 5)]
    assert within([(0, 2), (1, 3), (4, 5)], [(2.5, 4.5), (9, 10)]) == [(2.5, 3), (4, 4.5)]
    assert length([]) == 0


def test_the_hidden_share_is_what_is_sent_before_the_last_gradient_is_ready():
    # Two steps: computing for 3 of 5 s, then for 4 of 5 s. What is sent between them belongs to neither.
    clock = [(0, 3, 5), (10, 14, 15)]
    figures = overlap._figures([(2, 4), (6, 9), (10, 12), (11, 13)], clock)
    assert figures == {"step": 5, "computing": 3.5, "all-reduce": 2.5, "hidden": 4 / 5}
    with pytest.raises(UserError, match="no all-reduce within the steps"):
        overlap._figures([(6, 9)], clock)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [({"steps": 0}, "--steps is 0"), ({"keep": "absent/timeline.json"}, "its folder does not exist")],
)
def test_impossible_options_are_refused_before_anything_starts(options, complaint, tmp_path):
    if "keep" in options:
        options = {"keep": tmp_path / options["keep"]}
    with pytest.raises(UserError, match=complaint):
        overlap.run(overlap.OverlapBench(**options))
