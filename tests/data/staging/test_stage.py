"""`hpc-train stage` over nodes: every file is read once and reaches every node whole, whatever happens on the way."""

import json
import os
import random
import shutil
import signal
import time
from collections import Counter

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch import finish, mpirun, start_mpi
from staging_source import SIZES, files_below, make_source

from hpc_train.data.staging import broadcast
from hpc_train.data.staging.nodes import deal


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path)


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
        """Run without an error; what the ranks reported, and the output."""
        ended = self.run(**options)
        assert ended.status == 0, ended.output
        line = next(line for line in ended.output.splitlines() if line.startswith("reports"))
        return json.loads(line[len("reports") :]), ended.output

    def reads(self):
        """How often each source file was read, by name."""
        return Counter(line.split()[1] for line in self.log.read_text().splitlines())

    def whole(self, node):
        """Names of the files on a node; each has the bytes and the time of its source."""
        names = files_below(self.storage / node)
        for name in names:
            copy, original = self.storage / node / name, self.source / name
            assert copy.read_bytes() == original.read_bytes(), name
            assert copy.stat().st_mtime_ns == original.stat().st_mtime_ns
        return names

    def recorded(self, node):
        """Names of the files that the node's manifest lists."""
        manifest = self.storage / node / ".hpc-train-stage" / "manifest.jsonl"
        lines = manifest.read_text().splitlines() if manifest.exists() else []
        return {json.loads(line)["file"] for line in lines if line.endswith("}")}

    def believe(self, node, name):
        """Make the node's manifest list a copy as it is now."""
        manifest = self.storage / node / ".hpc-train-stage" / "manifest.jsonl"
        records = [json.loads(line) for line in manifest.read_text().splitlines() if line]
        copy = (self.storage / node / name).stat()
        record = [record for record in records if record["file"] == name][-1]
        with open(manifest, "a") as file:
            file.write("\n" + json.dumps(record | {"copy": [copy.st_ino, copy.st_ctime_ns]}))

    def leftovers(self):
        return list(self.storage.rglob("*.part"))


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


def test_every_file_is_read_once_and_reaches_both_nodes_and_later_jobs_copy_only_missing_files(job, source):
    reports, output = job.done()
    everything = files_below(source)
    assert job.reads() == dict.fromkeys((os.path.basename(name) for name in everything), 1)
    assert job.whole("a") == job.whole("b") == everything
    assert not job.leftovers()
    for node, brought, reused, read, files in reports:
        assert (brought, reused) == (2 * sum(SIZES), 0)
        assert files == sorted(str(job.storage / node / name) for name in everything)
        assert read, "a rank read nothing"
    assert "staged 12 files" in output
    assert "on 2 nodes" in output

    # A changed source, a lost copy, and a damaged copy of the same size and time.
    changed, lost, damaged = (source / name for name in ("test/10.h5", "train/05.h5", "train/07.h5"))
    changed.write_bytes(b"longer" * 30_000)
    (job.storage / "b" / lost.relative_to(source)).unlink()
    damage(job.storage / "a" / damaged.relative_to(source))
    reports, output = job.done()
    assert job.reads() == {"10.h5": 1, "05.h5": 1, "07.h5": 1}
    assert reports[0][1:3] == [2 * 180_000 + 300_000 + 1_000_000, 2 * len(SIZES) - 4]
    assert "damaged, staged again: train/07.h5 on node a" in output
    assert job.whole("a") == job.whole("b") == everything

    # A disk that loses bits leaves no other trace: only the checksum shows it.
    damage(job.storage / "a" / damaged.relative_to(source))
    job.believe("a", "train/07.h5")
    job.done()
    assert not job.reads()
    reports, output = job.done(verify=True)
    assert job.reads() == {"07.h5": 1}
    assert "damaged, staged again: train/07.h5 on node a" in output
    assert job.whole("a") == everything


def test_in_part_mode_each_file_is_on_one_node_and_bytes_are_balanced(job, source):
    reports, _ = job.done(part=True)
    a, b = job.whole("a"), job.whole("b")
    assert not a & b
    assert a | b == files_below(source)
    assert set(job.reads().values()) == {1}
    held = {node: sum((source / name).stat().st_size for name in names) for node, names in (("a", a), ("b", b))}
    assert abs(held["a"] - held["b"]) < 0.1 * sum(SIZES)
    assert {len(files) for node, *_, files in reports if node == "a"} == {len(a)}
    job.done(part=True)
    assert not job.reads()


def test_after_a_killed_job_only_missing_files_are_copied(job, source):
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
    reports, _ = job.done()
    assert job.reads() == {os.path.basename(name): 1 for name in files_below(source) - (a & b)}
    assert job.whole("a") == job.whole("b") == files_below(source)
    assert not job.leftovers()
    assert reports[0][2] == len(a) + len(b)


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


def test_errors_found_early_are_one_line_from_one_rank_before_any_byte_is_read(job, source):
    full = job.run(on={"b": {"free": 5_000_000}})
    assert full.status == 2
    assert full.output.count("\n") == 1
    assert full.output.startswith("error: node b is too full: staging needs 69.5 MB in ")
    assert "5 MB are free" in full.output

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


def test_in_part_mode_old_copies_of_other_nodes_files_go_and_present_ones_stay(job, source):
    job.done()
    (source / "train/07.h5").write_bytes(b"new")
    (source / "train/01.h5").unlink()
    _, output = job.done(part=True)
    # 01.h5 on both nodes, and the old 07.h5 on the node that does not get the new one.
    assert "removed 3 files that are no longer in the data" in output
    assert job.whole("a") | job.whole("b") == files_below(source)
    assert "train/07.h5" not in job.whole("a") & job.whole("b")
    assert job.reads() == {"07.h5": 1}


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
