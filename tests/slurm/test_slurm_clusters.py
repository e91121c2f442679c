"""Kinds of clusters: how MPI starts, what they ask of jobs, which commands they lack. Each is a Slurm of its own."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cluster as slurm
import pytest
from launch import REPOSITORY, mpirun

STAND_IN = REPOSITORY / "tests" / "ranks" / "stand_in.py"
TRAIN = ("slurm/train.sh", STAND_IN)
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1")
ONE_RANK = ("--nodes=1", "--ntasks-per-node=1", "--gpus-per-node=0")


@pytest.fixture
def cluster(request):
    """A cluster of the shape that the test names."""
    if slurm.missing():
        pytest.skip(slurm.missing())
    with slurm.Cluster(**request.param) as running:
        yield running


def of(**shape):
    """Give the test a cluster of this shape."""
    return pytest.mark.parametrize("cluster", [shape], indirect=True, ids=[""])


def ended(cluster, number, timeout=60):
    """Status and output of a job."""
    status = cluster.wait(number, timeout).status
    return status, cluster.output(number)


def places(output):
    """Rank, local rank, node and GPU, as the stand-in prints them."""
    found = re.findall(r"rank (\d+) of \d+ local (\d+) on (\S+) takes GPU (\d+)", output)
    return sorted((int(rank), int(local), node, int(gpu)) for rank, local, node, gpu in found)


TWO_RANKS = [(0, 0, "node1", 0), (1, 0, "node2", 0)]


@pytest.mark.parametrize("cluster", [{"mpi_default": "pmi2"}, {"mpi_default": "pmix"}], indirect=True, ids=str)
def test_plain_srun_is_tried_first_where_mpi_has_a_default_and_then_the_kind_that_is_of_our_mpi(cluster, project):
    version = subprocess.run([mpirun(), "--version"], stdout=subprocess.PIPE, text=True).stdout
    kind = "pmix" if "Open MPI" in version else "pmi2"
    status, output = ended(cluster, cluster.submit(*TWO_NODES, *TRAIN, "where", cwd=project))
    assert (status, places(output)) == (0, TWO_RANKS), output
    tried = re.findall(r"(launcher|rejected): srun .*?(?: --mpi=(\w+))?: ", output)
    if cluster.shape.mpi_default == kind:
        assert tried == [("launcher", "")], output
    else:
        assert (tried[0], tried[-1]) == (("rejected", ""), ("launcher", kind)), output


# A site's own job_submit.lua. Slurm 22.05 writes gres:gpu:4, 24.11 gres/gpu:4.
RULES = """
function slurm_job_submit(job, partition, user)
  local job_wide, node, task = job.tres_per_job or "", job.tres_per_node or "", job.tres_per_task or ""
  RULE
  return slurm.SUCCESS
end
function slurm_job_modify() return slurm.SUCCESS end
"""
REFUSE = 'if not (CONDITION) then slurm.log_user("this site: MESSAGE") return slurm.ERROR end'


def rule(condition, message):
    """A job_submit.lua that demands a condition of each job."""
    return RULES.replace("RULE", REFUSE.replace("CONDITION", condition).replace("MESSAGE", message))


TYPED_GRES = rule('node:find("gpu:v100:")', "give --gres=gpu:v100:N")
IN_ALL = rule('job_wide:find("gpu:v100:") and node == ""', "give --gpus=v100:N and nothing else")
PER_TASK = rule('task:find("gpu")', "give --gpus-per-task")
# As where GPUs are given out by the node, whatever the job asks for.
REWRITES = RULES.replace("RULE", 'job.tres_per_job, job.tres_per_node = "", (job.tres_per_job:gsub("4$", "2"))')


def shape_of(job_submit):
    return {"gpus": (2, 2), "gpu_type": "v100", "job_submit": job_submit}


@pytest.mark.parametrize(
    ("cluster", "refused", "accepted"),
    [
        (shape_of(TYPED_GRES), "--gpus-per-node=2", ("--gres=gpu:v100:2",)),
        (shape_of(IN_ALL), "--gres=gpu:v100:2", ("--gpus=v100:4",)),
        (shape_of(PER_TASK), "--gpus-per-node=2", ("--gpus-per-task=1", "--ntasks-per-node=2")),
        (shape_of(REWRITES), None, ("--gpus=v100:4",)),
    ],
    indirect=["cluster"],
    ids=["typed gres", "GPUs in all", "GPUs per task", "rewritten"],
)
def test_a_site_that_demands_a_form_of_gpu_request_gets_it(cluster, project, refused, accepted):
    if refused:
        with pytest.raises(RuntimeError, match="this site: give --"):
            cluster.submit(refused, *TRAIN, "where", cwd=project)
    status, output = ended(cluster, cluster.submit(*accepted, *TRAIN, "where", cwd=project))
    want = [(rank, rank % 2, f"node{1 + rank // 2}", rank % 2) for rank in range(4)]
    assert (status, [place[:3] for place in places(output)]) == (0, [place[:3] for place in want]), output
    assert len({place[2:] for place in places(output)}) == 4, output


@of(gpus=(4, 2))
def test_ranks_follow_gpus_that_are_unequal_and_can_be_made_equal(cluster, project):
    uneven, even = (
        cluster.submit("--nodes=2", form, *TRAIN, "where", cwd=project) for form in ("--gpus=6", "--gpus-per-node=2")
    )
    status, output = ended(cluster, uneven)
    want = [(0, 0, "node1", 0), (1, 1, "node1", 1), (2, 2, "node1", 2), (3, 3, "node1", 3)]
    assert (status, places(output)) == (0, [*want, (4, 0, "node2", 0), (5, 1, "node2", 1)]), output
    assert "unequal numbers of GPUs, node1:4,node2:2: --gpus-per-node=N gives N to each" in output
    status, output = ended(cluster, even)
    want = [(0, 0, "node1"), (1, 1, "node1"), (2, 0, "node2"), (3, 1, "node2")]
    assert (status, [place[:3] for place in places(output)]) == (0, want), output
    with pytest.raises(RuntimeError, match="Requested node configuration is not available"):
        cluster.submit("--nodes=2", "--gpus-per-node=4", *TRAIN, "where", cwd=project)


@pytest.fixture
def few_commands(project, tmp_path):
    """A folder like `project`, for whose jobs there is every program of this machine, but of Slurm's only srun."""
    shutil.copytree(project / "slurm", tmp_path / "slurm")
    (tmp_path / "bin").mkdir()
    programs = {path.name: path for folder in reversed(slurm.PATH.split(":")) for path in Path(folder).glob("*")}
    for name in programs.keys() - {"scontrol", "squeue"}:
        (tmp_path / "bin" / name).symlink_to(programs[name])
    with open(tmp_path / "slurm" / "site.env", "a") as file:
        file.write(f"PATH='{tmp_path}/bin'\n")
    return tmp_path


