"""`hpc-train submit` on clusters that ask of jobs what sites do: every line starts, and each rank has a GPU."""

import os
import re
import shlex
import subprocess
import sys

import cluster as slurm
import kills
import pytest
from fake_sites import LINES, RULES, SHAPES, fake
from launch import BIN, REPOSITORY, environment

MNIST = ("--model", "fc", "--epochs", "2", "--batch-size", "64", "--seed", "3", "--no-histograms")


ASK = "from hpc_train.doctor.placement import site_finding; print(site_finding().line)"
# `make test-sites` takes all.
ALL = "HPC_TRAIN_TEST_SITES" in os.environ


@pytest.fixture(params=sorted(RULES) if ALL else ["bridges2", "mahti", "vista"])
def there(request):
    """A site by name, with the cluster that stands for it."""
    if slurm.missing():
        pytest.skip(slurm.missing())
    site, running = fake(request.param)
    with running:
        yield request.param, site, running


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "where.py").write_text((REPOSITORY / "tests" / "ranks" / "stand_in.py").read_text())
    return tmp_path


def copy_templates(folder):
    (folder / "slurm").mkdir(exist_ok=True)
    for template in (REPOSITORY / "slurm").glob("*.sh"):
        (folder / "slurm" / template.name).write_text(template.read_text())


def submit(running, folder, *words):
    variables = {"HPC_TRAIN": str(folder), "PYTHONPATH": str(REPOSITORY), "MODULES": "", "VENV": sys.prefix}
    copy_templates(folder)
    return running.run(BIN / "hpc-train", "submit", *words, cwd=folder, **variables)


def ended(running, said):
    number = re.search(r"as job (\d+): ", said.stdout)
    assert number, said.stdout
    running.submitted.append(number[1])
    job = running.wait(number[1], 150)
    return job.state, running.output(number[1])


def test_a_job_of_two_nodes_starts_with_a_rank_for_each_gpu(there, folder):
    name, site, running = there
    request = ("where.py", "--site", name, "--nodes", "2", "--account", "abc", "--time", "0:10:00")
    shown = submit(running, folder, *request, "--dry-run", "--", "where").stdout
    (folder / "shown.sh").write_text(shown[shown.index("#!") : shown.rindex("\nsbatch ")])
    assert running.run("sbatch", "--test-only", "shown.sh", cwd=folder).returncode == 0
    assert not (folder / "jobs").exists()
    said = submit(running, folder, *request, "--", "where")
    assert said.stdout.startswith(f"note: {site.note}\n" if site.note else "submitted jobs/where-")
    assert f" of {site.title} (" in said.stdout
    state, output = ended(running, said)
    most = SHAPES[name][0]
    taken = re.findall(r"rank \d+ of (\d+) local \d+ on (node\d) takes GPU (\d)", output)
    assert (state, len(set(taken))) == ("COMPLETED", 2 * most), output
    assert {size for size, *_ in taken} == {str(2 * most)}
    assert "note:" not in output


OWN_LINES = [(name, line) for name, lines in LINES.items() for line in lines]


@pytest.mark.parametrize(("name", "line"), OWN_LINES if ALL else OWN_LINES[:2])
def test_the_line_of_a_sites_own_page_starts_with_a_rank_for_each_gpu(name, line, folder):
    if slurm.missing():
        pytest.skip(slurm.missing())
    _, running = fake(name)
    with running:
        copy_templates(folder)
        variables = {"VENV": sys.prefix, "PYTHONPATH": str(REPOSITORY)}
        number = running.submit(*line.split(), "slurm/train.sh", "where.py", "where", cwd=folder, **variables)
        job, output = running.wait(number, 150), running.output(number)
    taken = re.findall(r"rank \d+ of (\d+) local \d+ on (node\d) takes GPU (\d)", output)
    expected = 4 if "GPU-shared" in line else 2 * SHAPES[name][0]
    assert (job.state, len(set(taken))) == ("COMPLETED", expected), output


