"""`hpc-train submit`: a trainer as a job of a site's scheduler, right the first time."""

import contextlib
import difflib
import importlib.util
import itertools
import os
import re
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import tyro

from hpc_train import __version__, command_line
from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.sites import new_site
from hpc_train.sites.request import MARKS, choose, lines
from hpc_train.sites.site import OWN, Site, find, save
from hpc_train.trainers import TRAINERS

_SUBMITS = {"slurm": "sbatch", "pbs": "qsub", "lsf": "bsub"}
_SHELL = {"slurm": "common.sh", "pbs": "pbs.sh", "lsf": "lsf.sh"}
_NUMBER = {"slurm": "$SLURM_JOB_ID", "pbs": "$PBS_JOBID", "lsf": "$LSB_JOBID"}
_ANSWERS = {"slurm": r"Submitted batch job (\d+)", "pbs": r"^(\d+\S*)$", "lsf": r"Job <(\d+)>"}
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
    stem = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    path = next(path for end in itertools.count() if not (path := _JOBS / f"{stem}{f'-{end}' * bool(end)}.sh").exists())
    text = script(site, options, name, command, path.absolute())
    if site.note:
        say(f"note: {site.note}", sys.stderr)
    submitting = [_SUBMITS[site.scheduler], str(path)]
    if options.dry_run:
        say(f"{text}\n{_shown(site, submitting)}")
        return
    _submit(site, text, path, submitting)


def misplaced(words: list[str]) -> str:
    """What to say of a trainer's option that does not stand after `--`; empty where there is none."""
    if "--" in words:
        return ""
    known = ["--help", *(f"--{one.name.replace('_', '-')}" for one in fields(Submit))]
    for before, word in itertools.pairwise(["", *words]):
        option = word.partition("=")[0].replace("--no-", "--")
        if before == "--scheduler-options" or not option.startswith("--"):
            continue
        if not difflib.get_close_matches(option, known, 1, 0.8):
            return (
                f"{option} is no option of submit; the trainer's come after `--`: submit {words[0]} ... -- {option} ..."
            )
    return ""


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
    settings = {setting: os.environ[setting] for setting in _SETTINGS if setting in os.environ}
    settings |= {"HPC_TRAIN": str(_templates()), **_site_env()}
    if site.scheduler != "slurm":
        settings |= {"JOB_SCRIPT": str(path), "STOP_BEFORE": str(given.stop_before)}
        settings["GPUS_PER_NODE"] = str(request.gpus_a_node)
    variables = site.environment | (site.between_nodes if request.nodes > 1 else {})
    defaults = {"MODULES": site.modules, "PREFERRED_LAUNCHER": site.launcher, "NODE_LOCAL": site.node_local}
    defaults |= {"CONTAINER": image} if (image := _image()) else {"VENV": sys.prefix}
    run = shlex.join(["run_job", *command])
    if "hpc_train.climate" in command and not any(word.split("=")[0] == "--stage" for word in command):
        # As slurm/climate.sh does.
        run += f' ${{NODE_LOCAL:+--stage "$NODE_LOCAL/{name}-{_NUMBER[site.scheduler]}"}}'
    asked = f"{request.nodes * request.gpus_a_node} GPUs on {request.nodes} node{'s' * (request.nodes > 1)}"
    shell = f"$HPC_TRAIN/slurm/{_SHELL[site.scheduler]}"
    return "\n".join(
        [
            "#!/bin/bash" + " -l" * (site.scheduler != "slurm"),
            *(f"{MARKS[site.scheduler]} {line}" for line in asking),
            f"# {asked} of {site.title} ({request.partition.name}), one rank a GPU; written by hpc-train {__version__}",
            *(f"export {name}={shlex.quote(value)}" for name, value in settings.items()),
            *(_export(name, value) for name, value in variables.items()),
            f'[ -f "{shell}" ] || {{ echo "error: no {shell}: submit again" >&2; exit 2; }}',
            f'source "{shell}"',
            *(
                f'[ -n "${{{name}+set}}" ] || {name}={shlex.quote(value)}'
                for name, value in defaults.items()
                if value and name not in settings
            ),
            run,
            "",
        ]
    )


