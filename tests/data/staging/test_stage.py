"""`hpc-train stage`: files reach every node whole, from one read of each, whatever happens on the way."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter

import numpy as np
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch import finish, mpirun, start_mpi

from hpc_train.data.staging import broadcast, copying
from hpc_train.data.staging.command import Stage, run
from hpc_train.data.staging.nodes import deal
from hpc_train.data.staging.stage import stage
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import Alone

# Bytes; pieces are 64 KiB in these tests: none, less than one, exactly one and four, several and a rest.
SIZES = [0, 1, 2**16, 2**16 + 1, 2**18, 300_000, 500_001, 1_000_000, 77, 4321, 123_456, 65_535]


@pytest.fixture
def source(tmp_path):
    """A folder of files with unlike content; each begins with its number."""
    draw = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        path = tmp_path / "source" / ("train" if number % 2 else "test") / f"{number:02d}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((b"%04d" % number + draw.bytes(size))[:size])
    return tmp_path / "source"


class Job:
    """`stage` on four ranks: two on node a, two on node b."""

    def __init__(self, source, folder):
        mpirun()
        self.source, self.storage, self.log = source, folder / "storage", folder / "reads"

    def start(self, **options):
        self.log.write_text("")
        program = ("tests/ranks/stage_nodes.py", self.source, self.storage, self.log)
        return start_mpi(4, *program, json.dumps(options))

    def run(self, **options):
        return finish(self.start(**options), 60)

    def done(self, **options):
        """Run to a good end; what the ranks told of it."""
        ended = self.run(**options)
        assert ended.status == 0, ended.output
        line = next(line for line in ended.output.splitlines() if line.startswith("told"))
        return json.loads(line[5:]), ended.output

    def reads(self):
        """How often each source file was read, by name."""
        return Counter(line.split()[1] for line in self.log.read_text().splitlines())

    def whole(self, node):
        """Names of the files on a node; each is the source's, bit for bit and by its time."""
        names = files_below(self.storage / node)
        for name in names:
            copy, original = self.storage / node / name, self.source / name
            assert copy.read_bytes() == original.read_bytes(), name
            assert copy.stat().st_mtime_ns == original.stat().st_mtime_ns
        return names

    def recorded(self, node):
        """Names of the files that the node's manifest calls whole."""
        manifest = self.storage / node / ".hpc-train-stage" / "manifest.jsonl"
        lines = manifest.read_text().splitlines() if manifest.exists() else []
        return {json.loads(line)["file"] for line in lines if line.endswith("}")}

    def leftovers(self):
        return list(self.storage.rglob("*.part"))


def files_below(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*.h5")}


@pytest.fixture
def job(source, tmp_path):
    return Job(source, tmp_path)


def damage(path):
    """Flip one bit in the middle; size and time stay."""
    times = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_every_file_is_read_once_and_reaches_both_nodes_and_later_jobs_bring_only_what_is_missing(job, source):
    told, output = job.done()
    everything = files_below(source)
    assert job.reads() == dict.fromkeys((os.path.basename(name) for name in everything), 1)
    assert job.whole("a") == job.whole("b") == everything
    assert not job.leftovers()
    for node, brought, reused, read, files in told:
        assert (brought, reused) == (2 * sum(SIZES), 0)
        assert files == sorted(str(job.storage / node / name) for name in everything)
        assert read, "a rank read nothing"
    assert "staged 12 files" in output
    assert "on 2 nodes" in output

    # A changed source, a lost copy, a damaged copy that only its checksum tells of.
    changed, lost, damaged = (source / name for name in ("test/10.h5", "train/05.h5", "train/07.h5"))
    changed.write_bytes(b"longer" * 30_000)
    (job.storage / "b" / lost.relative_to(source)).unlink()
    damage(job.storage / "a" / damaged.relative_to(source))
    told, output = job.done()
    assert job.reads() == {"10.h5": 1, "05.h5": 1}
    assert told[0][1:3] == [2 * 180_000 + 300_000, 2 * len(SIZES) - 3]
    assert job.whole("b") == everything

    told, output = job.done(verify=True)
    assert job.reads() == {"07.h5": 1}
    assert "damaged, staged again: train/07.h5 on node a" in output
    assert job.whole("a") == everything


def test_in_part_mode_each_file_is_on_one_node_and_bytes_are_balanced(job, source):
    told, _ = job.done(part=True)
    a, b = job.whole("a"), job.whole("b")
    assert not a & b
    assert a | b == files_below(source)
    assert set(job.reads().values()) == {1}
    held = {node: sum((source / name).stat().st_size for name in names) for node, names in (("a", a), ("b", b))}
    assert abs(held["a"] - held["b"]) < 0.1 * sum(SIZES)
    assert {len(files) for node, *_, files in told if node == "a"} == {len(a)}
    job.done(part=True)
    assert not job.reads()


def test_a_killed_job_goes_on_with_what_is_missing(job, source):
    first = job.start(on={node: {"delay": 0.15} for node in "ab"})
    deadline = time.monotonic() + 30
    while not job.recorded("a") & job.recorded("b"):
        assert time.monotonic() < deadline
        assert first.poll() is None
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.3))
    ranks = psutil.Process(first.pid).children(recursive=True)
    for process in [psutil.Process(first.pid), *ranks]:
        if process.is_running():
            process.send_signal(signal.SIGKILL)
    psutil.wait_procs(ranks, timeout=20)
    first.communicate(timeout=20)

    a, b = job.recorded("a"), job.recorded("b")
    assert a <= job.whole("a")
    assert b <= job.whole("b")
    assert a & b < files_below(source), "killed too late"
    assert job.leftovers()
    told, _ = job.done()
    assert job.reads() == {os.path.basename(name): 1 for name in files_below(source) - (a & b)}
    assert job.whole("a") == job.whole("b") == files_below(source)
    assert not job.leftovers()
    assert told[0][2] == len(a) + len(b)


