"""Every command that a page shows: its options exist, and it runs as far as one machine without GPUs allows."""

import re
import shutil
import subprocess
from pathlib import Path

import command_lines
import h5py
import numpy as np
import pytest
import shown
from launch import environment

PAGES = shown.pages()
# Options of other programs that the pages name: Slurm, Apptainer, launchers, this project's scripts, TensorBoard.
OTHERS = {
    *("--account", "--array", "--batch", "--cpus-per-task", "--dependency", "--exclusive", "--gpus-per-node"),
    *("--gpus-per-task", "--job-name", "--mem", "--mpi", "--nodes", "--ntasks-per-node", "--partition", "--requeue"),
    *("--signal", "--test-only", "--time", "--constraint", "--gpus", "--gres", "--cpus-per-gpu", "--ntasks"),
    *("--depth", "--cpu-bind", "--map-by", "--bind-to"),
    *("--bind", "--cleanenv", "--containall", "--env", "--environment", "--fakeroot", "--nv", "--unsquash"),
    *("--gloo", "--hosts", "--rate", "--delay", "--host", "--port", "--logdir", "--calm", "--crowd"),
    *("--host-discovery-script", "--network-interface", "--blacklist-cooldown-range"),
}

# On the completion of the shell.
HALF_TYPED = {"hpc-train inspect --la"}

# Why a command is not run, and which are meant: the first reason whose pattern a command line has.
NOT_RUN = {
    "the shell's own": r"^(git clone|module|cp|scp|ssh|cd|export|source|complete|\.) |<TAB>",
    "a server": r"^(tensorboard|jupyter|mlflow ui|wandb sync) ",
    "makes an environment; CI begins with `make test`": r"^make\b|build-horovod|pip install|^pre-commit|venv",
    "a scheduler; tests submit jobs": r"\b(sbatch|srun|scancel|squeue|qsub|bsub|hpc-train submit)\b|--submit|slurm/",
    "Apptainer; `make test-container`": r"apptainer|containers/|\.sif\b|docker",
    "a download; the tests of `prepare` read such files": r"prepare (mnist|fashion-mnist|cifar100?)\b",
    "data that are not here": r"ILSVRC|imagenet|cifar10|photos|gfs|ibtracs|All-Hist|deepcam|shards/mine|'\w+/\*",
    "ranks that come and go; parallel/test_elastic.py": r"--host-discovery-script",
    "words that a reader replaces": r"FILE|FOLDER|\b(DIR|RUN|RANKS|SCRIPT|SEED|NAME|OPTIONS)\b| \.\.\.( |$)",
    "minutes; the command has tests of its own": r"\bbench |studies/|timeline|HOROVOD_|flops climate",
    "the tests themselves": r"pytest|ruff|tests/|\.ci/",
}
TRAINER = r"-m hpc_train\.(mnist|resnet|climate|fit)\b|\b(mine|small)\.py\b"
# What is run with less work than the page asks for.
SMALLER = (
    (r"--epochs \d+", "--epochs 1"),
    (r"-np \d+", "-np 2"),
    (r"--trials \d+", "--trials 2"),
    (r"--train \d+ --validation \d+ --test \d+", "--train 12 --validation 4 --test 4"),
    (r"--size \d+ \d+", "--size 32 48"),
)


