"""`hpc-train submit`: a trainer as a job of a site's scheduler, right the first time."""

import contextlib
import difflib
import importlib.util
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpc_train import __version__, command_line
from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path
from hpc_train.sites import new_site
from hpc_train.sites.request import MARKS, choose, lines
from hpc_train.sites.site import Site, find
from hpc_train.trainers import TRAINERS

_SUBMITS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub"}
_SHELL = {"slurm": "common.sh", "pbs": "pbs.sh", "lsf": "lsf.sh"}
_NUMBER = {"slurm": "$SLURM_JOB_ID", "pbs": "$PBS_JOBID", "lsf": "$LSB_JOBID"}
_SETTINGS = ("MODULES", "VENV", "CONTAINER", "CONTAINER_OPTIONS", "LAUNCHER", "RESTARTS", "NODE_LOCAL")
_JOBS = Path("jobs")


@dataclass(frozen=True)
class Submit:
    """Submit a trainer as a job in the way that your site wants, one rank a GPU.

    It writes the job script to jobs/ and submits it. The job continues in its run folder after each time limit, until
    it has finished. What stands in your environment (MODULES, VENV, CONTAINER, LAUNCHER, NODE_LOCAL, RESTARTS) or in
    slurm/site.env is used in place of the site's own.
    """

    trainer: Annotated[str, tyro.conf.Positional] = ""
    """mnist, resnet, climate or fit; a module; or a script of your own, FILE.py."""
    words: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """After `--`: the trainer's options."""
    site: str = ""
    """A site by name, or the file of one; by default slurm/site.toml. A wrong name lists those that there are."""
    nodes: int = 0
    """Nodes; by default as few as hold the GPUs."""
    gpus: int = 0
    """GPUs in all; by default all of the nodes."""
    partition: str = ""
    """Partition or queue; by default the site's first that can hold the job."""
    gpu_type: str = ""
    """Type of the GPUs, where the site has several."""
    account: str = ""
    """Account that pays."""
    time: str = "1:00:00"
    """Time limit of each part of the job, [DAYS-]HOURS:MINUTES:SECONDS."""
    stop_before: int = 180
    """Seconds before the time limit at which the ranks write a checkpoint, and the job goes back to the queue."""
    name: str = ""
    """Name of the job; by default the trainer's."""
    scheduler_options: str = ""
    """More options for sbatch, qsub or bsub, in quotes."""
    dry_run: bool = False
    """Print the script and the command, and submit nothing."""
    new_site: bool = False
    """Ask the scheduler here what it has, and write slurm/site.toml."""


def run(options: Submit) -> None:
    """Submit the job, or print what would be submitted.

    Raises:
        UserError: the trainer, the site or the numbers are wrong, or the scheduler refuses the job.
    """
    if options.new_site:
        new_site.write()
        return
    command, name = _command(options)
    site = find(options.site)
    if site.account == "needed" and not options.account and "SBATCH_ACCOUNT" not in os.environ:
        raise UserError(f"{site.title} wants to know who pays: --account NAME")
    name = options.name or name
    if not re.fullmatch(r"[A-Za-z][\w.+-]{0,200}", name):
        raise UserError(f"--name {name}: begin with a letter, and write letters, digits and ._+- only")
    path = _JOBS / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}.sh"
    text = script(site, options, name, command, path.absolute())
    if site.note:
        say(f"note: {site.note}", sys.stderr)
    submitting = [_SUBMITS[site.scheduler], str(path)]
    if options.dry_run:
        say(f"{text}\n{_shown(site, submitting)}")
        return
    _submit(site, text, path, submitting)


