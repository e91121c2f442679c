"""The figures of a study's report: parts of a step, charts, sweeps and timelines, from made-up measurements."""

import numpy as np
import pytest
from made_up_study import Page, measurement, weak, write

from hpc_train.report import charts, study_tables, timelines
from hpc_train.report.step import parts_of, percentiles_of, teraflops_of
from hpc_train.report.study import open_studies

pytest.importorskip("matplotlib")


def test_the_parts_of_a_step_add_up_to_what_was_measured():
    jobs = [measurement(2, 100.0)]  # a step of 200 ms
    parts = parts_of(jobs, 0.2)
    # 0.8 of a step computing, 0.05 for the slowest rank, 0.1 more with the all-reduce, 0.03 waiting for data.
    expected = {"computing": 0.16, "slowest rank": 0.01, "communication": 0.02, "input wait": 0.006, "other": 0.004}
    assert parts == pytest.approx(expected)
    assert parts_of([measurement(2, 100.0, steps={})], 0.2) is None


def test_percentiles_are_of_the_slowest_rank_in_every_step_of_all_jobs():
    jobs = [measurement(1, 1, steps={"fit": {"slowest": part.tolist()}}) for part in np.split(np.arange(101.0), [40])]
    assert percentiles_of(jobs) == {50: 50.0, 95: 95.0, 99: 99.0}


def test_operations_a_second_are_those_of_a_rank():
    # 2 GFLOP a sample, 100 samples/s on each of four ranks.
    assert teraflops_of([measurement(4, 400.0)], 400.0) == pytest.approx((0.2, 0.2))
    assert teraflops_of([measurement(4, 400.0, flops_per_sample=None)], 400.0) == (None, None)


def test_the_charts_show_means_errors_ideal_and_hollow_points_where_cores_are_shared(tmp_path):
    (opened,) = open_studies({"weak": write(tmp_path / "weak", weak())})
    _, (speed, share) = charts.grid(2)
    charts.throughput(speed, opened.series)
    charts.efficiency(share, opened.series)
    ideal, curve = speed.lines[:2]
    np.testing.assert_allclose(ideal.get_xydata(), [[1, 100], [2, 200], [4, 400]])
    means = [100.0, 89.1 + 92.92, 2 * (39.6 + 42.42)]
    np.testing.assert_allclose(curve.get_ydata(), means)
    markers = [container.lines[0] for container in speed.containers]
    assert [marker.get_markerfacecolor() == "#ffffff" for marker in markers] == [False, False, True]
    ends = [container.lines[2][0].get_segments()[0][:, 1] for container in speed.containers]
    # The error of the mean of two is half their difference.
    np.testing.assert_allclose([(high - low) / 2 for low, high in ends], [1.0, 92.92 - 89.1, 2 * (42.42 - 39.6)])
    np.testing.assert_allclose(share.lines[0].get_ydata(), [1, 0.91, 0.41])


def test_the_bars_of_a_step_stand_on_each_other(tmp_path):
    (opened,) = open_studies({"weak": write(tmp_path / "weak", weak((1, 2)))})
    _, (axes,) = charts.grid(1)
    charts.breakdown(axes, opened.series[0])
    bars = sorted(axes.patches, key=lambda bar: (bar.get_x(), bar.get_y()))
    (series,) = opened.series
    for row, stack in zip(series.rows, np.split(np.array(bars), 2), strict=True):
        heights = [bar.get_height() for bar in stack]
        np.testing.assert_allclose(heights, [1e3 * seconds for seconds in row["parts"].values()])
        np.testing.assert_allclose([bar.get_y() for bar in stack], np.cumsum([0, *heights[:-1]]))
        # A step is as long as its parts.
        np.testing.assert_allclose(sum(heights), 1e3 * row["step"])
        np.testing.assert_allclose(row["step"], 10 * row["ranks"] / row["samples_per_s"]["fit"]["mean"])


def test_variants_of_a_sweep_are_curves_of_their_own_beside_the_first(tmp_path):
    jobs = []
    for place, (bucket, gain) in enumerate((("1", 1.0), ("32", 1.25))):
        for name, part, figures in weak((1, 2)):
            variant = {**part, "variant": {"bucket_mib": bucket}, "place": place}
            rates = {way: [gain * rate for rate in rates] for way, rates in figures["rates"].items()}
            options = {**figures["options"], "bucket_mib": bucket}
            jobs.append((f"{name}-{bucket}", variant, {**figures, "rates": rates, "options": options}))
    (opened,) = open_studies({"sweep": write(tmp_path / "sweep", jobs)})
    page = Page(study_tables.speed(opened.series, "Weak scaling") + study_tables.sweeps(opened.series))
    assert [row["curve"] for row in page.table("Weak scaling")] == ["bucket mib 1"] * 2 + ["bucket mib 32"] * 2
    heads = "variant", "ranks", "ratio", "95 %", "what it shows"
    ratios = [tuple(map(row.get, heads)) for row in page.table("Samples/s relative to the sweep")]
    assert ratios == [("bucket mib 32", size, "1.250", "1.250 to 1.250", "a difference") for size in ("1", "2")]


def test_curves_that_differ_in_a_condition_are_named_by_it(tmp_path):
    fast = [(f"f-{name}", part, figures) for name, part, figures in weak((1,), flops_per_sample=None)]
    for _, _, figures in fast:
        figures["options"]["precision"] = "mixed_bfloat16"
    (opened,) = open_studies({"s": write(tmp_path / "s", [*weak((1,)), *fast])})
    labels = {one.label for one in opened.series}
    assert labels == {"mnist deep, precision float32", "mnist deep, precision mixed_bfloat16"}


def test_what_horovods_timelines_say_is_shown_by_size(tmp_path):
    names = ("negotiation", "queueing", "waiting for data", "fusion copy in", "collective", "fusion copy out")
    timeline = {
        "stages": {name: {"wall_share": 0.1 * place} for place, name in enumerate(names)},
        "idle": {"wall_share": 0.25},
        "ranks_last": [{"rank": 1, "share": 0.9}, {"rank": 0, "share": 0.1}],
        "advice": ["rank 1 is last in 90 % of the negotiations"],
    }
    jobs = weak((2,), communication={"share": [0.1, 0.1], "timeline": timeline})
    (opened,) = open_studies({"s": write(tmp_path / "s", jobs)})
    page = Page(timelines.table(opened.series))
    (row,) = page.table("Horovod's timeline")
    assert [row[name] for name in names] == ["0.0 %", "10.0 %", "20.0 %", "30.0 %", "40.0 %", "50.0 %"]
    assert (row["idle"], row["last most often"]) == ("25.0 %", "rank 1, 90.0 %")
    assert timelines.advice(opened.series) == ["mnist deep, 2 ranks: rank 1 is last in 90 % of the negotiations"]
