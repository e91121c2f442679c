"""What the doctor says of made-up environments and facts."""

import dataclasses
import importlib.metadata
import os
import site

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from hpc_train.doctor import allreduce, gpus, mpi, placement, software, storage
from hpc_train.doctor.container import with_size
from hpc_train.doctor.facts import Facts, Place
from hpc_train.doctor.findings import Finding, Report, some
from hpc_train.doctor.launch import judge as judge_launch
from hpc_train.parallel.cuda import offered, visible
from hpc_train.parallel.launcher import detect
from hpc_train.parallel.world import World

# What ranks were seen to have in an allocation of 2 nodes x 4 tasks (Slurm 22.05).
JOB = {"SLURM_JOB_ID": "2", "SLURM_JOB_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "4"}
BATCH = {**JOB, "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_PROCID": "5", "SLURM_LOCALID": "1"}
PMI2 = {**STEP, "SLURM_MPI_TYPE": "pmi2", "PMI_FD": "11", "PMI_JOBID": "2.0", "PMI_RANK": "5", "PMI_SIZE": "8"}
# Hydra's proxies, one a node, are the tasks of the step.
PROXIES = {"SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
HYDRA = {"PMI_FD": "5", "PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALNRANKS": "4", "MPI_LOCALRANKID": "1"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
GLOO = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "1"}

MPICH_LIBRARY = mpi.Mpi("MPICH", "/env/lib/libmpi.so.12", "MPICH 4.3.2")
MPICH_5 = mpi.Mpi("MPICH", "/env/lib/libmpi.so.12", "MPICH 5.0.2")
OPEN_MPI_LIBRARY = mpi.Mpi("Open MPI", "/usr/lib/libmpi.so.40", "Open MPI 4.1.4")


def rank(number: int, nodes: int = 1, size: int = 1, **fields) -> Facts:
    """Facts of a healthy rank without GPUs, one of `size` on `nodes` nodes of 4 CPUs."""
    local_size = size // nodes
    facts = Facts(
        rank=number,
        host=f"node{number // local_size + 1}",
        local_rank=number % local_size,
        local_size=local_size,
        visible=None,
        given=0,
        seen=0,
        takes=None,
        bus=None,
        problem="",
        no_driver="no NVIDIA driver (libcuda.so.1)",
        mask=0b1111,
        node_cpus=4,
        claimed=4,
        threads=4 // local_size or 1,
    )
    return dataclasses.replace(facts, **fields)


def ranks(size: int, nodes: int = 1, **fields) -> list[Facts]:
    return [rank(number, nodes, size, **fields) for number in range(size)]


@pytest.mark.parametrize(
    ("env", "name", "size", "number", "local"),
    [
        ({}, "", 1, 0, 0),
        (BATCH, "", 1, 0, 0),
        (PMI2, "srun --mpi=pmi2", 8, 5, 1),
        (STEP, "srun --mpi=none", 8, 5, 1),
        ({**STEP, "PMIX_RANK": "5"}, "srun --mpi=pmix", 8, 5, 1),
        ({**STEP, **PROXIES, **HYDRA}, "MPICH's mpirun", 8, 5, 1),
        # where srun's default protocol leaves its mark on the proxies
        ({**STEP, **PROXIES, "PMIX_RANK": "1", **HYDRA}, "MPICH's mpirun", 8, 5, 1),
        ({**STEP, **PROXIES, **HYDRA, "PMI_SIZE": "1", "PMI_RANK": "0"}, "MPICH's mpirun", 1, 0, 1),
        ({**BATCH, **OPEN_MPI, "PMIX_RANK": "3"}, "Open MPI's mpirun", 4, 3, 1),
        # a rank on another node than the batch script's: Open MPI's daemon is the task
        ({**STEP, **PROXIES, **OPEN_MPI}, "Open MPI's mpirun", 4, 3, 1),
        ({**STEP, "SLURM_STEP_NUM_TASKS": "1", **GLOO}, "horovodrun --gloo", 2, 1, 1),
        ({"PMIX_RANK": "2"}, "a PMIx launcher", 0, 2, None),
    ],
)
def test_the_innermost_launcher_says_how_many_ranks_there_are(env, name, size, number, local):
    launcher = detect(env)
    assert (launcher.name, launcher.size, launcher.rank, launcher.local_rank) == (name, size, number, local)


def test_where_nothing_is_to_be_seen_the_user_can_say_how_many_ranks_there_are(monkeypatch):
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/hpc-train.sif")
    found = judge_launch(with_size(detect({}), 4), 1, MPICH_LIBRARY, MPICH_LIBRARY)
    assert "the launcher started 4 processes, but the container keeps" in found.value
    assert judge_launch(with_size(detect(PMI2), 8), 8, MPICH_LIBRARY, None).verdict == "ok"
    assert judge_launch(with_size(detect(PMI2), 6), 8, MPICH_LIBRARY, None).verdict == "wrong"


def test_n_jobs_of_size_one_are_wrong_with_the_way_to_start_them():
    launcher = detect(STEP)
    found = judge_launch(launcher, 1, MPICH_LIBRARY, MPICH_LIBRARY)
    assert found.verdict == "wrong"
    assert "srun --mpi=none started 8 processes, but each is a job of size 1" in found.value
    assert "srun --mpi=pmi2" in found.remedy
    assert "srun --mpi=pmix" in judge_launch(launcher, 1, OPEN_MPI_LIBRARY, None).remedy


def test_a_world_of_another_size_than_announced_is_wrong():
    assert judge_launch(detect(PMI2), 8, MPICH_LIBRARY, None).verdict == "ok"
    found = judge_launch(detect(PMI2), 4, MPICH_LIBRARY, None)
    assert (found.verdict, "announced 8 ranks, but the world has 4" in found.value) == ("wrong", True)


def test_the_launch_check_wants_the_mpi_that_horovod_is_built_with():
    found = judge_launch(detect(PMI2), 8, MPICH_LIBRARY, OPEN_MPI_LIBRARY)
    assert found.verdict == "wrong"
    assert "MPI4PY_LIBMPI=/usr/lib/libmpi.so.40" in found.remedy


@pytest.mark.parametrize(
    ("soname", "family"),
    [
        ("libmpi.so.12", "MPICH"),
        ("libmpi.so.12.1.8", "MPICH"),
        ("libmpich.so.12", "MPICH"),
        ("libmpi_cray.so.12", "MPICH"),
        ("libmpi.so.40", "Open MPI"),
        ("libmpi.so.20.10.1", "Open MPI"),
        ("libmpi_abi.so.0", None),
    ],
)
def test_the_family_of_an_mpi_is_in_its_librarys_name(soname, family):
    assert mpi.family_of(soname) == family
    assert mpi.linked_with(f"\tlibc.so.6 => /lib/libc.so.6 (0x7f)\n\t{soname} => /nowhere/{soname} (0x7f)") == mpi.Mpi(
        family, f"/nowhere/{soname}"
    )


def test_of_a_process_its_mpi_is_what_it_has_mapped():
    paths = ["/usr/lib/libmpi_cxx.so.40", "/usr/lib/libmpifort.so.40", "[heap]", "/site/libmpi.so.40.30.4"]
    assert mpi.library_among(paths) == mpi.Mpi("Open MPI", "/site/libmpi.so.40.30.4")
    assert mpi.library_among(["/usr/lib/libc.so.6"]) is None


def test_of_the_libraries_that_a_file_is_linked_with_the_mpi_is_told():
    ldd = "\tlibmpi_cxx.so.40 => /nowhere/libmpi_cxx.so.40 (0x7f)\n\tlibmpi.so.40 => /nowhere/libmpi.so.40 (0x7f)"
    assert mpi.linked_with(ldd) == mpi.Mpi("Open MPI", "/nowhere/libmpi.so.40")


def test_an_mpi_that_the_linker_does_not_find_is_said_to_be_missing():
    assert "not found" in str(mpi.linked_with("\tlibmpi.so.12 => not found"))


@pytest.mark.parametrize(
    ("env", "horovod", "mpi4py", "mpirun", "verdict", "words"),
    [
        (PMI2, MPICH_LIBRARY, MPICH_LIBRARY, MPICH_LIBRARY, "ok", "the same: mpi4py and mpirun"),
        (OPEN_MPI, MPICH_LIBRARY, MPICH_LIBRARY, OPEN_MPI_LIBRARY, "wrong", "but Open MPI's mpirun started"),
        ({}, MPICH_LIBRARY, OPEN_MPI_LIBRARY, None, "wrong", "but mpi4py: Open MPI 4.1.4"),
        ({}, MPICH_LIBRARY, MPICH_LIBRARY, OPEN_MPI_LIBRARY, "note", "but mpirun on PATH: Open MPI"),
        # the ranks of a job that has started well do not care for PATH
        (PMI2, MPICH_LIBRARY, None, mpi.Mpi("MPICH", "/site/bin/mpirun"), "ok", "Horovod: MPICH"),
        ({}, None, MPICH_LIBRARY, None, "ok", "mpi4py: MPICH"),
        (PMI2, None, MPICH_5, None, "note", "value not properly terminated"),
        ({}, None, MPICH_5, None, "ok", "mpi4py: MPICH 5.0.2"),
        ({}, None, None, None, "note", "neither"),
    ],
)
def test_all_take_one_family_of_mpi(env, horovod, mpi4py, mpirun, verdict, words):
    found = mpi.judge(horovod, mpi4py, mpirun, detect(env), "")
    assert (found.verdict, words in found.value) == (verdict, True), found
    assert bool(found.remedy) == (verdict != "ok")


def test_the_world_says_how_the_ranks_are_spread():
    assert placement.judge_world(detect(PMI2), 8, ranks(8, 2), "MPICH", PMI2).value == "8 ranks on 2 nodes, 4 a node"
    uneven = [*ranks(4, 1), rank(0, 1, 1, rank=4, host="node9")]
    found = placement.judge_world(detect({"PMI_SIZE": "5", "PMI_RANK": "0"}), 5, uneven, None, {})
    assert (found.verdict, found.value) == ("note", "5 ranks on 2 nodes, unevenly: 1 to 4 a node")


def test_one_process_in_a_batch_script_of_eight_tasks_is_worth_a_note():
    found = placement.judge_world(detect(BATCH), 1, ranks(1), "MPICH", BATCH)
    assert (found.verdict, found.value) == ("note", "1 rank on 1 node; the job has 8 tasks")


def test_ranks_of_an_mpirun_are_not_compared_with_the_tasks_that_are_its_proxies():
    env = {**STEP, **PROXIES, **HYDRA}
    assert placement.judge_world(detect(env), 8, ranks(8, 2), "MPICH", env).verdict == "ok"


def test_more_ranks_than_cpus_is_over_subscription_and_names_the_worst_node():
    found = placement.judge_cpus([*ranks(6), rank(0, 1, 1, rank=6, host="fine")])
    assert (found.verdict, found.value) == ("wrong", "over-subscribed: 6 ranks on 4 CPUs of node1")
    assert "at most 4 ranks a node" in found.remedy


def test_ranks_that_are_all_bound_to_one_cpu_of_many_are_over_subscribed():
    found = placement.judge_cpus(ranks(2, mask=0b1, threads=1))
    assert (found.verdict, "2 ranks on 1 CPU of node1" in found.value) == ("wrong", True)
    assert "the node has 4 CPUs" in found.remedy


def test_ranks_with_cpus_of_their_own_are_well():
    bound = [rank(i, 1, 4, mask=1 << i, threads=1) for i in range(4)]
    found = placement.judge_cpus(bound)
    assert (found.verdict, found.value) == ("ok", "1 CPU open to a rank, 1 thread a rank")


def test_more_cpus_than_a_node_has_and_far_fewer_are_worth_a_note():
    found = placement.judge_cpus(ranks(1, claimed=64))
    assert (found.verdict, "Slurm gave 64 CPUs of node1, which has 4" in found.value) == ("note", True)
    few = placement.judge_cpus(ranks(1, mask=0b1, threads=1))
    assert (few.verdict, "--cpus-per-task=4" in few.remedy) == ("note", True)


@pytest.mark.parametrize(
    ("text", "shown"),
    [(None, None), ("", []), ("0,1,2,3", list("0123")), ("2", ["2"]), ("0,-1,1", ["0"]), ("NoDevFiles", [])],
)
def test_visible_gpus_are_read_as_cuda_reads_them(text, shown):
    env = {} if text is None else {"CUDA_VISIBLE_DEVICES": text}
    assert visible(env) == shown
    assert offered(env) == len(shown or ())
    assert offered({**env, "SLURM_GPUS_ON_NODE": "4"}) == (4 if shown is None else len(shown))


def test_a_rank_takes_its_own_gpu_whether_it_sees_all_or_one():
    third = World(rank=6, size=8, local_rank=2, local_size=4, node=1, nodes=2)
    assert gpus.take(list("0123"), 0, third) == (2, "2", "")
    assert gpus.take(["5"], 1, third) == (0, "5", "")
    assert gpus.take(None, 4, third) == (2, "2", "")
    assert gpus.take([], 0, third) == (None, None, "")
    assert "more ranks than GPUs" in gpus.take(list("01"), 2, third)[2]


def test_gpus_that_tensorflow_does_not_see_are_wrong_and_the_cause_is_named():
    shown = ranks(2, visible=["0", "1"], given=2)
    assert gpus.judge(ranks(2), False, False, "").verdict == "ok"
    build = gpus.judge(shown, False, False, "")
    assert (build.verdict, "CPU build" in build.value, "and-cuda" in build.remedy) == ("wrong", True, True)
    assert "--nv" in gpus.judge(shown, True, True, "image.sif").remedy
    driven = [dataclasses.replace(one, no_driver="") for one in shown]
    for facts, cuda in ((shown, False), (driven, False), (driven, True)):
        assert "containers/hpc-train-cuda.def" in gpus.judge(facts, cuda, True, "image.sif").remedy
        assert "pip install" in gpus.judge(facts, cuda, True, "Docker").remedy
    assert "nvidia-smi" in gpus.judge(shown, True, True, "").remedy
    one = [dataclasses.replace(shown[0], seen=2), dataclasses.replace(shown[1], host="node7")]
    assert "on node7" in gpus.judge(one, True, True, "").value


def test_each_rank_has_a_gpu_of_its_own_or_it_is_wrong():
    own = [rank(i, 1, 2, visible=["0", "1"], given=2, seen=2, takes=str(i), bus=f"0000:0{i}:00.0") for i in range(2)]
    assert gpus.judge(own, True, True, "").verdict == "ok"
    assert gpus.judge(own, True, False, "").remedy == "hpc-train build-horovod --gpu"
    assert "containers/hpc-train-cuda.def" in gpus.judge(own, True, False, "image.sif").remedy
    shared = gpus.judge([own[0], dataclasses.replace(own[1], bus=own[0].bus)], True, True, "")
    assert (shared.verdict, "ranks 0, 1 share GPU 0000:00:00.0" in shared.remedy) == ("wrong", True)
    idle = gpus.judge([rank(0, visible=list("0123"), given=4, seen=4, takes="0", bus="a")], True, True, "")
    assert (idle.verdict, "3 idle on node1" in idle.value) == ("note", True)
    # A workstation, where nobody says how many there are.
    assert gpus.judge([rank(0, seen=1, takes="0", bus="a")], True, True, "").value.startswith("1 seen by TensorFlow")


@pytest.mark.parametrize(
    ("version", "keras", "backend", "verdict", "usable"),
    [
        ("2.21.0", "3.15.1", "tensorflow", "ok", True),
        ("2.20.1", "3.12.0", "tensorflow", "note", True),
        ("2.21.0", "3.9.2", "tensorflow", "wrong", True),
        ("2.21.0", "3.12.0", "jax", "wrong", False),
    ],
)
def test_the_versions_that_the_suite_is_made_for_are_well(version, keras, backend, verdict, usable):
    versions = {"tensorflow": SpecifierSet("==2.21.*"), "keras": SpecifierSet(">=3.12")}
    found, can = software.judge_tensorflow(version, False, keras, backend, versions)
    assert (found.verdict, can) == (verdict, usable)


def test_where_the_suite_is_not_installed_no_version_is_asked_for(monkeypatch):
    versions = software.wanted()
    if versions:
        assert versions["python"].contains("3.11.2")
        assert not versions["python"].contains("3.9.1")
        assert versions["keras"].contains("3.12.0")
        assert [versions["tensorflow"].contains(version) for version in ("2.20.0", "2.21.1")] == [False, True]

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", absent)
    assert software.wanted() == {}
    assert software.python().verdict == "ok"
    assert software.judge_tensorflow("2.1.0", False, "3.1.0", "tensorflow", {})[0].verdict == "ok"


def test_packages_of_the_user_inside_a_container_are_worth_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path))
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/suite.sif")
    assert software.python().verdict == "ok"
    (tmp_path / "numpy-2.0.dist-info").mkdir()
    found = software.python()
    assert (found.verdict, str(tmp_path) in found.value) == ("note", True)
    assert "PYTHONNOUSERSITE=1" in found.remedy
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    assert software.python().verdict == "ok"


MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw shared:2 - tmpfs tmpfs rw
31 22 0:40 / /project rw - lustre 10.0.0.1@tcp:/fs rw
32 31 0:41 / /project/my\040data rw - nfs4 server:/x rw
33 22 0:42 / /project rw - fuse.juicefs j rw
"""


@pytest.mark.parametrize(
    ("path", "system"),
    [
        ("/home/me", "ext4"),
        ("/", "ext4"),
        ("/tmp", "tmpfs"),
        ("/tmpfile", "ext4"),
        ("/project/a", "fuse.juicefs"),
        ("/project/my data/a", "nfs4"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, system):
    assert storage.system_of(path, MOUNTS.strip()) == system


def test_a_lock_works_and_is_held_where_another_program_writes(tmp_path):
    import fcntl

    file = tmp_path / "a.h5"
    file.write_bytes(b"x")
    assert storage.try_lock(str(file)) == "works"
    with open(file, "rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert storage.try_lock(str(file)) == "held"
    assert storage.try_lock(str(tmp_path / "absent")) == "ENOENT"


def test_data_that_one_node_does_not_see_are_wrong():
    seen, lost = Place("d", "lustre", locks="works"), Place("d", "", problem="no such file or folder")
    found = storage.judge_data({"node1": seen, "node2": lost}, 3, 10**9)
    assert (found.verdict, "on node2" in found.value) == ("wrong", True)
    assert (
        storage.judge_data({"node1": seen}, 3, 10**9).value == "d: 3 files, 1.0 GB, lustre; HDF5's file locking works"
    )


@pytest.mark.parametrize(
    ("locks", "words"), [("ENOSYS", "does not work (ENOSYS)"), ("hangs", "hangs"), ("held", "writes")]
)
def test_locks_that_do_not_work_matter_to_other_programs_only(locks, words):
    places = {"node1": Place("d", "lustre", locks="works"), "node2": Place("d", "lustre", locks=locks)}
    found = storage.judge_data(places, 1, 10)
    assert (found.verdict, words in found.value, "on node2" in found.value) == ("note", True, True)
    assert ("HDF5_USE_FILE_LOCKING=FALSE" in found.remedy) == (locks != "held")


def test_data_that_do_not_fit_the_fullest_node_are_wrong():
    places = {"node1": Place("/l", "ext4", free=10**12), "node2": Place("/l", "ext4", free=10**9)}
    assert storage.judge_local(places, None).value == "/l: ext4, at least 1.0 GB free (node2)"
    assert storage.judge_local(places, 5 * 10**8).verdict == "ok"
    found = storage.judge_local(places, 10**9)
    assert (found.verdict, "do not fit" in found.value, "on node2" in found.value) == ("wrong", True, True)
    # what an earlier job staged is not brought again
    staged = {**places, "node2": Place("/l", "ext4", free=10**8, held=10**9)}
    assert storage.judge_local(staged, 10**9).verdict == "ok"


@pytest.mark.parametrize(
    ("system", "words"), [("tmpfs", "memory"), ("lustre", "not local"), ("fuse.sshfs", "not local")]
)
def test_memory_and_other_machines_are_not_node_local_disks(system, words):
    found = storage.judge_local({"node1": Place("/l", system, free=10**12)}, None)
    assert (found.verdict, words in found.value) == ("note", True)


def test_local_storage_is_looked_up_here_and_must_be_writable(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_PLACE", str(tmp_path))
    place = storage.look_at_local("$LOCAL_PLACE/not/yet")
    assert (place.path, place.problem, place.free > 0) == (f"{tmp_path}/not/yet", "", True)
    assert "not set" in storage.look_at_local("$NO_SUCH_PLACE/x").problem
    assert "may not write" in storage.look_at_local("/proc/x").problem or os.access("/proc", os.W_OK)
    (tmp_path / "file").touch()
    assert storage.look_at_local(str(tmp_path / "file")).problem == "is not a folder"
    for name in storage.LOCAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert storage.look_at_local(None).path == "/tmp"


@given(st.integers(1, 3000))
def test_codes_of_the_ranks_add_up_exactly_in_float16(size):
    chosen = sorted({0, size // 2, size - 1})
    total = sum(allreduce.code(number, size).astype("float16") for number in chosen)
    wanted = allreduce.expected(size)
    assert np.array_equal(wanted.astype("float16").astype("float64"), wanted)
    assert [float(total[number]) for number in chosen] == [1 + number % 2039 for number in chosen]
    if size <= 3:
        assert np.array_equal(total, wanted)


def test_a_wrong_sum_is_told_and_a_right_one_is_measured():
    bad = allreduce.judge(4, {"float32": [], "float16": [2, 3]}, 1e-5, 2**26, 0.1, "/cpu:0")
    assert (bad.verdict, "wrong in float16, first on rank 2" in bad.value) == ("wrong", True)
    good = allreduce.judge(4, {"float32": [], "float16": []}, 1e-5, 2**26, 0.0671, "/cpu:0")
    assert (good.verdict, "64 MiB in 67.1 ms: 1.00 GB/s" in good.value) == ("ok", True)


def test_a_report_is_a_line_each_and_a_status(capsys):
    report = Report(speaks=True, json=False)
    report.hear(Finding("MPI", "wrong", "two of them", "keep one"))
    assert capsys.readouterr().out == "MPI           wrong  two of them -> keep one\n"
    assert report.close() == 1
    assert capsys.readouterr().out == "wrong: MPI\n"
    assert Report(speaks=False, json=True).close() == 0
    assert capsys.readouterr().out == ""
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
