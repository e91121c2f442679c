"""What `--help` prints: the options of a dataclass in groups, each with its values, its default and its docstring.

A class of options may name the group of the options that it declares, as `GROUP = "run"`. A class with `GROUPS` is
shown in groups, in that order; options of subclasses that name no group are in the `GROUP` of that class. Any other
class is shown as one list.
"""

import ast
import dataclasses
import functools
import inspect
import itertools
import os
import re
import shlex
import shutil
import sys
import textwrap
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

# From this width on, an option and its text are side by side.
_WIDE, _WIDEST, _COLUMN = 120, 160, 38
_VALUES = {int: "INT", float: "FLOAT", str: "STR", Path: "PATH"}


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a command or a trainer, as a user sees it."""

    name: str
    """Name of the field."""
    words: str
    """What a user types: `--batch-size`, `--resume, --no-resume`; in capitals where only the value is typed."""
    values: str
    """The value that follows, such as INT or {sgd,adam}; empty where none follows."""
    default: str | None
    """None where a value is required."""
    text: str
    """The field's docstring, in one line."""

    @property
    def required(self) -> bool:
        """Whether there is no default."""
        return self.default is None

    @property
    def positional(self) -> bool:
        """Whether only the value is typed."""
        return not self.words.startswith("-")


def groups(options: type) -> dict[str, list[Option]]:
    """The options of a dataclass by group, in the order in which help and reference pages show them.

    Args:
        options: a dataclass whose fields are options.

    Returns:
        Options by the title of their group: "arguments" for values without a name, then the groups of `GROUPS`, or
        "options" where the class has none.
    """
    order = getattr(options, "GROUPS", ("options",))
    found: dict[str, list[Option]] = {title: [] for title in ("arguments", *order)}
    hints, texts = get_type_hints(options, include_extras=True), _texts(options)
    for field in dataclasses.fields(options):
        option = _option(field, hints[field.name], texts.get(field.name, ""))
        if option is None:
            continue
        title = _group(options, field.name) if hasattr(options, "GROUPS") else "options"
        found.setdefault("arguments" if option.positional else title, []).append(option)
    return {title: members for title, members in found.items() if members}


def wanted(args: Sequence[str]) -> bool:
    """Whether these words of a command line ask for help; words after `--` are for another command."""
    return bool({"-h", "--help"} & set(itertools.takewhile(lambda word: word != "--", args)))


def show(options: Any, prog: str, args: Sequence[str]) -> None:
    """Print the help of a command, or of the sub-command with which `args` begin, as wide as the terminal."""
    if chosen := commands(options).get(args[0]):
        options, prog = chosen, f"{prog} {args[0]}"
    text = page(options, prog, shutil.get_terminal_size().columns)
    if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        # Titles and the names of options in bold.
        text = re.sub(r"^(usage:|\S.*:$|  (?:-h, )?--[\w-]+(?:, --[\w-]+)?)", "\033[1m\\1\033[0m", text, flags=re.M)
    print(text)


def commands(options: Any) -> dict[str, type]:
    """The sub-commands of a command, by name: the classes of a union that tyro.conf.subcommand names."""
    if get_origin(options) not in (Union, types.UnionType):
        return {}
    return {named.__metadata__[0].name: get_args(named)[0] for named in get_args(options)}


def page(options: Any, prog: str, width: int) -> str:
    """The help of a command, in lines of at most `width` columns."""
    width = max(40, min(width, _WIDEST))
    parts = commands(options)
    if parts:
        usage = ["{" + ",".join(parts) + "}", "[OPTIONS]"]
        about = f"`{prog} COMMAND --help` lists the options of each command."
        rows = [("  " + name, inspect.cleandoc(kind.__doc__).split("\n\n")[0]) for name, kind in parts.items()]
        blocks = ["\n".join(["commands:", *_table(rows, width)])]
    else:
        about, lists = inspect.cleandoc(options.__doc__), groups(options)
        members = [option for group in lists.values() for option in group]
        usage = [_typed(option) for option in members if option.required and not option.positional]
        usage += ["[OPTIONS]"] if any(not option.positional for option in members) else []
        usage += [_typed(option) for option in members if option.positional]
        blocks = [_block(title, group, width) for title, group in lists.items()]
    blocks += ["\n".join(["help:", *_table([("  -h, --help", "Print this help.")], width)])]
    head = _wrap(" ".join(["usage:", prog, *usage]), width, "", "    ")
    paragraphs = ["\n".join(_wrap(paragraph, width)) for paragraph in about.split("\n\n") if paragraph]
    return "\n\n".join(["\n".join(head), *paragraphs, *blocks])


