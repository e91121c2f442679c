"""Storage that fails: a library to preload, built here, and a small file system in memory."""

import errno
import os
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest


def build(folder: Path) -> Path:
    """Build failing.c in `folder`; skips the test, with the reason, where there is no compiler."""
    if not shutil.which("gcc"):
        pytest.skip("the failing storage needs gcc")
    library = folder / "failing.so"
    source = Path(__file__).with_name("failing.c")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


def environment(library: Path, calls: str, pattern: str, error: str, first: int = 1) -> dict[str, str]:
    """Variables with which `calls` on paths that match `pattern` fail with the errno named `error`."""
    number = str(getattr(errno, error))
    fail = {"FAIL_CALLS": calls, "FAIL_PATTERN": pattern, "FAIL_ERRNO": number, "FAIL_FROM": str(first)}
    return {"LD_PRELOAD": str(library), **fail}


@contextmanager
def small_disk(folder: Path, size: str):
    """Mount a file system of this size at `folder`; skips the test where that is not allowed."""
    if os.geteuid():
        pytest.skip("only root can mount a small file system")
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)
