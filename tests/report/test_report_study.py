"""`hpc-train report` of scaling studies: the page and its tables, from made-up measurements."""

import re

import pytest
from made_up_study import BATCH, Page, measurement, weak, write

from hpc_train.errors import UserError
from hpc_train.report import command

pytest.importorskip("matplotlib")


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
    page.needs_nothing_else()


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


def test_what_a_narrow_screen_hides_are_the_conditions(page):
    heads = list(page.table("Weak scaling")[0])
    assert heads.index("input wait") < min(map(heads.index, ("nodes", "threads", "batch per rank", "jobs")))


def test_strong_scaling_stands_apart(page):
    ranks = [(row["curve"], row["ranks"], row["batch per rank"]) for row in page.table("Strong scaling")]
    assert ranks == [("hpc-train", "1", "10"), ("hpc-train", "2", "5")]


def test_a_peer_gets_its_ratio_at_each_size(page):
    one, two = page.table("Samples/s of hpc-train relative to")
    # 99 / 50 and 101 / 50; 0.90 * 99 / 50 and 0.92 * 101 / 50: half their distance times Student's 12.706.
    assert (one["ranks"], one["hpc-train / peer"], one["95 %"]) == ("1", "2.000", "1.746 to 2.254")
    assert (two["ranks"], two["hpc-train / peer"], two["95 %"]) == ("2", "1.820", "1.335 to 2.306")
    assert {one["what it shows"], two["what it shows"]} == {"a difference"}


def test_the_page_says_what_is_missing_what_is_damaged_and_what_says_nothing(page):
    assert "not measured: ranks-8-repeat-1" in page.text
    assert "ranks-16.json: is not JSON" in page.text
    assert "share cores or GPUs" in page.text


def test_the_title_says_what_was_measured_and_names_cannot_break_it(page):
    assert "<h1>Scaling of mnist deep: full &amp; whole</h1>" in page.text


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
    # All sizes ran on one machine.
    assert "no forecast for a cluster" in page.text
    assert page.table("hpc-train, weak scaling: predicted from one machine alone") == rows
    # In strong scaling there is no rank without a sample.
    assert page.table("hpc-train, strong scaling: predicted")[-1]["ranks"] == "10"


def test_a_study_of_one_size_says_why_nothing_is_predicted(tmp_path):
    page = report(write(tmp_path / "one", weak((1,))))
    assert "No prediction of weak scaling: " in page.text
    assert "mnist deep, weak scaling: 100.0 samples/s with 1 rank." in page.text
    assert not (tmp_path / "one" / "prediction.png").exists()


def test_studies_are_laid_over_each_other_under_their_names(tmp_path):
    first = write(tmp_path / "first", weak((1, 2)))
    other = write(tmp_path / "other", weak((1, 2), trainer="resnet", model="resnet20"))
    with pytest.raises(UserError, match="--output"):
        command.run(command.ReportRuns((first, other)))
    page = report(first, other, output=tmp_path / "out")
    assert [row["curve"] for row in page.table("Weak scaling")] == ["first"] * 2 + ["other"] * 2
    assert [row["network"] for row in page.table("Conditions")] == ["mnist deep", "resnet resnet20"]


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


def test_names_in_a_study_are_text_on_the_page(tmp_path):
    evil = '<script>alert("x")</script>'
    changed = {"model": evil, "trainer": evil, "data": evil, "command": evil}
    node = {"host": evil, "processor": evil, "cores": 2, "ranks": 1, "gpus": [evil]}
    page = report(write(tmp_path / evil.replace("/", "-"), list(weak(**changed, nodes=[node]))))
    assert "script" not in {name for name, _ in page.tags}
    assert "&lt;script&gt;" in page.text
