"""Launching another project's tests on ranks, and saying in a line why one failed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import outcomes

# Seconds for one test, and for one launch; a launch that ends early is followed by one with the tests that are left.
TEST, LAUNCH, LAUNCHES = 180, 3600, 6


def missing(packages: tuple[str, ...]) -> list[str]:
    """Those of `packages` that are not installed."""
    return [name for name in packages if importlib.util.find_spec(name) is None]


def run(tests: list, cwd: Path, folder: Path, ranks: int, launcher: list[str], plugins=(), **extra: str):
    """Run tests with pytest, and leave the outcomes and the output in `folder`.

    Args:
        tests: files, as arguments of pytest.
        cwd: folder to run in.
        folder: for the outcomes; it is made.
        ranks: how many there are.
        launcher: what starts them, or nothing for a process without a launcher.
        plugins: modules of this folder, besides `outcomes`.
        **extra: environment variables.

    Returns:
        What `outcomes.read` says.
    """
    folder.mkdir(parents=True)
    # Horovod's processes must find this folder's plugins, and what the caller's environment has.
    places = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    env = {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2", **os.environ}
    env |= {"UPSTREAM_OUTCOMES": str(folder), "PYTHONPATH": places, **extra}
    # A hang inside a collective can only be ended with its process.
    timeout = [] if missing(("pytest_timeout",)) else [f"--timeout={TEST}", "--timeout-method=thread"]
    named = [part for name in ("outcomes", *plugins) for part in ("-p", name)]
    pytest = [sys.executable, "-m", "pytest", *named, "-p", "no:cacheprovider", "-q", *timeout, *map(str, tests)]
    seen: dict[str, tuple[str, str]] = {}
    for _ in range(LAUNCHES):
        with open(folder / "output.txt", "a") as output:
            status = _wait(subprocess.Popen([*launcher, *pytest], cwd=cwd, env=env, stdout=output, stderr=output))
        before, seen = len(seen), outcomes.read(folder, ranks)
        # 0: all passed, 1: some failed. A launcher has other numbers for that too.
        if status == 0 or len(seen) == before or _ended(folder, ranks):
            break
        (folder / "done.json").write_text(json.dumps(list(seen)))
    return seen


def _wait(process: subprocess.Popen) -> int:
    try:
        return process.wait(LAUNCH)
    except subprocess.TimeoutExpired:
        process.terminate()
        return process.wait()


def _ended(folder: Path, ranks: int) -> bool:
    """Whether pytest came to the end of its tests on every rank of the last launch."""
    return all((folder / f"{number}.ended").exists() for number in range(ranks))


def last_error(text: str) -> str:
    """The line of a failure's text that names the error."""
    marked = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (marked or text.strip().splitlines() or ["no text"])[-1 if not marked else 0][:200]