def script(site: Site, given: Submit, name: str, command: list[str], path: Path) -> str:
    """The text of a job script.

    Args:
        site: where it runs.
        given: what the user wants.
        name: of the job.
        command: of each rank.
        path: of the script, for schedulers that are given it again at the time limit.

    Raises:
        UserError: the site cannot hold the job.
    """
    request = choose(site, given.nodes, given.gpus, given.partition, given.gpu_type, given.time)
    if given.stop_before < 30 or given.stop_before >= request.seconds:
        raise UserError(f"--stop-before {given.stop_before}: give 30 seconds or more, and less than --time")
    asking = lines(site, request, name, given.account, given.stop_before, given.scheduler_options)
    local = os.environ.get("NODE_LOCAL", site.node_local)
    if "hpc_train.climate" in command and local and not any(word.split("=")[0] == "--stage" for word in command):
        command = [*command, "--stage", f"{local}/{name}-{_NUMBER[site.scheduler]}"]
    settings = {setting: os.environ[setting] for setting in _SETTINGS if setting in os.environ}
    if "CONTAINER" not in settings:
        image = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
        settings |= {"CONTAINER": image} if image else {}
        settings.setdefault("VENV", sys.prefix if sys.prefix != sys.base_prefix or not image else "")
    home = Path(os.environ.get("HPC_TRAIN") or Path(__file__).parent / "templates")
    settings |= {"HPC_TRAIN": str(home.absolute()), "JOB_SCRIPT": str(path), "STOP_BEFORE": str(given.stop_before)}
    if site.scheduler != "slurm":
        settings["GPUS_PER_NODE"] = str(request.gpus_a_node)
    defaults = {"MODULES": site.modules, "PREFERRED_LAUNCHER": site.launcher, "NODE_LOCAL": site.node_local}
    variables = site.environment | (site.between_nodes if request.nodes > 1 else {})
    asked = f"{request.nodes * request.gpus_a_node} GPUs on {request.nodes} node{'s' * (request.nodes > 1)}"
    return "\n".join(
        [
            "#!/bin/bash" + " -l" * (site.scheduler != "slurm"),
            *(f"{MARKS[site.scheduler]} {line}" for line in asking),
            f"# {asked} of {site.title}, one rank a GPU; written by hpc-train {__version__}",
            *(f"export {name}={shlex.quote(value)}" for name, value in settings.items()),
            f'source "$HPC_TRAIN/slurm/{_SHELL[site.scheduler]}"',
            *(_default(name, value) for name, value in defaults.items() if value),
            *(_export(name, value) for name, value in variables.items()),
            f"run_job {shlex.join(command)}",
            "",
        ]
    )


def _command(given: Submit) -> tuple[list[str], str]:
    """What each rank runs, and a name for it; the trainer's options are checked before the job waits in a queue."""
    trainer = given.trainer.removeprefix("hpc_train.")
    if trainer in TRAINERS:
        command_line.parse(TRAINERS[trainer].module.Options, f"python -m hpc_train.{trainer}", given.words)
        return ["python", "-m", f"hpc_train.{trainer}", *given.words], trainer
    if trainer.endswith(".py"):
        if not Path(trainer).is_file():
            raise UserError(f"no file {trainer} in {Path.cwd()}: check the name of the trainer")
        return ["python", trainer, *given.words], re.sub(r"^[^A-Za-z]+|[^\w.+-]", "", Path(trainer).stem) or "train"
    with contextlib.suppress(ModuleNotFoundError, ValueError):
        if trainer and importlib.util.find_spec(trainer):
            return ["python", "-m", trainer, *given.words], trainer.rpartition(".")[2]
    near = difflib.get_close_matches(trainer, TRAINERS, 1)
    guess = f"did you mean {near[0]}?" if near else f"give {', '.join(TRAINERS)}, a module, or FILE.py"
    raise UserError(f"no trainer {trainer!r}: {guess}" if trainer else f"no trainer is given: {guess}")


def _default(name: str, value: str) -> str:
    """The line that sets one of the templates' settings, unless it is set; variables in it are not expanded yet."""
    return f': "${{{name}={_escaped(value, "$")}}}"'


def _export(name: str, value: str) -> str:
    """The line that sets a variable of the ranks, with other variables in it; one that adds to itself is no default."""
    if re.search(rf"\${{?{name}\b", value):
        return f'export {name}="{_escaped(value)}"'
    return f'export {name}="${{{name}:-{_escaped(value)}}}"'


def _escaped(value: str, more: str = "") -> str:
    return re.sub(rf'(["`\\{more}])', r"\\\1", value)


def _shown(site: Site, submitting: list[str]) -> str:
    return shlex.join(submitting) if site.scheduler != "lsf" else f"bsub < {shlex.quote(submitting[-1])}"


def _submit(site: Site, text: str, path: Path, submitting: list[str]) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; submit from a folder that all nodes see") from error
    try:
        if site.scheduler == "lsf":
            with open(path) as job:
                done = subprocess.run(["bsub"], stdin=job, capture_output=True, text=True)
        else:
            done = subprocess.run(submitting, capture_output=True, text=True)
    except OSError as error:
        raise UserError(f"there is no {submitting[0]} here ({error.strerror}): run this on a login node") from error
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"{submitting[0]} refuses {path}: {reason}")
    for line in done.stderr.splitlines():
        say(line, sys.stderr)
    number = re.search(r"\d+[^\s;>]*", done.stdout)
    say(f"submitted {path} to {site.title} as job {number[0] if number else done.stdout.strip()}")
