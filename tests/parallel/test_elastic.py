"""Ranks that join, are killed and leave under `horovodrun --host-discovery-script`; and `hvd.join`."""

import json

import numpy as np
import pytest
from launch import RANKS, launch

EPOCHS, STEPS, RANK_COUNT, BATCH, RATE, MOMENTUM = 5, 12, 3, 5, 0.05, 0.9
# [epoch, step, what]: a rank joins, rank 2 is killed, a rank leaves, a rank joins.
PLAN = [[0, 6, "localhost:2\n127.0.0.1:1\n"], [2, 5, 2], [3, 0, "localhost:1\n"], [4, 0, "localhost:2\n"]]


def elastic(folder, plan, data, timeout):
    """The elastic launch of ranks/elastic.py, with 2 ranks at first."""
    draw = np.random.default_rng(0)
    np.save(folder / "inputs.npy", draw.normal(size=(STEPS, RANK_COUNT, BATCH, 4)).astype("float32"))
    np.save(folder / "targets.npy", draw.normal(size=(STEPS, RANK_COUNT, BATCH, 1)).astype("float32"))
    (folder / "plan.json").write_text(json.dumps(plan))
    (folder / "hosts").write_text("localhost:2\n")
    script = folder / "discover.sh"
    script.write_text(f"#!/bin/sh\ncat {folder}/hosts\n")
    script.chmod(0o755)
    options = ("--min-np", "1", "--max-np", "3", "--host-discovery-script", str(script))
    arguments = (str(RANKS / "elastic.py"), str(folder), data)
    return launch(2, *arguments, controller="--gloo", options=options, timeout=timeout)


def replayed(folder, sizes, passes):
    """Weights and momentum after the steps of `sizes`, the number of ranks by (epoch, step), by NumPy in float64.

    The gradients of `passes` steps are added up and applied together.
    """
    inputs, targets = (np.load(folder / f"{name}.npy").astype(float) for name in ("inputs", "targets"))
    weights, momentum = np.ones((4, 1)), np.zeros((4, 1))
    total = np.zeros((4, 1))
    for number, ((_, step), size) in enumerate(sorted(sizes.items()), 1):
        x, y = inputs[step, :size].reshape(-1, 4), targets[step, :size].reshape(-1, 1)
        total = total + 2 * x.T @ (x @ weights - y) / len(x)
        if number % passes == 0:
            momentum = MOMENTUM * momentum - RATE * total
            weights, total = weights + momentum, np.zeros((4, 1))
    return weights.ravel(), momentum.ravel()


@pytest.fixture(scope="module", params=["array", "repeat"])
def job(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    ended = elastic(folder, PLAN, request.param, timeout=240)
    assert ended.status == 0, ended.output[-3000:]
    passes = 2 if request.param == "repeat" else 1
    return folder, ended, passes, [json.loads(path.read_text()) for path in sorted(folder.glob("rank*.json"))]


def test_ranks_join_are_killed_and_leave(job):
    _, ended, _, ranks = job
    assert [rank["size"] for rank in ranks] == [2, 2]
    assert [rank["attempts"] for rank in ranks] == [5, 5]
    assert [rank["resets"] for rank in ranks] == [[3, 2, 1, 2], []]
    assert "localhost[1] has left the elastic job" in ended.output
    assert "terminate called" not in ended.output
    assert "Traceback" not in ended.output


def test_every_step_counts_once_from_the_last_commit(job):
    folder, _, passes, ranks = job
    sizes = {}
    for line in (folder / "steps.jsonl").read_text().splitlines():
        epoch, step, size = json.loads(line)
        sizes[epoch, step] = size  # a step that is done again after a failure replaces the lost one
    assert sorted(sizes) == [(epoch, step) for epoch in range(EPOCHS) for step in range(STEPS)]
    weights, momentum = replayed(folder, sizes, passes)
    for rank in ranks:
        np.testing.assert_allclose(rank["weights"], weights, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(rank["momentum"], momentum, rtol=1e-4, atol=1e-6)
        assert (rank["epoch"], rank["batch"]) == (EPOCHS, 0)
    assert ranks[0]["weights"] == ranks[1]["weights"]


def test_a_failure_on_the_only_host_name_ends_the_job_in_one_line(tmp_path):
    ended = elastic(tmp_path, [[0, 3, 1]], "array", timeout=120)
    assert ended.status != 0
    assert "error: a rank on localhost failed" in ended.output
    assert "such as localhost:1 and 127.0.0.1:1" in ended.output
    assert "Traceback" not in ended.output


def test_parallel_init_refuses_ranks_that_come_and_go(tmp_path):
    script = tmp_path / "discover.sh"
    script.write_text("#!/bin/sh\necho localhost:2\n")
    script.chmod(0o755)
    options = ("--min-np", "1", "--host-discovery-script", str(script))
    code = "from hpc_train import parallel; parallel.init()"
    ended = launch(2, "-c", code, controller="--gloo", options=options, timeout=120)
    assert ended.status != 0
    assert ended.output.count("error: parallel.init() and the trainers need ranks that stay") == 1
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("ranks", [2, 3])
def test_join_waits_for_the_rank_with_the_most_batches(tmp_path, ranks):
    ended = launch(ranks, str(RANKS / "join.py"), str(tmp_path / "result.json"), timeout=120)
    assert ended.status == 0, ended.output[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    draws = [np.random.default_rng(rank) for rank in range(ranks)]
    data = [(d.normal(size=(2 + 3 * r, 4, 3)), d.normal(size=(2 + 3 * r, 4, 1))) for r, d in enumerate(draws)]
    weights = np.ones((3, 1))
    for _ in range(2):
        for step in range(2 + 3 * (ranks - 1)):
            # Ranks without a batch add zeros; the mean is still over all ranks.
            there = [(x[step], y[step]) for x, y in data if step < len(x)]
            weights = weights - 0.1 * sum(2 * x.T @ (x @ weights - y) / 4 for x, y in there) / ranks
    for got in result["weights"]:
        np.testing.assert_allclose(got, weights.ravel(), rtol=1e-4, atol=1e-6)
    assert result["last"] == ranks - 1
    assert min(result["waited"]) > 0.5