def test_a_copy_damaged_on_the_way_is_made_again_a_bounded_number_of_times(job):
    _, output = job.done(on={"b": {"spoil": ["0007", "0010"], "times": 2}})
    assert job.reads()["07.h5"] == job.reads()["10.h5"] == 3
    assert set(job.reads().values()) == {1, 3}
    for number in (1, 2):
        reason = "the copy's checksum differs from the source's"
        assert f"retry {number} of 3: train/07.h5 on node b: {reason}" in output
    assert job.whole("a") == job.whole("b")

    shutil.rmtree(job.storage)
    ended = job.run(retries=1, on={"a": {"spoil": ["0006"], "times": 99}})
    assert ended.status == 2
    assert "error: test/06.h5 did not reach node a in 2 attempts: the copy's checksum differs" in ended.output
    assert "Traceback" not in ended.output
    assert job.reads()["06.h5"] == 2
    assert "test/06.h5" not in job.whole("a")
    assert not job.leftovers()


def test_what_cannot_work_is_one_line_on_one_rank_before_any_byte_is_read(job, source):
    full = job.run(on={"b": {"free": 5_000_000}})
    assert full.status == 2
    assert full.output.count("\n") == 1
    assert full.output.startswith("error: node b is too full: staging needs 0.07 GB in ")
    assert "5.00 MB are free" in full.output

    gone = job.run(missing="train/99.h5")
    assert gone.status == 2
    assert gone.output == f"error: cannot read the source {source}/train/99.h5: No such file or directory\n"

    shutil.rmtree(job.storage)
    job.storage.mkdir()
    (job.storage / "b").write_text("a file in the way")
    unwritable = job.run()
    assert unwritable.status == 2
    assert unwritable.output.count("\n") == 1
    assert f"cannot write to {job.storage}/b on node b" in unwritable.output
    assert not job.reads()


def test_a_rank_that_cannot_write_ends_all_ranks_with_one_line(job):
    # A folder has the name of a copy: this shows only when the copy is whole.
    (job.storage / "b" / "train" / "07.h5" / "x").mkdir(parents=True)
    ended = job.run()
    assert ended.status == 2
    errors = [line for line in ended.output.splitlines() if line.startswith("error:")]
    assert len(errors) == 1
    assert "node b: cannot write" in errors[0]
    assert "train/07.h5: Is a directory" in errors[0]
    assert "Traceback" not in ended.output


class Reads(copying.Copier):
    """A copier that counts, and fails as it is told."""

    def __init__(self, error=None, change=None):
        self.error, self.change, self.count = error, change, 0

    def open(self, path):
        self.count += 1
        if self.error and self.count == 1:
            raise OSError(self.error, os.strerror(self.error))
        if self.change and self.count == 1:
            self.change(path)
        return super().open(path)


