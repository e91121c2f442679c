"""Trainings in which one rank does not go on: the report names it and the cause, and all ranks end."""

import json
import re
import signal
import subprocess
import sys
import time

import cluster
import pytest
from hanging import FAULTS, begin, options, ranks_of, train
from launch import environment, finish

from hpc_train.watch.hang import Hang
from hpc_train.watch.record import RECORD, START, VALIDATION

# All faults under all launchers, five times each: `make test-faults`.
LAUNCHERS = {"stop": "slurm", "read": "mpirun", "lock": "gloo", "other": "mpirun"}


@pytest.mark.parametrize("fault", LAUNCHERS)
def test_a_rank_that_does_not_go_on_is_named_with_its_cause_and_all_end(fault, digits, tmp_path):
    launcher = "gloo" if LAUNCHERS[fault] == "slurm" and cluster.missing() else LAUNCHERS[fault]
    run = tmp_path / "run"
    hung = train(launcher, fault, digits, run)
    assert re.search(FAULTS[fault], hung.line), hung.output[-3000:]
    assert (hung.status != 0, hung.left) == (True, 0)
    assert "the same command with --resume goes on from the last checkpoint" in hung.line
    (folder,) = (run / "hang").iterdir()
    assert str(folder) in hung.line
    assert (folder / "report.txt").read_text().strip() == hung.line.partition("error: ")[2]
    record = json.loads((folder / "rank-0.json").read_text())
    # Rank 0 is in the step after rank 1's, or in that one's validation.
    assert 30 <= record["step"] <= 44
    stacks = (folder / "rank-0.txt").read_text()
    assert "hpc-train-hang" in stacks
    assert "Current thread" in stacks


def test_another_rank_reports_where_rank_0_cannot(digits, tmp_path):
    hung = train("mpirun", "stop", digits, tmp_path / "run", rank=0)
    assert re.search(r"rank 0 of 2 \(on \S+\) is stopped \(SIGSTOP.*; rank 1 waits in step 31", hung.line), hung.output
    assert (hung.status != 0, hung.left) == (True, 0)


def test_where_the_report_cannot_be_written_it_is_printed_and_all_end(digits, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "hang").touch()
    hung = train("mpirun", "stop", digits, tmp_path / "run")
    assert re.search(r"rank 0 is in the phase step of step 31, and its report could not be written: .*hang", hung.line)
    assert "Current thread" in hung.output
    assert (hung.status != 0, hung.left) == (True, 0)


def test_a_process_whose_interpreter_is_locked_ends_itself_but_not_for_having_been_stopped():
    script = """
import ctypes
from hpc_train.parallel.agreement.waiting import end_after
from hpc_train.watch import stacks
stacks.print_at_end()
end_after(6)
print("armed", flush=True)
ctypes.PyDLL(None).sleep(60)
"""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", script], env=environment(), stdout=pipe, stderr=pipe, text=True)
    assert process.stdout.readline() == "armed\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(8)
    process.send_signal(signal.SIGCONT)
    time.sleep(1)
    assert process.poll() is None
    _, told = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGXCPU
    assert 'File "<string>", line 8 in <module>' in told


def test_a_stop_of_the_whole_job_does_not_count_before_a_rank_has_noticed_it():
    hang, now = Hang(), time.monotonic()
    hang.after, hang._looked = 8.0, now - 12
    RECORD.enter(VALIDATION)
    try:
        # Three seconds before the stop of 12 s.
        RECORD.since = now - 15
        assert 4 <= hang.left() <= 5
        # What another rank said before the stop and this one hears after it.
        hang.allow(3, asked=now - 12)
        assert hang._allowed >= now + 3
    finally:
        RECORD.enter(START)


def test_with_dump_a_job_goes_on_after_the_report_and_ends_well(digits, tmp_path):
    run = tmp_path / "run"
    more = ("--hang-after", 4, "--hang", "dump", "--epochs", 2)
    ended = finish(begin("gloo", "slow", *options(digits, run, *more)), 150)
    assert ended.status == 0, ended.output[-3000:]
    (line,) = (line for line in ended.output.splitlines() if "nothing has moved for" in line)
    assert "warning: nothing has moved for" in line
    assert re.search(r"rank 1 of 2 \(on \S+\) stands at hangs\.py:\d+ \(`time\.sleep\(8\)`\)", line)
    assert len(list((run / "hang").iterdir())) == 1
    assert (run / "model.keras").is_file()


def test_a_stop_of_the_whole_job_and_a_long_validation_are_no_hangs_and_a_slow_rank_is_named(digits, tmp_path):
    run = tmp_path / "run"
    # Its last validations take 6 s, in seven batches.
    job = begin("gloo", "late", *options(digits, run, "--hang-after", 4, "--epochs", 8))
    deadline = time.monotonic() + 90
    while not list(run.glob("checkpoints/step-*.h5")) and job.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    ranks = ranks_of(run)
    assert len(ranks) == 2
    for process in ranks:
        process.suspend()
    time.sleep(10)
    for process in ranks:
        process.resume()
    ended = finish(job, 150)
    assert ended.status == 0, ended.output[-3000:]
    assert not (run / "hang").exists()
    assert re.search(r"epoch 8/8 .* s  rank 1 on \S+ is \d+% slower: costs all ranks \d+%", ended.output), ended.output
    (start,) = json.loads((run / "run.json").read_text())["starts"]
    # In two short epochs in a row.
    assert {found["epoch"] for found in start["slow"] if found["rank"] == 1} >= set(range(3, 9))
