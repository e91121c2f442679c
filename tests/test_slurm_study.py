"""The array of a sweep and the chain of a scaling study, on a real Slurm."""

import json
import sys
from itertools import pairwise

import pytest
from launch import REPOSITORY

SWEEP = REPOSITORY / "slurm" / "sweep.sh"
STUDY = REPOSITORY / "slurm" / "scaling_study.sh"

# Notes what it was given at each start; with --stop it stops once at a checkpoint, as at a time limit.
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
    """A function that submits a template from a folder of the test's own, one rank a node; the job's number."""

    def one(*arguments):
        site = {"HPC_TRAIN": str(REPOSITORY), "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
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
    # The one that stopped came back by itself, in its own folder and alone.
    assert [start[:-5] for start in starts[2]] == [["--note", "a  b", "--stop", "c $(touch ran) *", "d e"]] * 2
    assert [start[:-5] for start in starts[3]] == [["--lr", "0.3"]]
    assert not (tmp_path / "ran").exists()
    assert [ended[task].restarts for task in (1, 2, 3)] == [0, 1, 0]
    # An unmatched quote, and a line too far.
    assert [ended[task].status for task in (4, 5)] == [2, 2]
    assert [cluster.output(f"{array}_{task}") for task in (4, 5)] == [
        "error: sweep.sh: line 4 of options.txt has an unmatched quote: --note 'open\n",
        "error: sweep.sh: task 5: options.txt has options for 4 tasks (blank lines and comments do not count): "
        "sbatch --array=1-4\n",
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([SWEEP, "hpc_train.mnist", "options.txt"], "this job is no array: sbatch --array=1-6 slurm/sweep.sh"),
        (["--array=1", SWEEP, "hpc_train.mnist", "none.txt"], "no file none.txt"),
        (["--array=1", SWEEP, "hpc_train.mnist"], "no file named"),
        (["--array=1", SWEEP, "hpc_train.mnist", "options.txt", "--run", "x"], "leave --run out"),
    ],
)
def test_a_sweep_that_cannot_be_says_so_with_status_2(cluster, submit, tmp_path, arguments, said):
    (tmp_path / "options.txt").write_text("--lr 0.1\n")
    job = submit(*arguments)
    assert cluster.wait(job, 30).status == 2
    output = cluster.output(job)
    assert output.startswith(f"error: sweep.sh: {said}")
    assert output.count("\n") == 1


def test_the_sizes_of_a_study_run_one_after_another_and_the_last_prints_the_table(cluster, submit, digits, tmp_path):
    pytest.importorskip("horovod")
    options = ("--data", digits, "--model", "fc", "--rounds", "2", "--steps")
    # The second fails at once and breaks nothing; there is room for it beside the first.
    jobs = [submit(f"--nodes={nodes}", STUDY, *options, steps) for nodes, steps in ((1, 3), (1, 0), (2, 3))]
    ended = [cluster.wait(job, 240) for job in jobs]
    assert [job.status == 0 for job in ended] == [True, False, True], cluster.output(jobs[2])
    study = tmp_path / "studies" / "scaling_study"
    files = [study / f"ranks-00001-job-{jobs[0]}.json", study / f"ranks-00002-job-{jobs[2]}.json"]
    assert sorted(study.glob("*.json")) == files
    figures = [json.loads(file.read_text()) for file in files]
    assert [figure["ranks"] for figure in figures] == [1, 2]
    assert [figure["slurm_job"] for figure in figures] == [jobs[0], jobs[2]]
    assert sum(node["ranks"] for node in figures[1]["nodes"]) == 2
    table = (study / "table.txt").read_text()
    assert cluster.output(jobs[2]).endswith(table)
    assert [line.split()[0].rstrip("*") for line in table.splitlines() if line.endswith(")")] == ["1", "2"]
    for earlier, later in pairwise(ended):
        assert later.fields["StartTime"] >= earlier.fields["EndTime"]
