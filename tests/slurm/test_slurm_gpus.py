"""Whatever options a job asks for GPUs with, each GPU that it gets has one rank; on nodes with eight of one type."""

import os
import re

import cluster as slurm
import pytest
from launch import REPOSITORY

WHERE = ("slurm/train.sh", REPOSITORY / "tests" / "ranks" / "stand_in.py", "where")


@pytest.fixture(scope="module")
def typed():
    if slurm.missing():
        pytest.skip(slurm.missing())
    with slurm.Cluster(gpus=(8, 8), gpu_type="v100-32") as running:
        yield running


@pytest.fixture
def places(typed, project):
    """A function that runs a job: its output, and how many ranks each node has, each with a GPU of its own."""

    def run(*flags, **variables):
        number = typed.submit(*flags, *WHERE, cwd=project, **variables)
        job, output = typed.wait(number, 120), typed.output(number)
        taken = re.findall(r"rank \d+ of (\d+) local \d+ on (\S+) takes GPU (\d)", output)
        assert len(set(taken)) == len(taken), output
        assert {int(size) for size, *_ in taken} <= {len(taken)}
        ranks = [len([node for _, node, _ in taken if node == name]) for name in ("node1", "node2")]
        return job.state, [count for count in ranks if count], output

    return run


FORMS = [
    # GPUs counted in all, without tasks (Bridges-2), and by node (Mahti).
    ("--gpus=v100-32:16", [8, 8], "note: 16 ranks, one for each GPU, where the job asked for 8 tasks"),
    ("--nodes=1 --gres=gpu:v100-32:2 --ntasks-per-node=2", [2], ""),
    ("--gpus-per-task=v100-32:1 --cpus-per-task=4", [4, 4], "--cpus-per-task=4"),
    # A part of whole nodes.
    ("--exclusive --gres=gpu:3", [3, 3], ""),
    # Slurm gives these unevenly.
    ("--gpus=v100-32:10", [8, 2], "note: the nodes have unequal numbers of GPUs"),
]
MORE = [
    ("--gpus-per-node=4", [4, 4], ""),
    ("--nodes=1 --gpus=2 --ntasks-per-node=2", [2], ""),
    ("--ntasks=4 --gpus-per-node=4", [4, 4], "note: 8 ranks, one for each GPU, where the job asked for 4 tasks"),
    ("--gpus-per-node=2 --gpus=4 --cpus-per-gpu=3", [2, 2], ""),
    ("--exclusive", [8, 8], "note: 16 ranks"),
]


# `make test-sites` takes all.
@pytest.mark.parametrize(("flags", "ranks", "says"), FORMS + (MORE if "HPC_TRAIN_TEST_SITES" in os.environ else []))
def test_every_gpu_of_a_job_has_one_rank(places, flags, ranks, says):
    state, found, output = places(*flags.split())
    assert (state, sorted(found)) == ("COMPLETED", sorted(ranks)), output
    assert says in output
    assert ("note:" in output) == ("note:" in says or "--gres=gpu:3" in flags or "--cpus-per-gpu" in flags), output


def test_unequal_gpus_are_refused_where_only_srun_may_start_the_ranks(places):
    state, _, output = places("--gpus=10", LAUNCHER="srun --mpi=pmi2")
    assert state == "FAILED"
    assert re.search(
        r"\nerror: srun places ranks evenly, and the GPUs are not \(node1:\d,node2:\d\): give sbatch", output
    )


def test_without_gpus_each_task_is_a_rank_and_nodes_that_have_some_are_named(places):
    for flags, note in (((), True), (("--gpus-per-node=0",), False)):
        state, _, output = places("--ntasks-per-node=2", *flags)
        assert state == "COMPLETED"
        assert output.count("takes GPU none") == 4
        assert ("note: the job asked for no GPUs, and its nodes have gpu:v100-32:8" in output) == note


def test_a_tensorflow_for_gpus_refuses_a_job_without_any(places, project, tmp_path):
    package = tmp_path / "tensorflow"
    (package / "python" / "platform").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "python" / "platform" / "build_info.py").write_text("build_info = {'cuda_version', '12.5'}\n")
    (tmp_path / "tensorflow-2.21.0.dist-info").mkdir()
    (tmp_path / "tensorflow-2.21.0.dist-info" / "METADATA").write_text("Name: tensorflow\nVersion: 2.21.0\n")
    site = project / "slurm" / "site.env"
    before = site.read_text()
    site.write_text(f"{before}PYTHONPATH={tmp_path}:$PYTHONPATH\n")
    try:
        state, _, output = places()
    finally:
        site.write_text(before)
    assert state == "FAILED"
    told = (
        "error: the job asked for no GPUs, and its nodes have gpu:v100-32:8: give sbatch --gpus-per-node=N, or the form"
    )
    assert output == f"{told} of your site; --gpus-per-node=0 trains on the CPUs\n"


def test_the_launcher_that_was_right_is_tried_first_by_the_next_job(places, typed):
    memory = typed.folder / "cache" / "hpc-train" / "launchers"
    memory.unlink(missing_ok=True)
    _, _, first = places("--nodes=1", "--gpus=2", PREFERRED_LAUNCHER="srun --mpi=none")
    assert re.findall(r"\] (rejected|launcher): srun [^:]*(--mpi=\w+)", first) == [
        ("rejected", "--mpi=none"), ("launcher", "--mpi=pmi2")
    ]  # fmt: skip
    assert memory.read_text().endswith("|srun --mpi=pmi2\n")
    _, _, second = places("--nodes=1", "--gpus=2", PREFERRED_LAUNCHER="srun --mpi=none")
    assert re.findall(r"\] (rejected|launcher): srun [^:]*(--mpi=\w+)", second) == [("launcher", "--mpi=pmi2")]
