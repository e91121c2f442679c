"""Jobs of PBS, under stand-ins for qsub, qstat, qdel and PALS's mpiexec, with real ranks under Hydra."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from batch_stand_ins import Pbs
from jobs import OPTIONS, as_if_nothing_had_happened, checkpoints, epochs, site
from launch import BIN, RANKS, REPOSITORY

STAND_IN = RANKS / "stand_in.py"
PALS = Path(__file__).with_name("pals_mpiexec.py")
TWO = "select=2:ncpus=1:mpiprocs=1"


@pytest.fixture(scope="module")
def pbs(tmp_path_factory):
    """A PBS of eight nodes."""
    if not shutil.which("mpiexec.hydra", path=str(BIN)):
        pytest.skip("no MPICH in this environment: pip install mpich")
    with Pbs(tmp_path_factory.mktemp("pbs") / "server") as running:
        yield running


@pytest.fixture(scope="module")
def submit(pbs, tmp_path_factory):
    """A function that writes a job script as `hpc-train submit` does, and submits it; returns the job's number."""
    folder = tmp_path_factory.mktemp("submitted")

    def submit(command, select=TWO, name="job", walltime="00:30:00", words=(), **settings):
        script = folder / f"{name}.sh"
        script.write_text(job_script(script, command, select, name, walltime, **settings))
        answer = run(pbs, folder, "qsub", *words, script)
        assert answer.returncode == 0, answer.stdout
        return answer.stdout.strip().partition(".")[0]

    submit.folder = folder
    return submit


def run(pbs, folder, *words, **variables):
    env = {**os.environ, "PATH": f"{pbs.commands}:{os.environ['PATH']}", **variables}
    words = [str(word) for word in words]
    return subprocess.run(words, cwd=folder, env=env, stdout=-1, stderr=-2, text=True, timeout=60)


def job_script(path, command, select=TWO, name="job", walltime="00:30:00", **settings):
    settings = {
        "HPC_TRAIN": REPOSITORY,
        "JOB_SCRIPT": path,
        "VENV": sys.prefix,
        "PYTHONPATH": REPOSITORY,
        "HYDRA_LAUNCHER": "fork",
        "CUDA_VISIBLE_DEVICES": "",
        **settings,
    }
    lines = [f"#PBS -N {name}", f"#PBS -l {select}", f"#PBS -l walltime={walltime}", "#PBS -j oe"]
    lines += [f"export {key}='{value}'" for key, value in settings.items()]
    lines += ['source "$HPC_TRAIN/slurm/pbs.sh"', f"run_job {command}"]
    return "\n".join(["#!/bin/bash -l", *lines, ""])


@pytest.fixture(scope="module")
def trainings(submit, digits):
    """Trainings of two ranks on two nodes, which mostly wait; each has a test."""
    command = f"python {RANKS}/paused_mnist.py --data {digits} {' '.join(OPTIONS)}"
    return {
        # 21 steps an epoch, six epochs: with pauses it would take two minutes.
        "limited": submit(command, name="limited", walltime="00:01:40", STOP_BEFORE=40, PAUSE=1),
        "deleted": submit(command, name="deleted", PAUSE=0.3),
    }


@pytest.fixture(scope="module")
def chain(pbs):
    """A function that waits for the end of a job, and of all that it was submitted again as; jobs and outputs."""

    def chain(number, look=lambda number: None):
        found = []
        while number:
            if found:
                look(number)
            found.append((pbs.wait(number, 400), pbs.output(number)))
            number = next((job["number"] for job in pbs.jobs() if number in job["after"]), None)
        return found

    return chain


def test_a_deleted_job_writes_a_checkpoint_and_stays_deleted(pbs, submit, trainings, chain):
    number = trainings["deleted"]
    folder = submit.folder / "runs" / f"deleted-{number}"
    pbs.wait(number, 400, until=lambda job: epochs(folder) >= 1)
    time.sleep(2)
    # A busy machine may need longer than PBS would give.
    pbs.kill_delay = 90
    run(pbs, submit.folder, "qdel", f"{number}.stand-in")
    [(_, output)] = chain(number)
    pbs.kill_delay = Pbs.kill_delay
    assert max(checkpoints(folder)) > 21, output
    [line] = re.findall(r".*not submitted again.*", output)
    assert f"qsub -v RUN=runs/deleted-{number} {submit.folder}/deleted.sh" in line


