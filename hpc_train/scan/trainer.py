"""The trainer that a scan runs: its command line, which is checked before anything starts, and the words of a trial."""

import contextlib
import difflib
import io
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

from hpc_train import command_line
from hpc_train.errors import UserError
from hpc_train.scan.space import MARK, Space
from hpc_train.scan.study import Settings
from hpc_train.trainers import TRAINERS

_BUILD_ARGS = "--build-args"
# The scan sets them for every trial.
_OURS = {"run": "each trial has its own run folder", "resume": "trials resume by themselves"}
_OURS["checkpoints"] = "each trial has its own, in its run folder"
_OURS["monitor"] = "trials keep their best model by --objective"


@dataclass(frozen=True)
class Trainer:
    """A trainer with the options that all trials share.

    Args:
        name: of the suite's trainers, or a script of the user's own, FILE.py.
        words: the options.
    """

    name: str
    words: tuple[str, ...]

    @property
    def own(self) -> bool:
        """Whether it is a script of the user's own, whose options are not known here."""
        return self.name.endswith(".py")

    @property
    def program(self) -> list[str]:
        """What follows `python` in its command."""
        return [self.name] if self.own else ["-m", f"hpc_train.{self.name}"]

    def check(self, space: Space) -> None:
        """Check the options, the names of the space, and values of it.

        Raises:
            UserError: one of them is wrong.
            SystemExit: the trainer's own command line refuses it, and has said why.
        """
        if self.name not in TRAINERS and not self.own:
            near = difflib.get_close_matches(self.name, TRAINERS, 1)
            guess = f"did you mean {near[0]}?" if near else f"give {', '.join(TRAINERS)}, or FILE.py, after `--`"
            raise UserError(f"no trainer {self.name!r}: {guess}" if self.name else f"no trainer is given: {guess}")
        given = {word.split("=")[0].lstrip("-").replace("-", "_") for word in self.words if word.startswith("--")}
        for name, why in _OURS.items():
            if name in given or name in space.dimensions:
                raise UserError(f"leave --{name} out: {why}")
        for name in space.dimensions:
            if name.replace("-", "_") in given:
                raise UserError(f"--{name} is after `--`, and in --space too: leave one of the two out")
        if self.own:
            if not Path(self.name).is_file():
                raise UserError(f"no file {self.name} in {Path.cwd()}: check the name of the trainer")
        else:
            self._parse(self.words)
        first = {name: one.samples()[0] for name, one in space.dimensions.items()}
        for name, one in space.dimensions.items():
            for value in one.samples():
                self._check_value(name, value, self.trial_words({**first, name: value}))
        if first and not self.own:
            TRAINERS[self.name].module.task(self._parse((*self.words, *self.trial_words(first))))

    def _check_value(self, name: str, value: Any, words: list[str]) -> None:
        if self.own:
            return
        said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
                self._parse((*self.words, *words))
        except SystemExit as end:
            # A box, with the error first and then the help of the option.
            text = re.sub(r"[-─]{5,}|[│╭╮╰╯]", " ", said.getvalue().partition("Argument helptext")[0])
            text = " ".join(text.split()).removeprefix("Value error ")
            raise UserError(f"--space {name}: {self.name} does not take the value {value}: {text[:300]}") from end

    def trial_words(self, values: Mapping[str, Any]) -> list[str]:
        """The words of the command line that give a trial its values.

        Args:
            values: by the names of options, or of arguments of the user's function that makes the model.

        Raises:
            UserError: there is no option or argument of a name.
        """
        words: list[str] = []
        arguments: list[str] = []
        for spelled, value in values.items():
            name = spelled.replace("-", "_")
            if self.own:
                # Its options are spelled as the user spells them, and may be of any kind.
                words.append(f"--{spelled}={value}")
            elif self._is_argument(name):
                arguments.append(f"{name.removeprefix(MARK)}={value}")
            elif str(value) in ("True", "False"):
                words.append(f"--{'no-' * (str(value) == 'False')}{name.replace('_', '-')}")
            elif name in self._several():
                words += [f"--{name.replace('_', '-')}", *_split(name, str(value))]
            else:
                words.append(f"--{name.replace('_', '-')}={value}")
        # Two lists of arguments would not add up.
        return [*words, _BUILD_ARGS, *self._own_arguments(), *arguments] if arguments else words

    def command(self, words: Iterable[str], run: Path, monitor: str) -> list[str]:
        """What follows the program in the command of a trial.

        Args:
            words: of the trial.
            run: its run folder.
            monitor: the objective with its direction.
        """
        return [*self.words, *words, "--monitor", monitor, "--run", str(run), "--resume"]

    def _is_argument(self, name: str) -> bool:
        """Whether a name is of an argument of the user's function; it is checked."""
        options = {field.name for field in fields(TRAINERS[self.name].module.Options)} - {"build", "build_args"}
        taken, anything = self._arguments()
        bare = name.removeprefix(MARK)
        if bare in taken and bare in options and bare == name:
            raise UserError(
                f"--space {name}: fit has such an option, and your function such an argument; write {MARK}{name}=... "
                "for the argument, or give the argument another name"
            )
        if name in options:
            return False
        if bare in taken or anything:
            return True
        near = difflib.get_close_matches(bare, [*options, *taken], 1)
        guess = f"did you mean {near[0]}?" if near else f"`python -m hpc_train.{self.name} --help` lists them"
        raise UserError(f"--space {name}: {self.name} has no such option{' or argument' * bool(taken)}; {guess}")

    def _arguments(self) -> tuple[Sequence[str], bool]:
        """(the names of arguments of the user's function, whether it takes any)."""
        return _arguments(self) if self.name == "fit" else ((), False)

    def _own_arguments(self) -> list[str]:
        if _BUILD_ARGS not in self.words:
            return []
        rest = self.words[self.words.index(_BUILD_ARGS) + 1 :]
        end = next((place for place, word in enumerate(rest) if word.startswith("--")), len(rest))
        return list(rest[:end])

    def _several(self) -> set[str]:
        """Names of options that take several words."""
        if self.own:
            return set()
        return {field.name for field in fields(TRAINERS[self.name].module.Options) if "tuple" in str(field.type)}

    def _parse(self, words: Sequence[str]):
        from hpc_train.training.options import check

        found = command_line.parse(TRAINERS[self.name].module.Options, f"python -m hpc_train.{self.name}", words)
        check(found)
        return found


@lru_cache
def _arguments(trainer: Trainer) -> tuple[Sequence[str], bool]:
    from hpc_train.training.own_model import script

    return script.parameters(trainer._parse(trainer.words).build) or ((), True)


def _split(name: str, value: str) -> list[str]:
    try:
        return shlex.split(value)
    except ValueError as error:
        raise UserError(f"--space {name}: {value}: {str(error).lower()}; fix the quotes in it") from error


def again(settings: Settings, words: Sequence[str]) -> str:
    """The command that trains a trial's model again, from the folder in which the scan was started.

    Args:
        settings: of the study.
        words: of the trial.
    """
    trainer = Trainer(settings.trainer, tuple(settings.options))
    launcher = launched(settings)
    monitor = ["--monitor", f"{settings.objective}:{settings.direction}"]
    return shlex.join([*launcher, "python", *trainer.program, *trainer.words, *words, *monitor])


def launched(settings: Settings) -> list[str]:
    """The words that start the ranks of a trial; none for one rank."""
    ranks = settings.ranks_per_trial
    return [word.replace("{np}", str(ranks)) for word in shlex.split(settings.launcher)] if ranks > 1 else []
