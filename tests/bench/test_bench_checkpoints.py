"""For how long a checkpoint stops the training, synchronous and beside it."""

import os
import re
from pathlib import Path

import pytest

from hpc_train.bench import checkpoints
from hpc_train.bench.checkpoints import CheckpointBench
from hpc_train.errors import UserError


def test_both_ways_are_measured_and_nothing_stays(tmp_path, capsys):
    before = os.pwrite
    checkpoints.run(CheckpointBench(tmp_path, size=1, bandwidth=1000, rounds=2))
    said = capsys.readouterr().out
    # A layer of 1024 x 1025 numbers with two averages each, in float32; the optimizer's step and rate.
    assert said.startswith("13 MB of state, writing slowed down to 1000 MB/s; medians of 2\n")
    for way in ("synchronous", "beside"):
        assert re.search(rf"^{way} +\d+\.\d{{3}} s +\d+\.\d{{3}} s$", said, re.MULTILINE)
    assert "the copy alone: " in said
    assert os.listdir(tmp_path) == []
    assert os.pwrite is before


def test_a_disk_that_is_slowed_down_waits_for_each_piece(tmp_path, monkeypatch):
    clock, slept = [100.0], []
    monkeypatch.setattr(checkpoints.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(checkpoints.time, "sleep", slept.append)
    with open(tmp_path / "file", "wb") as file, checkpoints._slowed(2.0):
        assert os.pwrite(file.fileno(), bytes(10**6), 0) == 10**6
        assert os.pwrite(file.fileno(), bytes(10**6), 10**6) == 10**6
    assert slept == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"size": 0}, "--size is 0; it must be above 0"),
        ({"bandwidth": -1}, "--bandwidth is -1; it must be above 0"),
        ({"rounds": 0}, "--rounds is 0; it must be above 0"),
        ({"folder": Path("nowhere")}, "--folder nowhere does not exist; make it first"),
    ],
)
def test_impossible_options_are_refused(options, told):
    with pytest.raises(UserError, match=told):
        checkpoints.run(CheckpointBench(**options))
