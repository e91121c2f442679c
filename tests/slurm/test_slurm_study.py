"""The jobs of a scaling study, and a container that shows only what a job needs, on a real Slurm."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import made_up
import pytest
from launch import REPOSITORY

from hpc_train.bench.study.command import read

TRAIN = REPOSITORY / "slurm" / "train.sh"
STUDY = REPOSITORY / "slurm" / "scaling_study.sh"


@pytest.fixture
def submit(cluster, tmp_path):
    """A function that submits a template in the test's folder, with one rank a node, and returns the job's number."""

    def one(*arguments, **more):
        site = {"HPC_TRAIN": str(REPOSITORY), "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY), **more}
        return cluster.submit("--ntasks-per-node=1", "--gpus-per-node=1", *arguments, cwd=tmp_path, **site)

    return one


# It records its options, and runs the command without a container.
RUNTIME = """#!/bin/sh
echo "$@" >> {folder}/asked
while [ "$1" != {folder}/x.sif ]; do shift; done
shift
exec "$@"
"""


def test_a_container_shows_only_the_folders_that_the_options_name(cluster, submit, tmp_path):
    (tmp_path / "trainer.py").touch()
    (tmp_path / "x.sif").touch()
    for name in ("mine", "others", "every"):
        (tmp_path / name).mkdir()
    runtime = tmp_path / "bin" / "apptainer"
    runtime.parent.mkdir()
    runtime.write_text(RUNTIME.format(folder=tmp_path))
    runtime.chmod(0o755)
    programs = f"{runtime.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    more = {"CONTAINER": str(tmp_path / "x.sif"), "PATH": programs}
    options = ("--data", tmp_path / "mine" / "*.h5", "--weights", tmp_path / "every" / "w.h5")
    job = submit(TRAIN, "trainer.py", *options, **more)
    assert cluster.wait(job, 120).status == 0, cluster.output(job)
    asked = (tmp_path / "asked").read_text()
    assert f"--bind {tmp_path}/mine --bind {tmp_path}/every" in asked
    assert f"--bind {tmp_path}/others" not in asked


def test_sizes_submitted_by_hand_run_one_after_another_and_the_last_prints_the_table(cluster, submit, digits, tmp_path):
    pytest.importorskip("horovod")
    options = ("mnist", "--data", digits, "--model", "fc", "--ways", "fit", "--rounds", "2", "--steps")
    # The first fails at once, which does not stop the second, although there is room for both.
    jobs = [submit(f"--nodes={nodes}", STUDY, *options, steps) for nodes, steps in ((1, 0), (2, 3))]
    ended = [cluster.wait(job, 240) for job in jobs]
    assert [job.status == 0 for job in ended] == [False, True], cluster.output(jobs[1])
    study = tmp_path / "studies" / "scaling_study"
    assert [path.name for path in study.glob("*.json")] == [f"ranks-00002-job-{jobs[1]}.json"]
    (measurement,), _ = read(study)
    assert (measurement.ranks, measurement.figures["slurm_job"]) == (2, jobs[1])
    table = (study / "table.txt").read_text()
    assert cluster.output(jobs[1]).endswith(table)
    assert "weak scaling of mnist fc" in table
    for earlier, later in pairwise(ended):
        assert later.fields["StartTime"] >= earlier.fields["EndTime"]


def test_one_command_submits_a_study_waits_for_it_and_reports(cluster, digits, tmp_path):
    pytest.importorskip("horovod")
    site = {"HPC_TRAIN": str(REPOSITORY), "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "hpc_train.cli", "bench", "scaling", "studies/fc"]
    plan = ["--np", "1,2,4", "--repeats", "1", "--submit", "--ranks-per-node", "2", "--sbatch=--time=20"]
    benchmark = ["mnist", "--data", digits, "--model", "fc", "--ways", "fit", "fit alone", "--rounds", "2"]
    benchmark += ["--steps", "3"]
    study = tmp_path / "studies" / "fc"

    def measure(*more: str):
        return cluster.run(*command, *plan, *more, "--", *benchmark, cwd=tmp_path, timeout=800, **site)

    # A second start finds in the queue what the first has submitted.
    submitted = measure("--detach")
    numbers = list(json.loads((study / "study.json").read_text())["submitted"].values())
    cluster.submitted += numbers
    assert (submitted.returncode, len(numbers)) == (0, 3), submitted.stdout
    collected = measure()
    assert collected.returncode == 0, collected.stdout
    assert [f"job {number}" in collected.stdout for number in numbers] == [True] * 3

    measurements, left_out = read(study)
    assert not left_out
    assert [(one.ranks, len(one.nodes), one.figures["slurm_job"]) for one in measurements] == [
        (ranks, nodes, number) for (ranks, nodes), number in zip(((1, 1), (2, 1), (4, 2)), numbers, strict=True)
    ]
    assert [(study / f"{Path(one.file).stem}.log").exists() for one in measurements] == [True] * 3
    rows = [line.split() for line in collected.stdout.splitlines()]
    # Lines of progress begin with numbers, but are short.
    assert [row[0].rstrip("*") for row in rows if len(row) > 7 and row[0].rstrip("*").isdigit()] == ["1", "2", "4"]
    # Nothing is missing: nothing is submitted.
    again = measure("--json")
    assert again.returncode == 0
    assert [row["jobs"] for row in json.loads(again.stdout)["tables"][0]["rows"]] == [1, 1, 1]
    assert list(json.loads((study / "study.json").read_text())["submitted"].values()) == numbers


def test_a_submitted_job_that_fails_shows_the_end_of_its_log_and_the_rest_is_reported(cluster, tmp_path):
    site = {"HPC_TRAIN": str(REPOSITORY), "VENV": str(tmp_path / "none"), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "hpc_train.cli", "bench", "scaling", "studies/fails"]
    plan = ["--np", "1,2", "--repeats", "1", "--submit", "--", "mnist", "--data", "synthetic"]
    # One size was measured before.
    made_up.measured(tmp_path / "studies" / "fails" / "ranks-00002-repeat-1.json", [made_up.node(2)], [100.0])
    ended = cluster.run(*command, *plan, cwd=tmp_path, timeout=120, **site)
    assert ended.returncode != 0
    assert "ranks-00001-repeat-1.log:\n    error: no virtual environment" in ended.stdout
    assert "    2       1" in ended.stdout
    assert ended.stdout.splitlines()[-1].startswith("error: 1 job failed: ranks-00001-repeat-1;")
