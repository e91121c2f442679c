"""Jobs that are stopped, by a time limit, a pre-emption, a scancel or a dead rank, on a real Slurm with real ranks."""

import io
import json
import os
import re
import shutil
import signal
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
from launch import REPOSITORY

from hpc_train.watch.guard import NAME as GUARD

RANKS = REPOSITORY / "tests" / "ranks"
TWO_NODES = ("--nodes=2", "--ntasks-per-node=1", "--gpus-per-node=1")
# Slurm looks at limits every 30 s, and sends the signal up to 30 s early: after 20 to 50 s, or 60 to 90 s.
ONE_MINUTE = ("--time=1", "--signal=B:USR1@10")
TWO_MINUTES = ("--time=2", "--signal=B:USR1@30")
# Trackers that are not installed are tried by no job.
TRACK = [name for name in ("mlflow", "wandb") if find_spec(name)]
TRACK = ("--track", *TRACK) if TRACK else ()
# 21 steps an epoch.
OPTIONS = ("--model", "dropout", "--augment", "--batch-size", "32", "--epochs", "6", "--no-histograms")


@pytest.fixture(scope="module")
def train(cluster, project, digits):
    """A function that submits a training of two ranks on two nodes, which pauses `pause` seconds after each step."""

    def submit(*resources, pause, arguments=()):
        trainer = (RANKS / "paused_mnist.py", "--data", digits, *OPTIONS, *arguments)
        return cluster.submit(*TWO_NODES, *resources, "slurm/train.sh", *trainer, cwd=project, PAUSE=str(pause))

    return submit


@pytest.fixture(scope="module")
def folder(cluster, project):
    """A function from a job to its run folder."""
    return lambda number: project / "runs" / f"{cluster.job(number).fields['JobName']}-{number}"


# A command whose first two calls fail, like those of a busy controller.
BUSY = """#!/bin/bash
echo "$*" >>"$0.calls"
[ "$(wc -l <"$0.calls")" -gt 2 ] || { echo "slurm_load_jobs error: Socket timed out on send/recv" >&2; exit 1; }
exec REAL "$@"
"""


@pytest.fixture(scope="module")
def busy(project, tmp_path_factory):
    """A folder like `project`, for whose jobs squeue and scontrol fail twice before they work."""
    folder = tmp_path_factory.mktemp("busy")
    shutil.copytree(project / "slurm", folder / "slurm")
    (folder / "bin").mkdir()
    for name in ("squeue", "scontrol"):
        (folder / "bin" / name).write_text(BUSY.replace("REAL", shutil.which(name)))
        (folder / "bin" / name).chmod(0o755)
    with open(folder / "slurm" / "site.env", "a") as file:
        # Scripts of other people may set these options and leave them set.
        file.write(f"PATH='{folder}/bin':$PATH\nset -euo pipefail\n")
    return folder


@pytest.fixture(scope="module")
def background(cluster, project, busy, train):
    """Jobs that take long, but mostly wait; each has a test."""
    earlier = len(cluster.submitted)
    script = ("--gpus-per-node=0", "slurm/train.sh", RANKS / "stand_in.py")
    stand_in = ("--nodes=2", "--ntasks-per-node=1", *script)
    yield {
        # With pauses it would take more than two minutes.
        "limited": train(*TWO_MINUTES, pause=1, arguments=TRACK),
        # Both ranks on one node: they share memory.
        "deaf": cluster.submit(*ONE_MINUTE, "--nodes=1", "--ntasks-per-node=2", *script, "deaf", cwd=project),
        "stuck": cluster.submit(*stand_in, "unfinished", cwd=project, RESTARTS="2"),
        "slow": cluster.submit(*stand_in, "unfinished", cwd=project, RESTARTS="2", PROGRESS="3", LAUNCHER="mpirun"),
        "busy": cluster.submit(*stand_in, "unfinished", cwd=busy, RESTARTS="2", PROGRESS="1"),
    }
    cluster.clear(earlier)


@pytest.fixture(scope="module")
def whole(cluster, background, train, folder):
    """The run folder of a job that nothing interrupted."""
    number = train(pause=0)
    job = cluster.wait(number, 180)
    assert (job.state, job.restarts) == ("COMPLETED", 0), cluster.output(number)
    return folder(number)


def weights(run):
    """Weights of the final model, by their path in the file."""
    found = {}
    with zipfile.ZipFile(run / "model.keras") as archive:
        stored = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(stored) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def starts(run):
    return json.loads((run / "run.json").read_text())["starts"]


def assert_as_if_nothing_had_happened(run, whole):
    got, want = weights(run), weights(whole)
    assert got.keys() == want.keys()
    assert len(want) > 8
    assert [name for name in want if not np.array_equal(got[name], want[name])] == []
    for name in ("epoch", "step", "learning_rate", "val_loss", "val_accuracy"):
        assert [line[name] for line in metrics(run)] == [line[name] for line in metrics(whole)]


