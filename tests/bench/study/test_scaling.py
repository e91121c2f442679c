"""`hpc-train bench scaling`: the tables of a study, from made-up measurements with known answers."""

import json
import math
from statistics import stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import measured, node

from hpc_train.bench.estimate import Estimate, of_jobs, ratio
from hpc_train.bench.hardware import by_host, shared
from hpc_train.bench.study.command import Scaling, read, run
from hpc_train.errors import UserError

rate = st.floats(1, 1e6)


def planned(study, *jobs):
    """Write the plan; jobs: (file, repeat, other fields)."""
    plan = [{"modes": ["weak"], "variant": {}, "place": 0, "file": f, "repeat": r, **more} for f, r, more in jobs]
    (study / "study.json").write_text(json.dumps({"settings": {}, "jobs": plan}))


def printed(capsys, study, **options):
    run(Scaling(study, **options))
    return capsys.readouterr()


def tables(capsys, study):
    return json.loads(printed(capsys, study, json=True).out)["tables"]


def lines(capsys, study):
    return [" ".join(line.split()) for line in printed(capsys, study).out.splitlines()]


def test_the_error_of_several_jobs_is_that_of_their_means():
    # Means 20, 40, 30: mean 30, standard deviation 10.
    jobs = [(1, [10, 30]), (2, [40]), (3, [20, 30, 40]), (4, [])]
    assert of_jobs(jobs) == Estimate(30, pytest.approx(10 / math.sqrt(3)))


def test_the_error_of_one_job_is_that_of_its_rounds():
    assert of_jobs([(1, [1, 2, 3, 4])]) == Estimate(2.5, pytest.approx(math.sqrt(5 / 3) / 2))
    assert of_jobs([(1, [7])]) == Estimate(7, None)
    assert of_jobs([(1, [])]) is None


def test_a_ratio_is_taken_within_the_repeats_that_have_both():
    above, below = [(1, [2]), (2, [40]), (3, [9])], [(2, [10]), (1, [1]), (4, [1000])]
    # 2 and 4: neither the drift between repeats counts, nor repeats without a partner.
    assert ratio(above, below) == Estimate(3, pytest.approx(stdev([2, 4]) / math.sqrt(2)))


def test_a_ratio_of_jobs_that_are_not_paired_adds_their_relative_errors_as_squares():
    above, below = [(None, [30, 50])], [(None, [10, 10]), (None, [20, 40])]
    # 40 +- 10 over 20 +- 10
    assert ratio(above, below) == Estimate(2, pytest.approx(2 * math.hypot(10 / 40, 10 / 20)))
    assert ratio(above, [(None, [20])]) == Estimate(2, None)
    assert ratio(above, []) is None


@settings(deadline=None)
@given(st.lists(st.tuples(rate, rate, rate), min_size=2, max_size=5), st.floats(0.1, 10))
def test_a_ratio_does_not_depend_on_the_speed_of_the_machine_in_each_repeat(repeats, quotient):
    below = [(i, [one, two]) for i, (one, two, _) in enumerate(repeats)]
    above = [(i, [quotient * one, quotient * two]) for i, (one, two, _) in enumerate(repeats)]
    found = ratio(above, below)
    assert found.mean == pytest.approx(quotient)
    assert found.error == pytest.approx(0, abs=1e-9 * quotient)
    drifting = [speed for *_, speed in repeats]
    assert ratio(*([(i, [v * drifting[i] for v in vs]) for i, vs in jobs] for jobs in (above, below))).mean == (
        pytest.approx(quotient)
    )


def test_efficiency_is_samples_of_a_rank_over_those_of_the_smallest_size(tmp_path, capsys):
    study = tmp_path / "study"
    measured(study / "b.json", [node(2)], [150, 180, 180], [200, 200, 200])
    measured(study / "a.json", [node(1)], [90, 100, 110], [100, 100, 100])
    measured(study / "c.json", [node(2), node(2, host="node2")], [310, 290, 300], [400, 400, 500])
    (table,) = tables(capsys, study)
    assert table["mode"] == "weak"
    assert [(row["ranks"], row["nodes"], row["against"]) for row in table["rows"]] == [(1, 1, 1), (2, 1, 1), (4, 2, 1)]
    one, two, four = table["rows"]
    assert two["samples_per_s"]["fit"] == pytest.approx({"mean": 170, "error": 10})
    assert one["efficiency"]["fit"] == {"mean": 1, "error": None}
    # 85 +- 5 over 100 +- 10 / sqrt(3)
    error = 0.85 * math.hypot(5 / 85, 1 / (10 * math.sqrt(3)))
    assert two["efficiency"]["fit"] == pytest.approx({"mean": 0.85, "error": error})
    assert four["efficiency"]["fit"]["mean"] == pytest.approx(0.75)
    assert two["efficiency"]["fit alone"]["mean"] == pytest.approx(1)
    # 0.75, 0.9, 0.9 within the rounds; 0.775, 0.725, 0.6.
    assert two["alone"] == pytest.approx({"mean": 0.85, "error": 0.05})
    assert four["alone"]["mean"] == pytest.approx(0.7)
    assert "2 1 4 64 1 170 ± 10 0.850 ± 0.070 0.850 ± 0.050 - - -" in lines(capsys, study)


