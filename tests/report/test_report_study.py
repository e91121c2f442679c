"""`hpc-train report` of scaling studies: the page, its charts and tables, from made-up measurements."""

import itertools
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from hpc_train.errors import UserError
from hpc_train.report import charts, command, study_tables, timelines
from hpc_train.report.step import parts_of, percentiles_of, teraflops_of
from hpc_train.report.study import open_studies

pytest.importorskip("matplotlib")

BATCH = 10
# samples/s a rank in each repeat, of sizes 1, 2 and 4; 4 ranks share two cores.
SPEEDS = {1: (99, 101), 2: (0.90 * 99, 0.92 * 101), 4: (0.40 * 99, 0.42 * 101)}
VOID = {"area", "br", "hr", "img", "input", "link", "meta"}


def of_way(mean, slowest, ranks, steps=4):
    told = {"steps": steps, "mean": mean, "std": 0.01 * mean, "p50": mean, "p95": mean, "p99": slowest, "max": slowest}
    by_rank = [{"rank": rank, **told} for rank in range(ranks)]
    return {"by_rank": by_rank, "slowest": [slowest] * steps, "fastest": [mean] * steps, "mean": [mean] * steps}


def measurement(ranks, rate, batch=BATCH, **changed):
    """What `bench throughput` writes, of a job whose rounds have samples/s of 1 % less and more than `rate`."""
    step = ranks * batch / rate
    rates = {"fit": [0.99 * rate, 1.01 * rate], "fit alone": [0.99 * rate / 0.96, 1.01 * rate / 0.96]}
    rates |= {"device": rates["fit"], "device alone": rates["fit alone"]}
    steps = {way: of_way(0.8 * step, 0.85 * step, ranks) for way in ("fit alone", "device alone")}
    steps |= {way: of_way(0.9 * step, 0.95 * step, ranks) for way in ("fit", "device")}
    return {
        "benchmark": "throughput",
        "format": 2,
        "time": "2026-11-22T15:00:00+0000",
        "command": f"hpc-train bench throughput mnist --batch-size {batch}",
        "slurm_job": None,
        "trainer": "mnist",
        "framework": "hpc-train",
        "options": {"data": "shards/mnist", "model": "deep", "batch_size": batch, "precision": "float32"},
        "data": "0123456789abcdef",
        "model": "deep",
        "batch_size": batch,
        "ranks": ranks,
        "threads": 1,
        "nodes": [{"host": "here", "processor": "Made-up CPU", "cores": 2, "ranks": ranks, "gpus": []}],
        "versions": {"hpc-train": "1.2.3", "horovod": "0.28.1"},
        "gradient_bytes": 4_000_000,
        "parameters": 1_000_000,
        "flops_per_sample": 2e9,
        "peak_tflops": 1.0,
        "rates": rates,
        "ratios": {"fit / fit alone": [0.96, 0.96]},
        "steps": steps,
        "input_wait": {"fit": [0.02, 0.04]},
        "communication": {"share": [0.04, 0.04], "timeline": None},
        "peak_memory": {"host": [1_000_000_000 + rank for rank in range(ranks)], "gpu": None},
        **changed,
    }


def write(folder, jobs):
    """A study's folder of (file's name, its part in the plan, figures or None if it was not measured)."""
    folder.mkdir(parents=True)
    planned = []
    for name, part, figures in jobs:
        planned.append({"file": f"{name}.json", "place": 0, "modes": ["weak"], "variant": {}, **part})
        if figures:
            (folder / f"{name}.json").write_text(json.dumps(figures))
    plan = {"command": "hpc-train bench scaling --np 1,2,4", "settings": {}, "jobs": planned, "submitted": {}}
    (folder / "study.json").write_text(json.dumps(plan))
    return folder


def weak(ranks=(1, 2, 4), **changed):
    for size in ranks:
        for repeat, speed in enumerate(SPEEDS[size], 1):
            made = measurement(size, size * speed, **changed)
            yield f"ranks-{size}-repeat-{repeat}", {"repeat": repeat}, made


