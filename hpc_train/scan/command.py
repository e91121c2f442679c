"""Which hyperparameters are best? hpc-train scan STUDY --trials 64 --space 'lr=log:1e-4..1e-1' -- mnist --data DIR

A trainer and the options that all trials share follow `--`. Each trial is a run folder in STUDY/trials, and trains on
one GPU (or core), as many at once as fit. The same command again goes on: trials that were cut short resume from their
checkpoints. More processes, on other nodes or in other jobs, work on the same study with --join.
"""

import dataclasses
import difflib
import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from hpc_train import __version__
from hpc_train.console import say
from hpc_train.errors import UserError

if TYPE_CHECKING:
    from hpc_train.scan.study import Settings


@dataclass(frozen=True)
class Scan:
    """Train a model with many sets of hyperparameters, one GPU a trial, and find the best.

    The same command again goes on where it was stopped or killed. On several nodes, or in several jobs that start and
    stop at any time, add --join: all of them work on one study.
    """

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of the study, on a file system that all nodes see."""
    command: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """After `--`: the trainer (mnist, resnet, climate, fit, or a script FILE.py), and options for all trials."""
    trials: int = 0
    """How many trials. A grid has as many as it has points, if this is not given."""
    space: tuple[str, ...] = ()
    """What is scanned: 'lr=log:1e-4..1e-1' 'model=cnn,deep' 'units=int:16..256' 'dropout=0.0..0.5', each an option of
    the trainer, or, with fit, an argument of your function (build.NAME if both exist); a file of such lines; or
    FILE.py:FUNCTION, which gets Optuna's trial and returns options with their values."""
    objective: str = ""
    """Metric of validation to improve, as training prints it: accuracy, loss; NAME:min or NAME:max for one of your own.
    A trial counts with the best of its epochs."""
    search: Literal["tpe", "random", "grid", "cmaes"] = "tpe"
    """How values are chosen. tpe: Tree-structured Parzen Estimator (Bergstra et al. 2011), which learns from the trials
    before; cmaes: CMA-ES (Hansen 2016), for numbers; grid: all of them."""
    prune: Literal["none", "asha", "hyperband", "median"] = "none"
    """Which trials end early. asha: all but the best third at each of 1, 3, 9, ... epochs (Li et al. 2018); hyperband:
    the same with several first steps (Li et al. 2017); median: those below the median of the others at that epoch."""
    prune_after: int = 1
    """Epochs that every trial trains at least."""
    seed: int = 0
    """Of the search. The trainer's --seed is the same for all trials, unless you scan it."""
    ranks_per_trial: int = 1
    """GPUs of a trial, on one node; it runs as that many ranks."""
    at_once: int = 0
    """Trials at once on this node; by default as many as there are GPUs for, or cores where there are no GPUs."""
    launcher: str = "horovodrun --gloo -np {np}"
    """Command that starts the ranks of a trial; {np} is their number."""
    join: bool = False
    """Work together with other processes on one study, which any of them may begin."""
    retry: bool = False
    """Try trials again that have failed."""
    show: bool = False
    """Print the state of the study, and run nothing."""
    json: bool = False
    """With --show: as JSON."""


def run(options: Scan) -> None:
    """Run the scan, or print its state.

    Raises:
        UserError: options that cannot be used, or a scan that cannot go on.
    """
    from hpc_train.scan import show
    from hpc_train.scan.study import Study

    study = Study(options.study)
    if options.json and not options.show:
        raise UserError("--json is for --show; add it, or leave it out")
    if options.show:
        study = Study.open(options.study)
        say(show.as_json(study) if options.json else "\n".join(show.table(study)))
        return
    from hpc_train.scan import space as spaces
    from hpc_train.scan.process import Process
    from hpc_train.scan.search import library
    from hpc_train.scan.trainer import Trainer

    library()
    _check(options)
    settings = _settings(options, study)
    if settings.folder != os.getcwd():
        # Paths in the options are relative to it.
        study = Study(options.study.absolute())
        try:
            os.chdir(settings.folder)
        except OSError as error:
            raise UserError(f"{settings.folder}, where the scan was started: {error.strerror}; put it back") from error
    trainer = Trainer(settings.trainer, tuple(settings.options))
    space = spaces.read(settings.space)
    trainer.check(space)
    if space.reference:
        # What is wrong with it is said before there is a study of it.
        space.suggest()
    Process(study, settings, space, trainer, options.at_once, options.join, options.retry).run()


