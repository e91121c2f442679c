"""`hpc-train bench scaling`: the table over the sizes of a study, from made-up measurements with known answers."""

import json

import pytest

from hpc_train.bench.hardware import by_host, shared
from hpc_train.bench.scaling import Scaling, run
from hpc_train.errors import UserError


def node(ranks, cores=8, gpus=(), host="node1", processor="Xeon"):
    return {"host": host, "processor": processor, "cores": cores, "gpus": list(gpus), "ranks": ranks}


def measured(path, nodes, fit, fit_alone=None, batch_size=64, threads=4, data="0123456789abcdef", **options):
    """Write what the benchmark would have written; the bare loops are twice as fast as fit, alone three times."""
    figures = {
        "benchmark": "throughput",
        "options": {"data": "shards/mnist", "model": "deep", "batch_size": batch_size, **options},
        "data": data,
        "ranks": sum(node["ranks"] for node in nodes),
        "threads": threads,
        "nodes": nodes,
        "versions": {"python": "3.11.7", "tensorflow": "2.21.0"},
        "rates": {
            "fit": fit,
            "bare": [2 * rate for rate in fit],
            "fit alone": fit_alone or fit,
            "bare alone": [3 * rate for rate in fit],
        },
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures))


def printed(capsys, study, **options):
    run(Scaling(study, **options))
    return capsys.readouterr()


def tables(capsys, study):
    return json.loads(printed(capsys, study, json=True).out)["tables"]


def test_efficiency_is_samples_a_rank_over_those_of_the_smallest_size(tmp_path, capsys):
    study = tmp_path / "study"
    measured(study / "b.json", [node(2)], [150, 180, 170], [200, 200, 200])
    measured(study / "a.json", [node(1)], [100, 90, 120], [100, 100, 100])
    measured(study / "c.json", [node(2), node(2, host="node2")], [320, 300, 310], [400, 400, 500])
    (table,) = tables(capsys, study)
    assert [(size["ranks"], size["nodes"]) for size in table["sizes"]] == [(1, 1), (2, 1), (4, 2)]
    one, two, four = table["sizes"]
    assert two["samples_per_s"]["fit"] == {"median": 170, "min": 150, "max": 180}
    # 170 / 2 over 100, and 310 / 4 over 100
    assert [size["efficiency"]["fit"] for size in (one, two, four)] == pytest.approx([1, 0.85, 0.775])
    # 200 / 2 over 100, and 400 / 4 over 100
    assert [size["efficiency"]["fit alone"] for size in (one, two, four)] == pytest.approx([1, 1, 1])
    # 0.75, 0.9, 0.85 within the rounds, and 0.8, 0.75, 0.62
    assert two["efficiency_alone"] == pytest.approx({"median": 0.85, "min": 0.75, "max": 0.9})
    assert four["efficiency_alone"] == pytest.approx({"median": 0.75, "min": 0.62, "max": 0.8})
    rows = [" ".join(line.split()) for line in printed(capsys, study).out.splitlines()]
    assert "2 1 4 1 170 150 180 0.850 0.850 1.000 0.850 0.850 (0.750 to 0.900)" in rows
    assert "4 2 4 1 310 300 320 0.775 0.775 1.000 0.775 0.750 (0.620 to 0.800)" in rows


def test_the_smallest_size_need_not_be_one_rank(tmp_path, capsys):
    measured(tmp_path / "study/a.json", [node(4)], [400])
    measured(tmp_path / "study/b.json", [node(8)], [600])
    (table,) = tables(capsys, tmp_path / "study")
    assert table["sizes"][1]["efficiency"]["bare"] == pytest.approx(0.75)
    assert "efficiency against 4 ranks" in printed(capsys, tmp_path / "study").out


def test_a_size_measured_again_adds_its_rounds(tmp_path, capsys):
    measured(tmp_path / "study/ranks-00002-job-7.json", [node(2)], [100, 300])
    measured(tmp_path / "study/ranks-00002-job-8.json", [node(2)], [120, 140, 160], steps=30, rounds=3, output="x")
    (table,) = tables(capsys, tmp_path / "study")
    (size,) = table["sizes"]
    assert size["samples_per_s"]["fit"] == {"median": 140, "min": 100, "max": 300}
    assert size["files"] == ["ranks-00002-job-7.json", "ranks-00002-job-8.json"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"batch_size": 32}, "batch size"),
        ({"model": "fc"}, "model"),
        ({"data": "fedcba9876543210"}, "data"),
        ({"nodes": [node(2, processor="Opteron")]}, "processor"),
        ({"nodes": [node(2, gpus=["H100", "H100"])]}, "GPU"),
    ],
)
def test_what_is_not_alike_is_told_and_never_compared(tmp_path, capsys, change, named):
    measured(tmp_path / "study/a.json", [node(1)], [100])
    measured(tmp_path / "study/b.json", **{"nodes": [node(2)], "fit": [150], **change})
    separate = tables(capsys, tmp_path / "study")
    assert [[size["efficiency"]["fit"] for size in table["sizes"]] for table in separate] == [[1], [1]]
    assert f"the measurements differ in {named}: 2 tables" in printed(capsys, tmp_path / "study").out


def test_ranks_that_share_cores_or_gpus_are_marked(tmp_path, capsys):
    study = tmp_path / "study"
    measured(study / "a.json", [node(2, cores=2)], [100])
    measured(study / "b.json", [node(2, cores=2), node(3, cores=2, host="node2")], [150])
    (table,) = tables(capsys, study)
    assert [size["shared"] for size in table["sizes"]] == [False, True]
    lines = printed(capsys, study).out.splitlines()
    assert [line.split()[0] for line in lines if line.endswith(")")] == ["2", "5*"]
    assert lines[-1] == "* ranks share cores or GPUs: says nothing about scaling"
    assert shared([node(4, cores=8, gpus=["H100"] * 2)])
    assert not shared([node(4, cores=8, gpus=["H100"] * 4)])


def test_different_numbers_of_threads_are_told(tmp_path, capsys):
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
    measured(study / "stopped.json", [node(1)], [100, 0])
    measured(study / "empty.json", [], [100])
    lines = printed(capsys, study).err.splitlines()
    assert [line.split()[1].rpartition("/")[2] for line in lines] == [
        f"{name}.json" for name in ("binary", "cut", "empty", "foreign", "list", "stopped")
    ]
    assert "cut.json is left out: it is damaged" in lines[1]
    assert "foreign.json is left out: it is not a measurement of hpc_train.bench.throughput (no 'rates')" in lines[3]
    (table,) = tables(capsys, study)
    assert [size["files"] for size in table["sizes"]] == [["good.json"]]


def test_a_study_without_measurements_is_one_line(tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        run(Scaling(tmp_path / "none"))
    (tmp_path / "cut.json").write_text("{")
    with pytest.raises(UserError, match=r"holds no measurement; .*cut\.json is left out: it is damaged") as refused:
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
