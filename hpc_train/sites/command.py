"""`hpc-train templates`: the Slurm templates and container recipes that belong to this version, in a folder."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpc_train import __version__
from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path

# Links to the top folders of a clone; a wheel has copies of these files in their place (package_data in setup.cfg).
_HOME = Path(__file__).parent / "templates"
_FILES = {
    "slurm": ("*.sh", "site.env.example"),  # site.env is the user's own
    "containers": ("*.sh", "*.def", "Dockerfile"),
}


@dataclass(frozen=True)
class Templates:
    """Write the Slurm templates and the container recipes of this version into a folder.

    They go to DIRECTORY/slurm and DIRECTORY/containers. A file that is there already and differs is kept, unless you
    give --force. Your own slurm/site.env always stays as it is.
    """

    directory: Annotated[Path, tyro.conf.Positional]
    """Folder to write to, on the file system that the nodes share. It is made if needed."""
    force: bool = False
    """Overwrite files that differ."""


def run(options: Templates) -> None:
    """Write the files; print what was written and what to do next.

    Raises:
        UserError: the folder has files that differ, or cannot be written to.
    """
    files = [path for folder, patterns in _FILES.items() for pattern in patterns for path in _find(folder, pattern)]
    if not files:
        raise UserError(f"no templates in {_HOME}: this copy of hpc-train is not complete; install it again")
    targets = {options.directory / path.relative_to(_HOME): path for path in files}
    try:
        differing = [target for target, source in targets.items() if _differs(target, source)]
        if differing and not options.force:
            names = ", ".join(str(target) for target in differing)
            raise UserError(f"these files differ from hpc-train {__version__}: {names}; --force overwrites them")
        written = sum(_write(target, source) for target, source in targets.items())
    except OSError as error:
        raise UserError(f"cannot write to {options.directory}: {error.strerror}") from error
    present = f"; {len(files) - written} were there already" if written < len(files) else ""
    say(f"{options.directory}: wrote {written} files of hpc-train {__version__} to slurm/ and containers/{present}")
    say(f"next: {next_step(options.directory)}")


def next_step(directory: Path) -> str:
    """The shell command that submits the first job, with the Python environment or the container of this process.

    Args:
        directory: where the templates are.
    """
    steps = [f"cd {shlex.quote(str(directory))}"]
    if not (directory / "slurm" / "site.env").exists():
        image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
        setting = f"CONTAINER={shlex.quote(image)}" if image else f"VENV={shlex.quote(sys.prefix)}"
        steps += ["cp slurm/site.env.example slurm/site.env", f"echo {shlex.quote(setting)} >>slurm/site.env"]
    return " && ".join([*steps, "sbatch --gpus-per-node=4 slurm/doctor.sh"])


def _find(folder: str, pattern: str) -> list[Path]:
    return sorted(path for path in (_HOME / folder).glob(pattern) if path.is_file())


def _differs(target: Path, source: Path) -> bool:
    return os.path.lexists(target) and not (target.is_file() and target.read_bytes() == source.read_bytes())


def _write(target: Path, source: Path) -> bool:
    """Make `target` a copy of `source`, executable if `source` is; return whether anything had to be written."""
    write = not target.is_file() or _differs(target, source)
    if write:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_bytes(source.read_bytes())
    mode = target.stat().st_mode
    if source.stat().st_mode & 0o111 and not mode & 0o111:
        target.chmod(mode | (mode & 0o444) >> 2)
    return write