def _check(options: Scan) -> None:
    from hpc_train.parallel.launcher import detect

    started = detect()
    if started.size > 1 and not started.name.startswith("srun"):
        raise UserError(f"{started.name} has started this command on several ranks; start it once, without a launcher")
    if started.size > 1 and not options.join:
        raise UserError(f"{started.name} has started this command {started.size} times; add --join")
    for name in ("trials", "at_once"):
        if getattr(options, name) < 0:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    for name in ("ranks_per_trial", "prune_after"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} is {getattr(options, name)}; it must be at least 1")
    for name, needed in (("launcher", "--ranks-per-trial 2 or more"), ("prune_after", "--prune")):
        of_use = options.ranks_per_trial > 1 if name == "launcher" else options.prune != "none"
        if options.command and not of_use and getattr(options, name) != getattr(Scan, name):
            raise UserError(f"--{name.replace('_', '-')} is for {needed}; give both, or leave it out")
    try:
        words = shlex.split(options.launcher)
    except ValueError as error:
        raise UserError(f"--launcher {options.launcher}: {str(error).lower()}; fix the quotes in it") from error
    if options.ranks_per_trial > 1 and not (words and "{np}" in options.launcher and shutil.which(words[0])):
        raise UserError(f"--launcher {options.launcher}: give a command that is installed here, with {{np}} in it")


def _settings(options: Scan, study) -> "Settings":
    """The study's settings, with those that the command line gives."""
    from hpc_train.scan import space as spaces
    from hpc_train.scan.study import Settings

    earlier = study.settings() if study.exists() else None
    if earlier and 0 < options.trials < earlier.trials:
        raise UserError(f"--trials {options.trials}: {options.study} has {earlier.trials} trials already; give more")
    if earlier and not options.command:
        _check_alone(options, earlier)
        return dataclasses.replace(earlier, trials=options.trials or earlier.trials)
    if not options.command:
        raise UserError(
            f"{options.study} holds no study yet: say what to scan, as in `hpc-train scan {options.study} --trials 64 "
            "--space 'lr=log:1e-4..1e-1' --objective accuracy -- mnist --data shards/mnist`"
        )
    name, direction = _objective(options.objective)
    kept = ("search", "prune", "prune_after", "seed", "ranks_per_trial", "trials", "launcher")
    given = {one: getattr(options, one) for one in kept}
    trainer, *words = options.command
    trainer = trainer.removeprefix("hpc_train.")
    settings = Settings(
        trainer=trainer,
        options=words,
        space=spaces.lines(options.space),
        objective=name,
        direction=direction,
        folder=earlier.folder if earlier else os.getcwd(),
        version=earlier.version if earlier else __version__,
        **given,
    )
    if earlier:
        earlier.check_same(options.study, settings)
        return dataclasses.replace(settings, trials=options.trials or earlier.trials)
    if options.search == "grid":
        points = len(spaces.read(settings.space).points(settings.seed))
        return dataclasses.replace(settings, trials=min(options.trials or points, points))
    if not options.trials:
        raise UserError("--trials is missing: how many shall it be?")
    return settings


def _check_alone(options: Scan, earlier: "Settings") -> None:
    """Refuse options of another study, where no command is given."""
    if options.space:
        raise UserError(f"--space: {options.study} has its space already; leave it out, or give the whole command")
    for name in ("search", "prune", "prune_after", "seed", "ranks_per_trial", "launcher", "objective"):
        value = getattr(options, name)
        if value == getattr(Scan, name):
            continue
        if name == "objective":
            value, _ = _objective(value)
        earlier.check_same(options.study, dataclasses.replace(earlier, **{name: value}))


def _objective(text: str) -> tuple[str, str]:
    """Name and direction of the objective."""
    from hpc_train.training.monitor import parse, usual_directions

    if not text:
        raise UserError(
            "--objective is missing: which metric of validation shall be best? --objective accuracy, or loss"
        )
    try:
        name, way = parse(text)
    except UserError as error:
        raise UserError(str(error).replace("--monitor", "--objective")) from error
    known = usual_directions()
    way = way or ("min" if name.endswith("_loss") else known.get(name))
    if way is None:
        near = [f"did you mean {one}? Else" for one in difflib.get_close_matches(name, known, 1, 0.8)]
        raise UserError(
            f"--objective {name}: {''.join(near) or 'whether more or less of it is better is not known;'} write "
            f"{name}:min or {name}:max"
        )
    return name, way
