"""The container that this process runs in, and what it may hide of the launcher."""

import os
from collections.abc import Mapping
from dataclasses import replace

from hpc_train.parallel.launcher import Launcher


def with_size(launcher: Launcher, ranks: int) -> Launcher:
    """The launcher where the user says how many ranks it starts: a container may hide even that there is one."""
    if launcher.name:
        return replace(launcher, size=ranks)
    return replace(launcher, name="the launcher", size=ranks, kept_out=bool(container()))


def container(env: Mapping[str, str] = os.environ) -> str:
    """The container that this process runs in; empty outside of one."""
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if env.get(name):
            return env[name]
    marks = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman"}
    return next((name for mark, name in marks.items() if os.path.exists(mark)), "")
