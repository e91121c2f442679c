"""The Keras 3 layer on real ranks: one launch a world size, many statements about it."""

import pytest
from launch import RANKS, checks_of, outcomes_of, sizes

SCRIPT = RANKS / "layer.py"
CHECKS = checks_of(SCRIPT, 3)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    seen = {}

    def on(ranks):
        if ranks not in seen:
            seen[ranks] = {}  # a launch that fails is not tried again for every statement
            seen[ranks] = outcomes_of(SCRIPT, ranks, tmp_path_factory.mktemp("layer"))
        return seen[ranks]

    return on


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("ranks", sizes(2, 4))
def test_on_ranks(outcomes, ranks, check):
    failures = outcomes(ranks).get(check, "the launch failed: see the first failure")
    assert not failures, failures
