"""The step model fitted to studies: the constants of made-up machines are found again, and predict other sizes."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_up_machine import MACHINE, MB, Machine, measurement, write

from hpc_train.bench.step_model import fit_study
from hpc_train.bench.step_model.command import PredictScaling, run
from hpc_train.bench.step_model.describe import describe
from hpc_train.bench.step_model.given_links import network_of
from hpc_train.bench.step_model.job import Job
from hpc_train.bench.step_model.network import Link, Network
from hpc_train.errors import UserError


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


def test_links_within_and_between_nodes_are_found_separately(tmp_path):
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
    (line,) = [line for line in describe(noisy[1]) if line.startswith("hold-out: 16 ranks predicted from 1, 2, 4, 8")]
    assert f"error {held['error']:+.1%}" in line


def test_a_sweep_changes_the_speed_as_the_model_predicts(tmp_path):
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
    assert any("one size cannot separate latency from bandwidth" in line for line in describe(fitted))
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


def test_a_longer_cycle_costs_half_of_the_added_time(tmp_path):
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


def test_weak_and_strong_curves_of_a_study_are_separate(tmp_path):
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


def test_remedies_are_the_models_predictions_for_another_step(tmp_path):
    # 20 MB over 16 ranks: 30/16 of them at 500 MB/s, 75 ms beside a step of 100 ms, and 8 messages of 0.2 ms, and 8
    sizes = [measurement(MACHINE, ranks, "tree", steps=4, bytes=20 * MB) for ranks in (1, 2, 4, 8)]
    found = fit_study(write(tmp_path / "s", *sizes), algorithm="tree").remedies(16)
    step = 0.1 + 0.075 + 16 * 200e-6
    assert found["half the bytes on the wire"] == pytest.approx(step / (step - 0.0375), rel=1e-3)
    assert found["lag 1"] == pytest.approx(step / 0.1, rel=1e-3)
    assert found["no rank slower than the mean"] == pytest.approx(1)
    # of 4 buckets, the last one is exposed: a quarter of the bytes; of 8, the messages do not fit the backward pass
    assert found["4 buckets"] > 1.2
    assert set(found) == {"half the bytes on the wire", "lag 1", "4 buckets", "no rank slower than the mean"}


def test_a_study_of_one_size_is_refused_with_what_it_lacks(tmp_path):
    folder = write(tmp_path / "s", measurement(MACHINE, 2, steps=4))
    with pytest.raises(UserError, match=r"one size only, 2 ranks: a step takes .* needs two sizes or more"):
        fit_study(folder)


def allreduce(ranks, nodes, latency, byte_time, library="MPI", **ways):
    found = {"Horovod": {"library": library, "fit": {"latency": latency, "byte_time": byte_time}}, **ways}
    node = {"host": "a", "ranks": ranks // nodes, "cores": 8, "gpus": []}
    return {"benchmark": "allreduce", "ranks": ranks, "nodes": [node] * nodes, "cycle_time": 1e-3, "ways": found}


def test_links_come_from_measured_all_reduces(tmp_path):
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
    # 8 ranks on 2 nodes: within as above, 400 us and 6 ns; the rest is 2 messages, and once the bytes
    several.write_text(json.dumps(allreduce(8, 2, 1500e-6, 26e-9, library="Gloo")))
    network = network_of((several, one), "tree")
    assert network.within.latency == pytest.approx(100e-6)
    assert network.between.latency == pytest.approx((1000e-6 - 400e-6) / 2)
    assert network.between.byte_time == pytest.approx(20e-9)
    assert network.ranks_per_node == 4


def test_one_size_is_enough_if_the_links_are_measured(tmp_path, capsys):
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
def test_a_file_that_is_not_a_measurement_of_all_reduces_is_refused(tmp_path, text, named):
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    folder = write(tmp_path / "s", measurement(MACHINE, 2, steps=4))
    with pytest.raises(UserError, match=rf"--allreduce .*{named}"):
        run(PredictScaling(folder, allreduce=(path,)))


def test_the_command_prints_predictions_and_their_basis(noisy, tmp_path, capsys):
    sizes = [measurement(MACHINE, ranks, steps=4) for ranks in (1, 2, 4)]
    run(PredictScaling(write(tmp_path / "s", *sizes), np="64,27360", published=True))
    printed = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert [line.split()[0] for line in printed[2:7]] == ["1", "2", "4", "64", "27360"]
    assert printed[2].startswith("1 100 100 0 0 0 1.000 1.000 to 1.000 320 320")
    assert printed[6].endswith(" -")
    assert any(line.startswith("two sizes cannot show whether ranks reduce in a ring or a tree") for line in printed)
    assert any(line.startswith("what would change samples/s at 27360 ranks") for line in printed)
    assert any(line.startswith("VGG-16 512 0.680 ") for line in printed)


def test_nothing_to_predict_is_an_error():
    with pytest.raises(UserError, match="name the folder of a study, or give --published"):
        run(PredictScaling())