def wait_for_the_second_epoch(cluster, number, run):
    def trained(job):
        return (run / "metrics.jsonl").exists() and len(metrics(run)) >= 1

    cluster.wait(number, 120, until=trained)
    # Into the middle of the epoch, which takes at least four seconds.
    time.sleep(2)


def test_restarts_without_progress_end_the_job(cluster, background):
    number = background["stuck"]
    job = cluster.wait(number, 180)
    output = cluster.output(number)
    assert job.state == "FAILED", output
    assert (job.status != 0, job.restarts) == (True, 2)
    assert re.findall(r"attempt (\d)", output) == ["0", "1"]
    assert len(re.findall("error: .*2 restarts in a row without a newer checkpoint", output)) == 1


def test_restarts_that_make_progress_are_not_counted_under_mpirun_either(cluster, background):
    number = background["slow"]
    job = cluster.wait(number, 180)
    output = cluster.output(number)
    assert (job.state, job.status, job.restarts) == ("COMPLETED", 0, 3), output
    assert re.findall(r"attempt (\d)", output) == ["0", "1", "2", "3"]


def test_a_cancelled_job_stays_cancelled_and_its_run_goes_on_in_another_job(cluster, train, folder, whole):
    number = train(pause=0.2)
    run = folder(number)
    wait_for_the_second_epoch(cluster, number, run)
    cluster.run("scancel", number)
    job = cluster.wait(number, 60)
    time.sleep(1)
    job = cluster.job(number)
    assert (job.state, job.restarts) == ("CANCELLED", 0), cluster.output(number)
    # The step in hand was the last: epochs end at multiples of 21 steps.
    assert int(max((run / "checkpoints").glob("step-*.h5")).stem.split("-")[1]) > 21
    again = train(pause=0, arguments=("--run", run))
    assert cluster.wait(again, 120).state == "COMPLETED", cluster.output(again)
    assert [start["slurm_job"] for start in starts(run)] == [number, again]
    assert_as_if_nothing_had_happened(run, whole)


def test_a_start_with_next_to_no_steps_ends_the_requeues_with_the_limit_that_would_do(cluster, project, digits, folder):
    trainer = ("hpc_train.mnist", "--data", digits, *OPTIONS, "--epochs", 4000)
    number = cluster.submit(
        "--gpus-per-node=0", "--nodes=1", "--ntasks-per-node=1", "slurm/train.sh", *trainer, cwd=project, RESTARTS="1"
    )
    # As the time limit does, just before or after the first step: a tenth of the time is soon made by steps.
    cluster.wait(number, 90, until=lambda job: "ranks, global batch" in cluster.output(number))
    cluster.run("scancel", "--batch", "--signal=USR1", number)
    job = cluster.wait(number, 180)
    output = cluster.output(number)
    assert (job.state, job.restarts) == ("FAILED", 1), output
    (line,) = re.findall("^error: .*", output, re.MULTILINE)
    assert re.search(
        r"1 restarts in a row got next to nowhere: not requeued; the time limit is too short: the last start made \d+ "
        r"steps, in [\d.]+ of its \d+ s, (a checkpoint took [\d.]+ s|no checkpoint was finished), and the rest went "
        r"into starting and ending; give the job \d+ min or more \(--time, --signal=B:USR1@SECONDS\)",
        line,
    ), output
    assert not (folder(number) / "pace").exists()


def test_a_killed_rank_ends_the_job_within_15_seconds_and_for_good(cluster, train, folder):
    number = train(pause=0.2)
    wait_for_the_second_epoch(cluster, number, folder(number))
    os.kill(process_of(number, rank=1), signal.SIGKILL)
    killed = time.monotonic()
    job = cluster.wait(number, 30)
    assert time.monotonic() - killed <= 15
    output = cluster.output(number)
    assert job.state == "FAILED", output
    assert job.status != 0
    (line,) = re.findall("error: rank 1 of 2 .*", output)
    assert "was ended by SIGKILL" in line
    assert "the last checkpoint is that of step 21: the same command goes on from there" in line
    time.sleep(1)
    assert (cluster.job(number).state, cluster.job(number).restarts) == ("FAILED", 0)


