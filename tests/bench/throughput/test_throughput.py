"""`hpc-train bench throughput`: its statistics, its options, and one measurement by real ranks."""

import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tyro
from hypothesis import given
from hypothesis import strategies as st
from launch import RANKS, launch

from hpc_train import climate, mnist, resnet
from hpc_train.bench.estimate import Estimate, of_values
from hpc_train.bench.throughput.command import run
from hpc_train.bench.throughput.figures import communication_share, gradient_bytes, of_steps, ratios
from hpc_train.bench.throughput.options import BARE, BENCHMARKS, WAYS, Throughput
from hpc_train.bench.throughput.peaks import peak
from hpc_train.errors import UserError

Mnist, Resnet, Climate = (BENCHMARKS[name] for name in ("mnist", "resnet", "climate"))

SCRIPT = RANKS / "throughput.py"
CHECKS = re.findall(r"^    (\w+),$", SCRIPT.read_text(), re.M)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, digits):
    pytest.importorskip("horovod")
    path = tmp_path_factory.mktemp("throughput") / "outcomes.json"
    ended = launch(2, str(SCRIPT), str(path), str(digits), timeout=400)
    assert ended.status == 0, ended.output[-3000:]
    return json.loads(path.read_text())


@pytest.mark.parametrize("check", CHECKS)
def test_on_two_ranks(outcomes, check):
    assert not outcomes[check], outcomes[check]


def test_the_times_of_steps_are_described_by_mean_spread_percentiles_and_maximum():
    found = of_steps(np.arange(1.0, 102.0))  # 1 to 101: the p-th percentile is p + 1
    assert found == {
        "steps": 101,
        "mean": 51,
        "std": pytest.approx(math.sqrt(101 * 102 / 12)),  # of the numbers 1 to n, with n - 1: n (n + 1) / 12
        "p50": 51,
        "p95": pytest.approx(96),
        "p99": pytest.approx(100),
        "max": 101,
    }
    assert of_steps(np.array([2.0]))["std"] == 0


def test_the_error_of_a_mean_is_its_standard_error():
    # 2, 4, 4, 4, 5, 5, 7, 9: mean 5, squares of the differences add up to 32.
    assert of_values([2, 4, 4, 4, 5, 5, 7, 9]) == Estimate(5, pytest.approx(math.sqrt(32 / 7 / 8)))
    assert of_values([3.0]) == Estimate(3, None)
    assert of_values([]) is None


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=20), st.floats(0.1, 10))
def test_the_error_of_a_mean_has_the_unit_of_the_values(values, factor):
    found, scaled = of_values(values), of_values([factor * value for value in values])
    assert scaled.as_dict() == pytest.approx(
        {"mean": factor * found.mean, "error": factor * found.error}, rel=1e-6, abs=1e-6
    )


def test_shares_and_ratios_are_taken_within_each_round():
    rates = {"fit": [90, 40], "device": [100, 50], "device alone": [125, 200], "input": [1000, 1000]}
    assert ratios(rates) == {
        "fit / device": pytest.approx([0.9, 0.8]),
        "fit / device alone": pytest.approx([0.72, 0.2]),
    }
    # A step takes 1 / 100 in place of 1 / 125, and 1 / 50 in place of 1 / 200.
    assert communication_share(rates) == pytest.approx([0.2, 0.75])
    assert communication_share({"fit": [1], "device": [1]}) is None
    assert ratios({"device": [1]}) == {}


@pytest.mark.parametrize(("wire", "sent"), [("float32", 4 * 63 + 2 * 5), ("float16", 2 * 68), ("bfloat16", 2 * 68)])
def test_gradients_count_as_they_travel(wire, sent):
    shapes = [((3, 4, 5), "float32"), ((3,), "float32"), ((5,), "float16")]
    variables = [SimpleNamespace(shape=shape, dtype=dtype) for shape, dtype in shapes]
    assert gradient_bytes(variables, wire) == sent


@pytest.mark.parametrize(
    ("gpu", "precision", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", "bfloat16", 989.4),
        ("NVIDIA H100 80GB HBM3", "float32", 494.7),
        ("NVIDIA H100 PCIe", "float16", 756),
        ("NVIDIA H200", "float32", 494.7),
        ("NVIDIA GH200 480GB", "float32", 494.7),
        ("NVIDIA GB200", "bfloat16", 2500),
        ("A100-SXM4-40GB", "float32", 156),
        ("Tesla V100-SXM2-16GB", "float16", 125),
        ("Tesla V100-SXM2-16GB", "bfloat16", None),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "float32", None),
        ("NVIDIA RTX A4000", "float32", None),
        ("GPU", "float32", None),
    ],
)
def test_the_peak_of_a_gpu_is_known_by_its_name(gpu, precision, tflops):
    assert peak(gpu, precision) == tflops


def parsed(*words):
    return tyro.cli(Throughput, args=words)


def test_a_trainer_gets_its_own_options_and_not_those_of_the_benchmark():
    chosen = parsed(
        "resnet", "--data", "x", "--model", "resnet20", "--precision", "bfloat16", "--lag", "1", "--steps", "9"
    )
    assert isinstance(chosen, Resnet)
    options = chosen.of_trainer()
    assert type(options) is resnet.Options
    assert (options.model, options.precision, options.lag, options.batch_size) == ("resnet20", "bfloat16", 1, 32)
    assert isinstance(parsed("climate", "--data", "x").of_trainer(), climate.Options)
    assert parsed("mnist", "--data", "x").of_trainer().augment is mnist.Options.augment


