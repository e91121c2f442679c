"""Synchronised batch normalisation on two real ranks: one launch, many statements about it."""

import re
from pathlib import Path

import pytest
from launch import outcomes_of

SCRIPT = Path(__file__).parent / "ranks" / "batch_norm.py"
CHECKS = re.findall(r"^    (\w+),$", SCRIPT.read_text(), re.M)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    return outcomes_of(SCRIPT, 2, tmp_path_factory.mktemp("batch_norm"))


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(outcomes, check):
    assert not outcomes[check], outcomes[check]
