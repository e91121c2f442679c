"""The optimizer chain and accumulation on two real ranks: one launch, many statements about it."""

import pytest
from launch import RANKS, checks_of, outcomes_of

SCRIPT = RANKS / "optimizers.py"
CHECKS = checks_of(SCRIPT, 4)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return outcomes_of(SCRIPT, 2, tmp_path_factory.mktemp("optimizers"))


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(outcomes, check):
    assert not outcomes[check], outcomes[check]