@pytest.mark.parametrize("page", PAGES, ids=shown.name)
def test_the_options_in_the_commands_of_a_page_exist(page):
    wrong = []
    for command in shown.commands(page):
        # <TAB> and the like: not the words that are typed.
        for words in shown.simple_commands(re.sub(r".*<[\w ]+>.*", "", command.text)):
            line = command_lines.of(words)
            if line and (said := command_lines.problem(line)):
                wrong.append(f"{command}\n{said}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=shown.name)
def test_the_options_in_the_text_of_a_page_exist(page):
    known = command_lines.all_options() | OTHERS
    wrong = []
    for code in shown.code_spans(page):
        if code in HALF_TYPED:
            continue
        wrong += [f"`{code}`: no {word}" for word in re.findall(r"(?<![\w-])--[a-z][\w-]*", code) if word not in known]
        if re.match(r"(horovodrun -np \S+ )?(hpc-train \w|python -m hpc_train\.(mnist|resnet|climate|fit)\b)", code):
            line = command_lines.of(shown.split(code))
            if line and (said := command_lines.problem(line, whole=False)):
                wrong.append(f"`{code}`\n{said}")
    assert not wrong, "\n".join(wrong)


class Clone:
    """A folder like a clone, in which the commands of the pages run one after the other, each once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._done: set[str] = set()

    def save(self, program: shown.Program) -> None:
        """Keep a script that a page shows under its name."""
        (self.folder / program.file).write_text(program.text)
        self._done -= {line for line in self._done if program.file in line}

    def run(self, command: shown.Command) -> None:
        """Run a command line as it stands, but with less work; it must end well."""
        line = command.text
        for pattern, less in SMALLER:
            line = re.sub(pattern, less, line)
        line = re.sub(r"-m hpc_train\.(\w+)", self._saved, line)
        line = re.sub(r"runs/([a-z][\w-]*?)-(\d{8}-\d{6}|\.\.\.)", self._newest_run, line)
        if re.search(TRAINER, line) and not re.search(r"--(epochs|help)\b", line):
            line += " --epochs 1"
        if line in self._done:
            return
        ended = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env=environment(PYTHONPATH=str(shown.REPOSITORY)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, f"{command}\n{line}\n{ended.stdout[-3000:]}"
        self._done.add(line)

    def _saved(self, module: re.Match) -> str:
        """A trainer that is shown, and not in the package, runs from the file that it was saved in."""
        return f"{module[1]}.py" if (self.folder / f"{module[1]}.py").exists() else module[0]

    def _newest_run(self, named: re.Match) -> str:
        runs = sorted(self.folder.glob(f"runs/{named[1]}-*"), key=lambda run: run.stat().st_mtime)
        assert runs, f"{named[0]}: no command before makes such a run"
        return runs[-1].relative_to(self.folder).as_posix()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder with the digits, with made-up images where the pages have MNIST, and with several inputs."""
    pytest.importorskip("sklearn.datasets")
    if not shutil.which("horovodrun", path=environment()["PATH"]):
        pytest.skip("Horovod is not built here: run `hpc-train build-horovod`")
    clone = Clone(tmp_path_factory.mktemp("clone"))
    (clone.folder / "examples").symlink_to(shown.REPOSITORY / "examples")
    draw = np.random.default_rng(0)
    arrays = {}
    for split, samples in (("train", 128), ("test", 32)):
        arrays[f"x_{split}"] = draw.integers(0, 256, (samples, 28, 28), "uint8")
        arrays[f"y_{split}"] = np.arange(samples, dtype="uint8") % 10
    np.savez(clone.folder / "mnist.npz", **arrays)
    with h5py.File(clone.folder / "parts.h5", "w") as file:
        file["a/b"], file["c/d"] = draw.normal(size=(40, 8, 8, 2)).astype("f4"), draw.integers(0, 9, (40, 3), "i2")
        file["e"] = draw.normal(size=40).astype("f4")
    save_tables(clone.folder, draw)
    for line in ("prepare digits", "prepare npz --input mnist.npz --output shards/mnist"):
        clone.run(shown.Command("the tests", 0, f"hpc-train {line}"))
    return clone


def save_tables(folder: Path, draw: np.random.Generator) -> None:
    """Save what the page on preparing data begins with: a table of made-up houses, and pairs of arrays."""
    lines = ["id,rooms,area,age,town,price"]
    for number in range(500):
        rooms, age, town = draw.integers(1, 8), draw.integers(0, 90), draw.choice(["Bergen", "Kobe", "Oslo"])
        known = "" if draw.random() < 0.03 else age
        area, price = rooms * 22 + draw.normal(0, 8), rooms / 5 - age / 500
        lines.append(f"{number},{rooms},{area:.1f},{known},{town},{price:.3f}")
    (folder / "houses.csv").write_text("\n".join(lines) + "\n")
    for name in ("fields", "later"):
        np.save(folder / f"{name}.npy", draw.normal(size=(100, 32, 48, 2)).astype("float32"))


@pytest.mark.parametrize("page", PAGES, ids=shown.name)
def test_the_commands_of_a_page_run(page, clone):
    left_out = []
    # A page may start a script before it shows it.
    for program in reversed(shown.programs(page)):
        if program.file:
            clone.save(program)
    for item in shown.contents(page):
        if isinstance(item, shown.Program):
            if item.file:
                clone.save(item)
        elif why := why_not(item):
            left_out.append(f"{item}: {why}")
        else:
            clone.run(item)
    print("not run:", *left_out, sep="\n  ")


def why_not(command: shown.Command) -> str | None:
    """The reason for which a command is not run."""
    return next((why for why, pattern in NOT_RUN.items() if re.search(pattern, command.text)), None)


def test_no_reason_is_left_without_a_command():
    reasons = {why_not(command) for page in PAGES for command in shown.commands(page)}
    assert not NOT_RUN.keys() - reasons
