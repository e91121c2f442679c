"""`hpc-train bench allreduce`: its statistics, from made-up times, and its command on two ranks with a slow network."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shaped
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import RANKS, REPOSITORY, environment, finish, start

from hpc_train.bench.allreduce import figures, ways
from hpc_train.bench.allreduce.command import AllreduceBench, run, sizes
from hpc_train.bench.allreduce.report import report
from hpc_train.errors import UserError

SCRIPT = RANKS / "allreduce.py"
CHECKS = re.findall(r"^def (\w+)\(\):", SCRIPT.read_text(), re.M)
BYTES = [2**n for n in range(2, 27)]


# ---- the content of messages


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 60))
def test_the_expected_sum_is_the_sum_of_all_messages(ranks, count):
    sent = [figures.contribution(rank, count) for rank in range(ranks)]
    np.testing.assert_array_equal(figures.total(ranks, count), np.sum(sent, axis=0))


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(7, 60), st.data())
def test_a_lost_or_exchanged_rank_changes_the_sum(ranks, count, data):
    lost = data.draw(st.integers(0, ranks - 1))
    instead = data.draw(st.integers(0, ranks - 1).filter(lambda other: (other - lost) % 7))
    sent = {rank: figures.contribution(rank, count) for rank in range(ranks)}
    sent[lost] = np.zeros(count)
    assert (np.sum(list(sent.values()), axis=0) != figures.total(ranks, count)).any()
    sent[lost] = sent[instead]
    assert (np.sum(list(sent.values()), axis=0) != figures.total(ranks, count)).any()


def test_sums_over_two_million_ranks_are_exact_in_float32():
    # Every 7 ranks add 0 + 1 + ... + 6 to each place. Two ranks remain.
    expected = [2_000_000 // 7 * 21 + place + (place + 1) % 7 for place in range(7)]
    assert figures.total(2_000_000, 7).tolist() == expected


# ---- latency and bandwidth


def ring(ranks, alpha, beta, bytes_):
    """Patarasuk and Yuan 2009, section 3: reduce-scatter and all-gather, N - 1 messages of bytes / N each."""
    return 2 * (ranks - 1) * (alpha + beta * bytes_ / ranks)


@settings(deadline=None)
@given(st.integers(2, 1000), st.floats(1e-7, 1e-2), st.floats(1e-11, 1e-7))
def test_a_rings_alpha_and_beta_are_found_again(ranks, alpha, beta):
    found = figures.fit(BYTES, [ring(ranks, alpha, beta, size) for size in BYTES], ranks)
    assert found["alpha"] == pytest.approx(alpha, rel=1e-6)
    assert found["beta"] == pytest.approx(beta, rel=1e-6)
    assert found["latency"] == pytest.approx(2 * (ranks - 1) * alpha, rel=1e-6)
    assert found["error"] < 1e-6


def test_noise_of_ten_percent_changes_alpha_and_beta_by_less():
    noise = np.random.default_rng(0).uniform(0.9, 1.1, len(BYTES))
    found = figures.fit(BYTES, [ring(4, 1e-3, 1e-8, size) * by for size, by in zip(BYTES, noise, strict=True)], 4)
    assert found["alpha"] == pytest.approx(1e-3, rel=0.1)
    assert found["beta"] == pytest.approx(1e-8, rel=0.1)
    assert 0 < found["error"] < 0.1


def test_the_size_that_the_line_misses_most_is_named():
    times = [ring(4, 1e-3, 1e-8, size) for size in BYTES]
    times[-1] *= 2
    found = figures.fit(BYTES, times, 4)
    assert found["worst_bytes"] == BYTES[-1]
    # The line moves towards this size, and away from the others by less than that.
    assert found["error"] < 0.25 < found["worst"] < 0.5


@pytest.mark.parametrize(
    ("times", "latency", "byte_time"),
    [
        ([2e-3, 2e-3, 2e-3], 2e-3, 0),
        ([1e-6, 2e-6, 4e-6], 0, 1e-9),
        # Larger messages take less time, but a negative time for a byte would be nonsense.
        ([3e-3, 2e-3, 1e-3], None, 0),
        ([2e-3], 2e-3, 0),
    ],
)
def test_neither_latency_nor_bandwidth_is_negative(times, latency, byte_time):
    found = figures.fit([1000, 2000, 4000][: len(times)], times, 2)
    assert found["byte_time"] == pytest.approx(byte_time, abs=1e-18)
    assert found["latency"] > 0 if latency is None else found["latency"] == pytest.approx(latency, abs=1e-12)


def test_statistics_and_bandwidths_of_known_times():
    found = figures.of_way("MPI", {3000: [np.array([1e-3, 2e-3]), np.array([3e-3, 6e-3])]}, ranks=4)
    assert found["library"] == "MPI"
    (size,) = found["sizes"]
    assert (size["bytes"], size["iterations"]) == (3000, 4)
    assert [size[name] for name in ("mean", "min", "max", "p50")] == pytest.approx([3e-3, 1e-3, 6e-3, 2.5e-3])
    # 0.97 of the way from the third to the fourth
    assert size["p99"] == pytest.approx(5.91e-3)
    assert size["rounds"] == pytest.approx([1.5e-3, 4.5e-3])
    # 3000 bytes in 3 ms; of 4 ranks each sends 6/4 of them
    assert size["algorithm_bandwidth"] == pytest.approx(1e6)
    assert size["bus_bandwidth"] == pytest.approx(1.5e6)


# ---- options and the report


def test_sizes_double_from_the_smallest_up_to_the_largest():
    assert sizes(AllreduceBench()) == BYTES
    assert sizes(AllreduceBench(min_bytes=12, max_bytes=100)) == [12, 24, 48, 96]
    assert sizes(AllreduceBench(min_bytes=64, max_bytes=64)) == [64]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_bytes": 2}, "--min-bytes is 2"),
        ({"min_bytes": 10}, "a multiple of 4"),
        ({"min_bytes": 8, "max_bytes": 4}, "--max-bytes 4 is less than --min-bytes 8"),
        ({"iterations": 2}, "--iterations must be at least 3"),
        ({"rounds": 0}, "--rounds at least 1"),
        ({"seconds": 0.0}, "--seconds more than 0"),
        ({"output": Path("/no/such/folder/x.json")}, "the folder /no/such/folder does not exist"),
        ({"output": Path("/tmp")}, "is a folder"),
    ],
)
def test_impossible_options_are_refused_with_the_reason(options, message):
    with pytest.raises(UserError, match=message):
        run(AllreduceBench(**options))


def test_a_cycle_time_that_is_not_a_number_is_refused(monkeypatch):
    monkeypatch.setenv("HOROVOD_CYCLE_TIME", "1ms")
    with pytest.raises(UserError, match="HOROVOD_CYCLE_TIME is '1ms'"):
        run(AllreduceBench())


@pytest.fixture
def launched_by(monkeypatch):
    """A function that makes this process look as if a launcher had started it, with these variables or with none."""

    def change(**variables):
        for name in environment():
            if name.startswith(("PMI_", "PMIX_", "OMPI_", "SLURM_", "HOROVOD_")):
                monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return change


def test_one_process_is_refused_at_once(launched_by):
    launched_by()
    with pytest.raises(UserError, match="horovodrun -np 2"):
        run(AllreduceBench())


def test_without_mpi_it_is_left_out_with_the_reason(launched_by):
    launched_by(HOROVOD_RANK="0", HOROVOD_SIZE="2")
    assert ways.mpi_world() == (None, "horovodrun --gloo starts ranks without MPI")


def result(*names, shared=False):
    """A made-up result: 2 ranks, messages of 4 bytes in 1 ms and of 8 MB in 10 ms, by MPI in half of that."""
    times = {4: 1e-3, 8_000_000: 10e-3}
    known = {"Horovod": 1, "MPI": 0.5}
    return {
        "ranks": 2,
        "nodes": [{"host": "a", "ranks": 2, "cores": 1 if shared else 2, "gpus": [], "processor": "x"}],
        "cycle_time": 2.5e-3,
        "ways": {
            name: figures.of_way("lib", {size: [np.full(3, known[name] * time)] for size, time in times.items()}, 2)
            for name in names
        },
        "left_out": {} if "MPI" in names else {"MPI": "there is none"},
    }


def test_the_table_has_microseconds_bandwidths_and_the_ratio(capsys):
    report(result("Horovod", "MPI"))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "4 1000 1000 1000 0.000 / 0.000 500 500 500 0.000 / 0.000 2.00" in lines
    assert "8,000,000 10000 10000 10000 0.800 / 0.800 5000 5000 5000 1.600 / 1.600 2.00" in lines
    assert any(line.startswith("Horovod: 1000 us + bytes at 0.889 GB/s") for line in lines)
    assert any("every 2.5 ms (HOROVOD_CYCLE_TIME)" in line for line in lines)
    assert not any("share cores" in line for line in lines)


def test_the_table_says_what_is_missing_and_that_ranks_share_cores(capsys):
    report(result("Horovod", shared=True))
    out = capsys.readouterr().out
    assert "no MPI: there is none" in out
    assert "ranks share cores or GPUs" in out
    assert "Horovod / MPI" not in out


# ---- on two ranks, with a slow network between them if this machine can make one


RATE, DELAY = shaped.quantity("200mbit"), shaped.quantity("2ms")


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What the script found and measured, and why there was no network of RATE and DELAY between the ranks, if so."""
    path = tmp_path_factory.mktemp("allreduce") / "outcomes.json"
    unable = shaped.missing()
    if unable:
        ended = finish(start(2, str(SCRIPT), str(path)), 240)
    else:
        with shaped.Network(2, RATE, DELAY) as network:
            there = environment(PYTHONPATH=str(REPOSITORY))
            process = network.start(
                "horovodrun",
                "-np",
                "2",
                sys.executable,
                str(SCRIPT),
                str(path),
                env=there,
                cwd=REPOSITORY,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
            ended = finish(process, 240)
    assert ended.status == 0, ended.output[-3000:]
    return json.loads(path.read_text()), json.loads(path.with_name("figures.json").read_text()), unable


@pytest.mark.parametrize("check", CHECKS)
def test_on_ranks(launched, check):
    assert launched[0][check] == ""


def test_every_size_of_every_way_has_its_iterations(launched):
    _, found, _ = launched
    assert found["benchmark"] == "allreduce"
    assert found["ranks"] == 2
    assert sum(node["ranks"] for node in found["nodes"]) == 2
    assert set(found["ways"]) | set(found["left_out"]) == {"Horovod", "MPI"}
    for way in found["ways"].values():
        assert [size["bytes"] for size in way["sizes"]] == [2**n for n in range(14, 20)]
        for size in way["sizes"]:
            assert 6 <= size["iterations"] <= 8
            assert len(size["rounds"]) == 2
            assert 0 < size["min"] <= size["p50"] <= size["p99"] <= size["max"]


def test_a_slow_network_bounds_latency_and_bandwidth(launched):
    _, found, unable = launched
    if unable:
        pytest.skip(unable)
    assert [node["host"] for node in found["nodes"]] == ["shaped1", "shaped2"]
    for way in found["ways"].values():
        assert way["sizes"][0]["min"] >= DELAY
        # With two ranks, each sends the whole message once. The fastest comes near the rate of the links.
        fastest = way["sizes"][-1]["bytes"] / way["sizes"][-1]["min"]
        assert 0.3 * RATE < fastest < RATE
