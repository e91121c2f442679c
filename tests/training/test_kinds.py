"""Inputs and targets of every kind on real ranks: one launch a world size."""

import re

import pytest
from launch import RANKS, outcomes_of

SCRIPT = RANKS / "kinds.py"
CHECKS = [name for name in re.findall(r"^def (\w+)\(\):", SCRIPT.read_text(), re.M) if name.count("_") >= 4]


@pytest.fixture(scope="module", params=[2, 3])
def outcomes(request, tmp_path_factory):
    return outcomes_of(SCRIPT, request.param, tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("check", CHECKS)
def test_ten_steps_on_ranks_are_those_of_one_process(outcomes, check):
    assert not outcomes[check], outcomes[check]
