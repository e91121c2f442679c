"""Commands over MPI ranks: how they find each other, and how one rank's failure ends all with one line."""

import os
import re
import subprocess
import sys

import psutil
import pytest
from launch import REPOSITORY, environment, finish, start_mpi

from hpc_train.errors import UserError
from hpc_train.parallel.mpi import Alone, agree, communicator, job

LAUNCHERS = ("PMI_", "PMIX_", "OMPI_", "SLURM_", "HOROVOD_")


def mpirun(how, *more):
    return finish(start_mpi(4, "tests/ranks/job.py", how, *more), 60)


@pytest.fixture
def unlaunched(monkeypatch):
    """The environment of a process that no launcher started."""
    for name in [name for name in environment() if name.startswith(LAUNCHERS)]:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize(
    ("how", "lines"),
    [
        ("agreed", ["error: no file on rank 1"]),
        ("all", ["error: no such folder"]),
        ("some", ["error: rank 1: no file here", "error: rank 2: no file here"]),
        ("late", ["error: rank 1: found out late"]),
    ],
)
def test_a_users_mistake_on_some_ranks_or_all_is_one_line_and_ends_all(how, lines):
    ended = mpirun(how)
    assert ended.status == 2, ended.output
    spoken = [line for line in ended.output.splitlines() if line.startswith("error:")]
    assert len(spoken) == 1, ended.output
    assert spoken[0] in lines
    assert "Traceback" not in ended.output


def test_a_crash_on_one_rank_shows_its_traceback_and_ends_all():
    ended = mpirun("crash")
    assert ended.status != 0
    assert "Traceback" in ended.output
    assert ended.output.count("error: rank 2: ZeroDivisionError: of two") == 1


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("stopped", r"nothing has moved for \d+ s: rank 1 of 4 \(on \S+\) is stopped \(SIGSTOP"),
        ("blocked", r"nothing has moved for \d+ s: rank 1 of 4 \(on \S+\) is blocked in the kernel"),
        ("killed", r"rank 1 of 4 \(on \S+\) was ended by SIGKILL: .* it had at most [\d.]+ MB of memory"),
    ],
)
def test_a_rank_that_cannot_speak_is_named_by_its_guard_and_all_end(how, says, monkeypatch, tmp_path):
    monkeypatch.setenv("HPC_TRAIN_HANG_AFTER", "2")
    pipe = tmp_path / "pipe"
    ended = mpirun(how, pipe)
    if how == "blocked":
        # Lets the child go that blocked the rank; opened like this, a pipe waits for nobody.
        os.close(os.open(pipe, os.O_RDWR))
    (line,) = (line for line in ended.output.splitlines() if line.startswith("error:"))
    assert re.match(f"error: {says}", line)
    assert line.endswith("; then give the same command again")
    assert ended.status != 0
    assert not [
        one for one in psutil.process_iter(["cmdline"]) if str(tmp_path / "pipe") in (one.info["cmdline"] or ())
    ]


def test_ranks_that_do_not_fail_end_well(monkeypatch):
    monkeypatch.setenv("HPC_TRAIN_HANG_AFTER", "2")
    ended = mpirun("well")
    assert (ended.status, ended.output) == (0, "4 ranks\n")


def test_without_a_launcher_a_process_is_alone(unlaunched):
    with job() as comm:
        assert isinstance(comm, Alone)
        assert (comm.rank, comm.size) == (0, 1)
        assert comm.bcast("x") == "x"
        assert comm.gather("x") == comm.allgather("x") == ["x"]
        comm.barrier()


def test_errors_of_a_process_alone_pass_through(unlaunched):
    def fail():
        with job() as comm, agree(comm):
            raise UserError("as it was")

    with pytest.raises(UserError, match="as it was"):
        fail()


def test_ranks_without_mpi_are_refused_with_the_command_that_works(unlaunched):
    unlaunched.setenv("HOROVOD_SIZE", "2")
    unlaunched.setenv("HOROVOD_RANK", "0")
    with pytest.raises(UserError, match="mpirun -np N"):
        communicator()


def test_ranks_that_do_not_find_each_other_are_refused(unlaunched):
    pytest.importorskip("mpi4py")
    code = "from hpc_train.parallel.mpi import communicator; communicator()"
    # Only announced: nothing listens for this rank, so its MPI makes a job of one.
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment(PYTHONPATH=str(REPOSITORY)), "SLURM_STEP_NUM_TASKS": "3"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "started 3 processes, but each is a job of size 1" in ended.stderr.splitlines()[-1]
