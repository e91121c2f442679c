"""Readers of files, given damaged ones: what was asked for, or one line; never a crash or a hang.

`make fuzz` runs as many cases as HPC_TRAIN_FUZZ says, over all readers, by chance. A file that once failed is kept in
failed/.
"""

import json
import os
import select
import struct
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from own_readers import OWN_READERS
from readers import READERS

HERE = Path(__file__).parent
CASES = int(os.environ.get("HPC_TRAIN_FUZZ", 0)) // len(READERS)
# In CI: about four seconds of each.
FEW = {"hdf5": 1000, "jpeg": 500, "fields": 1000, **dict.fromkeys(OWN_READERS, 500)}
SECONDS, MEGABYTES = 10, 1000
NUMBERS = [0, 1, 2, 127, 128, 255, 2**15, 2**16 - 1, 2**28, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]

places = st.floats(0, 1, exclude_max=True)
in_place = st.one_of(
    st.tuples(st.just("byte"), places, st.integers(0, 255)),
    st.tuples(st.just("bit"), places, st.integers(0, 7)),
    st.tuples(st.sampled_from(["<B", ">H", "<H", ">I", "<I", ">Q", "<Q"]), places, st.sampled_from(NUMBERS)),
)
moving = st.one_of(
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("repeat"), places, st.integers(1, 300)),
    st.tuples(st.just("delete"), places, st.integers(1, 64)),
    st.tuples(st.just("cut"), places, st.none()),
)
# Mostly in place: where bytes move, what follows is seldom looked at.
changes = st.one_of(st.lists(in_place, min_size=1, max_size=3), st.lists(in_place | moving, min_size=1, max_size=4))


def changed(content: bytes, mutations) -> bytes:
    """The file with these changes, one after the other."""
    raw = bytearray(content)
    for kind, share, value in mutations:
        at = int(share * len(raw))
        if kind == "insert":
            raw[at:at] = value
        elif kind == "repeat":
            raw[at:at] = raw[at : at + 8] * value
        elif kind == "delete":
            del raw[at : at + value]
        elif kind == "cut":
            del raw[at:]
        elif raw and kind == "byte":
            raw[at] = value
        elif raw and kind == "bit":
            raw[at] ^= 1 << value
        elif raw:
            size = struct.calcsize(kind)
            raw[at : at + size] = struct.pack(kind, value % 2 ** (8 * size))
    return bytes(raw)


class Worker:
    """A reader in a process of its own, which is started again after a crash or a hang."""

    def __init__(self, name: str, folder: Path):
        self.name, self.path, self.counts = name, folder / "file", Counter()
        self._log, self._process = open(folder / "log", "wb"), None  # noqa: SIM115 (closed below)

    def __call__(self, content: bytes) -> dict:
        """How reading these bytes ended."""
        self.path.write_bytes(content)
        found = self._ask(alone=False)
        if _failed(found):
            # What it took would be counted again.
            self.close()
        if _failed(found) and READERS[self.name][2]:
            # The library's own fault, which happens without any code of ours.
            alone = self._ask(alone=True)
            self.close()
            if why := _failed(alone):
                found = {**alone, "outcome": f"library's own {why}"}
        self.counts[found["outcome"]] += 1
        return found

    def _ask(self, alone: bool) -> dict:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "worker.py", self.name],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True, cwd=HERE,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": ""},
            )  # fmt: skip
        self._process.stdin.write(json.dumps({"path": str(self.path), "alone": alone}) + "\n")
        self._process.stdin.flush()
        # Twice as long as the processor's time that a case may take, and the start of the process.
        ready, _, _ = select.select([self._process.stdout], [], [], 60)
        answer = self._process.stdout.readline() if ready else ""
        if answer:
            return json.loads(answer)
        self.close()
        return {"outcome": "crash" if ready else "hang", "text": "", "seconds": 0, "megabytes": 0}

    def close(self) -> None:
        """End the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _failed(found: dict) -> str:
    """ "crash", "hang", or "excess" of time or memory; "" for none of them."""
    if found["outcome"] in ("crash", "hang"):
        return found["outcome"]
    return "excess" if found["seconds"] >= SECONDS or found["megabytes"] >= MEGABYTES else ""


def check(worker: Worker, content: bytes) -> None:
    """Fail unless the bytes are read or refused in one line, in time and within memory."""
    found = worker(content)
    if not found["outcome"].startswith("library's own "):
        assert found["outcome"] in ("read", "line"), found
        assert not _failed(found), found


@pytest.fixture
def worker(request, tmp_path):
    made = Worker(request.param, tmp_path)
    yield made
    made.close()
    print(f"{made.name}: {sum(made.counts.values())} cases: {dict(made.counts)}")


@pytest.mark.parametrize("worker", READERS, indirect=True)
def test_damaged_files_are_read_or_refused_in_one_line(worker):
    wholes = list(READERS[worker.name][1]())
    for whole in wholes:
        check(worker, whole)
    whole_counts = Counter(worker.counts)

    @settings(
        max_examples=CASES or FEW.get(worker.name, 1200),
        derandomize=not CASES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(wholes), changes)
    def damaged(whole, mutations):
        check(worker, changed(whole, mutations))

    # The files to begin from are whole: otherwise nothing of a reader beyond its first check is tried.
    assert whole_counts["read"] == len(wholes)
    damaged()


FAILED = sorted(HERE.glob("failed/*"))


@pytest.mark.parametrize("worker", sorted({path.name.split("-")[0] for path in FAILED}), indirect=True)
def test_files_that_once_failed(worker):
    for path in FAILED:
        if path.name.startswith(f"{worker.name}-"):
            check(worker, path.read_bytes())
