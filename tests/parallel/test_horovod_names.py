"""Horovod's own names on real ranks: one launch a script and world size, many statements about them."""

import json
import re

import pytest
from launch import RANKS, checks_of, launch, outcomes_of, sizes

SCRIPTS = "horovod_optimizer", "horovod_values", "horovod_fit", "horovod_rates"


def checks(script):
    path = RANKS / f"{script}.py"
    least = int(re.search(r'name\.count\("_"\) >= (\d)', path.read_text())[1])
    return checks_of(path, least)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    seen = {}

    def on(script, ranks):
        if (script, ranks) not in seen:
            seen[script, ranks] = {}  # a launch that fails is not tried again for every statement
            seen[script, ranks] = outcomes_of(RANKS / f"{script}.py", ranks, tmp_path_factory.mktemp(script))
        return seen[script, ranks]

    return on


@pytest.mark.parametrize(
    ("script", "ranks", "check"),
    [(script, ranks, check) for script in SCRIPTS for ranks in sizes(2, 3) for check in checks(script)],
)
def test_on_ranks(outcomes, script, ranks, check):
    failures = outcomes(script, ranks).get(check, "the launch failed: see the first failure")
    assert not failures, failures


def test_adasum_on_ranks_of_mpi(tmp_path):
    path = tmp_path / "outcomes.json"
    ended = launch(2, str(RANKS / "horovod_adasum.py"), str(path), controller="--mpi", timeout=120)
    assert ended.status == 0, ended.output[-3000:]
    outcomes = json.loads(path.read_text())
    assert len(outcomes) == 3
    assert not any(outcomes.values()), outcomes
