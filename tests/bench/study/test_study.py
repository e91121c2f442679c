"""The jobs of a scaling study, their order, and what happens if they fail. The launcher is a stand-in (made_up.py)."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import made_up
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import REPOSITORY, environment

from hpc_train.bench.study.command import Scaling, run
from hpc_train.bench.study.launch import last_lines
from hpc_train.bench.study.plan import jobs, sizes_of, sweep_of
from hpc_train.bench.study.submit import shape
from hpc_train.errors import UserError

LAUNCHER = f"{sys.executable} {made_up.__file__} {{np}}"
WORDS = ("mnist", "--data", "synthetic", "--batch-size", "64")
sizes = st.lists(st.integers(1, 64), min_size=1, max_size=5, unique=True).map(sorted)
sweeps = st.sampled_from([{}, {"lag": ["0", "1"]}, {"bucket_mib": ["1", "8", "32"], "HOROVOD_CYCLE_TIME": ["1", "5"]}])


def study(folder, np="1,2", repeats=1, benchmark=WORDS, launcher=LAUNCHER, **options):
    return Scaling(folder, benchmark=benchmark, np=np, repeats=repeats, launcher=launcher, **options)


def made(folder):
    return sorted(path.stem for path in folder.glob("ranks-*.json"))


@settings(deadline=None)
@given(sizes, st.integers(1, 5), st.sampled_from(["weak", "strong", "both"]), sweeps)
def test_every_repeat_has_every_size_and_variant_once_and_every_job_its_own_file(sizes, repeats, mode, sweep):
    batch = 1
    for size in sizes:
        batch *= size
    planned = jobs(sizes, repeats, mode, sweep, batch, ("pytorch-ddp",))
    assert len({job.file for job in planned}) == len(planned)
    each = len(planned) // repeats
    kinds = [
        {(job.ranks, job.modes, job.variant, job.framework) for job in planned[i * each :][:each]}
        for i in range(repeats)
    ]
    assert all(kind == kinds[0] for kind in kinds)
    assert [job.repeat for job in planned] == sorted(job.repeat for job in planned)
    variants = 1 + sum(len(values) - 1 for values in sweep.values())
    points = len(sizes) * (2 if mode == "both" else 1) - (mode == "both")
    # There is a peer beside the base of every point.
    assert each == points * (variants + 1)


@settings(deadline=None)
@given(sizes)
def test_strong_scaling_keeps_the_global_batch_of_the_smallest_size(sizes):
    product = 1
    for size in sizes:
        product *= size
    planned = jobs(sizes, 1, "strong", {}, product, ())
    assert {job.ranks * (job.batch_size or product) for job in planned} == {product * sizes[0]}


def test_repeats_begin_at_different_sizes():
    planned = jobs([1, 2, 4], 3, "weak", {}, 64)
    assert [job.ranks for job in planned] == [1, 2, 4, 2, 4, 1, 4, 1, 2]


def test_one_name_is_changed_at_a_time_and_variables_are_not_options():
    sweep = sweep_of(("bucket_mib=1,8", "--sync-batch-norm=False,True", "HOROVOD_CYCLE_TIME=1,5"))
    planned = jobs([2], 1, "weak", sweep, 64)
    base = ["--bucket-mib", "1", "--no-sync-batch-norm"]
    assert [(job.options, job.environment) for job in planned] == [
        (base, {"HOROVOD_CYCLE_TIME": "1"}),
        (["--bucket-mib", "8", "--no-sync-batch-norm"], {"HOROVOD_CYCLE_TIME": "1"}),
        (["--bucket-mib", "1", "--sync-batch-norm"], {"HOROVOD_CYCLE_TIME": "1"}),
        (base, {"HOROVOD_CYCLE_TIME": "5"}),
    ]


@pytest.mark.parametrize("text", ["0", "1,x", "1,,2", "-1", "1-4"])
def test_text_that_does_not_list_sizes_is_refused(text):
    with pytest.raises(UserError, match="as in --np 1,2,4"):
        sizes_of(text)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("lag", "give NAME="),
        ("lag=", "give NAME="),
        ("lag=0,1 2", "give NAME="),
        ("data=a/b,c", "give NAME="),
        ("lag=1", "one value is no sweep"),
        ("lag=0,1,0", "is there twice"),
    ],
)
def test_a_word_that_is_not_a_sweep_is_refused(word, message):
    with pytest.raises(UserError, match=message):
        sweep_of((word,))


@pytest.mark.parametrize(("ranks", "nodes"), [(1, (1, 1)), (3, (1, 3)), (4, (1, 4)), (8, (2, 4)), (6, None)])
def test_ranks_fill_nodes(ranks, nodes):
    if nodes:
        assert shape(ranks, 4) == nodes
    else:
        with pytest.raises(UserError, match="--np 6 does not fill its nodes"):
            shape(ranks, 4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": ()}, "put it after `--`"),
        ({"benchmark": ("mnist", "--data", "synthetic", "--rounds", "0")}, "--rounds is 0"),
        ({"benchmark": (*WORDS, "--output", "x.json")}, "leave it out"),
        ({"mode": "strong", "np": "2,3"}, "the global batch, 128 samples .* does not divide among 3 ranks"),
        ({"sweep": ("lag=0,2",)}, None),
        ({"sweep": ("no_such_option=0,1",)}, None),
        ({"benchmark": ("mnist", "--data", "synthetic", "--roundss", "2")}, None),
        ({"repeats": 0}, "must be at least 1"),
        ({"submit": True, "peers": True}, "leave --submit or --peers out"),
        ({"peers": True}, "the other frameworks are measured on data in files"),
        ({"peers": True, "benchmark": (*WORDS, "--precision", "bfloat16")}, "measured without --precision"),
        ({"launcher": "no-such-launcher -np {np}"}, "cannot start `no-such-launcher"),
        ({"launcher": "horovodrun 'x"}, "fix the quotes"),
        ({"sbatch": "--account=A"}, "need --submit"),
    ],
)
def test_an_impossible_command_is_refused_before_anything_runs(tmp_path, capsys, options, message):
    if message:
        with pytest.raises(UserError, match=message):
            run(study(tmp_path / "study", **options))
    else:
        with pytest.raises(SystemExit) as ended:
            run(study(tmp_path / "study", **options))
        assert ended.value.code == 2
    assert not list(tmp_path.glob("study/ranks-*.json"))


def test_if_a_size_is_killed_the_rest_stays_and_the_same_command_runs_what_is_missing(tmp_path, capsys, monkeypatch):
    chosen = study(tmp_path, np="1,2,4", repeats=2)
    monkeypatch.setenv("STAND_IN", "2=killed 4=fails")
    with pytest.raises(UserError, match=r"4 jobs failed: ranks-00002-repeat-1.* and 1 more") as refused:
        run(chosen)
    assert "\n" not in str(refused.value)
    printed = capsys.readouterr().out
    assert "ranks-00004-repeat-1.log:\n    ranks: 4 cycle time: None\n    out of memory, in spirit\n[" in printed
    assert "2 ranks, repeat 1: failed, status -9" in printed
    assert made(tmp_path) == ["ranks-00001-repeat-1", "ranks-00001-repeat-2"]
    times = {path: path.stat().st_mtime_ns for path in tmp_path.glob("ranks-00001*")}
    monkeypatch.delenv("STAND_IN")
    run(chosen)
    assert len(made(tmp_path)) == 6
    assert {path: path.stat().st_mtime_ns for path in times} == times
    run(Scaling(tmp_path, json=True))
    (table,) = json.loads(capsys.readouterr().out.partition("{\n")[2].join(["{", ""]))["tables"]
    assert [(row["ranks"], row["jobs"]) for row in table["rows"]] == [(1, 2), (2, 2), (4, 2)]


def test_if_nothing_works_the_study_ends_after_the_first_repeat(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("STAND_IN", "1=fails 2=fails")
    with pytest.raises(UserError, match="every job of the first repeat failed"):
        run(study(tmp_path, repeats=3))
    assert len(list(tmp_path.glob("*.log"))) == 2


def test_variables_of_a_sweep_and_the_batch_of_strong_scaling_reach_the_job(tmp_path, capsys):
    run(study(tmp_path, np="2,4", mode="strong", sweep=("HOROVOD_CYCLE_TIME=1,5",)))
    assert made(tmp_path) == [
        "ranks-00002-HOROVOD_CYCLE_TIME=5-repeat-1",
        "ranks-00002-repeat-1",
        "ranks-00004-strong-HOROVOD_CYCLE_TIME=5-repeat-1",
        "ranks-00004-strong-repeat-1",
    ]
    name = "ranks-00004-strong-HOROVOD_CYCLE_TIME=5-repeat-1"
    assert (tmp_path / f"{name}.log").read_text() == "ranks: 4 cycle time: 5\n"
    assert json.loads((tmp_path / f"{name}.json").read_text())["batch_size"] == 32
    assert "strong scaling of mnist deep, global batch 128" in capsys.readouterr().out


def test_other_options_than_recorded_are_refused_by_name_but_sizes_and_repeats_may_be_added(tmp_path, capsys):
    run(study(tmp_path))
    with pytest.raises(UserError, match='other options: --mode was "weak"; name another folder'):
        run(study(tmp_path, mode="both"))
    with pytest.raises(UserError, match="the command after -- was mnist --data synthetic --batch-size 64;"):
        run(study(tmp_path, benchmark=(*WORDS, "--lag", "1")))
    run(study(tmp_path, np="1,2,4", repeats=2))
    assert len(made(tmp_path)) == 6


def test_a_job_that_takes_too_long_is_ended_with_all_its_processes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STAND_IN", "2=deaf")
    monkeypatch.setattr("hpc_train.bench.study.launch._PATIENCE", 0.5)
    with pytest.raises(UserError, match="1 job failed: ranks-00002-repeat-1"):
        run(study(tmp_path, timeout=3))
    assert "up" in (tmp_path / "ranks-00002-repeat-1.log").read_text()
    assert left_of(tmp_path) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_leaves_what_is_done_and_no_process(tmp_path, number, status):
    words = [tmp_path / "s", "--np", "1,2", "--repeats", "2", "--launcher", LAUNCHER, "--", *WORDS]
    program = [sys.executable, "-m", "hpc_train.cli", "bench", "scaling", *map(str, words)]
    variables = environment(PYTHONPATH=str(REPOSITORY), STAND_IN="2=hangs")
    running = subprocess.Popen(program, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    log = tmp_path / "s" / "ranks-00002-repeat-1.log"
    deadline = time.monotonic() + 60
    while not (log.exists() and "up" in log.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    running.send_signal(number)
    output, _ = running.communicate(timeout=60)
    assert running.returncode == status, output
    assert output.endswith("interrupted: the same command goes on\n")
    assert left_of(tmp_path) == []
    assert made(tmp_path / "s") == ["ranks-00001-repeat-1"]
    run(Scaling(tmp_path / "s"))


def left_of(folder) -> list[str]:
    """Command lines of the running processes that a study in `folder` has started."""
    found = []
    for process in psutil.process_iter():
        try:
            # The stand-in and the processes that it started have files open in the folder.
            files = [os.readlink(link) for link in Path(f"/proc/{process.pid}/fd").glob("*")]
            if process.pid != os.getpid() and any(str(folder) in file for file in files):
                found.append(" ".join(process.cmdline()))
        except (OSError, psutil.Error):
            continue
    return found


def test_a_failed_job_is_quoted_with_its_error_and_not_with_its_launchers_banner(tmp_path):
    log = tmp_path / "ranks-2-1.log"
    banner = [f"=   line {number} of BAD TERMINATION" for number in range(9)]
    log.write_text("\n".join(["[0]<stderr>:error: no statistics.h5: run `hpc-train stats`", *banner]))
    assert last_lines(log) == ["error: no statistics.h5: run `hpc-train stats`"]
    log.write_text("\n".join(banner))
    assert last_lines(log) == banner[-5:]