def alone(source, to, **options):
    """Stage the folder by one process; what it did and what it printed."""
    lines = []
    files = [str(source / name) for name in files_below(source)]
    return stage(files, str(source), to, Alone(), report=lines.append, **options), lines


def test_one_process_stages_as_well(source, tmp_path, monkeypatch):
    monkeypatch.setattr(broadcast, "PIECE", 2**16)
    copier = Reads()
    staged, lines = alone(source, tmp_path / "to", copier=copier)
    assert files_below(tmp_path / "to") == files_below(source)
    assert staged.files == sorted(str(tmp_path / "to" / name) for name in files_below(source))
    assert (staged.directory, staged.bytes, staged.reused) == (tmp_path / "to", sum(SIZES), 0)
    assert staged.read == copier.count == len(SIZES)
    assert all((tmp_path / "to" / name).read_bytes() == (source / name).read_bytes() for name in files_below(source))
    assert len(lines) == 1
    again, _ = alone(source, tmp_path / "to")
    assert (again.bytes, again.reused, again.read) == (0, len(SIZES), 0)


def test_a_read_error_that_may_pass_is_tried_again_and_another_is_not(source, tmp_path):
    staged, lines = alone(source, tmp_path / "to", copier=Reads(5))
    assert staged.read == len(SIZES) + 1
    assert lines[0].startswith("retry 1 of 3: ")
    assert "Input/output error" in lines[0]
    with pytest.raises(UserError, match=r"cannot read .*\.h5: Permission denied"):
        alone(source, tmp_path / "other", copier=Reads(13))
    assert not list((tmp_path / "other").rglob("*.part"))


def test_a_folder_holds_the_data_that_were_staged_last_and_no_other(source, tmp_path):
    to = tmp_path / "to"
    alone(source, to)
    (source / "train/03.h5").unlink()
    again, lines = alone(source, to)
    assert files_below(to) == files_below(source)
    assert (again.read, lines[0]) == (0, "removed 1 files that are no longer of the data")
    # Nothing is left of the sub-folders either, which would be splits.
    other = tmp_path / "other"
    other.mkdir()
    for name in ("x.h5", "y.h5"):
        (other / name).write_bytes(name.encode())
    _, lines = alone(other, to)
    assert lines[0] == "removed 11 files that are no longer of the data"
    assert {path.name for path in to.iterdir()} == {"x.h5", "y.h5", ".hpc-train-stage"}
    # What was removed is brought again when it is staged again.
    assert alone(source, to)[0].read == len(SIZES) - 1
    assert files_below(to) == files_below(source)


def test_data_files_that_no_job_staged_are_an_error_and_stay(source, tmp_path):
    to = tmp_path / "to"
    alone(source, to)
    (source / "train/03.h5").unlink()
    own, note, changed = to / "deep" / "mine.nc", to / "note.txt", to / "train/03.h5"
    own.parent.mkdir()
    for path in (own, note):
        path.write_text("of the user")
    copier = Reads()
    with pytest.raises(
        UserError, match=r"to on node \S+: holds deep/mine.nc too, which is not of .*/source; empty it or"
    ):
        alone(source, to, copier=copier)
    own.unlink()
    changed.write_text("no longer the copy that was staged")
    with pytest.raises(UserError, match=r"holds train/03\.h5 too"):
        alone(source, to, copier=copier)
    assert changed.read_text() == "no longer the copy that was staged"
    changed.unlink()
    assert alone(source, to, copier=copier)[0].read == copier.count == 0
    assert note.exists()


def test_a_job_that_stages_other_data_to_the_same_folder_meanwhile_is_an_error(source, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.h5").write_bytes(b"x")

    class Second(copying.Copier):
        started = False

        def write(self, descriptor, data, offset):
            if not self.started:
                self.started = True
                alone(other, tmp_path / "to")
            super().write(descriptor, data, offset)

    with pytest.raises(UserError, match=r"another program put x\.h5 there while this job staged"):
        alone(source, tmp_path / "to", copier=Second())


def test_in_part_mode_old_copies_of_other_nodes_files_go_and_present_ones_stay(job, source):
    job.done()
    (source / "train/07.h5").write_bytes(b"new")
    (source / "train/01.h5").unlink()
    _, output = job.done(part=True)
    # 01.h5 on both nodes, and the old 07.h5 on the node that does not get the new one.
    assert "removed 3 files that are no longer of the data" in output
    assert job.whole("a") | job.whole("b") == files_below(source)
    assert "train/07.h5" not in job.whole("a") & job.whole("b")
    assert job.reads() == {"07.h5": 1}


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: os.truncate(path, 10), "the source ended after 10 of"),
        (lengthen, "the source changed while it was read"),
    ],
)
def test_a_source_that_changes_while_it_is_read_is_staged_as_it_then_is(source, tmp_path, change, reason):
    # The largest file comes first.
    staged, lines = alone(source, tmp_path / "to", copier=Reads(change=change))
    assert f"train/07.h5 on node {os.uname().nodename}: {reason}" in lines[0]
    assert (tmp_path / "to/train/07.h5").read_bytes() == (source / "train/07.h5").read_bytes()
    assert staged.read == len(SIZES) + 1