def _block(title: str, members: list[Option], width: int) -> str:
    rows = []
    for option in members:
        hint = "(required)" if option.default is None else f"(default: {option.default})"
        # A default is never split over two lines.
        rows.append((f"  {option.words} {option.values}".rstrip(), f"{option.text} " + hint.replace(" ", "\xa0")))
    title = title if title in ("arguments", "options") else f"{title} options"
    return "\n".join([f"{title}:", *_table(rows, width)])


def _table(rows: list[tuple[str, str]], width: int) -> list[str]:
    """Lines with options and their texts: side by side where the terminal is wide enough."""
    lines: list[str] = []
    for typed, text in rows:
        column = _COLUMN if width >= _WIDE else 6
        # Long lists of values break after a comma.
        head = [typed] if len(typed) <= width else _wrap(typed.strip().replace(",", ", "), width, "  ", " " * 10)
        body = _wrap(text, width, " " * column)
        if width >= _WIDE and len(typed) <= column - 2:
            lines += [typed.ljust(column) + body[0].lstrip(), *body[1:]]
        else:
            lines += head + body
    return lines


def _wrap(text: str, width: int, first: str = "", rest: str | None = None) -> list[str]:
    rest = first if rest is None else rest
    # textwrap breaks only at ASCII spaces: a default with non-breaking spaces stays on one line.
    lines = textwrap.wrap(
        re.sub(r"[ \n]+", " ", text), width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False
    )
    return [line.replace("\xa0", " ") for line in lines]


def _typed(option: Option) -> str:
    return option.words if option.positional else f"{option.words} {option.values}"


def _group(options: type, name: str) -> str:
    """The group of the base class that first declared the option."""
    base = next(base for base in reversed(options.__mro__) if name in inspect.get_annotations(base))
    common = next(base for base in options.__mro__ if "GROUPS" in vars(base))
    return vars(base).get("GROUP", common.GROUP)


def _option(field: dataclasses.Field, hint: Any, text: str) -> Option | None:
    """The option of a field; None where it is kept out of the command line."""
    import tyro

    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    if tyro.conf.Suppress in marks:
        return None
    kind = get_args(hint)[0] if marks else hint
    shown = None if field.default is dataclasses.MISSING else _shown(field.default)
    flag = "--" + field.name.replace("_", "-")
    if tyro.conf.Positional in marks:
        word = field.name.upper() + " ..." * (get_args(kind)[1:] == (...,))
        word = word if shown is None else f"[{word}]"
        values = _values(kind)
        return Option(field.name, word, values if values.startswith("{") else "", shown, text)
    if kind is bool:
        return Option(field.name, f"{flag}, --no-{flag[2:]}", "", shown, text)
    return Option(field.name, flag, _values(kind), shown, text)


def _values(kind: Any) -> str:
    """The values that a type takes, as help shows them."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, parts)) + "}"
    if origin in (Union, types.UnionType):
        return "|".join(_values(part) for part in parts if part is not types.NoneType)
    if origin is tuple:
        return f"[{_values(parts[0])} ...]" if parts[1:] == (...,) else " ".join(map(_values, parts))
    return _VALUES[kind]


def _shown(default: Any) -> str:
    if default is None or default in ((), ""):
        return "not set"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return " ".join(shlex.quote(str(value)) for value in default)
    return str(default)


@functools.cache
def _texts(options: type) -> dict[str, str]:
    """Docstrings of the fields of a dataclass, each in one line; that of the most derived class counts."""
    texts: dict[str, str] = {}
    for base in reversed(options.__mro__):
        if not inspect.get_annotations(base):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body
        for field, text in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                texts[field.target.id] = " ".join(text.value.value.split())
    return texts
