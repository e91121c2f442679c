"""Scans of hyperparameters on a real Slurm: a trial on each GPU, a time limit, and jobs that share a study."""

import json
import sys

import pytest
from launch import REPOSITORY

from hpc_train.scan.show import use
from hpc_train.scan.study import COMPLETE, Study

SCAN = REPOSITORY / "slurm" / "scan.sh"

# A trial that trains nothing: it waits, stops at SIGUSR1 like a trainer, and tells which GPU and cores it saw.
TRIAL = """
import argparse, json, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--run", type=pathlib.Path)
parser.add_argument("--x", type=float)
parser.add_argument("--seconds", type=float, default=3)
run = parser.parse_known_args()[0].run
asked = parser.parse_known_args()[0]
stopped = []
signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
saw = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "node": os.environ["SLURMD_NODENAME"], "began": time.time()}
done = run / "checkpoints"
done.mkdir(exist_ok=True)
deadline = time.time() + asked.seconds
while time.time() < deadline:
    time.sleep(0.05)
    if stopped:
        (done / f"step-{len(list(done.iterdir())):010}.h5").touch()
        sys.exit(75)
(run / "saw.json").write_text(json.dumps({**saw, "ended": time.time()}))
(run / "metrics.jsonl").write_text(json.dumps({"epoch": 1, "step": 1, "val_score": -(asked.x - 0.3) ** 2}) + "\\n")
"""
SPACE = ["--space", "x=0.0..1.0", "--search", "random", "--objective", "score:max"]


@pytest.fixture
def submit(cluster, tmp_path):
    """A function that submits scan.sh in the test's folder, and returns the job's number."""
    pytest.importorskip("optuna")
    pytest.importorskip("horovod")
    (tmp_path / "trial.py").write_text(TRIAL)

    def one(*arguments, sbatch=()):
        site = {"HPC_TRAIN": str(REPOSITORY), "VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
        return cluster.submit(
            "--ntasks-per-node=4", "--gpus-per-node=4", *sbatch, SCAN, *arguments, cwd=tmp_path, **site
        )

    return one


def saw(study):
    return [json.loads((trial.folder / "saw.json").read_text()) for trial in study.trials()]


def test_eight_trials_at_once_on_two_nodes_each_see_a_gpu_of_their_own(cluster, submit, tmp_path):
    job = submit("study", "--trials", "16", *SPACE, "--", "trial.py", "--seconds", "8", sbatch=["--nodes=2"])
    ended = cluster.wait(job, 180)
    assert ended.status == 0, cluster.output(job)
    study = Study(tmp_path / "study")
    trials = saw(study)
    assert [trial.state for trial in study.trials()] == [COMPLETE] * 16
    # At each moment one trial a GPU, and at some moment all eight.
    together = 0
    for one in trials:
        beside = [other for other in trials if other["began"] <= one["began"] < other["ended"]]
        places = [(other["node"], other["gpu"]) for other in beside]
        assert len(set(places)) == len(places)
        together = max(together, len(places))
    assert together == 8
    assert {one["gpu"] for one in trials} == {"0", "1", "2", "3"}
    assert len({one["node"] for one in trials}) == 2
    found = use(study)
    assert found["runs"] == 16
    assert "16 done of 16" in cluster.output(job)


def test_a_scan_that_is_stopped_before_its_time_limit_is_requeued_and_goes_on(cluster, submit, tmp_path):
    job = submit("study", "--trials", "6", *SPACE, "--", "trial.py", "--seconds", "12", sbatch=["--nodes=1"])
    study = Study(tmp_path / "study")
    cluster.wait(job, 60, lambda _: len(list(tmp_path.glob("study/trials/*/log.txt"))) == 4)
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    ended = cluster.wait(job, 180)
    assert (ended.status, ended.restarts) == (0, 1), cluster.output(job)
    assert [trial.state for trial in study.trials()] == [COMPLETE] * 6
    # The four that ran were claimed again after they had stopped.
    assert [study.turns(number) for number in range(6)] == [2, 2, 2, 2, 1, 1]
    assert "requeued: goes on in study as restart 1" in cluster.output(job)


def test_two_jobs_that_join_one_study_share_its_trials(cluster, submit, tmp_path):
    words = ("study", "--trials", "12", *SPACE, "--", "trial.py", "--seconds", "4")
    jobs = [submit(*words, sbatch=["--nodes=1"]) for _ in range(2)]
    assert [cluster.wait(job, 120).status for job in jobs] == [0, 0], [*map(cluster.output, jobs)]
    study = Study(tmp_path / "study")
    assert [trial.state for trial in study.trials()] == [COMPLETE] * 12
    lines = study.notes()
    assert len(lines) == 2
    assert sorted(line["trial"] for notes in lines.values() for line in notes) == list(range(12))
    assert min(map(len, lines.values())) >= 4


def test_a_scan_without_a_study_or_with_a_wrong_space_ends_with_one_line(cluster, submit, tmp_path):
    job = submit(sbatch=["--nodes=1"])
    assert cluster.wait(job, 60).status == 1
    assert (
        cluster.output(job) == "error: no study given: sbatch slurm/scan.sh STUDY --trials 64 ... -- mnist --data DIR\n"
    )
    job = submit(
        "study", "--trials", "4", "--space", "x=5..1", "--objective", "loss", "--", "trial.py", sbatch=["--nodes=1"]
    )
    assert cluster.wait(job, 60).status == 2
    assert "error: --space x=5..1: nothing lies in 5..1" in cluster.output(job)
