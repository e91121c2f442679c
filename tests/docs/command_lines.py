"""Which of the project's command lines a shown command comes down to, and whether its options exist."""

import contextlib
import functools
import importlib
import io
import itertools
import re
from pathlib import Path

import tyro
from launch import REPOSITORY

from hpc_train import cli
from hpc_train.help import page as help_page
from hpc_train.trainers import TRAINERS

# What a page writes where a reader writes a number.
NUMBERS = {"RANKS": "4", "SEED": "0", "N": "4", "STEPS": "10"}
# A trainer that CONTRIBUTING.md shows and nobody has.
_SHOWN_ONLY = "hpc_train.small"
_FIRST = r"(.*/)?(hpc-train|python3?|horovodrun|mpirun|srun|sbatch|apptainer|make|slurm/\w+\.sh)"
_RUN = re.compile(r"python -m (hpc_train\.[\w.]+(?: [a-z-]+)*) \"\$@\"", re.M)


def of(words: list[str]) -> list[str] | None:
    """`hpc-train ...` or `python -m hpc_train.TRAINER ...` within the words of a simple command; None if there is none.

    Launchers and variables before it are left out. A Slurm template stands for what it runs.
    """
    words = [NUMBERS.get(word, word).strip("[]") for word in words]
    words = ["..." if word == "OPTIONS" else word for word in words]
    words = list(itertools.dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
    if not words or not re.fullmatch(_FIRST, words[0]):
        return None
    for place, word in enumerate(words):
        rest = words[place:]
        if word.rpartition("/")[2] == "hpc-train":
            return ["hpc-train", *rest[1:]]
        if re.fullmatch(r"(.*/)?python3?", word) and rest[1:2] == ["-m"] and rest[2].startswith("hpc_train."):
            if rest[2] == _SHOWN_ONLY:
                return None
            return ["hpc-train", *rest[3:]] if rest[2] == "hpc_train.cli" else ["python", *rest[1:]]
        if word == "run" and words[place - 1 : place] == ["apptainer"]:
            return ["hpc-train", *_after_image(rest[1:])]
        if re.fullmatch(r"(.*/)?slurm/\w+\.sh", word) and words[0] != "bash":
            return _of_template(Path(word).name, rest[1:])
        if word == "make" and rest[1:2] == ["mnist"]:
            return ["python", "-m", "hpc_train.mnist", "--data", "x", *_arguments_of_make(rest[2:])]
    return None


def problem(words: list[str], whole: bool = True) -> str | None:
    """What the parser of a command line from `of` says against it; None where it takes it.

    Required options may be missing where `whole` is False, or where the page leaves something out ("...").
    """
    if "..." in words:
        # It stands for options, or for the value of one.
        without = [word for word in words if word != "..."]
        return problem(without, whole=False) and _said(words, whole=False)
    return _said(words, whole)


def _said(words: list[str], whole: bool) -> str | None:
    options, words = _options(words)
    if options is None:
        return " ".join(words)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            parsed = tyro.cli(options, args=words)
    except SystemExit as end:
        missing_only = not whole and re.search("[Rr]equired|Missing", said.getvalue())
        missing_only = missing_only and "nrecognized" not in said.getvalue()
        return None if end.code in (0, None) or missing_only else said.getvalue()
    benchmark = getattr(parsed, "benchmark", ())
    return problem(["hpc-train", "bench", "throughput", *benchmark]) if benchmark else None


@functools.cache
def all_options() -> set[str]:
    """The options of every command and every trainer, as they are typed."""
    kinds = [_class(module, options) for module, options, _ in cli._COMMANDS.values()]
    kinds += [trainer.module.Options for trainer in TRAINERS.values()]
    found = {"--help", "--version", "--tyro-print-completion"}
    for kind in kinds:
        for part in help_page.commands(kind).values() or [kind]:
            for group in help_page.groups(part).values():
                found |= {word for option in group for word in re.findall(r"--[\w-]+", option.words)}
    return found


def _options(words: list[str]) -> tuple[object | None, list[str]]:
    """The class of a command line's options, and the words that it is to take; None and why where there is none."""
    if words[0] == "python":
        trainer = words[2].removeprefix("hpc_train.")
        return (TRAINERS[trainer].module.Options, words[3:]) if trainer in TRAINERS else (None, ["no", words[2]])
    rest = words[1:]
    if rest[:1] == ["help"]:
        rest = [*rest[1:], "--help"]
    if rest[:1] in (["--help"], ["--version"], []) or rest in (["bench"], ["bench", "--help"], ["completion", "bash"]):
        return tuple[()], []
    length = 2 if " ".join(rest[:2]) in cli._COMMANDS else 1
    name = " ".join(rest[:length])
    if name not in cli._COMMANDS:
        return None, ["no command", name]
    module, options, _ = cli._COMMANDS[name]
    return _class(module, options), rest[length:]


def _class(module: str, name: str):
    return getattr(importlib.import_module(module), name)


def _of_template(name: str, arguments: list[str]) -> list[str] | None:
    text = (REPOSITORY / "slurm" / name).read_text()
    if arguments[:1] == ["--help"]:
        return None
    if name == "train.sh":
        module, *options = arguments
        return ["python", "-m", module, *options] if module.startswith("hpc_train.") else None
    if name == "scaling_study.sh":
        return ["hpc-train", "bench", "throughput", *arguments]
    module, *command = _RUN.search(text)[1].split()
    return ["hpc-train", *command, *arguments] if module == "hpc_train.cli" else ["python", "-m", module, *arguments]


def _after_image(words: list[str]) -> list[str]:
    """What follows the image in the arguments of `apptainer run`."""
    image = next(place for place, word in enumerate(words) if word.endswith(".sif") or word == "IMAGE")
    return words[image + 1 :]


def _arguments_of_make(words: list[str]) -> list[str]:
    arguments = next((word.removeprefix("ARGS=") for word in words if word.startswith("ARGS=")), "")
    return arguments.split()
