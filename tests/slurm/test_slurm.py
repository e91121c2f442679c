"""The batch scripts in slurm/ on a real Slurm: accepted, explained, and run; a job that fails is not run again."""

import json
import os
import re
import shutil
import subprocess
import time

import own_models
import pytest
from cluster_daemons import own_hostnames
from launch import REPOSITORY

SHARED = {"common.sh", "container.sh", "job.sh", "launcher.sh", "ranks.sh"}
# For job scripts of PBS and LSF: tests/sites.
SHARED |= {"lsf.sh", "nodes.sh", "one_gpu.sh", "pbs.sh"}
TEMPLATES = sorted({path.name for path in (REPOSITORY / "slurm").glob("*.sh")} - SHARED)
STAND_IN = REPOSITORY / "tests" / "ranks" / "stand_in.py"
QUICK = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1", "slurm/train.sh", STAND_IN)


def test_the_shell_is_clean():
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck here")
    files = sorted((REPOSITORY / "slurm").iterdir())
    checked = subprocess.run(
        ["shellcheck", "-x", *map(str, files)], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, timeout=60
    )
    assert checked.returncode == 0, checked.stdout


def test_a_container_shows_the_folders_that_options_name(tmp_path):
    data, link, other = tmp_path / "data", tmp_path / "link", tmp_path / "other"
    (data / "train").mkdir(parents=True)
    link.symlink_to(data)
    functions = (REPOSITORY / "slurm" / "container.sh").read_text()
    words = ["-m", "hpc_train.mnist", "--data", f"{data}/train/*.h5", f"--run={tmp_path}/new/run", "--epochs", "3"]
    words += ["--test-data", str(link), "--weights", "/", "--again", str(data / "train")]
    # The image's own programs are in /opt and /usr.
    words += ["--stage", "${OTHER}/$SLURM_JOB_ID", "--report", "/opt/none-yet/x", "/usr/none-yet"]
    other.mkdir()
    runtime = tmp_path / "bin" / "apptainer"
    runtime.parent.mkdir()
    runtime.write_text("#!/bin/sh\n")
    runtime.chmod(0o755)
    ended = subprocess.run(
        ["bash", "-uc", f'{functions}\nuse_container "$@"; printf "%s\\n" "${{container[@]}}"', "bash", *words],
        env={
            "PATH": f"{runtime.parent}:{os.environ['PATH']}",
            "HPC_TRAIN": str(REPOSITORY),
            "NODE_LOCAL": "$DISK",
            "DISK": "/mnt",
            "OTHER": f"{tmp_path}/other",
            "CONTAINER": str(runtime),
            "CONTAINER_OPTIONS": "--bind /proc --no-home",
            "SLURM_GPUS_ON_NODE": "4",
        },
        capture_output=True,
        text=True,
    )
    folders = (REPOSITORY, "/mnt", data / "train", tmp_path, link, data, other)
    bound = [word for folder in folders for word in ("--bind", str(folder))]
    assert ended.stdout.splitlines() == [
        *(str(runtime), "exec", "--nv"), *bound, *("--bind", "/proc", "--no-home", str(runtime))
    ], ended.stderr  # fmt: skip


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_that_is_run_by_hand_explains_itself(template, tmp_path):
    def by_hand(*arguments, **variables):
        outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        command = ["bash", REPOSITORY / "slurm" / template, *arguments]
        env = {**outside, **variables}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=20)

    helped = by_hand("--help")
    assert helped.returncode == 0, helped.stderr
    in_salloc = by_hand("--help", SLURM_JOB_ID="7", SLURM_JOB_NAME="interactive", SLURM_SUBMIT_DIR=str(REPOSITORY))
    assert (in_salloc.returncode, in_salloc.stdout, in_salloc.stderr) == (0, helped.stdout, "")
    assert f"sbatch slurm/{template}" in re.sub(r"sbatch( --\S+)+", "sbatch", helped.stdout)
    assert not [line for line in helped.stdout.splitlines() if line.startswith("#") or "#SBATCH" in line]
    assert not helped.stderr

    refused = by_hand("--data", "x")
    assert refused.returncode == 2
    assert "sbatch" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("template", TEMPLATES)
def test_slurm_accepts_each_template(cluster, project, template):
    accepted = cluster.run("sbatch", "--test-only", f"slurm/{template}", "--data", "x", cwd=project)
    assert accepted.returncode == 0, accepted.stdout


def test_a_job_submitted_from_elsewhere_says_what_is_missing(cluster, project, tmp_path):
    number = cluster.submit(project / "slurm" / "train.sh", STAND_IN, "where", cwd=tmp_path)
    job = cluster.wait(number, 60)
    assert job.state == "FAILED"
    assert "slurm/common.sh" in cluster.output(number)


@pytest.mark.parametrize(
    ("resources", "ranks", "settings"),
    [
        (("--gpus-per-node=4",), 8, {}),
        (("--gpus-per-task=1",), 8, {}),
        (("--ntasks-per-node=2", "--gpus-per-node=2", "--gpus-per-task=1"), 4, {}),
        (("--gpus=4", "--exclusive"), 4, {"LAUNCHER": "mpirun"}),
    ],
    ids=["GPUs a node", "GPUs a task", "four ranks", "mpirun"],
)
def test_every_rank_finds_its_place_and_takes_a_gpu_of_its_own(cluster, project, resources, ranks, settings):
    number = cluster.submit(*resources, "slurm/train.sh", STAND_IN, "where", cwd=project, **settings)
    job = cluster.wait(number, 120)
    output = cluster.output(number)
    assert (job.state, job.status) == ("COMPLETED", 0), output
    places = re.findall(r"rank (\d) of (\d) local (\d) on (\S+) takes GPU (\d)", output)
    local = ranks // 2
    places = sorted((int(rank), int(size), int(own), node) for rank, size, own, node, gpu in places)
    assert places == [(rank, ranks, rank % local, f"node{1 + rank // local}") for rank in range(ranks)], output
    taken = re.findall(r"on (\S+) takes GPU (\d)", output)
    assert len(set(taken)) == ranks, output


