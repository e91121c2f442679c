"""A machine with a tiny /dev/shm or a read-only HOME: one line before MPI starts, and the doctor names the remedy."""

import os
import shutil
import subprocess
import sys

import pytest
from launch import REPOSITORY, environment, mpirun

from hpc_train.parallel.launcher import Launcher
from hpc_train.parallel.shared_memory import too_small

MPICH = Launcher("MPICH's mpirun", "MPICH", 2, 0, 0)


def mounted(options, folder, *command):
    """A command in a mount namespace of its own, where `folder` is an empty tmpfs of these options."""
    if os.getuid() or not shutil.which("unshare") or subprocess.run(["unshare", "-m", "true"]).returncode:
        pytest.skip("only root can mount another /dev/shm, in a mount namespace (unshare -m)")
    script = 'mount -t tmpfs -o "$1" tmpfs "$2" && shift 2 && exec "$@"'
    words = ["unshare", "-m", "sh", "-c", script, "sh", options, folder, *map(str, command)]
    env = environment(PYTHONPATH=str(REPOSITORY))
    return subprocess.run(words, capture_output=True, text=True, timeout=120, env=env)


def test_ranks_on_a_node_with_too_little_shared_memory_end_with_one_line():
    code = "from hpc_train import parallel; parallel.init(); print('went on')"
    ended = mounted("size=1m", "/dev/shm", mpirun(), "-np", 2, sys.executable, "-c", code)
    errors = [line for line in ended.stderr.splitlines() if line.startswith("error: ")]
    assert ended.returncode
    # A bare mpirun of MPICH does not end the second rank when the first one has printed it.
    assert len(set(errors)) == 1, ended.stderr
    assert "/dev/shm has 1.05 MB, and MPI needs about 25.2 MB for 2 ranks on a node" in errors[0]
    assert "--shm-size" in errors[0]
    assert "signal 7" not in ended.stdout + ended.stderr


def test_as_much_as_the_line_asks_for_is_enough():
    code = "from mpi4py import MPI; MPI.COMM_WORLD.allreduce(1); print('went on')"
    ended = mounted("size=24m", "/dev/shm", mpirun(), "-np", 2, sys.executable, "-c", code)
    assert ended.stdout.count("went on") == 2, ended.stderr


def test_the_doctor_names_a_tiny_shared_memory():
    ended = mounted("size=1m", "/dev/shm", sys.executable, "-m", "hpc_train.cli", "doctor")
    assert "shared memory wrong  /dev/shm has 1.05 MB" in ended.stdout
    assert ended.returncode == 1


def test_the_doctor_names_a_home_that_is_read_only(tmp_path):
    command = ["env", f"HOME={tmp_path}", sys.executable, "-m", "hpc_train.cli", "doctor"]
    ended = mounted("ro", tmp_path, *command)
    assert f"home          note   {tmp_path} cannot be written" in ended.stdout
    assert "set HOME to a folder of your own" in ended.stdout


def test_horovodrun_starts_ranks_where_home_is_read_only(tmp_path):
    words = [f"HOME={tmp_path}", "horovodrun", "-np", "1", sys.executable, "-c", "print('went on')"]
    ended = mounted("ro", tmp_path, "env", *words)
    assert ended.returncode == 0, ended.stderr
    assert "went on" in ended.stdout


def test_gloo_and_a_single_rank_need_none(tmp_path):
    assert too_small(Launcher("horovodrun --gloo", None, 64, 0, 0), {"MPI_LOCALNRANKS": "1000000"}) is None
    assert too_small(Launcher("", None, 1, 0, 0), {}) is None
    assert too_small(MPICH, {"MPI_LOCALNRANKS": "1"}) is None
    assert too_small(MPICH, {}, str(tmp_path / "none")) is None
    assert "for 100000000 ranks" in too_small(MPICH, {"MPI_LOCALNRANKS": "100000000"})
