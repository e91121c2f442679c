"""What --help prints: each option once, with its default, in groups, within the width of the terminal."""

import dataclasses
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pytest
import tyro

from hpc_train import cli, mnist
from hpc_train.bench.throughput.options import BENCHMARKS
from hpc_train.help import completion
from hpc_train.help import page as help_page
from hpc_train.trainers import TRAINERS

COMMANDS = {f"hpc-train {name}": cli._options(name) for name in cli._COMMANDS}
CLASSES = {
    **{f"python -m hpc_train.{name}": trainer.module.Options for name, trainer in TRAINERS.items()},
    **{name: options for name, options in COMMANDS.items() if dataclasses.is_dataclass(options)},
    **{f"hpc-train bench throughput {name}": options for name, options in BENCHMARKS.items()},
}


def lines_of_options(text):
    """The line that names each option, by option."""
    lines = [line for line in text.splitlines() if re.match(r"  (--|-h|\[?[A-Z])", line)]
    return {re.match(r"  ([^ ,]+)", line).group(1): line for line in lines}, len(lines)


def parts_of(text):
    """The text of each option, by option, in one line."""
    parts = re.split(r"\n(?=  (?:--|-h|\[?[A-Z]))|\n\n", text)
    return {part.split()[0].rstrip(","): " ".join(part.split()) for part in parts if part.startswith("  ")}


@pytest.mark.parametrize("width", [80, 160])
@pytest.mark.parametrize("trainer", TRAINERS)
def test_each_option_of_a_trainer_is_shown_once_with_its_default(trainer, width):
    text = help_page.page(TRAINERS[trainer].module.Options, trainer, width)
    named, count = lines_of_options(text)
    fields = dataclasses.fields(TRAINERS[trainer].module.Options)
    # The model of one's own is typed without a name.
    typed = {field.name: "--" + field.name.replace("_", "-") for field in fields} | {"build": "BUILD"}
    assert set(named) == {typed[field.name] for field in fields} | {"-h"}
    assert count == len(fields) + 1
    parts = parts_of(text)
    for field in fields:
        shown = parts[typed[field.name]]
        if field.default is dataclasses.MISSING:
            assert shown.endswith("(required)")
        elif field.default in (None, ()):
            assert shown.endswith("(default: not set)")
        elif isinstance(field.default, bool):
            assert shown.endswith(f"(default: {'on' if field.default else 'off'})")
        elif isinstance(field.default, tuple):
            assert shown.endswith(f"(default: {' '.join(map(str, field.default))})")
        else:
            assert shown.endswith(f"(default: {field.default})")


@pytest.mark.parametrize(
    ("trainer", "titles"),
    [
        ("mnist", "data, network, recipe, run, image, transfer learning, reading, communication"),
        ("resnet", "data, network, recipe, run, image, transfer learning, reading, communication"),
        ("climate", "data, network, recipe, loss, run, field, image, transfer learning, reading, communication"),
    ],
)
def test_the_options_of_a_trainer_are_in_groups_the_most_used_first(trainer, titles):
    groups = help_page.groups(TRAINERS[trainer].module.Options)
    assert ", ".join(groups) == titles
    text = help_page.page(TRAINERS[trainer].module.Options, trainer, 80)
    assert re.findall(r"^([a-z ]+) options:$", text, flags=re.M) == list(groups)
    first = {title: [option.name for option in group] for title, group in groups.items()}
    assert first["data"][0] == "data"
    assert first["network"][0] == "model"
    assert first["recipe"][:3] == ["epochs", "batch_size", "lr"]
    assert first["run"][:2] == ["run", "resume"]


@pytest.mark.parametrize("name", CLASSES)
def test_every_option_has_a_text_and_a_known_group(name):
    options = CLASSES[name]
    groups = help_page.groups(options)
    assert set(groups) <= {"arguments", *getattr(options, "GROUPS", ("options",))}
    assert [option.name for group in groups.values() for option in group if not option.text.endswith(".")] == []


@pytest.mark.parametrize("width", [60, 80, 160, 300])
def test_no_line_is_wider_than_the_terminal(width):
    for name, options in (CLASSES | COMMANDS).items():
        lines = help_page.page(options, name, width).splitlines()
        assert [line for line in lines if len(line) > min(width, 160)] == [], name
        assert [line for line in lines if line != line.rstrip()] == [], name


