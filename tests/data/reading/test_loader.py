"""Read-ahead: batches in order, in bounded memory, each block read once, errors at once."""

import gc
import threading
import time

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.hdf5.raw_file import File
from hpc_train.data.plan import TrainPlan
from hpc_train.data.plan.order import BlockOrder
from hpc_train.data.reading.buffers import Buffers
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError

SAMPLES = 60


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(catalogue, inputs, targets) of 60 samples of 8 KiB in 4 shards."""
    folder = tmp_path_factory.mktemp("shards")
    inputs = np.random.default_rng(0).normal(size=(SAMPLES, 32, 64)).astype("f4")
    targets = np.arange(SAMPLES) % 7
    write_shards(folder, "train", inputs, targets, classes=7, shards=4)
    return Catalogue.open(folder), inputs, targets


class Counting(File):
    """Counts reads, how many are under way at once, and waits until the test lets them go on."""

    lock = threading.Lock()

    def __init__(self, path):
        super().__init__(path)
        self.now = self.most = self.reads = 0
        self.gate = threading.Event()
        self.gate.set()

    def map(self):
        return None

    def read_into(self, offset, buffer):
        with self.lock:
            Counting.now += 1
            Counting.reads += 1
            Counting.most = max(Counting.most, Counting.now)
        Counting.gate.wait(20)
        super().read_into(offset, buffer)
        with self.lock:
            Counting.now -= 1


@pytest.fixture
def counting():
    Counting.now = Counting.most = Counting.reads = 0
    Counting.gate = threading.Event()
    Counting.gate.set()
    yield Counting
    Counting.gate.set()


@settings(deadline=None, max_examples=40)
@given(
    batch=st.integers(1, 9),
    together=st.integers(1, 4),
    threads=st.integers(1, 5),
    ahead=st.integers(1, 5),
    how=st.sampled_from(["map", "read", "h5py"]),
    block=st.sampled_from([None, 1, 4, 17, 60]),
    horizon=st.integers(0, 6),
)
def test_batches_come_in_order_whatever_reads_them(made, batch, together, threads, ahead, how, block, horizon):
    catalogue, inputs, targets = made
    order = np.random.default_rng(batch).permutation(SAMPLES)[: SAMPLES // batch * batch].reshape(-1, batch)
    groups = (order[k : k + together] for k in range(0, len(order), together))
    batches = list(Loader(Reader(catalogue, how=how), groups, threads, ahead, block, horizon))
    assert len(batches) == len(order)
    for wanted, (got_inputs, got_targets) in zip(order, batches, strict=True):
        np.testing.assert_array_equal(got_inputs, inputs[wanted])
        np.testing.assert_array_equal(got_targets, targets[wanted])


@pytest.mark.parametrize(("threads", "ahead"), [(1, 4), (6, 3), (6, 12)])
def test_as_many_reads_are_under_way_as_threads_and_read_ahead_allow(made, counting, threads, ahead):
    catalogue, _, _ = made
    counting.gate.clear()
    reader = Reader(catalogue, how="read", open_file=counting)
    loader = Loader(reader, iter(np.arange(SAMPLES).reshape(-1, 1, 1)), threads, ahead)
    consumer = threading.Thread(target=loader.next, daemon=True)
    consumer.start()
    # A batch of one sample is two reads: of inputs and of targets.
    expected = min(threads, 2 * ahead)
    for _ in range(2000):
        if counting.now == expected:
            break
        time.sleep(0.005)
    assert counting.now == expected
    counting.gate.set()
    consumer.join(20)
    loader.close()
    # What is still under way would be counted in the next test.
    loader._pool.shutdown(wait=True)


def test_no_more_batches_are_held_than_read_ahead_says(made):
    catalogue, _, _ = made
    taken = []

    def groups():
        for number in range(SAMPLES):
            taken.append(number)
            yield np.full((1, 1), number)

    loader = Loader(Reader(catalogue), groups(), threads=2, read_ahead=5)
    for given_out in range(10):
        loader.next()
        assert len(taken) == min(SAMPLES, given_out + 1 + 5)
    loader.close()


def test_memory_is_used_again_but_never_while_a_view_of_it_lives():
    buffers = Buffers(keep=2)
    shape, dtype = (4, 4096), np.dtype("f4")
    first = buffers.empty(shape, dtype)
    place = first.__array_interface__["data"][0]
    assert place % 4096 == 0
    kept = first[1, 10:20]
    kept[:] = 7
    del first
    gc.collect()
    second = buffers.empty(shape, dtype)
    assert second.__array_interface__["data"][0] != place
    second[:] = 0
    assert (kept == 7).all()
    del kept
    gc.collect()
    assert buffers.empty(shape, dtype).__array_interface__["data"][0] == place


def test_blocks_are_read_once_by_the_rank_that_uses_them(made, counting):
    catalogue, inputs, _ = made
    order = BlockOrder(SAMPLES, 3, block=5, window=15, lanes=2, stride=3)
    plan = TrainPlan(SAMPLES, 3, 2, 3, order)
    reads = 0
    for rank in (0, 1):
        groups = [plan.batches(0, step, 1, rank) for step in range(plan.steps())]
        counting.reads = 0
        loader = Loader(Reader(catalogue, how="read", open_file=counting), iter(groups), 2, 2, block=5, horizon=5)
        for wanted, (got, _) in zip(groups, loader, strict=True):
            np.testing.assert_array_equal(got, inputs[wanted[0]])
        assert counting.reads > 0
        assert not loader._blocks._held
        reads += loader._blocks.reads
    assert reads <= -(-SAMPLES // 5) + 2


def test_the_error_of_a_thread_is_raised_by_the_next_call_whichever_batch_it_is_of(made, tmp_path):
    _, inputs, targets = made
    write_shards(tmp_path, "train", inputs, targets, classes=7, shards=2)
    catalogue = Catalogue.open(tmp_path)
    with h5py.File(catalogue.files[1], "r+") as file:
        file["targets"][4] = 9
    loader = Loader(Reader(catalogue), iter(np.arange(SAMPLES).reshape(-1, 1, 1)), threads=2, read_ahead=SAMPLES)
    given_out = []

    def consume():
        while True:
            given_out.append(loader.next())
            time.sleep(0.05)

    with pytest.raises(UserError, match=r"row 4 .* has label 9, outside the 7 classes"):
        consume()
    assert len(given_out) < SAMPLES // 2
    with pytest.raises(UserError, match="has label 9"):
        loader.next()
    loader.close()


def test_a_loader_that_is_left_half_way_stops_its_threads(made):
    catalogue, _, _ = made
    loader = Loader(Reader(catalogue), iter(np.arange(SAMPLES).reshape(-1, 1, 1)), 3, 4)
    batches = iter(loader)
    next(batches)
    batches.close()
    for thread in loader._pool._threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in loader._pool._threads)