@pytest.mark.parametrize(
    ("together", "alone", "shown", "why"),
    [
        ([122, 125, 121], [100, 100, 100], "1.227 ± 0.012!", "above 1 by more than its error"),
        ([190, 100, 80], [100, 100, 100], "1.233 ± 0.338!", "its error is more than a tenth"),
        ([103], [100], "1.030!", "above 1 by more than its error"),
        ([99, 101, 100], [100, 100, 100], "1.000 ± 0.006", None),
        ([101], [100], "1.010", None),
    ],
)
def test_a_share_that_cannot_be_is_flagged(tmp_path, capsys, together, alone, shown, why):
    measured(tmp_path / "study/a.json", [node(1)], together, alone)
    (table,) = tables(capsys, tmp_path / "study")
    assert table["rows"][0]["doubt"] == why
    text = lines(capsys, tmp_path / "study")
    assert any(f" {shown} " in line for line in text), text
    flagged = [line for line in text if line.startswith("! fit / alone is not to be believed")]
    assert [why in line for line in flagged] == ([True] if why else [])


def test_the_ceiling_is_the_efficiency_that_waiting_for_the_slowest_rank_leaves(tmp_path, capsys):
    for repeat, slowest in enumerate(([0.12, 0.16], [0.12, 0.12]), 1):
        steps = {"fit alone": {"mean": [0.10, 0.11], "slowest": slowest}}
        measured(tmp_path / f"study/ranks-00002-repeat-{repeat}.json", [node(2)], [150], [200], steps=steps)
    (table,) = tables(capsys, tmp_path / "study")
    # 0.75 and 0.875
    assert table["rows"][0]["ceiling"] == pytest.approx({"mean": 0.8125, "error": 0.0625})
    assert any("0.750 ± 0.000 0.81" in line for line in lines(capsys, tmp_path / "study"))


def test_one_rank_waits_for_nobody(tmp_path, capsys):
    steps = {"fit alone": {"mean": [0.1], "slowest": [0.1]}}
    measured(tmp_path / "study/a.json", [node(1)], [100], steps=steps)
    (table,) = tables(capsys, tmp_path / "study")
    assert table["rows"][0]["ceiling"] is None


def test_the_smallest_size_need_not_be_one_rank(tmp_path, capsys):
    measured(tmp_path / "study/a.json", [node(4)], [400])
    measured(tmp_path / "study/b.json", [node(8)], [600])
    (table,) = tables(capsys, tmp_path / "study")
    assert table["rows"][1]["efficiency"]["fit"]["mean"] == pytest.approx(0.75)
    assert "efficiency: samples/s of a rank over those of 4 ranks" in lines(capsys, tmp_path / "study")


def test_repeats_of_a_size_count_as_jobs_and_are_paired_with_those_of_the_smallest(tmp_path, capsys):
    study = tmp_path / "study"
    speeds = {1: (100, 180), 2: (50, 80), 3: (200, 340)}
    for repeat, (one, two) in speeds.items():
        measured(study / f"ranks-00001-repeat-{repeat}.json", [node(1)], [one, one])
        measured(study / f"ranks-00002-repeat-{repeat}.json", [node(2)], [two - 2, two + 2])
    planned(study, *((f"ranks-0000{ranks}-repeat-{r}.json", r, {}) for ranks in (1, 2) for r in speeds))
    (table,) = tables(capsys, study)
    two = table["rows"][1]
    assert (two["jobs"], two["samples_per_s"]["fit"]["mean"]) == (3, 200)
    quotients = [0.9, 0.8, 0.85]
    assert two["efficiency"]["fit"] == pytest.approx({"mean": 0.85, "error": stdev(quotients) / math.sqrt(3)})