@pytest.mark.parametrize("name", CLASSES)
def test_help_names_what_the_command_line_takes(name, capsys):
    """The command line is read by tyro, whose own help is the measure."""
    with pytest.raises(SystemExit):
        tyro.cli(CLASSES[name], prog="x", args=["--help"])
    taken = set(re.findall(r"^\W (--[\w-]+)", capsys.readouterr().out, flags=re.M))
    assert taken
    assert set(re.findall(r"^  (--[\w-]+)", help_page.page(CLASSES[name], "x", 80), flags=re.M)) == taken


@dataclass(frozen=True)
class Base:
    """Options of two kinds."""

    GROUPS = "common", "own"
    GROUP = "own"
    colour: Literal["red", "green"] = "red"
    """Colour of the
    thing."""


@dataclass(frozen=True)
class Common:
    """Options of one kind."""

    GROUP = "common"
    size: int = 3
    """Size."""
    weights: tuple[float, ...] = ()
    """Weights."""


@dataclass(frozen=True)
class Derived(Common, Base):
    """A thing."""

    size: int = 4
    number: tuple[int, float] | None = None
    """Number."""
    quick: bool = True
    """Be quick."""


def test_a_class_of_options_names_its_group():
    option = help_page.Option
    assert help_page.groups(Derived) == {
        "common": [
            option("size", "--size", "INT", "4", "Size."),
            option("weights", "--weights", "[FLOAT ...]", "not set", "Weights."),
        ],
        "own": [
            option("colour", "--colour", "{red,green}", "red", "Colour of the thing."),
            option("number", "--number", "INT FLOAT", "not set", "Number."),
            option("quick", "--quick, --no-quick", "", "on", "Be quick."),
        ],
    }


def test_the_page_of_a_command():
    assert help_page.page(Derived, "thing", 40) == (
        "usage: thing [OPTIONS]\n\nA thing.\n\n"
        "common options:\n  --size INT\n      Size. (default: 4)\n"
        "  --weights [FLOAT ...]\n      Weights. (default: not set)\n\n"
        "own options:\n  --colour {red,green}\n      Colour of the thing.\n      (default: red)\n"
        "  --number INT FLOAT\n      Number. (default: not set)\n"
        "  --quick, --no-quick\n      Be quick. (default: on)\n\n"
        "help:\n  -h, --help\n      Print this help."
    )
    wide = help_page.page(Derived, "thing", 120)
    assert "  --size INT                          Size. (default: 4)\n" in wide


@pytest.mark.parametrize(
    ("words", "asks"), [("--help", True), ("mnist -h", True), ("s --np 1 -- mnist --help", False), ("", False)]
)
def test_what_follows_two_dashes_is_for_another_command(words, asks):
    assert help_page.wanted(words.split()) == asks


def test_a_trainer_prints_its_help_at_once_on_rank_0_alone():
    code = (
        "import sys; from hpc_train import command_line, mnist\n"
        "try: command_line.main(mnist.Options, mnist.run, 'mnist', ['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'tensorflow', 'keras', 'horovod', 'h5py'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    env = {**os.environ, "COLUMNS": "80", "HOROVOD_SIZE": "2"}
    for rank, said in ("0", help_page.page(mnist.Options, "mnist", 80) + "\n"), ("1", ""):
        rank_env = {**env, "HOROVOD_RANK": rank, "HOROVOD_LOCAL_RANK": rank}
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=rank_env)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, said, "")


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("", "help completion build-horovod port templates submit scan prepare shard"),
        ("ti", "timeline"),
        ("bench th", "throughput"),
        ("bench throughput ", "mnist resnet climate fit"),
        ("bench throughput climate --class-m", "--class-map"),
        ("prepare s", "storm-tracks"),
        ("prepare i", "idx image-folder"),
        ("prepare storm-tracks --ra", "--radius-km --radius-degrees"),
        ("inspect --data x --no-", "--no-follow-external --no-json"),
        ("inspect --data ", ""),
        ("completion ", "bash"),
    ],
)
def test_bash_completes_commands_and_options(typed, completed):
    script = completion.script({name: cli._options(name) for name in cli._COMMANDS}, ("help", "completion bash"))
    ask = 'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hpc_train; echo "${COMPREPLY[*]}"'
    words = ["hpc-train", *typed.split(" ")]
    ended = subprocess.run(["bash", "-c", f"{script}\n{ask}", "bash", *words], capture_output=True, text=True)
    assert ended.stderr == ""
    assert ended.stdout.startswith(completed)
    if typed:
        assert ended.stdout == completed + "\n"
