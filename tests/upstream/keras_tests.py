"""Run Keras's own tests with and without this package's layer: `tests/keras_upstream.sh` calls it."""

import os
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import launches
from keras_reasons import REASONS, REASONS_OF_RANKS

USAGE = "usage: tests/keras_upstream.sh CHECKOUT [RANKS]"
# What is wrapped, and in which of Keras's tests.
GROUPS = {
    "optimizers": ["optimizers/*_test.py"],
    "fit": ["trainers/trainer_test.py", "callbacks/*_test.py"],
}


def problem(checkout: Path) -> str | None:
    """Why the tests of `checkout` cannot run here; None if they can."""
    if not (checkout / "keras" / "src" / "optimizers" / "sgd_test.py").is_file():
        return f"{checkout} is no checkout of Keras: git clone https://github.com/keras-team/keras"
    if launches.missing(("keras",)):
        return "this Python has no Keras: activate the environment in which `hpc-train build-horovod` built Horovod"
    said = (checkout / "keras" / "src" / "version.py").read_text().split('"')[1]
    if said != (installed := version("keras")):
        return f"{checkout} is Keras {said}, and {installed} is installed: git -C {checkout} checkout v{installed}"
    if not shutil.which("horovodrun"):
        return "horovodrun is not on PATH: activate the environment in which `hpc-train build-horovod` built Horovod"
    if missing := launches.missing(("pytest", "absl", "jax", "scipy")):
        return f"Keras's tests need {' and '.join(missing)}: pip install {' '.join(missing)}"
    return None


def copied(checkout: Path, patterns: list[str], folder: Path) -> list[Path]:
    """Copies of the test files, with pytest's conftest.py: without Keras beside them they import the installed one."""
    source = checkout / "keras" / "src"
    files = [file for pattern in patterns for file in sorted(source.glob(pattern))]
    folder.mkdir(parents=True)
    shutil.copy(checkout / "conftest.py", folder)
    return [Path(shutil.copy(file, folder)) for file in files]


def line(*columns) -> str:
    """A line of the table."""
    return " | ".join([f"{columns[0]:34}", *(f"{column!s:>14}" for column in columns[1:])])


def compare(plain: dict, wrapped: dict, reasons: dict[str, str]) -> tuple[int, list[str]]:
    """Print a group's lines of the table; reasons: by test, of known exceptions.

    Returns:
        The number of exceptions without a reason and of reasons without an exception, and a line for each of both.
    """
    wrong, lines = 0, []
    for file in sorted({test.split("::")[0] for test in plain}):
        passed = [test for test, (end, _) in plain.items() if test.split("::")[0] == file and end == "passed"]
        failed = [test for test in passed if wrapped.get(test, ("missing",))[0] != "passed"]
        print(line(file, len(passed), len(passed) - len(failed), len(failed)), flush=True)
        for test in passed:
            reason = reasons.get(test)
            if test in failed:
                wrong += reason is None
                lines.append(f"{test}: {reason or 'NO REASON: ' + launches.last_error(wrapped.get(test, '  ')[1])}")
            elif reason:
                wrong += 1
                lines.append(f"{test}: passes, and has a reason not to: {reason}")
    return wrong, lines


def main() -> int:
    """Run each group plain and wrapped; 1 if an exception has no reason, or a reason no exception."""
    if not 2 <= len(sys.argv) <= 3 or (len(sys.argv) == 3 and not sys.argv[2].isdecimal()):
        print(USAGE, file=sys.stderr)
        return 2
    checkout, ranks = Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) == 3 else 1
    if why := problem(checkout):
        print(f"error: {why}", file=sys.stderr)
        return 2
    folder = Path(tempfile.mkdtemp(prefix="keras-upstream-"))
    print(f"output in {folder}; {ranks} rank{'s' * (ranks > 1)}", flush=True)
    print(line("file", "plain passed", "wrapped passed", "exceptions"), flush=True)
    launcher = ["horovodrun", "--gloo", "-np", str(ranks)] if ranks > 1 else []
    reasons = REASONS | (REASONS_OF_RANKS if ranks > 1 else {})
    wrong, lines = 0, []
    for group, patterns in GROUPS.items():
        if os.environ.get("UPSTREAM_ONLY", "") not in group:
            continue
        place = folder / group
        files = copied(checkout, patterns, place / "tests")
        own = [name for name in os.environ.get("UPSTREAM_FILES", "").split() if name]
        files = [file for file in files if not own or file.name in own]
        plain = launches.run(files, place, place / "plain", 1, [], ["keras_wrapped"])
        wrapped = launches.run(files, place, place / "wrapped", ranks, launcher, ["keras_wrapped"], UPSTREAM_WRAP=group)
        more, said = compare(plain, wrapped, reasons)
        wrong, lines = wrong + more, lines + said
    print("\n".join(["", *lines]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
