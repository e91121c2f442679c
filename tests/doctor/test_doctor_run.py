"""How the doctor runs, alone and on ranks, and how it ends when a check hangs, crashes or is interrupted."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from launch import REPOSITORY, environment, finish, start_mpi

from hpc_train.doctor.supervise import Doing, watch

PROGRAM = "from hpc_train import command_line; from hpc_train.doctor.command import Doctor, run; "
PROGRAM += "import sys; command_line.main(Doctor, run, 'hpc-train doctor', sys.argv[1:])"


def _hang(send):
    send(Doing("waiting for nobody", 0.5, "start somebody"))
    # Like a library that waits while it holds Python's lock.
    import ctypes

    ctypes.PyDLL(None).pause()


def _crash(send):
    send("before")
    send(Doing("dividing", 30))
    os.kill(os.getpid(), signal.SIGKILL)


def _fail(send):
    send(Doing("thinking", 30))
    os.write(2, b"last words\n")
    raise ValueError("no thought")


def test_a_step_that_hangs_crashes_or_fails_is_named_and_earlier_findings_are_kept():
    received = []
    began = time.monotonic()
    broken = watch(_hang, received.append)
    assert (broken.text, broken.remedy) == ("waiting for nobody: not finished after 0.5 s", "start somebody")
    assert time.monotonic() - began < 20
    assert watch(_crash, received.append).text == "dividing: the process was ended by SIGKILL"
    assert received == ["before"]
    failed = watch(_fail, received.append, quiet=True).text
    assert failed.startswith("thinking: ValueError: no thought (test_doctor_run.py, line ")
    assert "last words" in failed
    assert watch(lambda send: send("well"), received.append) is None
    assert received == ["before", "well"]


def doctor(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """`hpc-train doctor ARGUMENTS` as a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=environment(PYTHONPATH=str(REPOSITORY), **variables),
        capture_output=True,
        text=True,
        timeout=180,
    )


def test_without_horovod_it_says_so_and_checks_the_rest(tmp_path):
    (tmp_path / "horovod").mkdir()
    (tmp_path / "horovod" / "__init__.py").touch()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, "--json", "--data", str(tmp_path / "absent")],
        env=environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{REPOSITORY}"),
        stdout=subprocess.PIPE,
        text=True,
        timeout=180,
    )
    assert ended.returncode == 1
    printed = json.loads(ended.stdout)
    found = {finding["what"]: finding for finding in printed["findings"]}
    assert (found["Horovod"]["verdict"], found["Horovod"]["remedy"]) == ("wrong", "hpc-train build-horovod")
    assert (found["data"]["verdict"], "no such file" in found["data"]["value"]) == ("wrong", True)
    assert found["Python"]["verdict"] == "ok"
    assert {"CPUs", "network", "local storage"} <= set(found)
    assert [(row["rank"], set(row["numa"])) for row in printed["ranks"]] == [(0, {"cpus", "gpu"})]


def test_a_mistaken_option_is_one_line():
    ended = doctor("--timeout", "0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "error: --timeout is 0.0; it must be more than 0\n"


def test_the_launch_check_counts_real_ranks():
    ended = finish(start_mpi(3, "-c", PROGRAM, "--launch"), 60)
    assert ended.status == 0, ended.output
    assert [line for line in ended.output.splitlines() if line] == [ended.output.strip()]
    assert ended.output.startswith("launch        ok     3 ranks, started by ")


def test_the_launch_check_finds_jobs_of_size_one():
    launcher = "SLURM_STEP_NUM_TASKS"
    pytest.importorskip("mpi4py")
    ended = doctor("--launch", **{launcher: "8", "SLURM_PROCID": "0", "SLURM_STEP_ID": "0"})
    assert ended.returncode == 1
    assert ended.stdout.startswith(
        "launch        wrong  srun --mpi=none started 8 processes, but each is a job of size 1"
    )
    silent = doctor("--launch", **{launcher: "8", "SLURM_PROCID": "3", "SLURM_STEP_ID": "0"})
    assert (silent.returncode, silent.stdout, silent.stderr) == (0, "", "")


def test_interrupted_it_ends_at_once_and_leaves_no_process():
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        env=environment(PYTHONPATH=str(REPOSITORY)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # If the tests run in the background, programs that they start ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert process.stdout.readline().startswith("Python ")
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, errors) == (130, "interrupted\n")
    deadline = time.monotonic() + 5  # a program that the doctor had started ends by Ctrl-C on its own
    while (left := _members(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []


def _members(group: int) -> list[str]:
    return [path.parent.name for path in Path("/proc").glob("[0-9]*/stat") if _group(path) == group]


def _group(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[2])
    except (OSError, IndexError):
        return -1