@pytest.mark.parametrize(
    ("name", "request_", "says"),
    [
        ("vista", ("--nodes", "1", "--scheduler-options", "--mem=3"), "sbatch refuses jobs/where-"),
        ("mahti", ("--gpus", "3", "--partition", "gpusmall"), "gpusmall takes jobs of at most 2 GPUs, not 3"),
        ("bridges2", ("--nodes", "2", "--gpus", "8"), "GPU has whole nodes with 8 GPUs each"),
    ],
)
def test_what_does_not_go_together_is_one_line_before_the_job_waits(name, request_, says, folder):
    if slurm.missing():
        pytest.skip(slurm.missing())
    _, running = fake(name)
    with running:
        said = submit(running, folder, "where.py", "--site", name, "--account", "abc", *request_, "--", "where")
        assert said.returncode == 2
        assert says in said.stdout
        assert len(said.stdout.splitlines()) == 1
        assert not running.run("squeue", "-h").stdout


SHARED = [("bridges2", "GPU-shared"), ("mahti", "gpusmall"), ("lumi", "small-g")]


@pytest.mark.parametrize(("name", "partition"), SHARED if ALL else SHARED[:1])
def test_the_weights_are_those_of_the_plain_job(name, partition, folder, digits, tmp_path_factory, plain):
    _, running = fake(name)
    with running:
        request = ("--site", name, "--gpus", "2", "--partition", partition, "--account", "abc")
        said = submit(running, folder, "mnist", *request, "--", "--data", digits, *MNIST, "--run", "run")
        state, output = ended(running, said)
    assert state == "COMPLETED", output
    assert kills.variables(folder / "run") == kills.variables(plain)


@pytest.fixture(scope="module")
def plain(digits, tmp_path_factory):
    """The run folder of the same training under horovodrun."""
    if slurm.missing():
        pytest.skip(slurm.missing())
    run = tmp_path_factory.mktemp("plain") / "run"
    words = ["horovodrun", "-np", "2", sys.executable, "-m", "hpc_train.mnist", "--data", digits, *MNIST, "--run", run]
    done = subprocess.run(list(map(str, words)), env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, shlex.join(map(str, words)) + done.stdout + done.stderr
    return run


def test_a_new_site_is_written_from_what_slurm_says(folder):
    if slurm.missing():
        pytest.skip(slurm.missing())
    _, running = fake("mahti")
    with running:
        said = submit(running, folder, "--new-site")
        assert said.returncode == 0, said.stdout
        assert "gpusmall" in said.stdout
        text = (folder / "slurm" / "site.toml").read_text()
        assert 'gpus = "--gpus-per-node={type}:{gpus_a_node}"' in text
        part = '[partitions.gputest]\ngpus_a_node = 4\ncores_a_node = 128\ntypes = ["a100"]\nmost_time = "0:15:00"\n'
        assert part in text
        assert "# Slurm says MpiDefault = pmi2" in text
        again = submit(running, folder, "--new-site")
        assert (again.returncode, again.stdout.count("\n")) == (2, 1)
        # The doctor compares it with the cluster.
        env = {"cwd": folder, "PYTHONPATH": str(REPOSITORY)}
        sound = running.run(sys.executable, "-c", ASK, **env)
        assert re.fullmatch(r"site +ok +slurm/site.toml: test\n", sound.stdout), sound.stdout
        wrong = text.replace("gpus_a_node = 4", "gpus_a_node = 8", 1).replace(
            "[partitions.gpusmall]", "[partitions.gpu]"
        )
        (folder / "slurm" / "site.toml").write_text(wrong)
        told = running.run(sys.executable, "-c", ASK, **env).stdout
        assert "slurm/site.toml does not fit this cluster: " in told
        assert "no partition gpu with GPUs, but batch, urgent, gpumedium, gpusmall, gputest" in told
        assert "batch: 4 GPUs a node, not 8" in told
        # What it wrote is taken without --site; this site wants another form of asking for GPUs.
        (folder / "slurm" / "site.toml").write_text(text.replace("--gpus-per-node={type}", "--gres=gpu:{type}"))
        job = submit(
            running, folder, "where.py", "--gpus", "2", "--partition", "gpusmall", "--account", "a", "--", "where"
        )
        state, output = ended(running, job)
        assert (state, output.count("takes GPU")) == ("COMPLETED", 2), output
