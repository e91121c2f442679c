"""What the doctor finds about launchers, MPI, CPUs and GPUs, in made-up environments and facts of ranks."""

import dataclasses

import pytest

from hpc_train.doctor import gpus, mpi, placement
from hpc_train.doctor.container import with_size
from hpc_train.doctor.facts import Facts
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
        ({"PALS_RANKID": "5", "PALS_LOCAL_RANKID": "1", "PMI_RANK": "5", "PMI_SIZE": "8"}, "PALS's mpiexec", 8, 5, 1),
    ],
)
def test_the_innermost_launcher_says_how_many_ranks_there_are(env, name, size, number, local):
    launcher = detect(env)
    assert (launcher.name, launcher.size, launcher.rank, launcher.local_rank) == (name, size, number, local)


def test_the_user_can_say_how_many_ranks_there_are_if_nothing_shows_it(monkeypatch):
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/hpc-train.sif")
    found = judge_launch(with_size(detect({}), 4), 1, MPICH_LIBRARY, MPICH_LIBRARY)
    assert "the launcher started 4 processes, but the container keeps" in found.value
    assert judge_launch(with_size(detect(PMI2), 8), 8, MPICH_LIBRARY, None).verdict == "ok"
    assert judge_launch(with_size(detect(PMI2), 6), 8, MPICH_LIBRARY, None).verdict == "wrong"


def test_n_jobs_of_size_one_are_wrong_and_the_remedy_is_the_right_launcher():
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


def test_the_mpi_of_a_process_is_the_library_that_it_has_mapped():
    paths = ["/usr/lib/libmpi_cxx.so.40", "/usr/lib/libmpifort.so.40", "[heap]", "/site/libmpi.so.40.30.4"]
    assert mpi.library_among(paths) == mpi.Mpi("Open MPI", "/site/libmpi.so.40.30.4")
    assert mpi.library_among(["/usr/lib/libc.so.6"]) is None


def test_the_mpi_is_found_among_the_libraries_that_a_file_is_linked_with():
    ldd = "\tlibmpi_cxx.so.40 => /nowhere/libmpi_cxx.so.40 (0x7f)\n\tlibmpi.so.40 => /nowhere/libmpi.so.40 (0x7f)"
    assert mpi.linked_with(ldd) == mpi.Mpi("Open MPI", "/nowhere/libmpi.so.40")


def test_an_mpi_that_the_linker_does_not_find_is_reported_as_missing():
    assert "not found" in str(mpi.linked_with("\tlibmpi.so.12 => not found"))


@pytest.mark.parametrize(
    ("env", "horovod", "mpi4py", "mpirun", "verdict", "words"),
    [
        (PMI2, MPICH_LIBRARY, MPICH_LIBRARY, MPICH_LIBRARY, "ok", "the same: mpi4py and mpirun"),
        (OPEN_MPI, MPICH_LIBRARY, MPICH_LIBRARY, OPEN_MPI_LIBRARY, "wrong", "but Open MPI's mpirun started"),
        ({}, MPICH_LIBRARY, OPEN_MPI_LIBRARY, None, "wrong", "but mpi4py: Open MPI 4.1.4"),
        ({}, MPICH_LIBRARY, MPICH_LIBRARY, OPEN_MPI_LIBRARY, "note", "but mpirun on PATH: Open MPI"),
        # PATH does not matter to ranks that have started well
        (PMI2, MPICH_LIBRARY, None, mpi.Mpi("MPICH", "/site/bin/mpirun"), "ok", "Horovod: MPICH"),
        ({}, None, MPICH_LIBRARY, None, "ok", "mpi4py: MPICH"),
        (PMI2, None, MPICH_5, None, "note", "value not properly terminated"),
        ({}, None, MPICH_5, None, "ok", "mpi4py: MPICH 5.0.2"),
        ({}, None, None, None, "note", "neither"),
    ],
)
def test_all_must_use_one_family_of_mpi(env, horovod, mpi4py, mpirun, verdict, words):
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


def test_more_ranks_than_cpus_are_wrong_and_the_worst_node_is_named():
    found = placement.judge_cpus([*ranks(6), rank(0, 1, 1, rank=6, host="fine")])
    assert (found.verdict, found.value) == ("wrong", "more ranks than CPUs: 6 ranks on 4 CPUs of node1")
    assert "at most 4 ranks a node" in found.remedy


