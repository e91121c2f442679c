"""The doctor inside allocations of a real Slurm: what it prints for good jobs and for bad ones."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from launch import BIN, REPOSITORY, environment

pytest.importorskip("tensorflow")
pytest.importorskip("horovod")
pytest.importorskip("mpi4py")

DOCTOR = f"{shlex.quote(sys.executable)} -m hpc_train.cli doctor"


@pytest.fixture
def job(cluster, tmp_path):
    """A function that runs lines of a batch script in an allocation: (status, output)."""

    def run(*arguments: str, lines: str, timeout: float = 240) -> tuple[int, str]:
        script = tmp_path / "job.sh"
        script.write_text(f"#!/bin/bash\n{lines}\n")
        variables = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            # more ranks than this machine has cores
            "MPIR_CVAR_ENABLE_HEAVY_YIELD": "1",
            "OMPI_MCA_mpi_yield_when_idle": "1",
        }
        number = cluster.submit(*arguments, str(script), cwd=tmp_path, **variables)
        ended = cluster.wait(number, timeout)
        return ended.status, cluster.output(number)

    return run


def srun(*options: str, pmi: str = "pmi2") -> str:
    return f"srun --mpi={pmi} --kill-on-bad-exit=1 {' '.join(options)} {DOCTOR}"


def findings(output: str) -> dict[str, tuple[str, str]]:
    """Verdict and the rest of the line for each check; each must occur once."""
    found = {}
    for line in output.splitlines():
        name, rest = line[:13].strip(), line[14:].split(maxsplit=1)
        if rest and rest[0] in ("ok", "note", "wrong"):
            assert name not in found, f"twice: {line}\n{output}"
            found[name] = (rest[0], rest[1])
    return found


@pytest.fixture(scope="module")
def mpich():
    """Skips where Horovod is built with another MPI than MPICH: these launches are MPICH's."""
    from hpc_train.doctor.mpi import horovods
    from hpc_train.doctor.software import horovod_library

    library = horovods(horovod_library())
    if library is None or library.family != "MPICH":
        pytest.skip(f"Horovod is not built with MPICH here, but {library}")


@pytest.mark.usefixtures("mpich")
def test_a_healthy_job_has_nothing_wrong(job, digits):
    status, output = job("-N2", "--ntasks-per-node=1", lines=f"{srun('--cpus-per-task=1')} --data {digits}")
    found = findings(output)
    assert status == 0, output
    assert {name for name, (verdict, _) in found.items() if verdict == "wrong"} == set()
    assert output.splitlines()[-1] == "nothing is wrong"
    assert found["launcher"][1] == "srun --mpi=pmi2, 2 ranks"
    assert found["GPUs"][1].startswith("none given, none seen")
    assert "over 2 ranks" in found["all-reduce"][1]
    assert "exact in float32 and float16" in found["all-reduce"][1]
    assert "5 files" in found["data"][1]
    if os.getuid() == 0:  # nodes have host names of their own
        assert found["world"][1] == "2 ranks on 2 nodes, 1 a node"


@pytest.mark.usefixtures("mpich")
def test_mpi_starts_whatever_the_memory_held_before(job):
    # MPICH 5.0 sends its peers the bytes after its address. If none of them is zero, the line is too long for Slurm.
    python = shlex.quote(sys.executable)
    size = f"{python} -c 'from mpi4py import MPI; print(MPI.COMM_WORLD.size)'"
    lines = f"MALLOC_PERTURB_=170 srun --mpi=pmi2 --kill-on-bad-exit=1 {size}"
    assert job("-N2", "--ntasks-per-node=2", lines=lines) == (0, "4\n" * 4)


@pytest.mark.usefixtures("mpich")
def test_eight_jobs_of_size_one_are_wrong_and_one_process_prints_it(job):
    status, output = job("-N2", "--ntasks-per-node=4", lines=srun("--cpus-per-task=1", pmi="none"))
    assert output.count("\nTensorFlow ") == 1
    found = findings(output)
    assert status != 0
    assert found["world"][0] == "wrong"
    assert "srun --mpi=none started 8 processes, but each is a job of size 1" in found["world"][1]
    assert "-> start with `srun --mpi=pmi2`" in found["world"][1]


