"""Jobs of LSF, under stand-ins for bsub and bkill, with real ranks under Hydra."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from batch_stand_ins import Lsf
from jobs import OPTIONS, as_if_nothing_had_happened, site
from launch import BIN, RANKS, REPOSITORY, environment

STAND_IN = RANKS / "stand_in.py"


@pytest.fixture(scope="module")
def lsf(tmp_path_factory):
    """An LSF of eight nodes, whose minutes have 30 seconds."""
    if not shutil.which("mpiexec.hydra", path=str(BIN)):
        pytest.skip("no MPICH in this environment: pip install mpich")
    Lsf.minute = 30
    with Lsf(tmp_path_factory.mktemp("lsf") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def submit(lsf, tmp_path_factory):
    """A function that submits a job script as `hpc-train submit` writes it; returns the job's number."""
    folder = tmp_path_factory.mktemp("submitted")

    def submit(command, name="job", minutes=20, **settings):
        # Two nodes with a slot on each.
        lines = [f"#BSUB -J {name} -n 2 -R 'span[ptile=1]' -W {minutes}", "#BSUB -r -Q 75 -wa USR1 -wt 1"]
        settings = {
            "HPC_TRAIN": REPOSITORY,
            "VENV": sys.prefix,
            "PYTHONPATH": REPOSITORY,
            "STOP_BEFORE": 30,
            **settings,
        }
        lines += [f"export {key}='{value}'" for key, value in settings.items()]
        lines += ['source "$HPC_TRAIN/slurm/lsf.sh"', f"run_job {command}"]
        answer = run(lsf, folder, "bsub", text="\n".join(["#!/bin/bash", *lines, ""]))
        return re.fullmatch(r"Job <(\d+)> is submitted to .*\n", answer.stdout)[1]

    submit.folder = folder
    return submit


def run(lsf, folder, *words, text="", **variables):
    env = environment(HYDRA_LAUNCHER="fork", XDG_CACHE_HOME=str(folder), **variables)
    env["PATH"] = f"{lsf.commands}:{env['PATH']}"
    return subprocess.run(words, cwd=folder, env=env, input=text, stdout=-1, stderr=-2, text=True, timeout=60)


@pytest.fixture(scope="module")
def jobs(lsf, submit, digits):
    """Jobs that were submitted together; a function that gives the ended job, and what it printed in all its starts."""
    training = f"python {RANKS}/paused_mnist.py --data {digits} {' '.join(OPTIONS)}"
    numbers = {
        "limited": submit(training, name="limited", minutes=3, PAUSE=1),
        "stuck": submit(f"python {STAND_IN} unfinished", name="stuck", RESTARTS=2),
        "killed": submit(f"python {STAND_IN} deaf", name="killed"),
    }

    def ended(name, act=lambda number: None):
        act(numbers[name])
        return lsf.wait(numbers[name], 400), lsf.output(numbers[name])

    return ended


def test_restarts_without_progress_end_in_the_end(jobs):
    job, output = jobs("stuck")
    assert (job["status"], job["runs"]) == (1, 3), output
    assert re.findall(r"newest checkpoint: none", output) == ["newest checkpoint: none"] * 3
    assert re.findall(r"restart (\d), newest", output) == ["0", "1", "2"]
    assert output.count("error: 2 restarts in a row without a newer checkpoint") == 1


def test_a_killed_job_stays_killed(jobs, lsf, submit):
    def kill(number):
        lsf.wait(number, 120, until=lambda job: "launcher: " in lsf.output(number))
        run(lsf, submit.folder, "bkill", number)

    job, output = jobs("killed", kill)
    assert job["runs"] == 1, output
    assert job["status"] not in (0, 75), output
    assert "requeued by" not in output


def test_at_the_run_limit_a_job_is_requeued_also_after_its_hosts_fail(jobs, lsf, submit, digits):
    def fail(number):
        lsf.wait(number, 400, until=lambda job: "resuming after step" in lsf.output(number))
        lsf.fail_node(number)

    job, output = jobs("limited", fail)
    assert job["status"] == 0, output
    # Three, unless the machine is slow.
    assert job["runs"] >= 3
    steps = re.findall(r"stopped by SIGUSR1 after step (\d+)", output)
    assert "stopped at a checkpoint, requeued by status 75" in output
    assert output.count(f"resuming after step {steps[0]}:") == 2
    restarts = [int(count) for count in re.findall(r"restart (\d+), newest", output)]
    assert restarts == list(range(job["runs"]))
    whole = submit(f"python -m hpc_train.mnist --data {digits} {' '.join(OPTIONS)}", name="whole")
    assert (lsf.wait(whole, 400)["status"], lsf.read(whole)["runs"]) == (0, 1), lsf.output(whole)
    folders = (submit.folder / "runs" / name for name in (f"limited-{job['number']}", f"whole-{whole}"))
    as_if_nothing_had_happened(*folders)


def test_what_hpc_train_submit_writes_runs(lsf, submit):
    (submit.folder / "site.toml").write_text(site("lsf", gpus='-gpu "num={gpus_a_node}"'))
    words = (BIN / "hpc-train", "submit", STAND_IN, "--site", "site.toml", "--nodes", "2", "--", "where")
    said = run(lsf, submit.folder, *words, HPC_TRAIN=str(REPOSITORY), VENV=sys.prefix)
    assert said.returncode == 0, said.stdout
    number = re.search(r"as job (\d+)", said.stdout)[1]
    job, output = lsf.wait(number, 90), lsf.output(number)
    assert (job["status"], job["requeue"], job["rerunnable"]) == (0, ["75"], True), output
    assert job["warning"] == ["USR1", 3]
    assert "4 ranks on 2 nodes" in output
    assert "on a node: ranks 2, cores 4, GPUs 2" in output
    assert sorted(re.findall(r"rank (\d) of 4 local (\d)", output)) == [(str(n), str(n % 2)) for n in range(4)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"LSB_JOBID": ""}, "is a batch script of LSF: submit it with `bsub < "),
        ({"LSB_JOBINDEX": "3"}, "job arrays are not supported"),
        ({"LSB_MCPU_HOSTS": ""}, "neither LSB_DJOB_HOSTFILE nor LSB_MCPU_HOSTS names the hosts"),
        ({"LSB_MCPU_HOSTS": "n1 x"}, "which is not a whole number"),
        ({"RESTARTS": "x"}, "RESTARTS is 'x', which is not a whole number"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(tmp_path, changes, line):
    script = tmp_path / "job.sh"
    script.write_text(f'source "$HPC_TRAIN/slurm/lsf.sh"\nrun_job python {STAND_IN} where\n')
    env = {"PATH": os.environ["PATH"], "HPC_TRAIN": str(REPOSITORY), "VENV": sys.prefix, "CUDA_VISIBLE_DEVICES": ""}
    env |= {"LSB_JOBID": "7", "LSB_JOBNAME": "a job", "LSB_JOBINDEX": "0", "LSB_MCPU_HOSTS": "n1 1", **changes}
    ended = subprocess.run(["bash", script], env=env, cwd=tmp_path, stdout=-1, stderr=-2, text=True, timeout=60)
    errors = [said for said in ended.stdout.splitlines() if said.startswith("error: ")]
    assert ended.returncode != 0, ended.stdout
    assert len(errors) == 1, ended.stdout
    assert line in errors[0]