def test_at_the_walltime_a_job_goes_on_in_a_new_one_also_after_its_nodes_fail(pbs, submit, trainings, chain, digits):
    number, failed = trainings["limited"], []

    def fail_once(successor):
        if not failed:
            pbs.wait(successor, 120, until=lambda job: "resuming after step" in pbs.output(successor))
            failed.append(successor)
            pbs.fail_node(successor)

    (first, output), *others = chain(number, fail_once)
    assert first["told"] == [], "it ended before PBS ended it"
    assert "stopped at a checkpoint, submitted again as job" in output
    # Once, unless the machine is slow.
    jobs = [job for job, _ in others]
    assert [job["after"] for job in jobs] == [[earlier["number"]] for earlier in [first, *jobs][:-1]]
    assert [job["variables"]["RESTART"] for job in jobs] == [str(count + 1) for count in range(len(jobs))]
    assert [job["runs"] for job in jobs] == [1 + (job["number"] in failed) for job in jobs]
    assert jobs[-1]["status"] == 0, others[-1][1]
    [step] = re.findall(r"stopped by SIGUSR1 after step (\d+)", output)
    assert others[0][1].count(f"resuming after step {step}:") == 2
    assert f"run folder: runs/limited-{number}, restart 1" in others[0][1]
    whole = submit(f"python -m hpc_train.mnist --data {digits} {' '.join(OPTIONS)}", name="whole")
    [(job, output)] = chain(whole)
    assert (job["status"], job["runs"]) == (0, 1), output
    as_if_nothing_had_happened(*(submit.folder / "runs" / name for name in (f"limited-{number}", f"whole-{whole}")))


@pytest.fixture(scope="module")
def quick(pbs, submit):
    """Jobs of a second, started together; a function that gives the ended job, what it printed, and its successors."""
    numbers = {
        "bug": submit(f"python {STAND_IN} bug", "select=1:ncpus=2:mpiprocs=2", name="bug"),
        "stuck": submit(f"python {STAND_IN} unfinished", name="stuck", RESTARTS=2),
        "chunks": submit(
            f"python {STAND_IN} where", "select=4:ncpus=2:ngpus=1:mpiprocs=1+1:ncpus=1,place=pack", name="chunks",
            GPU_AFFINITY="forward",
        ),
    }  # fmt: skip

    def ended(name):
        return pbs.wait(numbers[name], 90), pbs.output(numbers[name])

    return ended


def test_a_bug_is_not_submitted_again(pbs, quick):
    job, output = quick("bug")
    assert job["status"] not in (0, 75), output
    assert "the planted bug" in output
    assert "not requeued" in output
    assert not [other for other in pbs.jobs() if job["number"] in other["after"]]


def test_restarts_without_progress_end_in_the_end(quick, chain):
    found = chain(quick("stuck")[0]["number"])
    assert [re.findall(r"attempt (\d)", output) for _, output in found] == [["0"], ["1"], []]
    assert "error: 2 restarts in a row without a newer checkpoint" in found[-1][1]
    assert found[-1][0]["status"] == 1


def test_on_polaris_every_rank_sees_one_gpu_the_last_one_first(pbs, submit):
    home = submit.folder / "home"
    shutil.copytree(REPOSITORY / "slurm", home / "slurm")
    (home / "slurm" / "site.env").write_text(f"PYTHONPATH='{REPOSITORY}'\n")
    words = ("submit", STAND_IN, "--site", "polaris", "--account", "me", "--nodes", "2", "--", "where")
    settings = {"HPC_TRAIN": str(home), "VENV": sys.prefix, "LAUNCHER": str(PALS)}
    said = run(pbs, submit.folder, BIN / "hpc-train", *words, **settings)
    number = re.search(r"as job (\d+)\.stand-in", said.stdout)[1]
    job, output = pbs.wait(number, 120), pbs.output(number)
    assert job["status"] == 0, output
    assert "8 ranks on 2 nodes (" in output
    assert "PALS stand-in: 4 a node, depth 8, by depth" in output
    assert "started by PALS's mpiexec" in output
    places = sorted(re.findall(r"rank (\d) of 8 local (\d) on a node takes GPU (\d)", output))
    assert places == [(str(n), str(n % 4), str(3 - n % 4)) for n in range(8)]


def test_chunks_on_one_node_are_counted_together(quick):
    job, output = quick("chunks")
    assert job["status"] == 0, output
    assert "4 ranks on 1 nodes" in output
    assert "on a node: ranks 4, cores 9, GPUs 4" in output
    assert sorted(re.findall(r"local (\d) on a node takes GPU (\d)", output)) == [(n, n) for n in "0123"]


