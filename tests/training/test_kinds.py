"""Inputs and targets of every kind on real ranks: one launch a world size."""

import pytest
from launch import RANKS, checks_of, outcomes_of

SCRIPT = RANKS / "kinds.py"
CHECKS = checks_of(SCRIPT, 4)


@pytest.fixture(scope="module", params=[2, 3])
def outcomes(request, tmp_path_factory):
    return outcomes_of(SCRIPT, request.param, tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("check", CHECKS)
def test_ten_steps_on_ranks_are_those_of_one_process(outcomes, check):
    assert not outcomes[check], outcomes[check]
