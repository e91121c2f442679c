"""The model of a step's time: all-reduces counted message by message, draws simulated, made-up machines found again."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_machine import Machine, measurement, write

from hpc_train.bench.step_model import fit_study, published, solve, spread
from hpc_train.bench.step_model.command import PredictScaling, run
from hpc_train.bench.step_model.describe import describe
from hpc_train.bench.step_model.job import BACKWARD, Job, buckets_of
from hpc_train.bench.step_model.network import Link, Network
from hpc_train.errors import UserError

MB = 1e6
MACHINE = Machine(alpha=200e-6, beta=1 / 500e6)

latencies = st.floats(1e-7, 1e-3)
byte_times = st.floats(1e-12, 1e-7)
links = st.builds(Link, latencies, byte_times)


@st.composite
def networks(draw):
    within = draw(links)
    # As on any real machine, what is farther away is no nearer.
    between = Link(within.latency * draw(st.floats(1, 10)), within.byte_time * draw(st.floats(1, 10)))
    ranks_per_node, algorithm = draw(st.integers(1, 8)), draw(st.sampled_from(["ring", "tree"]))
    return Network(between, within, ranks_per_node, algorithm, draw(st.booleans()))


jobs = st.builds(Job.even, st.floats(1e-3, 1), st.floats(1e3, 1e9), st.integers(1, 12), lag=st.sampled_from([0, 1]))


@pytest.mark.parametrize("ranks", [2, 3, 4, 7, 64])
def test_a_ring_costs_what_its_messages_do(ranks):
    network = Network(Link(MACHINE.alpha, MACHINE.beta), algorithm="ring")
    assert network.allreduce(MB, ranks) == pytest.approx(MACHINE.ring(MB, ranks))
    # Patarasuk and Yuan 2009: 2 (N - 1) (alpha + n beta / N)
    assert network.allreduce(MB, ranks) == pytest.approx(2 * (ranks - 1) * (200e-6 + MB / ranks / 500e6))


@pytest.mark.parametrize("ranks", [2, 4, 64])
def test_a_tree_costs_what_halving_and_doubling_do(ranks):
    network = Network(Link(MACHINE.alpha, MACHINE.beta), algorithm="tree")
    assert network.allreduce(MB, ranks) == pytest.approx(MACHINE.tree(MB, ranks))


def test_nodes_and_the_links_in_them_cost_each_their_own():
    between, within = Link(100e-6, 1e-9), Link(10e-6, 1e-10)
    flat = Network(between, within, ranks_per_node=4, algorithm="ring")
    # 12 ranks on 3 nodes: 22 hops, of which 6 go from node to node; each carries a 12th at the pace of the network
    assert flat.allreduce(12 * MB, 12) == pytest.approx(6 * 100e-6 + 16 * 10e-6 + 22 * MB * 1e-9)
    levels = replace(flat, hierarchical=True)
    # 6 messages of a quarter within, 4 of a third of it between for each of 4 ranks, which share one link
    assert levels.allreduce(12 * MB, 12) == pytest.approx(
        6 * (10e-6 + 3 * MB * 1e-10) + 4 * (100e-6 + 4 * (12 / 4 / 3) * MB * 1e-9)
    )
    # on one node nothing goes between nodes
    assert flat.allreduce(12 * MB, 4) == levels.allreduce(12 * MB, 4) == pytest.approx(6 * (10e-6 + 3 * MB * 1e-10))


@given(jobs, networks())
@settings(max_examples=60, deadline=None)
def test_more_ranks_and_more_bytes_never_cost_less(job, network):
    costs = [job.exposed(network, ranks) for ranks in (1, 2, 3, 4, 8, 16, 64, 1000, 27360)]
    assert costs[0] == 0
    assert costs == sorted(costs)
    assert job.compressed(2).exposed(network, 16) >= job.exposed(network, 16)
    assert job.exposed(network, 16) <= job.communication(network, 16) * (1 + 1e-12)


@given(networks(), st.floats(1e3, 1e9), st.sampled_from([2, 8, 512]))
def test_half_the_bytes_cost_half_the_bandwidth_term_and_all_of_the_latency(network, size, ranks):
    nothing = network.allreduce(0, ranks)
    halved, whole = (network.allreduce(factor * size, ranks) - nothing for factor in (0.5, 1))
    assert halved == pytest.approx(whole / 2, rel=1e-6, abs=1e-12)


@given(
    st.lists(st.tuples(st.floats(0, 1e8), st.floats(0, 1)), min_size=1, max_size=8),
    st.floats(1e-3, 1),
    networks(),
    st.integers(2, 300),
)
@settings(max_examples=60, deadline=None)
def test_what_shows_is_what_a_queue_of_buckets_leaves_after_the_backward_pass(buckets, compute, network, ranks):
    buckets.sort(key=lambda bucket: bucket[1])
    sizes, ready = zip(*buckets, strict=True)
    free = 0.0
    for size, share in buckets:
        begin = max(free, compute * (1 - BACKWARD) + share * BACKWARD * compute)
        free = begin + network.allreduce(size, ranks) + network.coordination(ranks)
    exposed = Job(compute, sizes, ready).exposed(network, ranks)
    assert exposed == pytest.approx(max(0.0, free - compute), rel=1e-6, abs=1e-9 * compute)


def test_lag_hides_all_that_a_step_has_time_for():
    network = Network(Link(0.0, 1e-9))
    # 2 ranks: as many bytes as the message has, so 0.08 s
    assert Job.even(0.1, 80 * MB, 1, lag=0).exposed(network, 2) == pytest.approx(0.08)
    assert Job.even(0.1, 80 * MB, 1, lag=1).exposed(network, 2) == 0
    assert Job.even(0.1, 130 * MB, 1, lag=1).exposed(network, 2) == pytest.approx(0.03)


def test_smaller_buckets_hide_bandwidth_and_cost_latency():
    by_bytes, by_messages = Network(Link(1e-6, 1e-9)), Network(Link(5e-3, 1e-12))
    shown = {
        count: [Job.even(0.1, 40 * MB, count).exposed(network, 8) for network in (by_bytes, by_messages)]
        for count in (1, 8)
    }
    assert shown[8][0] < 0.3 * shown[1][0]
    assert shown[8][1] > 2 * shown[1][1]


def test_buckets_are_counted_by_their_size():
    assert [buckets_of(size, 8) for size in (1, 8 * 2**20, 8 * 2**20 + 1, 80 * 2**20)] == [1, 1, 2, 10]


@pytest.mark.parametrize(
    # Harter 1961, table 1: expected largest of n normal draws
    ("ranks", "expected"),
    [(1, 0), (2, 1 / math.sqrt(math.pi)), (3, 0.84628), (5, 1.16296), (10, 1.53875), (100, 2.50759)],
)
def test_the_largest_of_normal_draws_is_as_tabulated(ranks, expected):
    assert spread.factor("normal", ranks) == pytest.approx(expected, abs=2e-5)


def test_the_largest_of_many_draws_is_as_simulated():
    draw = np.random.default_rng(1)
    normal = draw.normal(size=(1500, 2000))
    gumbel = draw.gumbel(size=(1500, 2000)) * math.sqrt(6) / math.pi
    assert spread.factor("normal", 2000) == pytest.approx(normal.max(axis=1).mean(), rel=0.01)
    assert spread.factor("gumbel", 2000) == pytest.approx(gumbel.max(axis=1).mean() - gumbel.mean(), rel=0.01)


@given(st.sampled_from(spread.TAILS), st.integers(1, 10**6))
def test_waiting_grows_with_ranks(tail, ranks):
    assert spread.factor(tail, ranks + 1) > spread.factor(tail, ranks) >= 0


@pytest.mark.parametrize("tail", spread.TAILS)
def test_spread_and_tail_are_found_in_steps(tail):
    draws = Machine(compute=1, spread=0.05, tail=tail).draws(np.random.default_rng(2), 20000, 4)
    excess = {4: (float((draws.max(axis=1) - draws.mean(axis=1)).mean()), len(draws))}
    assert spread.deviation(tail, excess) == pytest.approx(0.05, rel=0.02)
    percentiles = [{f"p{part}": np.percentile(own, part) for part in (50, 95, 99)} for own in draws.T]
    assert spread.tail_of(percentiles) == tail


@given(links, st.lists(st.floats(1, 1e8), min_size=2, max_size=6, unique=True))
@settings(max_examples=40, deadline=None)
def test_a_link_is_found_again_in_what_it_costs(link, sizes):
    network = Network(link)
    measured = np.array([network.allreduce(size, 8) for size in sizes])
    found = solve.links(lambda one: np.array([Network(one).allreduce(size, 8) for size in sizes]), measured, Link(1, 1))
    assert [Network(found).allreduce(size, 8) for size in sizes] == pytest.approx(measured, rel=1e-3)


@pytest.mark.parametrize("how", ["ring", "tree"])
@pytest.mark.parametrize("buckets", [1, 4])
def test_latency_bandwidth_and_algorithm_are_found_in_a_study(tmp_path, how, buckets):
    machine = replace(MACHINE, overhead=1e-3)
    sizes = [measurement(machine, n, how, steps=4, bytes=20 * MB, buckets=buckets) for n in (1, 2, 4, 8, 16)]
    made = fit_study(write(tmp_path / "s", *sizes)).constants
    assert made.network.algorithm == how
    assert made.network.between.latency == pytest.approx(machine.alpha, rel=0.01)
    assert made.network.between.byte_time == pytest.approx(machine.beta, rel=0.01)
    assert made.overhead == pytest.approx(1e-3)
    assert made.deviation == pytest.approx(0, abs=1e-9)


def test_links_within_and_between_nodes_are_told_apart(tmp_path):
    machine = Machine(ranks_per_node=4)
    network = Network(Link(100e-6, 4e-9), Link(20e-6, 1e-9), 4, "ring")

    def one(ranks):
        figures = measurement(machine, ranks, steps=4, bytes=4 * MB)
        # the step that this network makes of it, in place of the machine's
        step = 0.1 + Job.even(0.1, 4 * MB).exposed(network, ranks)
        figures["rates"]["fit"] = [ranks * 32 / step] * len(figures["rates"]["fit"])
        return figures

    fitted = fit_study(write(tmp_path / "s", *map(one, (1, 2, 4, 8, 16, 32))))
    assert fitted.constants.network.algorithm == "ring"
    assert fitted.constants.network.within.byte_time == pytest.approx(1e-9, rel=0.01)
    assert fitted.constants.network.between.latency == pytest.approx(100e-6, rel=0.01)
    assert fitted.constants.network.between.byte_time == pytest.approx(4e-9, rel=0.01)
    assert not any("one node" in line for line in describe(fitted))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """A machine whose ranks vary, and the model fitted to its 1, 2, 4, 8 and 16 ranks."""
    machine = replace(MACHINE, spread=0.004, tail="gumbel", overhead=5e-4)
    sizes = [measurement(machine, ranks, "tree", bytes=20 * MB) for ranks in (1, 2, 4, 8, 16)]
    return machine, fit_study(write(tmp_path_factory.mktemp("noisy") / "s", *sizes), algorithm="tree")


def test_sizes_not_run_are_predicted_within_the_band(noisy):
    machine, fitted = noisy
    rows = fitted.predict([1, 64, 512])
    assert rows[0]["efficiency"] == 1
    draw = np.random.default_rng(3)
    for row in rows[1:]:
        compute = machine.draws(draw, 2000, row["ranks"]).max(axis=1).mean()
        shown = machine.shown({"bytes": 20 * MB, "buckets": 1, "lag": 0}, row["ranks"], machine.tree)
        step = compute + machine.overhead + shown
        assert row["step"] == pytest.approx(step, rel=0.03)
        assert row["low"] - 0.01 <= (machine.compute + machine.overhead) / step <= row["high"] + 0.01
        parts = sum(row[part] for part in ("compute", "spread", "overhead", "exposed"))
        assert row["step"] == pytest.approx(parts)
        assert row["samples_per_s"] == pytest.approx(32 * row["ranks"] / row["step"])
    assert fitted.constants.deviation == pytest.approx(0.04, rel=0.1)
    assert fitted.constants.tail == "gumbel"


def test_efficiency_falls_with_ranks_and_its_band_widens(noisy):
    rows = noisy[1].predict([1, 2, 8, 64, 512, 4096, 27360])
    efficiency = [row["efficiency"] for row in rows]
    assert efficiency == sorted(efficiency, reverse=True)
    assert all(row["low"] <= row["efficiency"] <= row["high"] for row in rows)
    widths = [row["high"] - row["low"] for row in rows]
    assert widths[0] == 0
    assert widths[-1] > 3 * widths[1]


def test_the_largest_size_is_predicted_from_the_others(noisy):
    held = noisy[1].holdout
    assert (held["ranks"], held["fitted"]) == (16, [1, 2, 4, 8])
    assert abs(held["error"]) < 0.02
    assert held["error"] == pytest.approx(held["predicted"] / held["measured"] - 1)
    assert held["low"] <= held["predicted"] <= held["high"]
    assert 0 < held["measured_error"] < 0.01 * held["measured"]
    (told,) = [line for line in describe(noisy[1]) if line.startswith("hold-out: 16 ranks predicted from 1, 2, 4, 8")]
    assert f"error {held['error']:+.1%}" in told


def test_a_sweep_goes_where_the_model_says(tmp_path):
    machine = replace(MACHINE, spread=0.002)
    base = {"bytes": 40 * MB, "buckets": 4}
    figures = [measurement(machine, ranks, **base) for ranks in (1, 2, 4)]
    changes = {
        "wire_dtype=float16": {"bytes": 20 * MB},
        "bucket_mib=128": {"buckets": 1},
        "lag=1": {"lag": 1},
        "bucket_mib=0.5": {"buckets": 256},
    }
    figures += [measurement(machine, 4, seed=9, **{**base, **change}) for change in changes.values()]
    folder = write(tmp_path / "s", *figures)
    swept = {"wire_dtype": "float32", "bucket_mib": "32", "lag": "0"}
    plan = [{"file": f"ranks-{ranks:05}-{n}.json", "variant": swept} for n, ranks in enumerate((1, 2, 4))]
    for place, changed in enumerate(changes, 1):
        name, value = changed.split("=")
        plan.append({"file": f"ranks-00004-{place + 2}.json", "variant": {**swept, name: value}, "place": place})
        path = folder / plan[-1]["file"]
        figures = json.loads(path.read_text())
        figures["options"] |= {"wire_dtype": "float32", "bucket_mib": 32.0, "lag": 0, name: value}
        figures["parameters"] = int(base["buckets"] * 32 * 2**20 / 4)
        path.write_text(json.dumps(figures))
    for one in plan[:3]:
        path = folder / one["file"]
        figures = json.loads(path.read_text())
        figures["options"] |= {"wire_dtype": "float32"}
        path.write_text(json.dumps(figures))
    (folder / "study.json").write_text(json.dumps({"jobs": plan}))
    found = {one["changed"]: one for one in fit_study(folder, algorithm="ring").sweep}
    assert set(found) == set(changes)
    for changed, one in found.items():
        assert one["predicted"] == pytest.approx(one["measured"], rel=0.05), changed
        assert (one["measured"] > 1.03) == (changed in ("wire_dtype=float16", "lag=1")), changed
        assert (one["measured"] < 0.97) == changed.startswith("bucket_mib"), changed


def test_one_size_with_all_reduces_leaves_the_share_of_latency_open(tmp_path):
    sizes = [measurement(MACHINE, ranks, steps=4, bytes=20 * MB) for ranks in (1, 2)]
    fitted = fit_study(write(tmp_path / "s", *sizes))
    two, many = fitted.predict([2, 27360])
    assert two["samples_per_s"] == pytest.approx(fitted.curve.sizes[1].samples_per_s.mean)
    # all latency: 15 times that of 2 ranks; all bandwidth: twice
    one = two["exposed"]
    lowest, highest = (0.1 / (0.1 + times * one) for times in (15, 2))
    assert lowest < many["low"] < lowest + 0.1
    assert highest - 0.1 < many["high"] < highest
    assert any("one size cannot tell latency from bandwidth" in line for line in describe(fitted))
    assert fitted.holdout is None


def test_strong_scaling_divides_the_batch(tmp_path):
    def one(ranks):
        batch = 64 // ranks
        machine = replace(MACHINE, compute=0.01 + 0.002 * batch)
        return measurement(machine, ranks, "tree", steps=4, bytes=2 * MB, batch=batch)

    folder = write(tmp_path / "s", *map(one, (1, 2, 4, 8)))
    jobs = [{"file": path.name, "modes": ["strong"]} for path in folder.glob("*.json")]
    (folder / "study.json").write_text(json.dumps({"jobs": jobs}))
    fitted = fit_study(folder, algorithm="tree")
    (row,) = fitted.predict([16])
    machine = replace(MACHINE, compute=0.01 + 0.002 * 4)
    step = machine.compute + machine.shown({"bytes": 2 * MB, "buckets": 1, "lag": 0}, 16, machine.tree)
    assert row["samples_per_s"] == pytest.approx(64 / step, rel=0.01)
    assert row["efficiency"] == pytest.approx(64 / step / 16 / (64 / 0.138), rel=0.01)
    with pytest.raises(UserError, match="at most the global batch"):
        fitted.predict([65])


def test_a_rank_that_is_always_slower_is_waiting_not_computation(tmp_path):
    figures = measurement(MACHINE, 2, steps=4)
    alone = figures["steps"]["fit alone"]
    for rank, seconds in zip(alone["by_rank"], (0.10, 0.12), strict=True):
        rank["mean"] = seconds
    alone["slowest"], alone["mean"] = ([seconds] * len(alone["mean"]) for seconds in (0.12, 0.11))
    figures["rates"]["fit alone"] = [2 * 32 / 0.12] * 6
    figures["rates"]["fit"] = [2 * 32 / 0.13] * 6
    fitted = fit_study(write(tmp_path / "s", measurement(MACHINE, 1, steps=4), figures))
    (row,) = fitted.predict([2])
    assert [row[part] for part in ("compute", "spread", "exposed")] == pytest.approx([0.11, 0.01, 0.01])


def test_a_longer_cycle_costs_half_of_what_it_is_longer(tmp_path):
    def slower(by):
        return measurement(replace(MACHINE, overhead=by), 2, steps=4, bytes=20 * MB)

    folder = write(tmp_path / "s", measurement(MACHINE, 1, steps=4, bytes=20 * MB), slower(0), slower(4e-3))
    names = ["ranks-00001-0.json", "ranks-00002-1.json", "ranks-00002-2.json"]
    cycles = [{"HOROVOD_CYCLE_TIME": cycle} for cycle in ("1", "1", "9")]
    jobs = [
        {"file": name, "variant": variant, "place": place}
        for name, variant, place in zip(names, cycles, (0, 0, 1), strict=True)
    ]
    (folder / "study.json").write_text(json.dumps({"jobs": jobs}))
    (found,) = fit_study(folder).sweep
    assert (found["changed"], found["ranks"]) == ("HOROVOD_CYCLE_TIME=9", 2)
    assert found["predicted"] == pytest.approx(found["measured"], rel=1e-6)
    assert found["measured"] < 0.98


def test_weak_and_strong_curves_of_a_study_are_apart(tmp_path):
    weak = [measurement(MACHINE, ranks, steps=4) for ranks in (1, 2, 4)]
    strong = [measurement(replace(MACHINE, compute=0.05), 2, steps=4, batch=16)]
    folder = write(tmp_path / "s", *weak, *strong)
    modes = {"ranks-00001-0.json": ["weak", "strong"], "ranks-00002-3.json": ["strong"]}
    jobs = [{"file": path.name, "modes": modes.get(path.name, ["weak"])} for path in folder.glob("*.json")]
    (folder / "study.json").write_text(json.dumps({"jobs": jobs}))
    found = {mode: fit_study(folder, mode=mode).curve for mode in (None, "weak", "strong")}
    assert [(one.mode, [size.ranks for size in one.sizes]) for one in found.values()] == [
        ("weak", [1, 2, 4]),
        ("weak", [1, 2, 4]),
        ("strong", [1, 2]),
    ]


def test_crowded_ranks_and_peers_are_not_fitted(tmp_path):
    sizes = [measurement(MACHINE, ranks, steps=4) for ranks in (1, 2, 4)]
    for node in sizes[2]["nodes"]:
        node["cores"] = 2
    peer = {**measurement(MACHINE, 2, steps=4), "framework": "pytorch-ddp"}
    partial = {**measurement(MACHINE, 8, steps=4), "gradient_bytes": None}
    fitted = fit_study(write(tmp_path / "s", *sizes, peer, partial))
    assert [(size.ranks, len(size.runs)) for size in fitted.curve.sizes] == [(1, 1), (2, 1)]
    assert any("no bytes of gradients" in line and "ranks-00008-4.json" in line for line in describe(fitted))
    assert any("at 4 ranks: left out" in line for line in describe(fitted))


def test_crowded_ranks_can_be_held_out_with_their_computation_given(tmp_path):
    def one(ranks):
        # on 2 cores, 4 ranks compute half as fast
        machine = replace(MACHINE, compute=0.1 * max(1, ranks / 2))
        figures = measurement(machine, ranks, "tree", steps=4, bytes=20 * MB)
        figures["nodes"][0]["cores"] = 2
        return figures

    folder = write(tmp_path / "s", *map(one, (1, 2, 4)))
    fitted = fit_study(folder, Network(Link(MACHINE.alpha, MACHINE.beta), algorithm="tree"), crowded=True)
    held = fitted.holdout
    assert held["ranks"] == 4
    assert held["error"] == pytest.approx(0, abs=0.01)


def test_remedies_are_what_the_model_makes_of_another_step(tmp_path):
    # 20 MB over 16 ranks: 30/16 of them at 500 MB/s, 75 ms beside a step of 100 ms, and 8 messages of 0.2 ms, and 8
    sizes = [measurement(MACHINE, ranks, "tree", steps=4, bytes=20 * MB) for ranks in (1, 2, 4, 8)]
    found = fit_study(write(tmp_path / "s", *sizes), algorithm="tree").remedies(16)
    step = 0.1 + 0.075 + 16 * 200e-6
    assert found["half the bytes on the wire"] == pytest.approx(step / (step - 0.0375), rel=1e-3)
    assert found["lag 1"] == pytest.approx(step / 0.1, rel=1e-3)
    assert found["no rank slower than the mean"] == pytest.approx(1)
    # the last of 4 buckets shows a quarter of the bytes; of 8, all that the backward pass leaves of their messages
    assert found["4 buckets"] > 1.2
    assert set(found) == {"half the bytes on the wire", "lag 1", "4 buckets", "no rank slower than the mean"}


def test_one_size_is_told_what_is_missing(tmp_path):
    folder = write(tmp_path / "s", measurement(MACHINE, 2, steps=4))
    with pytest.raises(UserError, match=r"one size only, 2 ranks: a step takes .* needs two sizes or more"):
        fit_study(folder)


def allreduce(ranks, nodes, latency, byte_time, library="MPI", **ways):
    found = {"Horovod": {"library": library, "fit": {"latency": latency, "byte_time": byte_time}}, **ways}
    node = {"host": "a", "ranks": ranks // nodes, "cores": 8, "gpus": []}
    return {"benchmark": "allreduce", "ranks": ranks, "nodes": [node] * nodes, "cycle_time": 1e-3, "ways": found}


def test_links_come_from_measured_all_reduces(tmp_path):
    from hpc_train.bench.step_model.given_links import network_of

    mpi = {"library": "MPICH", "fit": {"latency": 120e-6, "byte_time": 9e-9}}
    one, several = tmp_path / "one.json", tmp_path / "several.json"
    one.write_text(json.dumps(allreduce(4, 1, 900e-6, 6e-9, MPI=mpi)))
    network = network_of((one,), "tree")
    # a tree over 4 ranks is 4 messages, and 3/2 of the bytes
    assert network.between.latency == pytest.approx(30e-6)
    assert network.between.byte_time == pytest.approx(4e-9)
    assert network.wait == pytest.approx(900e-6 - 120e-6 - 4 * 30e-6)
    # without MPI's figures half a cycle is the wait: 400 us are left of 900
    one.write_text(json.dumps(allreduce(4, 1, 900e-6, 6e-9, library="Gloo")))
    assert network_of((one,), "tree").between.latency == pytest.approx(100e-6)
    # 8 ranks on 2 nodes: within as above, 400 us and 6 ns; what is left is 2 messages, and once the bytes
    several.write_text(json.dumps(allreduce(8, 2, 1500e-6, 26e-9, library="Gloo")))
    network = network_of((several, one), "tree")
    assert network.within.latency == pytest.approx(100e-6)
    assert network.between.latency == pytest.approx((1000e-6 - 400e-6) / 2)
    assert network.between.byte_time == pytest.approx(20e-9)
    assert network.ranks_per_node == 4


def test_one_size_is_enough_where_the_links_are_measured(tmp_path, capsys):
    folder = write(tmp_path / "s", measurement(MACHINE, 2, "tree", steps=4, bytes=20 * MB))
    path = tmp_path / "allreduce.json"
    fit = {"latency": 2 * MACHINE.alpha, "byte_time": MACHINE.beta}
    path.write_text(json.dumps(allreduce(2, 1, 2 * MACHINE.alpha, MACHINE.beta, MPI={"library": "x", "fit": fit})))
    run(PredictScaling(folder, np="2,64", allreduce=(path,), json=True))
    rows = json.loads(capsys.readouterr().out)["predictions"]
    for row in rows:
        shown = MACHINE.shown({"bytes": 20 * MB, "buckets": 1, "lag": 0}, row["ranks"], MACHINE.tree)
        assert row["step"] == pytest.approx(0.1 + shown, rel=1e-3)


@pytest.mark.parametrize(
    ("text", "named"),
    [(None, "No such file"), ("{", "no figures of"), ('{"benchmark": "throughput"}', "not of this benchmark")],
)
def test_what_is_no_measurement_of_all_reduces_is_told(tmp_path, text, named):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    folder = write(tmp_path / "s", measurement(MACHINE, 2, steps=4))
    with pytest.raises(UserError, match=rf"--allreduce .*{named}"):
        run(PredictScaling(folder, allreduce=(path,)))


def test_published_efficiencies_are_met_where_the_docstring_says():
    found = {(row["network"], row["ranks"]): row for row in published.table()}
    # Inception V3 by hand: 64 samples at 142/s; 95.4 MB in two buffers, of which the last shows; ring of 512: 256 hops
    # through the network, 766 through PCIe, 1022 of 1/512 of the bytes at 25 Gbit/s; coordination 2 (7 x 6.6 + 2 x 5.7)
    last = 256 * 6.6e-6 + 766 * 5.7e-6 + 1022 / 512 * 47.7e6 * 8 / 25e9 + 2 * (7 * 6.6e-6 + 2 * 5.7e-6)
    assert found["Inception V3", 512]["predicted"] == pytest.approx(64 / 142 / (64 / 142 + last), abs=1e-4)
    for name in ("Inception V3", "ResNet-101"):
        for ranks in (128, 512):
            assert abs(found[name, ranks]["difference"]) < 0.02
    assert abs(found["VGG-16", 128]["difference"]) < 0.02
    # The model misses these, and says so.
    assert 0.08 < found["VGG-16", 512]["difference"] < 0.12
    assert 0.12 < found["Tiramisu", 5300]["difference"] < 0.17
    assert 0.02 < found["DeepLabv3+", 27360]["difference"] < 0.05
    for row in found.values():
        compute, slowest = 1.0, spread.factor("normal", row["ranks"])
        exposed = compute / row["predicted"] - compute
        assert compute / (compute + exposed + row["needed"] * slowest) == pytest.approx(row["published"])


def test_the_command_prints_predictions_and_what_they_stand_on(noisy, tmp_path, capsys):
    sizes = [measurement(MACHINE, ranks, steps=4) for ranks in (1, 2, 4)]
    run(PredictScaling(write(tmp_path / "s", *sizes), np="64,27360", published=True))
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[0] for line in printed[2:7]] == ["1", "2", "4", "64", "27360"]
    assert printed[2].startswith("1 100 100 0 0 0 1.000 1.000 to 1.000 320 320")
    assert printed[6].endswith(" -")
    assert any(line.startswith("two sizes cannot tell a ring from a tree") for line in printed)
    assert any(line.startswith("what would change samples/s at 27360 ranks") for line in printed)
    assert any(line.startswith("VGG-16 512 0.680 ") for line in printed)


def test_nothing_to_predict_is_an_error():
    with pytest.raises(UserError, match="name the folder of a study, or give --published"):
        run(PredictScaling())
