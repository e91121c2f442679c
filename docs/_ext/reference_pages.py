"""Writes reference/: a page for each command and each trainer, with its options, from the classes that define them.

The options and their groups are those of `--help`. No TensorFlow is imported.
"""

import dataclasses
import importlib
import inspect
import re
from pathlib import Path

from hpc_train import cli
from hpc_train.help import page as help_page
from hpc_train.trainers import TRAINERS

_MARKUP = set("\\*_<>[]{}$#|~")


@dataclasses.dataclass(frozen=True)
class Page:
    """One command: its file in reference/, what is typed, what it is for, and the class or classes of its options."""

    file: str
    call: str
    purpose: str
    options: object


def command_pages() -> list[Page]:
    """The pages of `hpc-train COMMAND`, in the order of `hpc-train --help`."""
    return [
        Page(name.replace(" ", "-"), f"hpc-train {name}", purpose, getattr(importlib.import_module(module), options))
        for name, (module, options, purpose) in cli._COMMANDS.items()
    ]


def trainer_pages() -> list[Page]:
    """The pages of the trainers."""
    return [
        Page(f"trainer-{name}", f"python -m hpc_train.{name}", f"train {trainer.trains}", trainer.module.Options)
        for name, trainer in TRAINERS.items()
    ]


def render(page: Page) -> str:
    """The page in MyST Markdown."""
    kinds = help_page.commands(page.options)
    if kinds:
        about, groups = _of_trainers(page, kinds)
    else:
        about, groups = _escape(inspect.cleandoc(page.options.__doc__)), help_page.groups(page.options)
    members = [option for group in groups.values() for option in group]
    words = ["|".join(kinds)] if kinds else []
    words += [f"{option.words} {option.values}" for option in members if option.required and not option.positional]
    words += ["[OPTIONS]", *(option.words for option in members if option.positional)]
    lines = [f"# {page.call}", "", about, "", "```text", " ".join([page.call, *words]), "```", ""]
    lines += [f"```{{program}} {page.call}", "```", ""]
    for title, group in groups.items():
        lines += [f"## {title.capitalize()}", ""]
        for option in group:
            lines += _option(option)
    return "\n".join(lines)


def _of_trainers(page: Page, kinds: dict[str, type]) -> tuple[str, dict]:
    """Text and options of a command that takes a trainer and its options: the options of the command itself."""
    theirs = {option.name for trainer in TRAINERS.values() for option in _members(trainer.module.Options)}
    own = [option for option in _members(next(iter(kinds.values()))) if option.name not in theirs]
    links = ", ".join(f"[{name}](trainer-{name}.md)" for name in kinds)
    about = f"{_escape(page.purpose.capitalize())}. A trainer is named first. Its own options may follow, as far as\n"
    return about + f"they change what a step computes: {links}.", {"options": own}


def _members(options: type) -> list[help_page.Option]:
    return [option for group in help_page.groups(options).values() for option in group]


def _option(option: help_page.Option) -> list[str]:
    state = "Required." if option.required else f"Default: `{option.default}`."
    usage = f"{option.words} {option.values}".rstrip()
    return [f"````{{option}} {usage}", _escape(option.text), "", state, "````", ""]


def _escape(text: str) -> str:
    """Plain text as Markdown: what stands in backquotes is code, and so are the names of options."""
    parts = re.split(r"(`[^`]*`|(?<![\w-])--[a-z][\w-]*)", text)
    for place, part in enumerate(parts):
        if place % 2:
            parts[place] = f"`{part.strip('`')}`"
        else:
            parts[place] = "".join("\\" + letter if letter in _MARKUP else letter for letter in part)
    return "".join(parts)


def index(commands: list[Page], trainers: list[Page]) -> str:
    """The page that lists all others."""
    lines = ["# Commands and options", "", "These pages are made from the code. `--help` prints the same.", ""]
    for title, pages in (("Trainers", trainers), ("Commands", commands)):
        lines += [f"## {title}", "", "| command | what it does |", "|---|---|"]
        lines += [f"| [`{page.call}`]({page.file}.md) | {_escape(page.purpose)} |" for page in pages]
        lines += ["", "```{toctree}", ":hidden:", "", *(f"{page.call} <{page.file}>" for page in pages), "```", ""]
    return "\n".join(lines)


def write(folder: Path) -> None:
    """Write the pages that have changed, and remove those of commands that are gone."""
    commands, trainers = command_pages(), trainer_pages()
    texts = {f"{page.file}.md": render(page) for page in commands + trainers}
    texts["index.md"] = index(commands, trainers)
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    for name, text in texts.items():
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def setup(app):
    """Sphinx calls it."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir, "reference")))
    return {"parallel_read_safe": True}
