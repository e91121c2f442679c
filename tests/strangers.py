"""Another user of this machine, who tries things; a test needs to be root to play him."""

import os
import subprocess
import sys

import pytest

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can play another user")


def stranger(program: str, *arguments, timeout: float = 60) -> subprocess.CompletedProcess:
    """Runs a Python program as another user."""
    command = [sys.executable, "-I", "-c", program, *map(str, arguments)]
    return subprocess.run(
        command, user=NOBODY, group=NOBODY, extra_groups=[], umask=0, capture_output=True, text=True, timeout=timeout
    )