def test_ranks_that_are_all_bound_to_one_cpu_of_many_are_wrong():
    found = placement.judge_cpus(ranks(2, mask=0b1, threads=1))
    assert (found.verdict, "2 ranks on 1 CPU of node1" in found.value) == ("wrong", True)
    assert "the node has 4 CPUs" in found.remedy


def test_ranks_with_cpus_of_their_own_are_ok():
    bound = [rank(i, 1, 4, mask=1 << i, threads=1) for i in range(4)]
    found = placement.judge_cpus(bound)
    assert (found.verdict, found.value) == ("ok", "1 CPU and 1 thread for each rank")


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


@pytest.mark.parametrize(
    ("built", "driver", "newest", "words", "oldest"),
    [
        ("12.5.1", "470.82.01", 11040, "no more than CUDA 11.4", "driver 525 or newer"),
        ("13.0", "575.51.03", 12090, "no more than CUDA 12.9", "driver 580 or newer"),
        ("11.8", "440.33.01", 10020, "no more than CUDA 10.2", "driver 450 or newer"),
        ("14.0", "580.65.06", 13000, "no more than CUDA 13.0", "a newer driver"),
    ],
)
def test_a_driver_of_an_older_cuda_is_wrong(built, driver, newest, words, oldest):
    old = ranks(8, 2, seen=4, driver=driver, driver_cuda=newest)
    found = gpus.judge_driver(old, built)
    assert (found.what, found.verdict) == ("GPUs", "wrong")
    assert found.value == f"TensorFlow is built for CUDA {built}, but the NVIDIA driver {driver} knows {words}"
    assert (oldest in found.remedy, "cuda-compat" in found.remedy) == (True, True)
    mixed = [dataclasses.replace(one, driver_cuda=99000) if one.host == "node1" else one for one in old]
    assert f"driver {driver} on node2 knows" in gpus.judge_driver(mixed, built).value


@pytest.mark.parametrize(
    ("built", "newest"), [("12.5.1", 12000), ("12.5.1", 12080), ("12.5.1", 13000), ("", 11040), ("12.5.1", 0)]
)
def test_a_driver_of_the_same_or_a_newer_cuda_or_none_is_not_too_old(built, newest):
    assert gpus.judge_driver(ranks(2, driver="1.2", driver_cuda=newest), built) is None


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.82.01  Wed Oct 27 21:21:55 UTC 2021", "470.82.01"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  580.65.06  Release Build", "580.65.06"),
        ("GCC version:  gcc version 9.3.0", ""),
    ],
)
def test_the_drivers_version_is_read_from_proc(tmp_path, text, version):
    assert gpus.release(tmp_path) == ""
    (tmp_path / "proc/driver/nvidia").mkdir(parents=True)
    (tmp_path / "proc/driver/nvidia/version").write_text(f"{text}\nGCC version:  gcc version 12.2.0 (Debian)\n")
    assert gpus.release(tmp_path) == version


def test_each_rank_has_a_gpu_of_its_own_or_it_is_wrong():
    own = [rank(i, 1, 2, visible=["0", "1"], given=2, seen=2, takes=str(i), bus=f"0000:0{i}:00.0") for i in range(2)]
    assert gpus.judge(own, True, True, "").verdict == "ok"
    assert gpus.judge(own, True, False, "").remedy == "hpc-train build-horovod --gpu"
    assert "containers/hpc-train-cuda.def" in gpus.judge(own, True, False, "image.sif").remedy
    shared = gpus.judge([own[0], dataclasses.replace(own[1], bus=own[0].bus)], True, True, "")
    assert (shared.verdict, "ranks 0, 1 share GPU 0000:00:00.0" in shared.remedy) == ("wrong", True)
    idle = gpus.judge([rank(0, visible=list("0123"), given=4, seen=4, takes="0", bus="a")], True, True, "")
    assert (idle.verdict, "3 idle on node1" in idle.value) == ("note", True)
    # A workstation, where no variable says how many GPUs there are.
    assert gpus.judge([rank(0, seen=1, takes="0", bus="a")], True, True, "").value.startswith("1 seen by TensorFlow")


def test_a_rendezvous_that_answers_everybody_is_noted():
    job = {**GLOO, "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1"}
    found = placement.launcher_finding(detect(job), job)
    assert (found.verdict, "build-horovod" in found.remedy) == ("note", True)
    assert "anybody on its network can end this job" in found.line
    closed = {**job, "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1:4711/token"}
    assert placement.launcher_finding(detect(closed), closed).verdict == "ok"
    assert placement.launcher_finding(detect(HYDRA), HYDRA).verdict == "ok"