def process_of(number, rank):
    """Process number of a rank of a job."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            variables = (process / "environ").read_bytes().split(b"\0")
            command = (process / "cmdline").read_bytes()
            name = (process / "comm").read_text().strip()
        except OSError:
            continue
        of_rank = {f"SLURM_JOB_ID={number}".encode(), f"PMI_RANK={rank}".encode()} <= set(variables)
        if of_rank and b"paused_mnist" in command and b"python" in command.split(b"\0")[0] and name != GUARD:
            return int(process.name)
    pytest.fail(f"job {number} has no rank {rank}")


def test_a_time_limit_stops_requeues_and_resumes_a_job_with_the_same_bits(cluster, background, folder, whole):
    number = background["limited"]
    job = cluster.wait(number, 240)
    output = cluster.output(number)
    assert (job.state, job.status) == ("COMPLETED", 0), output
    run = folder(number)
    # Once, unless the machine is so slow that the signal comes before a start is finished; then this start is repeated.
    resumed = [int(count) for count in re.findall(r"at a checkpoint, requeued: .* as restart (\d+)", output)]
    assert resumed
    counts = [start["slurm_restart_count"] for start in starts(run)]
    assert counts == sorted({*counts, *(count - 1 for count in resumed), job.restarts})
    assert job.restarts == len(re.findall("requeued: goes on", output)) == counts[-1]
    assert {start["slurm_job"] for start in starts(run)} == {number}
    spent = [start["times"]["seconds"] for start in starts(run)]
    assert spent[-1]["training"] > 0
    assert all(seconds["queue"] >= 0 and not seconds.get("lost") for seconds in spent)
    assert re.search(rf"useful \d+\.\d% of \d+ (min|s).* in {len(spent)} starts", output)
    # Nothing was lost: each start began where the one before it had stopped.
    steps = [start["step"] for start in starts(run)]
    assert 0 < steps[-1] < 126
    stops = [int(step) for step in re.findall(r"stopped by SIGUSR1 after step (\d+)", output)]
    assert len(stops) == len(resumed)
    assert steps == sorted(steps)
    assert set(steps) == {0, *stops}
    # One file has the output of all starts.
    assert output.index("global batch") < output.index("resuming after step") < output.index("test accuracy")
    assert_as_if_nothing_had_happened(run, whole)


@pytest.mark.skipif(not TRACK, reason="neither MLflow nor W&B is installed here")
def test_trackers_see_one_run_whose_steps_rise_over_requeues(cluster, background, folder):
    number = background["limited"]
    assert cluster.wait(number, 240).state == "COMPLETED", cluster.output(number)
    run = folder(number)
    steps = [line["step"] for line in metrics(run)]
    if "mlflow" in TRACK:
        from mlflow import MlflowClient

        client = MlflowClient(f"sqlite:///{run}/tracking/mlflow.db")
        experiments = [one.experiment_id for one in client.search_experiments()]
        [tracked] = client.search_runs(experiments)
        history = client.get_metric_history(tracked.info.run_id, "val_loss")
        assert [(one.step, one.value) for one in history] == [(line["step"], line["val_loss"]) for line in metrics(run)]
        assert tracked.info.status == "FINISHED"
    if "wandb" in TRACK:
        from hpc_train.tracking.wandb_run import steps_in

        files = sorted(run.glob("tracking/wandb/offline-run-*/*.wandb"))
        # A start that is stopped at once, on a busy machine, may leave none.
        assert 1 < len(files) <= len(starts(run))
        assert len({file.name for file in files}) == 1
        assert [step for file in files for step in steps_in(file)] == steps


def test_ranks_that_ignore_the_signal_are_run_again_too(cluster, background):
    number = background["deaf"]
    job = cluster.wait(number, 240)
    output = cluster.output(number)
    assert (job.state, job.status, job.restarts) == ("COMPLETED", 0, 1), output
    # After SIGKILL MPI could not remove its shared memory.
    assert "the second start of 2 ranks" in output


def test_a_job_is_requeued_although_the_controller_is_busy(cluster, background, busy):
    number = background["busy"]
    job = cluster.wait(number, 180)
    output = cluster.output(number)
    assert (job.state, job.status, job.restarts) == ("COMPLETED", 0, 1), output
    for name in ("squeue", "scontrol"):
        calls = (busy / "bin" / f"{name}.calls").read_text().splitlines()
        assert len(calls) >= 3
        assert len(set(calls[:3])) == 1, calls


# The last test: it takes the nodes from every job that is still running.
def test_a_pre_empted_job_comes_back_with_the_same_bits(cluster, project, train, folder, whole):
    number = train(pause=0.2)
    run = folder(number)
    wait_for_the_second_epoch(cluster, number, run)
    urgent = cluster.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "true", cwd=project)
    assert cluster.wait(urgent, 60).state == "COMPLETED"
    job = cluster.wait(number, 240)
    output = cluster.output(number)
    assert (job.state, job.status) == ("COMPLETED", 0), output
    first, second, *more = starts(run)
    # Slurm 24.11 starts a pre-empted job once more after its end; this start finds all done.
    assert len(more) == job.restarts - 1 <= 1, output
    assert {start["step"] for start in more} <= {metrics(run)[-1]["step"]}
    assert (first["slurm_restart_count"], second["slurm_restart_count"]) == (0, 1)
    assert second["step"] > 21
    assert_as_if_nothing_had_happened(run, whole)
