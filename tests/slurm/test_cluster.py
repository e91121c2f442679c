"""The test cluster itself: it starts anywhere, gives jobs nodes and GPUs, and leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cluster as slurm
import pytest
from cluster_daemons import own_hostnames
from launch import REPOSITORY

HERE = REPOSITORY / "tests"
NOBODY = 65534
SHOW = "srun bash -c 'echo $(hostname) $SLURMD_NODENAME $SLURM_LOCALID $CUDA_VISIBLE_DEVICES'"

# Starts a cluster, prints its folder, submits a job and sleeps.
HOST = """
import sys, time
sys.path.insert(0, sys.argv[1])
from cluster import Cluster
running = Cluster().start()
print(running.folder, flush=True)
running.submit("--ntasks=2", "--nodes=2", "--wrap", "srun bash -c 'setsid sleep 600 & sleep 600'", cwd=running.folder)
time.sleep(600)
"""

AS_NOBODY = """
import sys
sys.path.insert(0, sys.argv[1])
from cluster import Cluster
with Cluster() as running:
    number = running.submit("-N2", "--gpus-per-node=4", "--wrap", sys.argv[2], cwd=running.folder)
    job = running.wait(number, 60)
    print(running.folder, job.state, running.output(number))
"""


@pytest.fixture(autouse=True)
def _slurm():
    if slurm.missing():
        pytest.skip(slurm.missing())


def processes_of(folder) -> list[str]:
    """Command lines of the processes that belong to a cluster."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command, variables = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command + variables:
            found.append(command.replace(b"\0", b" ").decode())
    return found


def eventually(condition, timeout=20):
    deadline = time.monotonic() + timeout
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
    return condition()


def test_a_job_gets_two_nodes_and_all_their_gpus(cluster, tmp_path):
    number = cluster.submit("--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=4", "--wrap", SHOW, cwd=tmp_path)
    job = cluster.wait(number, 60)
    assert (job.state, job.status, job.restarts) == ("COMPLETED", 0, 0)
    lines = sorted(line.split() for line in cluster.output(number).splitlines())
    assert [line[1:] for line in lines] == [[f"node{n}", str(i), "0,1,2,3"] for n in (1, 2) for i in (0, 1)]
    if own_hostnames():
        assert [line[0] for line in lines] == ["node1", "node1", "node2", "node2"]


def test_a_job_that_a_signal_ended_has_a_status_other_than_0(cluster, tmp_path):
    number = cluster.submit("--wrap", "touch started; sleep 600", cwd=tmp_path)
    # A job is RUNNING before its script is: until then Slurm may end it by another signal.
    assert eventually((tmp_path / "started").exists)
    cluster.run("scancel", number)
    job = cluster.wait(number, 30)
    assert (job.state, job.status) == ("CANCELLED", 128 + signal.SIGTERM)


def test_a_command_is_repeated_if_the_controller_does_not_answer(cluster, tmp_path, monkeypatch):
    number = cluster.submit("--wrap", "true", cwd=tmp_path)
    answers, run = ["slurm_load_jobs error: Socket timed out"], cluster.run
    failed = lambda: subprocess.CompletedProcess([], 1, stdout=answers.pop())  # noqa: E731
    monkeypatch.setattr(cluster, "run", lambda *command: failed() if answers else run(*command))
    assert cluster.wait(number, 30).state == "COMPLETED"
    assert answers == []
    with pytest.raises(RuntimeError, match="scontrol show job 1: slurm_load_jobs error"):
        cluster.job("1")


def test_variables_that_a_developer_has_set_for_other_jobs_are_not_used(monkeypatch):
    for name in ("VENV", "LAUNCHER", "HPC_TRAIN", "SBATCH_PARTITION"):
        monkeypatch.setenv(name, "of another job")
    monkeypatch.setattr(slurm.Cluster, "conf", Path("slurm.conf"))
    assert "of another job" not in slurm.Cluster().environment().values()


def test_more_than_the_cluster_has_is_refused(cluster, tmp_path):
    with pytest.raises(RuntimeError, match="sbatch --nodes=3"):
        cluster.submit("--nodes=3", "--wrap", "true", cwd=tmp_path)


def test_two_clusters_run_side_by_side(cluster, tmp_path):
    with slurm.Cluster() as other:
        assert other.conf != cluster.conf
        number = other.submit("--nodes=2", "--wrap", "srun hostname", cwd=tmp_path)
        assert other.wait(number, 60).state == "COMPLETED"
        assert not cluster.run("squeue", "-h").stdout
    assert not other.folder.exists()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_when_the_tests_are_killed(end):
    arguments = [sys.executable, "-c", HOST, str(HERE)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as host:
        folder = Path(host.stdout.readline().strip())
        assert eventually(lambda: sum("sleep 600" in line for line in processes_of(folder)) >= 4), processes_of(folder)
        host.send_signal(end)
    assert eventually(lambda: not folder.exists())
    assert eventually(lambda: not processes_of(folder)), processes_of(folder)


def test_it_runs_for_an_ordinary_user_with_a_long_and_odd_tmpdir(tmp_path):
    prefix = []
    if os.getuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("no setpriv to become an ordinary user with")
        prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    odd = Path(slurm.short_folder()) / f"it's an odd folder {'x' * 100}"
    try:
        odd.mkdir()
        for file in ("cluster.py", "cluster_daemons.py"):
            shutil.copy(HERE / file, odd)
        odd.chmod(0o777)
        # This interpreter may be in a folder of root; setpriv itself can still start it.
        starts_itself = "import subprocess, sys; subprocess.check_call([sys.executable, '-c', ''])"
        candidates = [[*prefix, path, "-B", "-c"] for path in (sys.executable, "/usr/bin/python3")]
        quiet = {"stderr": subprocess.DEVNULL}
        python = next((words for words in candidates if not subprocess.call([*words, starts_itself], **quiet)), None)
        if not python:
            pytest.skip("no Python that an ordinary user can run")
        ended = subprocess.run(
            [*python, AS_NOBODY, str(odd), SHOW],
            env={"PATH": "/usr/bin:/bin", "TMPDIR": str(odd)},
            cwd="/",
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
        )
        folder, state, *shown = ended.stdout.split()
        assert state == "COMPLETED"
        assert shown[1::4] == ["node1", "node2"] or shown[1::4] == ["node2", "node1"], ended.stdout
        assert shown[3::4] == ["0,1,2,3"] * 2
        assert not Path(folder).exists()
    finally:
        shutil.rmtree(odd.parent)


def test_a_developer_starts_it_sees_its_status_and_stops_it():
    def command(word):
        arguments = [sys.executable, str(HERE / "cluster.py"), word]
        return subprocess.run(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=90)

    if command("status").returncode == 0:
        pytest.skip("a developer's cluster runs here: python tests/cluster.py stop")
    try:
        started = command("start")
        assert started.returncode == 0, started.stdout
        assert started.stdout == f"export SLURM_CONF={slurm.BY_HAND}/slurm.conf PATH=$PATH:/usr/sbin\n"
        asked = command("status")
        assert started.stdout in asked.stdout
        assert asked.stdout.count("idle") == 4  # two nodes in two partitions
    finally:
        assert command("stop").returncode == 0
    assert not slurm.BY_HAND.exists()
    assert command("status").stdout == "no cluster is running; start one: python tests/cluster.py start\n"