def _image() -> str:
    """The image in which this process runs; empty outside of one."""
    return os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER") or ""


def _templates() -> Path:
    """The folder of slurm/: this one, HPC_TRAIN, or the package's own."""
    if Path("slurm", "common.sh").is_file():
        return Path.cwd()
    if _image() and "HPC_TRAIN" not in os.environ:
        raise UserError("the job cannot read the templates in this image: `hpc-train templates .` writes them here")
    return Path(os.environ.get("HPC_TRAIN") or Path(__file__).parent / "templates").absolute()


def _site_env() -> dict[str, str]:
    """The user's settings, which lie beside slurm/site.toml, wherever the templates are."""
    own = OWN.with_name("site.env")
    return {"SITE_ENV": str(own.absolute())} if own.is_file() else {}


def _command(given: Submit) -> tuple[list[str], str]:
    """What each rank runs, and a name for it; the trainer's options are checked before the job waits in a queue."""
    trainer = given.trainer
    if (own := trainer.removeprefix("hpc_train.")) in TRAINERS:
        command_line.parse(TRAINERS[own].module.Options, f"python -m hpc_train.{own}", given.words)
        return ["python", "-m", f"hpc_train.{own}", *given.words], own
    if trainer.endswith(".py"):
        if not Path(trainer).is_file():
            raise UserError(f"no file {trainer} in {Path.cwd()}: check the name of the trainer")
        return ["python", trainer, *given.words], re.sub(r"^[^A-Za-z]+|[^\w.+-]", "", Path(trainer).stem) or "train"
    # As `python -m` finds it.
    sys.path.insert(0, "")
    with contextlib.suppress(ModuleNotFoundError, ValueError):
        if trainer and importlib.util.find_spec(trainer):
            return ["python", "-m", trainer, *given.words], trainer.rpartition(".")[2]
    near = difflib.get_close_matches(trainer, TRAINERS, 1)
    guess = f"did you mean {near[0]}?" if near else f"give {', '.join(TRAINERS)}, a module, or FILE.py"
    raise UserError(f"no trainer {trainer!r}: {guess}" if trainer else f"no trainer is given: {guess}")


def _export(name: str, value: str) -> str:
    """The line that sets a variable of the ranks, with other variables in it."""
    escaped = re.sub(r'(["`\\])', r"\\\1", value)
    return f'export {name}="{escaped}"'


def _shown(site: Site, submitting: list[str]) -> str:
    return shlex.join(submitting) if site.scheduler != "lsf" else f"bsub < {shlex.quote(submitting[-1])}"


def _submit(site: Site, text: str, path: Path, submitting: list[str]) -> None:
    save(path, text, "; submit from a folder that all nodes see")
    try:
        with open(path) as job:
            done = subprocess.run(
                submitting[: 1 if site.scheduler == "lsf" else None],
                stdin=job if site.scheduler == "lsf" else subprocess.DEVNULL,
                env=_without_overrules(text),
                capture_output=True,
                text=True,
            )
    except OSError as error:
        where = "outside of this image" if _image() else "on a login node"
        raise UserError(f"there is no {submitting[0]} here ({error.strerror}): submit {path} {where}") from error
    if done.returncode:
        reason = " ".join((done.stderr or done.stdout).split())
        raise UserError(f"{submitting[0]} refuses {path}: {reason}")
    for line in done.stderr.splitlines():
        say(line, sys.stderr)
    number = re.search(_ANSWERS[site.scheduler], done.stdout, re.M)
    asked = re.search(r"^# (.*), one rank a GPU", text, re.M)
    say(f"submitted {path} as job {number[1] if number else done.stdout.strip()}: {asked and asked[1]}")


def _without_overrules(text: str) -> dict[str, str]:
    """This process's environment without what sbatch would take before the script's own lines."""
    kept = {"SLURM_CONF", "SBATCH_RESERVATION"}
    kept |= {f"SBATCH_{name.upper()}" for name in ("account", "qos") if f"#SBATCH --{name}=" not in text}
    return {
        name: value for name, value in os.environ.items() if name in kept or not name.startswith(("SLURM_", "SBATCH_"))
    }
