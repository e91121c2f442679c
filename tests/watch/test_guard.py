"""What a rank's guard makes of the rank's death: the cause, and from where the training goes on."""

import os
import subprocess
import sys
import time

import pytest
from launch import environment

from hpc_train.watch import guard, memory
from hpc_train.watch.guard import Note, _Guard, _how_on


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        (
            {"node": 3, "cgroup": 0},
            {"node": 4, "cgroup": 1},
            "out of memory, says the kernel (oom_kill of its cgroup)",
        ),
        # Another job's process on the same node.
        ({"node": 3, "cgroup": 0}, {"node": 4, "cgroup": 0}, "not for want of memory, as far as the kernel says"),
        ({"node": 3}, {"node": 4}, "its node was out of memory, says the kernel"),
        ({"node": 3}, {"node": 3}, "not for want of memory"),
        ({}, {}, "whether for want of memory is not known here"),
    ],
)
def test_the_kernels_counts_tell_whether_a_killed_rank_wanted_memory(before, after, says, monkeypatch):
    watching = _Guard(os.getpid(), 1, 2, lambda word: True, 0.0, before)
    monkeypatch.setattr(memory, "killed", lambda: after)
    assert watching._why_killed().startswith(says)


@pytest.mark.parametrize(
    ("version", "events", "most"),
    [(2, "memory.events", "memory.max"), (1, "memory.oom_control", "memory.limit_in_bytes")],
)
def test_kills_and_the_least_limit_are_read_of_either_version_of_cgroups(version, events, most, monkeypatch, tmp_path):
    root = tmp_path if version == 2 else tmp_path / "memory"
    job = root / "slurm" / "job_7"
    (job / "step_0").mkdir(parents=True)
    for folder, kills, limit in ((job / "step_0", 2, "max" if version == 2 else 2**63), (job, 5, 4 * 10**6)):
        (folder / events).write_text(f"oom 9\noom_kill {kills}\n")
        (folder / most).write_text(f"{limit}\n")
    of_process = tmp_path / "cgroup"
    of_process.write_text(f"{'0:' if version == 2 else '4:memory'}:/slurm/job_7/step_0\n")
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    monkeypatch.setattr(memory, "_OF_PROCESS", of_process)
    assert memory.killed()["cgroup"] == 2
    assert memory.limit() == 4 * 10**6


def test_a_kernel_that_counts_no_kills_is_no_error(monkeypatch, tmp_path):
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\n")
    of_process = tmp_path / "cgroup"
    of_process.write_text("4:memory:/\n")
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    monkeypatch.setattr(memory, "_OF_PROCESS", of_process)
    assert "cgroup" not in memory.killed()


@pytest.mark.parametrize(
    "begun",
    [
        "import subprocess; program = subprocess.Popen(['sleep', '5'])",
        "import threading, time; threading.Thread(target=time.sleep, args=(1,)).start()",
        "import tensorflow as tf; tf.ones(1)",
        "import horovod.tensorflow",
    ],
)
def test_a_process_that_has_begun_what_a_fork_would_break_gets_no_guard(begun):
    script = f"""{begun}
import os
from hpc_train.watch import guard
before = os.getpid()
guard.begin(0, 1, lambda word: True, "job")
assert (guard.process(), os.getpid()) == (0, before)
"""
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=120)


def test_the_newest_checkpoint_is_named_where_there_is_one(tmp_path):
    note = {"again": "the same command with --resume", "checkpoints": str(tmp_path)}
    assert _how_on(note) == "no checkpoint yet: the same command with --resume begins again"
    for step in (9, 176):
        (tmp_path / f"step-{step:010d}.h5").touch()
    assert _how_on(note) == "the last checkpoint is that of step 176: the same command with --resume goes on from there"
    assert _how_on({}) == "then give the same command again"


def test_a_note_that_was_cut_short_says_nothing():
    note = Note()
    note.page = guard.mmap.mmap(-1, 256)
    note.add(job="x", again="y")
    note.add(again="z")
    assert note.read() == {"job": "x", "again": "z"}
    note.page[8:11] = b'{"j'
    note.page[11:12] = b"\0"
    assert note.read() == {}


def test_a_rank_that_does_not_beat_any_more_has_been_silent_since():
    note = Note()
    note.page = guard.mmap.mmap(-1, 256)
    note.add(job="x")
    assert note.silence() == 0
    note.beat()
    time.sleep(0.2)
    assert 0.2 <= note.silence() < 5
    assert note.read() == {"job": "x"}
    note.beat(False)
    assert note.silence() == 0
