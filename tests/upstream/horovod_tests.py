"""Run Horovod's own parallel tests from a checkout of its repository: `tests/upstream.sh` calls it."""

import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import launches
from horovod_reasons import REASONS

USAGE = "usage: tests/upstream.sh CHECKOUT [RANKS]"


@dataclass(frozen=True)
class File:
    """A test file, and how it is launched."""

    name: str
    least: int = 2
    """Ranks below which it says little."""
    mpi: bool = False


FILES = [
    File("test_tensorflow2_keras"),
    File("test_tensorflow"),
    File("test_tensorflow2_keras_process_sets", least=3),
    File("test_tensorflow_process_sets", least=3),
    File("test_tensorflow_process_sets_dynamic", least=3),
    File("test_process_sets_static", least=3),
    File("test_process_sets_multi_comm", least=3, mpi=True),
    File("test_adasum_tensorflow", mpi=True),
]


def problem(checkout: Path) -> str | None:
    """Why the tests of `checkout` cannot run here; None if they can."""
    if not (checkout / "test" / "parallel" / f"{FILES[0].name}.py").is_file():
        return f"{checkout} is no checkout of Horovod: git clone https://github.com/horovod/horovod"
    if not shutil.which("horovodrun"):
        return "horovodrun is not on PATH: activate the environment in which `hpc-train build-horovod` built Horovod"
    if missing := launches.missing(("pytest", "parameterized", "mock")):
        return f"Horovod's tests need {' and '.join(missing)}: pip install {' '.join(missing)}"
    return None


def line(*columns) -> str:
    """A line of the table."""
    return " | ".join([f"{columns[0]:40}", *(f"{column!s:>7}" for column in columns[1:])])


def explain(results: dict[str, tuple[str, str]]) -> int:
    """Print a line for each failure; returns how many have no reason, or have one and pass."""
    wrong = 0
    for test, (outcome, text) in results.items():
        file, *_, name = test.split("::")
        reason = REASONS.get(f"{file}::{name}")
        if outcome == "failed":
            wrong += reason is None
            print(f"{test}: {reason or 'NO REASON: ' + launches.last_error(text)}")
        elif reason and outcome == "passed":
            wrong += 1
            print(f"{test}: passes, and has a reason not to: {reason}")
    return wrong


def main() -> int:
    """Run every file; 1 if a failure has no reason, or a reason no failure."""
    if not 2 <= len(sys.argv) <= 3 or (len(sys.argv) == 3 and not sys.argv[2].isdecimal()):
        print(USAGE, file=sys.stderr)
        return 2
    checkout, ranks = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) == 3 else 2
    if why := problem(checkout):
        print(f"error: {why}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="upstream-"))
    print(f"output in {folder}\n{line('file', 'ranks', 'passed', 'failed', 'skipped', 'seconds')}", flush=True)
    results: dict[str, tuple[str, str]] = {}
    for file in FILES:
        if os.environ.get("UPSTREAM_ONLY", "") not in file.name:
            continue
        number = max(ranks, file.least)
        launcher = ["horovodrun", "--mpi" if file.mpi else "--gloo", "-np", str(number)]
        began = time.monotonic()
        place = checkout / "test" / "parallel"
        tests = launches.run([f"{file.name}.py"], place, folder / file.name, number, launcher, ["numpy_1"])
        results |= tests or {f"{file.name}::": ("failed", "nothing ran")}
        ends = [outcome for outcome, _ in tests.values()]
        counts = [ends.count(end) for end in ("passed", "failed", "skipped")]
        print(line(file.name, number, *counts, round(time.monotonic() - began)), flush=True)
    print()
    return 1 if explain(results) else 0


if __name__ == "__main__":
    sys.exit(main())
