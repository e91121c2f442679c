"""--build-args: values for the arguments of a user's function, and what a file says that its function takes."""

import re
import sys

import pytest

from hpc_train import fit
from hpc_train.errors import UserError
from hpc_train.parallel import World
from hpc_train.training.own_model import build_args, script
from hpc_train.training.run_folder import Run

FUNCTIONS = """
raise RuntimeError("this file is not run")

def build(catalogue, units=64, *, dropout: "share" = 0.2, name): ...
def nothing(): ...
def named(catalogue=None, units=64): ...
def by_place(first, second, /, third): ...
def no_catalogue(units=64, depth=2): ...
def any_name(catalogue, units=1, **more): ...
def any_value(*values, width): ...
def twice(width): ...
def twice(catalogue, height): ...
"""
UNTOLD = """
from functools import partial
from elsewhere import build as imported
import package.function
def changed(width): ...
changed = partial(changed, width=3)
def of_the_star(width): ...
from elsewhere import *
class Network:
    def __init__(self, width): ...
short = lambda width: None
@decorated
def wrapped(width): ...
async def later(width): ...
if short:
    def maybe(width): ...
try:
    def tried(width): ...
except ImportError:
    tried = None
"""


def file(folder, text):
    path = folder / "mine.py"
    path.write_text(text)
    return path


def refused(function, *arguments):
    with pytest.raises(UserError) as caught:
        function(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("-1", -1),
        ("1e-3", 0.001),
        ("True", True),
        ("False", False),
        ("None", None),
        ("(64, 32)", (64, 32)),
        ("64,32", (64, 32)),
        ("[1, [2.5, 'a']]", [1, [2.5, "a"]]),
        ("wide", "wide"),
        ("'64'", "64"),
        ("'true'", "true"),
        ("none", "none"),
        ("a=b", "a=b"),
        ("nan", "nan"),
        ("1+2j", "1+2j"),
        ("{1: 2}", "{1: 2}"),
        ("b'a'", "b'a'"),
        ("2018-10-11", "2018-10-11"),
        ("007", "007"),
        ("64 units", "64 units"),
        ("__import__('os')", "__import__('os')"),
        ("[wide]", "[wide]"),
        ("(" * 5000, "(" * 5000),
        ("1 if 1is 1 else 2", "1 if 1is 1 else 2"),
        ("$", "$"),
    ],
)
@pytest.mark.filterwarnings("error::SyntaxWarning")
def test_values_are_literals_of_python_or_text(text, value):
    (read,) = build_args.read((f"argument={text}",)).values()
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("units",), "--build-args units: write NAME=VALUE"),
        (("=3",), "--build-args =3: write NAME=VALUE"),
        (("units=",), "--build-args units=: write NAME=VALUE"),
        (("hidden-units=3",), "--build-args hidden-units=3: write NAME=VALUE"),
        (("two\nlines",), r"--build-args two\nlines: write NAME=VALUE"),
        (("units=3", "name=a", "units=4"), "--build-args units=4: units is there twice; give it once"),
        (("bias=false",), "--build-args bias=false: write bias=False, or for text bias=\"'false'\""),
    ],
)
def test_words_that_name_no_value_are_one_line(words, message):
    assert message in refused(build_args.read, words)


@pytest.mark.parametrize(
    ("function", "names", "any_other"),
    [
        ("build", ["units", "dropout", "name"], False),
        ("nothing", [], False),
        ("named", ["units"], False),
        ("by_place", ["third"], False),
        ("no_catalogue", ["units", "depth"], False),
        ("any_name", ["units"], True),
        ("any_value", ["width"], False),
        ("twice", ["height"], False),
    ],
)
def test_a_file_says_what_its_function_takes_without_being_run(tmp_path, function, names, any_other):
    assert script.parameters(f"{file(tmp_path, FUNCTIONS)}:{function}") == (names, any_other)


@pytest.mark.parametrize(
    "function",
    [
        "imported",
        "package",
        "changed",
        "of_the_star",
        "Network",
        "short",
        "wrapped",
        "later",
        "maybe",
        "tried",
        "absent",
    ],
)
def test_what_a_file_does_not_say_is_not_guessed(tmp_path, function):
    assert script.parameters(f"{file(tmp_path, UNTOLD)}:{function}") is None


def test_a_file_that_cannot_be_read_says_nothing(tmp_path):
    assert script.parameters(f"{file(tmp_path, 'def build(:')}:build") is None
    assert script.parameters(f"{file(tmp_path, 'def build(): 0' + chr(0))}:build") is None
    assert script.parameters(f"{tmp_path / 'absent.py'}:build") is None
    assert script.parameters(f"{file(tmp_path, FUNCTIONS)}:absent") is None
    assert script.parameters("build") is None