@pytest.mark.parametrize(
    ("resources", "ranks"),
    [(("--gres=gpu:4",), 8), (("--ntasks-per-node=2", "--gpus-per-node=2", "--gpus-per-task=1"), 4)],
    ids=["8 ranks", "4 ranks"],
)
def test_mnist_goes_from_submission_to_accuracy(cluster, project, digits, resources, ranks):
    options = ("--model", "fc", "--epochs", "2", "--batch-size", "8", "--lr", "0.05", "--no-histograms")
    number = cluster.submit(*resources, "slurm/mnist_8gpu.sh", "--data", digits, *options, cwd=project)
    job = cluster.wait(number, 300)
    output = cluster.output(number)
    assert (job.state, job.status) == ("COMPLETED", 0), output
    assert float(re.search(r"test accuracy (0\.\d+)", output)[1]) > 0.3
    # The cluster's GPUs are pretended.
    assert re.search(r"note: \S+ offers \d GPUs?, but TensorFlow sees none: it computes on CPUs", output)
    run = project / "runs" / f"{job.fields['JobName']}-{number}"
    assert (run / "model.keras").is_file()
    [start] = json.loads((run / "run.json").read_text())["starts"]
    assert (start["world_size"], start["nodes"]) == (ranks, 2)
    assert (start["slurm_job"], start["slurm_restart_count"]) == (number, 0)
    if own_hostnames():
        assert start["hosts"] == {"node1": ranks // 2, "node2": ranks // 2}


def test_a_model_of_ones_own_goes_from_submission_to_its_error(cluster, project, tmp_path):
    data = own_models.write(tmp_path / "data")
    words = (f"{REPOSITORY}/tests/own_models.py:one", "--data", data, "--inputs", "x", "--targets", "y")
    words += ("--loss", "mse", "--metrics", "mae", "--epochs", "2", "--batch-size", "8", "--no-histograms")
    number = cluster.submit("--ntasks-per-node=1", "--gpus-per-node=1", "slurm/fit.sh", *words, cwd=project)
    job = cluster.wait(number, 300)
    output = cluster.output(number)
    assert (job.state, job.status) == ("COMPLETED", 0), output
    run = project / "runs" / f"{job.fields['JobName']}-{number}"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["val_mae"] < lines[0]["val_mae"]
    assert json.loads((run / "run.json").read_text())["starts"][0]["world_size"] == 2


def not_requeued(cluster, number):
    job = cluster.wait(number, 60)
    # A requeue would follow at once.
    time.sleep(1)
    job = cluster.job(number)
    assert job.state == "FAILED", cluster.output(number)
    assert job.status != 0
    assert job.restarts == 0
    return cluster.output(number)


def test_a_bug_on_one_rank_ends_the_job_and_is_not_run_again(cluster, project):
    output = not_requeued(cluster, cluster.submit(*QUICK, "bug", cwd=project))
    assert "the planted bug" in output


def test_a_missing_trainer_is_reported_before_any_rank_starts(cluster, project):
    output = not_requeued(cluster, cluster.submit("slurm/train.sh", "tests/ranks/stand_out.py", cwd=project))
    assert "stand_out.py" in output
    assert "launcher" not in output
    output = not_requeued(cluster, cluster.submit("slurm/train.sh", "hpc_train.mist", cwd=project))
    assert "hpc_train.mist" in output
    assert "Traceback" not in output


def test_ranks_that_are_jobs_of_size_1_are_refused(cluster, project):
    output = not_requeued(cluster, cluster.submit(*QUICK, "where", cwd=project, LAUNCHER="srun --mpi=none"))
    assert "rejected: srun" in output
    assert len(re.findall("error: no launcher makes 2 ranks on 2 nodes find each other", output)) == 1
    assert "takes GPU" not in output


def test_a_mistake_in_the_sites_settings_is_one_line(cluster, project, tmp_path):
    def output(*lines):
        shutil.copytree(project / "slurm", tmp_path / "slurm", dirs_exist_ok=True)
        (tmp_path / "slurm" / "site.env").write_text("\n".join(lines))
        return not_requeued(cluster, cluster.submit("slurm/train.sh", STAND_IN, "where", cwd=tmp_path)).splitlines()

    [line] = output("VENV=/nowhere/venv")
    assert "/nowhere/venv" in line
    [line] = output("RESTARTS=3", "VENV='/an/open/quote")
    assert "site.env: line 2" in line


def test_a_mistyped_option_ends_the_job_with_the_right_one(cluster, project, digits):
    arguments = ("--nodes=1", "--ntasks-per-node=2", "slurm/mnist_8gpu.sh", "--data", digits, "--epoch", "3")
    output = not_requeued(cluster, cluster.submit(*arguments, cwd=project))
    assert output.count("Unrecognized options: --epoch") == 1
    assert "--epochs" in output