@of(gpus=(4, 2))
def test_without_scontrol_the_ranks_are_counted_and_the_job_says_how_it_goes_on(cluster, few_commands):
    forms = {"--gpus-per-node=2": [1, 1, 2, 2], "--gpus=6": [1, 1, 1, 1, 2, 2], "--gpus-per-task=1": [1, 2]}
    options = ("--nodes=2", "--ntasks-per-node=1", *TRAIN, "where")
    unfinished = cluster.submit(*ONE_RANK, *TRAIN, "unfinished", cwd=few_commands)
    numbers = [cluster.submit(form, *options, cwd=few_commands) for form in forms]
    for number, nodes in zip(numbers, forms.values(), strict=True):
        status, output = ended(cluster, number)
        assert (status, [int(place[2][-1]) for place in places(output)]) == (0, nodes), output
    status, output = ended(cluster, unfinished)
    assert status == 75
    [line] = [line for line in output.splitlines() if "stopped at a checkpoint" in line]
    assert "not requeued, as the job is in an unknown state (command not found): if Slurm does not restart it" in line
    assert f"give the same sbatch command with --run runs/train-{unfinished} to continue" in line
    assert "line " not in output


@of(conf=("JobRequeue=0",))
def test_where_jobs_are_not_requeued_ours_is_unless_the_user_forbids_it(cluster, project):
    unfinished = (*TRAIN, "unfinished")
    number = cluster.submit(*ONE_RANK, *unfinished, cwd=project, PROGRESS="1")
    forbidden = cluster.submit(*ONE_RANK, "--no-requeue", *unfinished, cwd=project)
    status, output = ended(cluster, forbidden)
    assert status == 75
    [line] = [line for line in output.splitlines() if "stopped at a checkpoint" in line]
    assert "but not requeued" in line
    assert f"give the same sbatch command with --run runs/train-{forbidden}" in line
    job = cluster.wait(number, 60)
    assert (job.state, job.restarts) == ("COMPLETED", 1), cluster.output(number)


# Stops at a checkpoint in its first start.
STOPS_ONCE = """
import pathlib, sys
run = pathlib.Path(sys.argv[sys.argv.index("--run") + 1])
(run / "checkpoints").mkdir(exist_ok=True)
newest = len(list((run / "checkpoints").iterdir()))
(run / "checkpoints" / f"step-{newest}.h5").touch()
sys.exit(0 if newest else 75)
"""


@of(gpus=(1,))
def test_tasks_of_an_array_that_run_one_at_a_time_are_each_requeued_alone(cluster, project, tmp_path):
    (tmp_path / "trainer.py").write_text(STOPS_ONCE)
    site = {"HPC_TRAIN": str(project), "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
    train = (project / "slurm" / "train.sh", "trainer.py")
    array = cluster.submit("--array=1-3%1", *ONE_RANK, *train, cwd=tmp_path, **site)
    jobs = [cluster.wait(f"{array}_{task}", 90) for task in (1, 2, 3)]
    assert [(job.state, job.restarts) for job in jobs] == [("COMPLETED", 1)] * 3, cluster.output(f"{array}_1")
    for task in (1, 2, 3):
        run = tmp_path / "runs" / f"train-{array}_{task}"
        assert len(list((run / "checkpoints").iterdir())) == 2