def test_weak_and_strong_scaling_have_separate_tables_and_share_the_smallest_size(tmp_path, capsys):
    study, both = tmp_path / "study", {"modes": ["weak", "strong"]}
    one = measured(study / "one.json", [node(1)], [100])
    weak = measured(study / "weak.json", [node(2)], [180])
    strong = measured(study / "strong.json", [node(2)], [150], batch_size=32)
    planned(study, (one, 1, both), (weak, 1, {}), (strong, 1, {"modes": ["strong"]}))
    found = tables(capsys, study)
    assert [(table["mode"], [row["files"] for row in table["rows"]]) for table in found] == [
        ("weak", [["one.json"], ["weak.json"]]),
        ("strong", [["one.json"], ["strong.json"]]),
    ]
    assert found[1]["rows"][1]["efficiency"]["fit"]["mean"] == pytest.approx(0.75)
    assert (found[0]["conditions"]["batch size"], found[1]["conditions"]["global batch"]) == ("64", "64")


def test_variants_of_a_sweep_are_rows_with_their_ratio_to_the_first_value(tmp_path, capsys):
    study, jobs = tmp_path / "study", []
    for place, bucket in enumerate(("8", "1")):
        for repeat, speed in ((1, 100), (2, 50)):
            for ranks in (1, 2):
                fit = [speed * ranks * (1 + place * ranks)]
                name = f"b{bucket}-{ranks}-{repeat}.json"
                measured(study / name, [node(ranks)], fit, options={"bucket_mib": float(bucket)})
                jobs.append((name, repeat, {"variant": {"bucket_mib": bucket}, "place": place}))
    planned(study, *jobs)
    (table,) = tables(capsys, study)
    kept = lambda ratio: ratio and {name: ratio[name] for name in ("mean", "error", "low", "doubt")}  # noqa: E731
    rows = [(row["variant"]["bucket_mib"], row["ranks"], kept(row.get("over_base"))) for row in table["rows"]]
    assert rows == [
        ("8", 1, None),
        ("8", 2, None),
        ("1", 1, {"mean": 2, "error": 0, "low": 2, "doubt": None}),
        ("1", 2, {"mean": 3, "error": 0, "low": 3, "doubt": None}),
    ]
    # 3 over 2: each variant against its own smallest size.
    assert table["rows"][3]["efficiency"]["fit"]["mean"] == pytest.approx(1.5)
    assert {"bucket_mib 1:", "/ base, 2 ranks: 3.000 (95 %: 3.000 to 3.000)"} <= set(lines(capsys, study))


def test_peers_are_rows_with_the_ratio_of_ours_to_theirs(tmp_path, capsys):
    study = tmp_path / "study"
    ours = measured(study / "ours.json", [node(2)], [260])
    versions = {"versions": {"torch": "2.13.0"}, "options": {"bucket_mib": None}}
    theirs = measured(study / "theirs.json", [node(2)], [200], framework="pytorch-ddp", **versions)
    planned(study, (ours, 1, {}), (theirs, 1, {}))
    (table,) = tables(capsys, study)
    assert [row["framework"] for row in table["rows"]] == ["hpc-train", "pytorch-ddp"]
    assert table["rows"][1]["ours_over_peer"]["mean"] == pytest.approx(1.3)
    assert "pytorch-ddp:" in lines(capsys, study)


def test_communication_and_input_wait_are_means_over_jobs(tmp_path, capsys):
    study = tmp_path / "study"
    for number, shares in enumerate(([0.1, 0.3], [0.3, 0.5])):
        more = {"communication": {"share": shares, "timeline": None}, "input_wait": {"fit": [0.01, 0.03]}}
        measured(study / f"{number}.json", [node(2)], [100, 100], **more)
    (table,) = tables(capsys, study)
    assert table["rows"][0]["communication"] == pytest.approx({"mean": 0.3, "error": 0.1})
    assert table["rows"][0]["input_wait"] == pytest.approx({"mean": 0.02, "error": 0})
    assert "2 1 4 64 2 100 ± 0 1.000 0.500 ± 0.000 - 30.0 ± 10.0 % 2.00 %" in lines(capsys, study)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 32}, "batch size"),
        ({"model": "fc"}, "model"),
        ({"data": "fedcba9876543210"}, "data"),
        ({"nodes": [node(2, processor="Opteron")]}, "processor"),
        ({"nodes": [node(2, gpus=["H100", "H100"])]}, "GPU"),
        ({"options": {"bucket_mib": 1.0}}, "bucket mib"),
    ],
)
def test_different_conditions_are_named_and_never_compared(tmp_path, capsys, change, named):
    measured(tmp_path / "study/a.json", [node(1)], [100])
    measured(tmp_path / "study/b.json", **{"nodes": [node(2)], "fit": [150], **change})
    separate = tables(capsys, tmp_path / "study")
    assert [[row["efficiency"]["fit"]["mean"] for row in table["rows"]] for table in separate] == [[1], [1]]
    assert f"the measurements differ in {named}: 2 tables" in printed(capsys, tmp_path / "study").out


