"""Inputs and targets of every kind on real ranks: one launch a world size."""

import pytest
from launch import RANKS, checks_of, outcomes_of, sizes

SCRIPT = RANKS / "kinds.py"
CHECKS = checks_of(SCRIPT, 4)


@pytest.fixture(scope="module", params=sizes(3, 2))
def outcomes(request, tmp_path_factory):
    return outcomes_of(SCRIPT, request.param, tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("check", CHECKS)
def test_ten_steps_on_ranks_are_those_of_one_process(outcomes, check):
    assert not outcomes[check], outcomes[check]