def test_settings_that_change_nothing_in_a_step_are_not_options(capsys):
    for words in (["--epochs", "3"], ["--run", "x"], ["--resume"], ["--lr", "0.1"], ["--profile", "1", "2"]):
        with pytest.raises(SystemExit) as ended:
            parsed("mnist", "--data", "x", *words)
        assert ended.value.code == 2
    recorded = parsed("mnist", "--data", "x", "--wire-dtype", "float16").recorded()
    assert recorded["wire_dtype"] == "float16"
    assert recorded["rounds"] == 7
    assert not {"epochs", "run", "lr", "histograms"} & set(recorded)


def test_by_default_all_ways_are_measured_that_go_with_the_options():
    data = Path("shards")
    assert Mnist(data).measured_ways() == WAYS
    plain = tuple(way for way in WAYS if way not in BARE)
    assert Resnet(data).measured_ways() == plain
    assert Climate(data).measured_ways() == plain
    assert Mnist(data, lag=1).measured_ways() == plain
    assert Mnist(data, accumulate=4).measured_ways() == plain
    assert Mnist(Path("synthetic")).measured_ways() == tuple(way for way in WAYS if way != "input")
    assert Mnist(data, ways=("device alone", "fit")).measured_ways() == ("fit", "device alone")
    assert Mnist(data, ways=("unwatched", "fit")).measured_ways() == ("fit", "unwatched")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Resnet(Path("x"), ways=("bare",)), "--ways 'bare': the hand-written loop is for mnist"),
        (Mnist(Path("x"), lag=1, ways=("fit", "bare alone")), "--ways 'bare alone': the hand-written loop"),
        (Mnist(Path("x"), steps=0), "--steps is 0"),
        (Mnist(Path("x"), warmup=0), "--warmup is 0"),
        (Mnist(Path("x"), rounds=-1), "--rounds is -1"),
        (Mnist(Path("x"), output=Path("no/such/figures.json")), "the folder no/such does not exist"),
        (Mnist(Path("x"), batch_size=0), "--batch-size is 0"),
        (Climate(Path("x"), random_crop=(0, 3)), "--random-crop 0 3"),
    ],
)
def test_impossible_options_are_refused_before_anything_starts(options, message):
    with pytest.raises(UserError) as refused:
        run(options)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_ranks_write_one_measurement_of_all_ways(digits, tmp_path):
    pytest.importorskip("horovod")
    output = tmp_path / "figures.json"
    words = ("--data", str(digits), "--model", "fc", "--batch-size", "16", "--wire-dtype", "float16")
    counts = ("--steps", "4", "--warmup", "1", "--rounds", "2")
    ended = launch(
        2, "-m", "hpc_train.cli", "bench", "throughput", "mnist", *words, *counts, "--output", str(output), timeout=400
    )
    assert ended.status == 0, ended.output[-3000:]
    found = json.loads(output.read_text())
    assert (found["benchmark"], found["format"], found["framework"], found["trainer"]) == (
        "throughput",
        2,
        "hpc-train",
        "mnist",
    )
    assert (found["model"], found["batch_size"], found["ranks"]) == ("fc", 16, 2)
    assert sum(node["ranks"] for node in found["nodes"]) == 2
    # 64 pixels, a layer of 64, ten classes.
    assert found["parameters"] == 64 * 64 + 64 + 64 * 10 + 10
    assert found["gradient_bytes"] == 2 * found["parameters"]
    assert set(found["rates"]) == set(found["steps"]) == set(WAYS)
    for way in WAYS:
        steps = {name: np.reshape(found["steps"][way][name], (2, 4)) for name in ("fastest", "mean", "slowest")}
        assert (steps["fastest"] > 0).all()
        assert (steps["fastest"] <= steps["mean"] + 1e-12).all()
        assert (steps["mean"] <= steps["slowest"] + 1e-12).all()
        # A round takes what its slowest rank takes: no less than the mean, no more than all its slowest steps.
        seconds = 2 * 16 * 4 / np.array(found["rates"][way])
        assert (steps["mean"].sum(axis=1) <= seconds * (1 + 1e-9)).all()
        assert (seconds <= steps["slowest"].sum(axis=1) * (1 + 1e-9)).all()
        ranks = found["steps"][way]["by_rank"]
        assert [(of["rank"], of["steps"]) for of in ranks] == [(0, 8), (1, 8)]
        assert np.mean([of["mean"] for of in ranks]) == pytest.approx(steps["mean"].mean())
    assert {way: len(shares) for way, shares in found["input_wait"].items()} == {"fit": 2, "fit alone": 2}
    assert len(found["ratios"]["fit / bare"]) == len(found["communication"]["share"]) == 2
    assert min(found["peak_memory"]["host"]) > 2**27
    assert found["versions"]["horovod"]
    assert "bench throughput mnist" in found["command"]
    # Four steps, each with two kernels and two biases; nothing else is recorded. Horovod counts their bytes itself.
    reduced = found["communication"]["timeline"]["operations"]
    assert reduced == {"ALLREDUCE": {"tensors": 4 * 4, "bytes": 4 * found["gradient_bytes"]}}
    lines = [line.removeprefix("[0] ") for line in ended.output.splitlines()]
    assert [line[:14].strip() for line in lines if line[:14].strip() in WAYS] == list(WAYS)
    assert f"figures in {output}" in lines