def test_a_module_is_found_in_this_folder_and_its_packages_are_not_imported(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("of_ones_own", "without_init/inner"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "of_ones_own" / "__init__.py").write_text(FUNCTIONS)
    for name in ("of_ones_own", "without_init", "without_init/inner"):
        (tmp_path / name / "networks.py").write_text(FUNCTIONS)
    for place in ("of_ones_own", "of_ones_own.networks", "without_init.networks", "without_init.inner.networks"):
        assert script.parameters(f"{place}:no_catalogue") == (["units", "depth"], False)
        assert place not in sys.modules
    for place in ("of_ones_own.absent", "of_ones_own.networks.deeper", "absent", "..", "math"):
        assert script.parameters(f"{place}:no_catalogue") is None


@pytest.mark.parametrize(
    ("function", "given", "message"),
    [
        (
            "build",
            {"name": "a", "unit": 3},
            r"has no argument unit; did you mean units\? It takes units, dropout, name",
        ),
        ("build", {"name": "a", "zzz": 3}, "has no argument zzz; it takes units, dropout, name"),
        ("nothing", {"units": 3}, "has no argument units; it takes none by name; add units to its definition"),
        ("build", {"catalogue": 3}, "gets the catalogue of the data as catalogue; leave it out"),
        ("named", {"catalogue": 3}, "gets the catalogue of the data as catalogue; leave it out"),
        ("any_name", {"catalogue": 3}, "gets the catalogue of the data as catalogue; leave it out"),
        ("twice", {"height": 3, "catalogue": 3}, "gets the catalogue of the data as catalogue; leave it out"),
        ("by_place", {"third": 3, "first": 4}, "gets the catalogue of the data as first; give it a default"),
        ("by_place", {"third": 3, "second": 4}, "has no argument second; it takes third"),
        ("build", {"units": 3}, "missing a required .*argument: 'name'; .* as --build-args NAME=VALUE"),
        ("by_place", {"third": 3}, "missing a required argument: 'second'; .* as --build-args NAME=VALUE"),
    ],
)
def test_arguments_that_a_function_does_not_take_are_one_line(tmp_path, function, given, message):
    """Before the file is run, and by the function itself."""
    text = FUNCTIONS.replace('raise RuntimeError("this file is not run")', "")
    reference = f"{file(tmp_path, text)}:{function}"
    assert re.search(message, refused(build_args.check, reference, given))
    pytest.importorskip("keras")
    assert re.search(message, refused(script.build, reference, None, given))


def test_the_function_gets_its_arguments_and_the_catalogue(tmp_path):
    keras = pytest.importorskip("keras")
    text = """
import keras
def build(catalogue, units=64, *, name="plain", **more):
    assert more == {"sizes": (1, 2)}
    return keras.Sequential([keras.Input(catalogue), keras.layers.Dense(units)], name=name)
def fails(units=64):
    return 1 / units
short = lambda units=64, name="short": build((3,), units, name=name, sizes=(1, 2))
"""
    mine = file(tmp_path, text)
    model = script.build(f"{mine}:build", (5,), build_args.read(("units=7", "name=wide", "sizes=1,2")))
    assert isinstance(model, keras.Model)
    assert (model.name, model.count_params()) == ("wide", 5 * 7 + 7)
    assert script.build(f"{mine}:short", (5,), {"units": 2}).count_params() == 3 * 2 + 2
    assert "has no argument unit; did you mean units?" in refused(script.build, f"{mine}:short", (5,), {"unit": 2})
    assert "in fails: `return 1 / units`" in refused(script.build, f"{mine}:fails", (5,), {"units": 0})


def test_a_training_refuses_arguments_before_its_file_is_run(tmp_path):
    def options(*words):
        return fit.Options(build=f"{file(tmp_path, FUNCTIONS)}:build", data=tmp_path, loss=("mse",), build_args=words)

    assert "did you mean units?" in refused(fit.task, options("name=a", "unit=3"))
    assert "argument: 'name'; its first argument may take the catalogue" in refused(fit.task, options())
    assert "units is there twice" in refused(fit.task, options("units=3", "units=3"))
    assert fit.task(options("name=a")).name == "mine"


def test_a_resumed_run_has_the_same_arguments(tmp_path):
    def start(*words, resume=True):
        options = fit.Options(build="mine.py:build", data=tmp_path, build_args=words)
        Run(tmp_path / "run").start(options, World(), fit._facts(options, None), resume)

    start("units=64", "sizes=1,2", resume=False)
    start("sizes=(1, 2)", "units=64")
    start("units=64", "sizes=[1, 2]")
    said = refused(start, "sizes=1,2", "units=32")
    assert "its build_args was {'units': 64, 'sizes': [1, 2]} and is now {'sizes': [1, 2], 'units': 32}; give" in said
    assert "and is now {};" in refused(start)
