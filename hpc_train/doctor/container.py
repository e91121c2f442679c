"""The container that this process runs in. It may hide the launcher."""

import os
from collections.abc import Mapping
from dataclasses import replace

from hpc_train.parallel.launcher import Launcher


def with_size(launcher: Launcher, ranks: int) -> Launcher:
    """The launcher with the number of ranks that the user gave; a container may hide even that there is a launcher."""
    if launcher.name:
        return replace(launcher, size=ranks)
    return replace(launcher, name="the launcher", size=ranks, kept_out=bool(container()))


def container(env: Mapping[str, str] = os.environ) -> str:
    """The container that this process runs in; empty outside a container."""
    for name in ("APPTAINER_CONTAINER", "SINGULARITY_CONTAINER"):
        if env.get(name):
            return env[name]
    marks = {"/.dockerenv": "Docker", "/run/.containerenv": "Podman"}
    return next((name for mark, name in marks.items() if os.path.exists(mark)), "")