def test_what_hpc_train_submit_writes_runs(pbs, submit):
    gpus = "-l select={nodes}:ncpus={cores_a_node}:ngpus={gpus_a_node}:mpiprocs={gpus_a_node}"
    (submit.folder / "site.toml").write_text(site("pbs", gpus=gpus, launcher="mpiexec"))
    words = ("submit", STAND_IN, "--site", "site.toml", "--nodes", "2", "--name", "written", "--", "where")
    said = run(pbs, submit.folder, BIN / "hpc-train", *words, HPC_TRAIN=str(REPOSITORY), VENV=sys.prefix)
    number = re.search(r"as job (\d+)\.stand-in", said.stdout)[1]
    job, output = pbs.wait(number, 90), pbs.output(number)
    assert job["status"] == 0, output
    assert "4 ranks on 2 nodes" in output
    assert "on a node: ranks 2, cores 4, GPUs 2" in output
    assert sorted(re.findall(r"rank (\d) of 4 local (\d)", output)) == [(str(n), str(n % 2)) for n in range(4)]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"PBS_JOBID": ""}, r"job\.sh is a batch script of PBS: submit it with `qsub .*job\.sh`"),
        ({"PBS_ARRAY_INDEX": "3"}, "a job array cannot go on in new jobs"),
        ({"PBS_NODEFILE": "/nowhere"}, "PBS_NODEFILE is '/nowhere', which is no file"),
        ({"JOB_SCRIPT": ""}, "JOB_SCRIPT is '': set it to the path of this script"),
        ({"PBS_O_WORKDIR": "/nowhere"}, "cannot enter /nowhere"),
        ({"RESTART": "a[0]"}, r"RESTART is 'a\[0\]', which is not a whole number"),
        ({"STOP_BEFORE": "2m"}, "STOP_BEFORE is '2m', which is not a whole number"),
        ({"STOP_BEFORE": "3600"}, "seconds are left before the walltime, and the ranks would stop 3600 seconds before"),
        ({"GPUS_PER_NODE": "x"}, "the number of GPUs or slots of a node is 'x', which is not a whole number"),
        ({"GPUS_PER_NODE": "1", "GPU_AFFINITY": "up"}, "GPU_AFFINITY is 'up', and not forward or reverse"),
    ],
)
def test_what_is_missing_or_wrong_is_one_line(tmp_path, changes, line):
    status, printed = by_hand(tmp_path, changes)
    errors = [said for said in printed.splitlines() if said.startswith("error: ")]
    assert (status != 0, len(errors)) == (True, 1), printed
    assert re.search(line, errors[0]), printed


def by_hand(folder, changes, walltime="00:30:00", select="1:ncpus=1"):
    """Status and output of a job script in an environment like a job's, with other variables or answers of qstat."""
    script, hosts, qstat = folder / "job.sh", folder / "hosts", folder / "qstat"
    hosts.write_text("n1\n")
    answer = f"    Resource_List.walltime = {walltime}\n    Resource_List.select = {select}"
    qstat.write_text(f"#!/bin/sh\ncat <<'E'\n{answer}\nE\n")
    qstat.chmod(0o755)
    env = {"PATH": f"{folder}:{os.environ['PATH']}", "PBS_JOBID": "7.x", "PBS_NODEFILE": str(hosts)}
    env |= {"PBS_O_WORKDIR": str(folder)}
    script.write_text(job_script(script, f"python {STAND_IN} where", **{"LAUNCHER": "true", **changes}))
    # Not a pipe, which the timer may hold open for a second longer than the script lives.
    with open(folder / "output", "w") as output:
        ended = subprocess.run(["bash", script], env=env, cwd=folder, stdout=output, stderr=-2, timeout=60)
    return ended.returncode, (folder / "output").read_text()


def test_what_qstat_and_variables_say_runs_nothing(tmp_path):
    mark = tmp_path / "mark"
    for text in (f"a[$(touch {mark})0]", f"$(touch {mark})", f"0;touch {mark}"):
        by_hand(tmp_path, {}, walltime=f"{text}:00:00")
        by_hand(tmp_path, {}, select=f"{text}:ngpus={text}:mpiprocs={text}:ncpus={text}")
        for name in ("RESTART", "STOP_BEFORE", "GPUS_PER_NODE", "CPUS_PER_RANK", "RESTARTS", "NCPUS"):
            by_hand(tmp_path, {name: text})
        assert not mark.exists()


def test_the_stand_in_ends_jobs_as_pbs_does(pbs, submit):
    pbs.kill_delay = 1
    script = submit.folder / "plain.sh"
    text = "#!/bin/bash\n#PBS -N plain -l select=1 -l walltime=00:00:02\n"
    script.write_text(f"{text}trap 'echo told' TERM\nwhile true; do sleep 0.1; done\n")
    number = run(pbs, submit.folder, "qsub", script).stdout.partition(".")[0]
    job = pbs.wait(number, 20)
    pbs.kill_delay = Pbs.kill_delay
    assert [name for _, _, name in job["told"]] == ["SIGTERM", "SIGKILL"]
    assert job["status"] == -signal.SIGKILL
    assert "told" in pbs.output(number)
    assert run(pbs, submit.folder, "qsub", "-Z", script).returncode == 1
