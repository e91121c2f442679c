"""What the words of --space mean, and which values a grid has."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as of

from hpc_train.errors import UserError
from hpc_train.scan.space import Dimension, Space, read

WHOLE = of.integers(-(10**6), 10**6)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("lr=log:1e-4..1e-1", Dimension("float", low=1e-4, high=1e-1, log=True)),
        ("--batch-size=32,64", Dimension("choice", ("32", "64"))),
        ("units=int:16..256", Dimension("int", low=16, high=256)),
        ("units=int:16..256:16", Dimension("int", low=16, high=256, step=16)),
        ("units=int:log:1..1000", Dimension("int", low=1, high=1000, log=True)),
        ("dropout=0..0.5", Dimension("float", low=0, high=0.5)),
        ("dropout=.1...5", Dimension("float", low=0.1, high=0.5)),
        ("x=float:1..5", Dimension("float", low=1, high=5)),
        ("x=-1.5..-0.5:0.25", Dimension("float", low=-1.5, high=-0.5, step=0.25)),
        ("data=/a/b..c,/d", Dimension("choice", ("/a/b..c", "/d"))),
    ],
)
def test_a_word_is_a_dimension(word, meant):
    (found,) = read([word]).dimensions.values()
    assert found == meant


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--space is missing or empty"),
        (["lr"], "--space lr: there is no such file"),
        (["lr="], "a value is empty or there twice"),
        (["lr=0.1"], "one value is no scan; put it after `--`"),
        (["lr=0.1,0.1"], "a value is empty or there twice"),
        (["lr=0.5..0.1"], "nothing lies in 0.5..0.1"),
        (["lr=1..1"], "nothing lies in 1..1"),
        (["lr=1..5"], "whole numbers only? Write int:1..5, else float:1..5"),
        (["lr=log:0.0..1.0"], "log: needs numbers above 0"),
        (["lr=int:0.5..2"], "int: needs whole numbers"),
        (["lr=a..b"], "'a' is no number"),
        (["lr=1e999..2e999"], "'1e999' is no number"),
        (["lr=0.0..1.0:2.0"], "the step 2.0 does not fit"),
        (["lr=1,2", "lr=3,4"], "lr is there twice"),
        (["l r=1,2"], "write NAME=A,B,C"),
        (["mine.py:space", "lr=1,2"], "is a function, which gives all values; give it alone"),
        (["missing.py:space"], "missing.py: there is no such file"),
    ],
)
def test_a_wrong_word_is_one_line(words, said):
    with pytest.raises(UserError) as told:
        read(words)
    assert said in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_has_a_word_on_each_line(tmp_path):
    file = tmp_path / "space.txt"
    file.write_text("# rates\nlr = log:1e-4..1e-1\n\nmodel=cnn,deep\n")
    assert list(read([str(file), "units=int:1..4"]).dimensions) == ["lr", "model", "units"]


@given(low=WHOLE, count=of.integers(1, 50), step=of.integers(1, 20), rest=of.integers(0, 19))
def test_a_stepped_range_has_the_values_that_its_distribution_may_give(low, count, step, rest):
    one = Dimension("int", low=low, high=low + count * step + min(rest, step - 1), step=step)
    assert one.values() == list(range(low, low + count * step + 1, step))
    assert all(one.distribution()._contains(value) for value in one.values())


@given(steps=of.integers(1, 200), step=of.sampled_from([0.1, 0.05, 0.3, 1e-3]))
def test_steps_that_no_float_holds_exactly_lose_no_value(steps, step):
    one = Dimension("float", low=0, high=steps * step, step=step)
    assert one.values() == [pytest.approx(number * step) for number in range(steps + 1)]


@given(sizes=of.lists(of.integers(2, 4), min_size=1, max_size=4), seed=of.integers(0, 99))
def test_a_grid_has_each_point_once_in_an_order_of_the_seed(sizes, seed):
    space = Space({f"x{place}": Dimension("int", low=0, high=size - 1) for place, size in enumerate(sizes)})
    points = space.points(seed)
    assert len({tuple(point.values()) for point in points}) == len(points) == math.prod(sizes)
    assert points == space.points(seed)


def test_a_grid_of_any_numbers_is_refused():
    with pytest.raises(UserError, match="lr has no list of values; write NAME=A,B,C or give a step"):
        read(["lr=log:1e-4..1e-1"]).points(0)