def strong():
    for repeat in (1, 2):
        made = measurement(2, 140.0, batch=BATCH // 2)
        yield f"ranks-2-strong-repeat-{repeat}", {"repeat": repeat, "modes": ["strong"]}, made


def both():
    """Weak scaling to 4 ranks and strong to 2, as one study of --mode both has them."""
    for name, part, figures in weak():
        modes = ["weak", "strong"] if figures["ranks"] == 1 else ["weak"]
        yield name, {**part, "modes": modes}, figures
    yield from strong()


def of_peer(ranks):
    """A peer's measurement, which knows no way but fit and fit alone."""
    made = measurement(ranks, ranks * 50, framework="pytorch-ddp")
    kept = {name: {way: made[name][way] for way in ("fit", "fit alone")} for name in ("rates", "steps")}
    return {**made, **kept, "communication": {"share": None, "timeline": None}}


class Page(HTMLParser):
    """The tables (rows of cells by caption), tags and text of a page; what is not closed in order fails."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.tables, self.text = [], [], {}, text
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "caption" in self.open:
            self.tables[data] = self.rows
        elif self.open and self.open[-1] in ("th", "td"):
            self.rows[-1][-1] += data

    def table(self, caption):
        """The rows of the one table whose caption begins so, each as a dict by its heads."""
        (rows,) = (rows for title, rows in self.tables.items() if title.startswith(caption))
        for above, row in itertools.pairwise(rows):
            row[:0] = above[: len(above) - len(row)]  # a name that several rows share
        return [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def report(*studies, output=None):
    command.run(command.ReportRuns(tuple(studies), output))
    return Page(((output or studies[0]) / "report.html").read_text())


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study of weak and strong scaling with a peer, one job that failed and one file that is damaged."""
    folder = tmp_path_factory.mktemp("studies") / "full & whole"
    peer = [(f"peer-{size}-{repeat}", {"repeat": repeat}, of_peer(size)) for size in (1, 2) for repeat in (1, 2)]
    write(folder, [*both(), *peer, ("ranks-8-repeat-1", {"repeat": 1}, None)])
    (folder / "ranks-16.json").write_text('{"benchmark": "thr')
    return folder


@pytest.fixture(scope="module")
def page(study):
    return report(study)


def test_the_page_needs_nothing_but_itself(page):
    names = {name for name, _ in page.tags}
    assert not names & {"script", "link", "img", "iframe", "object", "embed", "audio", "video", "base"}
    for _, attributes in page.tags:
        assert all(attributes[name].startswith("#") for name in ("href", "src", "xlink:href") if name in attributes)
    assert not re.search(r"url\((?!#)|@import|@font-face", page.text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert set(re.findall(r'(?:url\(#|href="#)([^")]+)', page.text)) <= set(ids)


def test_the_page_can_be_read_aloud_on_a_phone_and_in_the_dark(page):
    assert ("html", {"lang": "en"}) in page.tags
    (viewport,) = (attributes for tag, attributes in page.tags if tag == "meta" and attributes.get("name"))
    assert viewport == {"name": "viewport", "content": "width=device-width, initial-scale=1"}
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert all(one.get("aria-label") if one.get("role") == "img" else one["aria-hidden"] for one in pictures)
    assert sum(one.get("role") == "img" for one in pictures) == 3 + 3 + 2 + 2
    heads = [attributes for tag, attributes in page.tags if tag == "th"]
    assert all(one["scope"] in ("col", "row", "rowgroup") for one in heads)
    assert len([tag for tag, _ in page.tags if tag == "caption"]) == len(
        [tag for tag, _ in page.tags if tag == "table"]
    )
    assert "prefers-color-scheme:dark" in page.text
    drawn = page.text.partition("</style>")[2]
    assert not re.search(r"(?:fill|stroke): #(?:000000|ffffff)", drawn)


def test_the_table_has_means_with_standard_errors_over_the_jobs(page):
    rows = {(row["curve"], row["ranks"]): row for row in page.table("Weak scaling")}
    one, two, four = (rows["hpc-train", size] for size in ("1", "2", "4*"))
    # Jobs of 99 and 101 samples/s: 100, and |101 - 99| / 2 is the error.
    assert (one["samples/s"], one["jobs"], one["batch per rank"]) == ("100.0 ± 1.0", "2", "10")
    assert one["efficiency"] == "100.0 %"
    # 0.90 and 0.92 of the smallest size in the same repeat.
    assert two["efficiency"] == "91.0 ± 1.0 %"
    assert four["efficiency"] == "41.0 ± 1.0 %"
    assert two["against ranks alone"] == "96.00 ± 0.00 %"
    assert two["input wait"] == "3.00 ± 0.00 %"
    assert rows["pytorch-ddp", "2"]["samples/s"] == "100.0 ± 0.0"


def test_strong_scaling_stands_apart(page):
    ranks = [(row["curve"], row["ranks"], row["batch per rank"]) for row in page.table("Strong scaling")]
    assert ranks == [("hpc-train", "1", "10"), ("hpc-train", "2", "5")]


def test_a_peer_gets_its_ratio_at_each_size(page):
    ratios = {row["ranks"]: row["hpc-train / peer"] for row in page.table("Samples/s of hpc-train relative to")}
    # 99 / 50 and 101 / 50; 0.90 * 99 / 50 and 0.92 * 101 / 50.
    assert ratios == {"1": "2.000 ± 0.020", "2": "1.820 ± 0.038"}


def test_the_page_says_what_is_missing_what_is_damaged_and_what_says_nothing(page):
    assert "not measured: ranks-8-repeat-1" in page.text
    assert "ranks-16.json is left out: it is damaged" in page.text
    assert "share cores or GPUs" in page.text


def test_names_cannot_break_the_page(page):
    assert "<h1>Scaling of full &amp; whole</h1>" in page.text


def test_hardware_conditions_and_exact_commands_are_shown(page):
    (node,) = page.table("Nodes and software")
    assert node["processor"] == "Made-up CPU"
    assert node["versions"] == "hpc-train 1.2.3, horovod 0.28.1"
    assert any("precision float32" in row["options"] for row in page.table("Conditions"))
    assert "hpc-train bench scaling --np 1,2,4" in page.text
    assert "2026-11-22T15:00:00+0000  ranks-2-repeat-1.json\n  hpc-train bench throughput mnist" in page.text


def test_pictures_stand_beside_the_page(study, page):
    for name in ("weak-scaling", "strong-scaling", "breakdown", "prediction"):
        assert (study / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_the_prediction_goes_on_to_the_largest_published_size_within_its_band(page):
    rows = page.table("hpc-train, weak scaling: predicted")
    assert rows[0]["ranks"] == "1"
    assert rows[-1]["ranks"] == "27,360"
    for row in rows:
        low, middle, high = (float(row[name].rstrip(" %")) for name in ("low", "efficiency", "high"))
        assert low <= middle <= high
    # In strong scaling there is no rank without a sample.
    assert page.table("hpc-train, strong scaling: predicted")[-1]["ranks"] == "10"


def test_a_study_of_one_size_says_why_nothing_is_predicted(tmp_path):
    page = report(write(tmp_path / "one", weak((1,))))
    assert "No prediction of weak scaling: " in page.text
    assert "mnist deep, weak scaling: 100.0 samples/s with 1 rank." in page.text
    assert not (tmp_path / "one" / "prediction.png").exists()


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
    ratios = [(row["variant"], row["ranks"], row["ratio"]) for row in page.table("Samples/s relative to the sweep")]
    assert ratios == [("bucket mib 32", size, "1.250 ± 0.000") for size in ("1", "2")]


def test_studies_are_laid_over_each_other_under_their_names(tmp_path):
    first = write(tmp_path / "first", weak((1, 2)))
    other = write(tmp_path / "other", weak((1, 2), trainer="resnet", model="resnet20"))
    with pytest.raises(UserError, match="--output"):
        command.run(command.ReportRuns((first, other)))
    page = report(first, other, output=tmp_path / "out")
    assert [row["curve"] for row in page.table("Weak scaling")] == ["first"] * 2 + ["other"] * 2
    assert [row["network"] for row in page.table("Conditions")] == ["mnist deep", "resnet resnet20"]


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


def test_mistakes_end_with_one_line(tmp_path):
    study = write(tmp_path / "study", weak((1,)))
    run = tmp_path / "run"
    run.mkdir()
    (run / "run.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "study.json").write_text('{"settings": {}, "jobs": []}')
    for folders, said in (
        ((run, study), "run is not a study"),
        ((tmp_path / "empty",), "holds no measurement"),
        ((tmp_path / "nowhere",), "is not a run folder"),
    ):
        with pytest.raises(UserError, match=said):
            command.run(command.ReportRuns(folders, tmp_path / "out"))
    only = {"rates": {"device": [1.0]}}
    with pytest.raises(UserError, match="--ways fit"):
        report(write(tmp_path / "device", [("ranks-1", {}, measurement(1, 1.0, **only))]))