def test_a_manifest_with_half_a_line_loses_that_file_only(source, tmp_path):
    alone(source, tmp_path / "to")
    manifest = tmp_path / "to" / ".hpc-train-stage" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    assert alone(source, tmp_path / "to")[0].read == 1
    assert alone(source, tmp_path / "to")[0].read == 0


def test_a_temporary_copy_of_a_job_that_still_runs_is_left_alone(source, tmp_path):
    class Second(copying.Copier):
        started = False

        def write(self, descriptor, data, offset):
            if not self.started:
                self.started = True
                alone(source, tmp_path / "to")
            super().write(descriptor, data, offset)

    staged, _ = alone(source, tmp_path / "to", copier=Second())
    assert staged.read == len(SIZES)
    assert not list((tmp_path / "to").rglob("*.part"))
    assert alone(source, tmp_path / "to", verify=True)[0].read == 0


def test_the_command_takes_a_folder_a_file_or_a_pattern_and_folders_from_variables(
    source, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SCRATCH_OF_THE_NODE", str(tmp_path))
    run(Stage(source, "$SCRATCH_OF_THE_NODE/folder"))
    assert files_below(tmp_path / "folder") == files_below(source)
    run(Stage(source / "train/03.h5", str(tmp_path / "file")))
    assert files_below(tmp_path / "file") == {"03.h5"}
    run(Stage(source / "*" / "0[23].h5", str(tmp_path / "pattern")))
    assert files_below(tmp_path / "pattern") == {"test/02.h5", "train/03.h5"}
    assert capsys.readouterr().out.count("staged ") == 3


def test_places_that_cannot_be_meant_are_refused(source, tmp_path):
    for to, problem in (
        (source / "train" / "copies", "lies inside the data"),
        (tmp_path, "holds the source"),
        ("$NO_SUCH_VARIABLE/x", "not set on every rank"),
    ):
        with pytest.raises(UserError, match=problem):
            run(Stage(source, str(to)))
    with pytest.raises(UserError, match="no such file or folder"):
        run(Stage(tmp_path / "nothing", str(tmp_path / "to")))
    with pytest.raises(UserError, match="it must be 0 or more"):
        run(Stage(source, str(tmp_path / "to"), retries=-1))


@given(st.lists(st.integers(0, 10 * 2**20), max_size=60), st.integers(1, 9))
def test_files_are_dealt_evenly(sizes, count):
    takers = deal(sizes, count)
    loads = [sum(size + 2**16 for size, taker in zip(sizes, takers, strict=True) if taker == i) for i in range(count)]
    # The bound of largest-first dealing: no two takers differ by more than one file.
    assert max(loads) - min(loads) <= max(sizes, default=0) + 2**16
    if len(sizes) >= count:
        assert min(loads) > 0


@given(st.lists(st.integers(0, 5 * 2**16), max_size=30), st.integers(1, 9))
def test_a_schedule_covers_every_file_in_order_with_few_open_at_a_time(sizes, width):
    whole, open_files = broadcast.PIECE, set()
    broadcast.PIECE = 2**16
    try:
        pieces = list(broadcast.schedule(sizes, width))
    finally:
        broadcast.PIECE = whole
    reached = dict.fromkeys(range(len(sizes)), 0)
    for piece in pieces:
        open_files.add(piece.number)
        assert len(open_files) <= width
        assert piece.offset == reached[piece.number]
        reached[piece.number] += piece.length
        if piece.last:
            open_files.remove(piece.number)
    assert list(reached.values()) == sizes
    assert not open_files
