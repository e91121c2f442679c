"""Models without weights before their first batch, on two real ranks: one launch, many statements about it."""

import re

import pytest
from launch import RANKS, outcomes_of

SCRIPT = RANKS / "unbuilt.py"
CHECKS = re.findall(r"^    (\w+),$", SCRIPT.read_text(), re.M)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return outcomes_of(SCRIPT, 2, tmp_path_factory.mktemp("unbuilt"))


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(outcomes, check):
    assert not outcomes[check], outcomes[check]
