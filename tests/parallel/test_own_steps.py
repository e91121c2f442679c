"""Models with a training step and optimizers of their own, on real ranks: one launch a world size."""

import pytest
from launch import RANKS, checks_of, outcomes_of, sizes

SCRIPT = RANKS / "own_steps.py"
CHECKS = checks_of(SCRIPT, 3)


@pytest.fixture(scope="module", params=sizes(3, 2))
def outcomes(request, tmp_path_factory):
    return outcomes_of(SCRIPT, request.param, tmp_path_factory.mktemp("own"))


@pytest.mark.parametrize("check", CHECKS)
def test_on_ranks(outcomes, check):
    assert not outcomes[check], outcomes[check]