def test_options_that_do_not_change_a_step_may_differ(tmp_path, capsys):
    measured(tmp_path / "study/a.json", [node(1)], [100])
    measured(tmp_path / "study/b.json", [node(2)], [150], options={"steps": 30, "rounds": 3, "output": "x"})
    assert len(tables(capsys, tmp_path / "study")) == 1


def test_ranks_that_share_cores_or_gpus_are_marked(tmp_path, capsys):
    study = tmp_path / "study"
    measured(study / "a.json", [node(2, cores=2)], [100])
    measured(study / "b.json", [node(2, cores=2), node(3, cores=2, host="node2")], [150])
    (table,) = tables(capsys, study)
    assert [row["shared"] for row in table["rows"]] == [False, True]
    found = lines(capsys, study)
    assert [line.split()[0] for line in found if line.endswith("- -")] == ["2", "5*"]
    assert "* ranks share cores or GPUs: this says nothing about scaling" in found
    assert shared([node(4, cores=8, gpus=["H100"] * 2)])
    assert not shared([node(4, cores=8, gpus=["H100"] * 4)])


def test_different_numbers_of_threads_are_noted(tmp_path, capsys):
    measured(tmp_path / "study/a.json", [node(1)], [100], threads=8)
    measured(tmp_path / "study/b.json", [node(2)], [100], threads=8)
    assert "unequal ranks" not in printed(capsys, tmp_path / "study").out
    measured(tmp_path / "study/b.json", [node(2)], [100], threads=4)
    assert "unequal ranks" in printed(capsys, tmp_path / "study").out


def test_a_damaged_or_foreign_file_is_one_line_and_the_rest_is_reported(tmp_path, capsys):
    study = tmp_path / "study"
    measured(study / "good.json", [node(1)], [100])
    (study / "cut.json").write_text((study / "good.json").read_text()[:200])
    (study / "foreign.json").write_text('{"a": 1}')
    (study / "list.json").write_text("[1, 2]")
    (study / "binary.json").write_bytes(b"\xff\xfe\x00")
    (study / ".half-written.json").write_text("")
    (study / "allreduce.json").write_text('{"benchmark": "allreduce"}')
    measured(study / "stopped.json", [node(1)], [100, 0])
    measured(study / "empty.json", [], [100])
    measured(study / "old.json", [node(1)], [100], format=1)
    found = printed(capsys, study).err.splitlines()
    assert [line.split()[3].rpartition("/")[2] for line in found] == [
        f"{name}.json:" for name in ("binary", "cut", "empty", "foreign", "list", "old", "stopped")
    ]
    assert "cut.json: is not JSON" in found[1]
    assert "foreign.json: it is not a measurement of `bench throughput` (no 'rates')" in found[3]
    assert "format 1, and this reads 2: measure again" in found[5]
    (table,) = tables(capsys, study)
    assert [row["files"] for row in table["rows"]] == [["good.json"]]


def test_a_damaged_plan_is_one_line_and_the_measurements_count_as_weak_scaling(tmp_path):
    measured(tmp_path / "one.json", [node(1)], [100])
    (tmp_path / "study.json").write_text("{")
    (measurement,), left_out = read(tmp_path)
    assert (measurement.modes, measurement.repeat) == (("weak",), None)
    assert ["left out: " in line and "study.json: is not JSON" in line for line in left_out] == [True]


def test_a_study_without_measurements_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        run(Scaling(tmp_path / "none"))
    (tmp_path / "cut.json").write_text("{")
    with pytest.raises(UserError, match=r"holds no measurement; left out: .*cut\.json: is not JSON") as refused:
        run(Scaling(tmp_path))
    assert "\n" not in str(refused.value)


def test_nodes_are_described_by_what_their_ranks_see():
    # Two ranks bound to two cores each, and on the other node two that share all four.
    ranks = [
        {"host": "node1", "processor": "Xeon", "cores": {0, 1}, "gpus": ["H100"]},
        {"host": "node1", "processor": "Xeon", "cores": {2, 3}, "gpus": ["H100"]},
        {"host": "node2", "processor": "Xeon", "cores": {0, 1, 2, 3}, "gpus": []},
        {"host": "node2", "processor": "Xeon", "cores": {0, 1, 2, 3}, "gpus": []},
    ]
    assert by_host(ranks) == [node(2, cores=4, gpus=["H100", "H100"]), node(2, cores=4, host="node2")]