@pytest.mark.usefixtures("mpich")
def test_more_ranks_than_cpus_are_wrong_and_gpus_per_node_are_dealt_by_local_rank(job):
    two = sorted(os.sched_getaffinity(0))[:2]
    lines = srun(f"taskset -c {','.join(map(str, two))}")
    status, output = job("-N2", "--ntasks-per-node=3", "--gpus-per-node=3", lines=f"{lines} --json")
    printed = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    found = {finding["what"]: finding for finding in printed["findings"]}
    rows = printed["ranks"]
    assert status != 0
    assert [row["rank"] for row in rows] == list(range(6))
    assert all(row["visible"] == list("012") for row in rows)
    # as an ordinary user both nodes have one host name, and are one node to MPI
    if os.getuid() == 0:
        assert [row["takes"] for row in rows] == list("012012")
        assert [row["host"] for row in rows] == ["node1"] * 3 + ["node2"] * 3
        assert [row["local_rank"] for row in rows] == [0, 1, 2] * 2
        assert f"more ranks than CPUs: 3 ranks on {len(two)} CPU" in found["CPUs"]["value"]
    assert found["CPUs"]["verdict"] == "wrong"
    # if the node has more cores than the ranks may use, each rank could have its own
    assert ("ranks a node" if len(two) == os.cpu_count() else "give each rank its own") in found["CPUs"]["remedy"]
    # pretended GPUs
    assert found["GPUs"]["verdict"] == "wrong"
    assert found["GPUs"]["value"].startswith("3 a node given by Slurm, none seen by TensorFlow")


@pytest.mark.usefixtures("mpich")
def test_with_gpus_per_task_each_rank_takes_its_own(job):
    lines = f"{srun('--gpus-per-task=1')} --json"
    _, output = job("-N2", "--ntasks-per-node=2", "--gpus-per-task=1", lines=lines)
    rows = json.loads(next(line for line in output.splitlines() if line.startswith("{")))["ranks"]
    assert [len(row["visible"]) for row in rows] == [1] * 4
    assert [row["takes"] for row in rows] == [row["visible"][0] for row in rows]
    for node in (rows[:2], rows[2:]):
        assert sorted(row["takes"] for row in node) == list("01")


@pytest.mark.usefixtures("mpich")
def test_an_open_mpi_launcher_around_an_mpich_build_is_wrong(job):
    launcher = next((path for path in ("/usr/bin/mpirun.openmpi", "/usr/bin/mpirun") if shutil.which(path)), None)
    version = subprocess.run([launcher, "--version"], stdout=subprocess.PIPE, text=True).stdout if launcher else ""
    if not {"(Open", "(OpenRTE)"} & set(version.split()):
        pytest.skip("no mpirun of Open MPI in /usr/bin: Debian's openmpi-bin")
    root = "--allow-run-as-root" if os.getuid() == 0 else ""
    status, output = job("-N1", "-n2", lines=f"{launcher} {root} --bind-to none -n 2 {DOCTOR}")
    found = findings(output)
    assert status != 0
    assert found["MPI"][0] == "wrong"
    assert "Horovod: MPICH" in found["MPI"][1]
    assert "Open MPI's mpirun started this process -> start with `srun --mpi=pmi2`" in found["MPI"][1]
    assert found["launcher"][1] == "Open MPI's mpirun, 2 ranks"


def test_the_doctors_own_template_finds_data_that_do_not_fit_the_node_local_disk(cluster, project, tmp_path):
    data, local = tmp_path / "data", tmp_path / "local"
    data.mkdir()
    local.mkdir()
    free = shutil.disk_usage(local).free
    with open(data / "train.h5", "wb") as file:
        try:
            file.truncate(2 * free + 2**30)  # a hole: it takes no room
        except OSError:
            pytest.skip("the file system of the tests takes no file larger than itself")
    one_rank = ("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=0")
    number = cluster.submit(*one_rank, "slurm/doctor.sh", "--data", data, "--local", local, cwd=project)
    ended, output = cluster.wait(number, 120), cluster.output(number)
    verdict, text = findings(output)["local storage"]
    assert (ended.state, ended.status, verdict) == ("FAILED", 1, "wrong"), output
    assert "wrong: local storage" in output.splitlines()
    assert f"{local}: " in text
    assert "the data do not fit" in text
    assert "hpc-train stage --part" in text


def test_with_no_launcher_that_works_the_launch_check_says_so_in_one_line(cluster):
    ended = cluster.run(
        *("srun", "--mpi=none", "-n2", "-N2", "--cpus-per-task=1", sys.executable, "-m", "hpc_train.cli"),
        *("doctor", "--launch"),
        timeout=120,
        PYTHONPATH=str(REPOSITORY),
        PATH=environment()["PATH"],
    )
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("srun: ")]
    assert ended.returncode == 1
    assert len(lines) == 1, ended.stdout
    assert "srun --mpi=none started 2 processes, but each is a job of size 1" in lines[0]
