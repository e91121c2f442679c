"""The array of a sweep and the jobs of a scaling study, on a real Slurm."""

import json
import os
import sys
from itertools import pairwise
from pathlib import Path

import made_up
import pytest
from launch import REPOSITORY

from hpc_train.bench.study.command import read

SWEEP = REPOSITORY / "slurm" / "sweep.sh"
STUDY = REPOSITORY / "slurm" / "scaling_study.sh"

# Records its arguments at each start; with --stop it stops once at a checkpoint, as at a time limit.
TRAINER = """
import json, pathlib, sys
arguments = sys.argv[1:]
run = pathlib.Path(arguments[arguments.index("--run") + 1])
starts = run / "starts.jsonl"
again = starts.exists()
with starts.open("a") as file:
    file.write(json.dumps(arguments) + "\\n")
sys.exit(75 if "--stop" in arguments and not again else 0)
"""

OPTIONS = """# rates
--lr 0.1
   # the second has words that a shell would take apart, expand or run
--note 'a  b' --stop "c $(touch ran) *" d\\ e

--lr 0.3\r
--note 'open
"""


@pytest.fixture
def submit(cluster, tmp_path):
    """A function that submits a template in the test's folder, with one rank a node, and returns the job's number."""

    def one(*arguments, **more):
        site = {"HPC_TRAIN": str(REPOSITORY), "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY), **more}
        return cluster.submit("--ntasks-per-node=1", "--gpus-per-node=1", *arguments, cwd=tmp_path, **site)

    return one


def test_each_task_of_a_sweep_has_its_line_of_options_and_its_run_folder(cluster, submit, tmp_path):
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "options.txt").write_text(OPTIONS)
    array = submit("--array=1-5", SWEEP, "trainer.py", "options.txt", "--data", "my data")
    ended = {task: cluster.wait(f"{array}_{task}", 120) for task in range(1, 6)}
    assert [ended[task].status for task in (1, 2, 3)] == [0, 0, 0], cluster.output(f"{array}_2")
    starts = {}
    for task in (1, 2, 3):
        run = f"runs/sweep-{array}_{task}"
        lines = (tmp_path / run / "starts.jsonl").read_text().splitlines()
        starts[task] = [json.loads(line) for line in lines]
        assert {tuple(start[-5:]) for start in starts[task]} == {("--data", "my data", "--resume", "--run", run)}
    assert [start[:-5] for start in starts[1]] == [["--lr", "0.1"]]
    # Only the task that stopped was started again, in its own folder.
    assert [start[:-5] for start in starts[2]] == [["--note", "a  b", "--stop", "c $(touch ran) *", "d e"]] * 2
    assert [start[:-5] for start in starts[3]] == [["--lr", "0.3"]]
    assert not (tmp_path / "ran").exists()
    assert [ended[task].restarts for task in (1, 2, 3)] == [0, 1, 0]
    # An unmatched quote, and a task without a line.
    assert [ended[task].status for task in (4, 5)] == [2, 2]
    assert [cluster.output(f"{array}_{task}") for task in (4, 5)] == [
        "error: sweep.sh: line 4 of options.txt has an unmatched quote: --note 'open\n",
        "error: sweep.sh: task 5: options.txt has options for 4 tasks (blank lines and comments do not count): "
        "sbatch --array=1-4\n",
    ]


# It records its options, and runs the command without a container.
RUNTIME = """#!/bin/sh
echo "$@" >> {folder}/asked
while [ "$1" != {folder}/x.sif ]; do shift; done
shift
exec "$@"
"""


def test_a_container_shows_only_the_folders_on_the_tasks_line(cluster, submit, tmp_path):
    (tmp_path / "trainer.py").write_text(TRAINER)
    (tmp_path / "x.sif").touch()
    for name in ("mine", "others", "every"):
        (tmp_path / name).mkdir()
    (tmp_path / "options.txt").write_text(f"--data {tmp_path}/mine/*.h5\n--data {tmp_path}/others\n")
    runtime = tmp_path / "bin" / "apptainer"
    runtime.parent.mkdir()
    runtime.write_text(RUNTIME.format(folder=tmp_path))
    runtime.chmod(0o755)
    programs = f"{runtime.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    more = {"CONTAINER": str(tmp_path / "x.sif"), "PATH": programs}
    task = submit("--array=1", SWEEP, "trainer.py", "options.txt", "--weights", tmp_path / "every" / "w.h5", **more)
    ended = cluster.wait(f"{task}_1", 120)
    assert ended.status == 0, cluster.output(f"{task}_1")
    asked = (tmp_path / "asked").read_text()
    assert f"--bind {tmp_path}/mine --bind {tmp_path}/every" in asked
    assert f"--bind {tmp_path}/others" not in asked


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([SWEEP, "hpc_train.mnist", "options.txt"], "this job is not an array: sbatch --array=1-6 slurm/sweep.sh"),
        (["--array=1", SWEEP, "hpc_train.mnist", "none.txt"], "no file none.txt"),
        (["--array=1", SWEEP, "hpc_train.mnist"], "no file given"),
        (["--array=1", SWEEP, "hpc_train.mnist", "nul.txt"], "nul.txt holds NUL characters: it is no text"),
        (["--array=1", SWEEP, "hpc_train.mnist", "options.txt", "--run", "x"], "leave --run out"),
    ],
)
def test_an_impossible_sweep_ends_with_a_message_and_status_2(cluster, submit, tmp_path, arguments, said):
    (tmp_path / "options.txt").write_text("--lr 0.1\n")
    (tmp_path / "nul.txt").write_text("--lr 0.1\0\n")
    job = submit(*arguments)
    assert cluster.wait(job, 30).status == 2
    output = cluster.output(job)
    assert output.startswith(f"error: sweep.sh: {said}")
    assert output.count("\n") == 1


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
