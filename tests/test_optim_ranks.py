"""The optimizer chain and accumulation on two real ranks: one launch, many statements about it."""

import json
import re
from pathlib import Path

import pytest
from launch import launch

SCRIPT = Path(__file__).parent / "ranks" / "optimizers.py"
CHECKS = [name for name in re.findall(r"^def (\w+)\(\):", SCRIPT.read_text(), re.M) if name.count("_") >= 4]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    path = tmp_path_factory.mktemp("optimizers") / "outcomes.json"
    ended = launch(2, str(SCRIPT), str(path), timeout=300)
    assert ended.status == 0, ended.output[-3000:]
    return json.loads(path.read_text())


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(outcomes, check):
    assert not outcomes[check], outcomes[check]
