"""Batches as `fit` takes them: whose memory they are, where they lie, what they say when reading fails."""

import subprocess
import sys
import weakref
from types import SimpleNamespace

import h5py
import numpy as np
import pytest

from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError

SAMPLES = 40


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    inputs = np.random.default_rng(0).normal(size=(SAMPLES, 64, 64, 2)).astype("f4")
    write_shards(folder, "train", inputs, np.arange(SAMPLES) % 3, classes=3, shards=2)
    return folder, inputs


def opened(folder, **options):
    from hpc_train.data.catalogue import Catalogue
    from hpc_train.data.reading.reader import Reader
    from hpc_train.data.tensors.pipeline import Input

    return Input(Reader(Catalogue.open(folder)), **options)


@pytest.mark.parametrize("batch", [1, 4, 40])
@pytest.mark.parametrize("blocks", [False, True])
def test_epochs_follow_each_other_in_the_order_of_the_plan(shards, batch, blocks):
    from hpc_train.data.plan import TrainPlan
    from hpc_train.data.plan.order import BlockOrder

    folder, inputs = shards
    order = BlockOrder(SAMPLES, 5, block=4, window=12, lanes=1, stride=batch) if blocks else None
    plan = TrainPlan(SAMPLES, batch, 1, 5, order)
    position = 0 if batch == 40 else 8
    steps = plan.steps(position) + 2 * plan.steps()
    wanted = [plan.indices(7, step, 0, position) for step in range(plan.steps(position))]
    wanted += [plan.indices(epoch, step, 0) for epoch in (8, 9) for step in range(plan.steps())]
    data = opened(folder).training(plan, 0, 7, position, steps)
    assert data.cardinality() == steps
    assert data.element_spec[0].shape == (batch, 64, 64, 2)
    for batches in filter(None, (data, opened(folder).handed(plan, 0, 7, position, steps))):
        for indices, (x, y) in zip(wanted, batches, strict=True):
            np.testing.assert_array_equal(x, inputs[indices])
            np.testing.assert_array_equal(y, indices % 3)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i2", ">i4", "i8"])
def test_batches_of_any_type_and_size_are_handed_over_whole(tmp_path, dtype):
    from hpc_train.data.plan import TrainPlan

    inputs = np.random.default_rng(1).integers(0, 2, (30, 3, 5)).astype(dtype)
    targets = (np.arange(30) % 3).astype("u1")
    write_shards(tmp_path, "train", inputs, targets, classes=3, shards=1)
    for batch in (1, 7, 13):
        plan = TrainPlan(30, batch, 1, 0)
        handed = list(opened(tmp_path).handed(plan, 0, 0, 0, plan.steps()))
        assert len(handed) == plan.steps()
        for step, (x, y) in enumerate(handed):
            indices = plan.indices(0, step, 0)
            np.testing.assert_array_equal(x, inputs[indices])
            np.testing.assert_array_equal(y, targets[indices])


def test_what_tensorflow_computes_is_not_handed_over(shards):
    from hpc_train.data.plan import TrainPlan

    plan = TrainPlan(SAMPLES, 4, 1, 0)
    scales = SimpleNamespace(scales=True)
    assert opened(shards[0], deliver=scales).handed(plan, 0, 0, 0, 1) is None
    assert opened(shards[0], device="/gpu:0").handed(plan, 0, 0, 0, 1) is None
    names = lambda x, y: ({"image": x}, y)  # noqa: E731
    names.scales = False
    ((inputs, _),) = opened(shards[0], deliver=names).handed(plan, 0, 0, 0, 1)
    np.testing.assert_array_equal(inputs["image"], shards[1][plan.indices(0, 0, 0)])


@pytest.mark.parametrize(("batch", "ranks"), [(7, 1), (7, 3), (50, 2), (1, 1)])
def test_validation_gives_every_sample_once_and_can_be_repeated(shards, batch, ranks):
    from hpc_train.data.plan import ValidationPlan

    folder, inputs = shards
    plan = ValidationPlan(SAMPLES, batch, ranks)
    source = opened(folder)
    for _ in range(2):
        rows = []
        for rank in range(ranks):
            batches = list(source.validation(plan, rank))
            assert len(batches) == plan.steps
            rows += [x for x, _ in batches[: plan.real_steps(rank)]]
        np.testing.assert_array_equal(np.concatenate(rows), inputs)


def test_a_large_batch_is_the_readers_own_memory(tmp_path, monkeypatch):
    from hpc_train.data.plan import TrainPlan
    from hpc_train.data.reading.buffers import Buffers

    inputs = np.random.default_rng(0).normal(size=(6, 512, 512)).astype("f4")
    write_shards(tmp_path, "train", inputs, np.zeros(6, int), classes=1)
    places = set()
    empty = Buffers.empty

    def noting(self, shape, dtype):
        array = empty(self, shape, dtype)
        places.add(array.__array_interface__["data"][0])
        return array

    monkeypatch.setattr(Buffers, "empty", noting)
    for x, _ in opened(tmp_path).training(TrainPlan(6, 2, 1, 0), 0, 0, 0, 3):
        # `numpy()` would copy.
        assert x._numpy().__array_interface__["data"][0] in places
    assert opened(tmp_path).handed(TrainPlan(6, 2, 1, 0), 0, 0, 0, 3) is None


@pytest.mark.parametrize("read_ahead", [1, 3, 8])
@pytest.mark.parametrize("blocks", [False, True])
def test_no_more_memory_is_made_than_is_stated(tmp_path, monkeypatch, read_ahead, blocks):
    from hpc_train.data.plan import TrainPlan
    from hpc_train.data.plan.order import BlockOrder
    from hpc_train.data.reading import buffers

    samples = 60
    write_shards(tmp_path, "train", np.zeros((samples, 512, 256), "f4"), np.zeros(samples, int), classes=1)
    made = [0, 0]

    def count(size):
        made[0] += size
        made[1] = max(made)

    class Counted(buffers.mmap.mmap):
        def __new__(cls, place, size, **options):
            memory = super().__new__(cls, place, size, **options)
            count(size)
            weakref.finalize(memory, count, -size)
            return memory

    monkeypatch.setattr(buffers.mmap, "mmap", Counted)
    order = BlockOrder(samples, 0, block=3, window=9, lanes=1, stride=4) if blocks else None
    plan = TrainPlan(samples, 4, 1, 0, order)
    source = opened(tmp_path, threads=3, read_ahead=read_ahead)
    steps = 3 * plan.steps()
    batch_bytes = 4 * 512 * 256 * 4
    assert sum(1 for _ in source.training(plan, 0, 0, 0, steps)) == steps
    assert read_ahead * batch_bytes <= made[1] <= source.memory(plan)


def test_batches_lie_on_the_device_that_is_named(shards):
    # Logical devices can only be made before TensorFlow starts.
    program = f"""
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras, numpy as np
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.tensors.pipeline import Input
from hpc_train.data.plan import TrainPlan
from hpc_train.data.reading.reader import Reader
data = Input(Reader(Catalogue.open({str(shards[0])!r})), device="/cpu:1").training(TrainPlan(40, 4, 1, 0), 0, 0, 0, 20)
print({{x.device[-5:] for x, _ in data}})
model = keras.Sequential([keras.Input((64, 64, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
data = Input(Reader(Catalogue.open({str(shards[0])!r})), device="/cpu:1").training(TrainPlan(40, 4, 1, 0), 0, 0, 0, 20)
print(len(model.fit(data, steps_per_epoch=10, epochs=2, verbose=0).history["loss"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=200)
    assert done.stdout.split("\n")[:2] == ["{'CPU:1'}", "2"], done.stderr[-2000:]


def test_a_reading_threads_error_ends_fit_and_is_kept(shards, tmp_path):
    import keras
    import tensorflow as tf

    from hpc_train.data.plan import TrainPlan

    write_shards(tmp_path, "train", shards[1], np.arange(SAMPLES) % 3, classes=3, shards=2)
    with h5py.File(tmp_path / "train-00001-of-00002.h5", "r+") as file:
        file["inputs"][3, 0, 0, 0] = np.nan
    source = opened(tmp_path)
    model = keras.Sequential([keras.Input((64, 64, 2)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(tf.errors.OpError):
        model.fit(source.training(TrainPlan(SAMPLES, 4, 1, 0), 0, 0, 0, 10), steps_per_epoch=10, verbose=0)
    assert isinstance(source.error, UserError)
    assert "train-00001-of-00002.h5: row 3 (sample 23 of 'train') holds NaN" in str(source.error)


def test_input_wait_is_the_time_that_steps_wait_for_their_batches(monkeypatch):
    """A slow source and a fast model: nearly all of a step is waiting; the other way round, nearly nothing."""
    import time

    import keras
    import tensorflow as tf

    from hpc_train.training import input_wait
    from hpc_train.training.input_wait import InputWait

    monkeypatch.setattr(input_wait, "sum_arrays", lambda arrays, name: arrays)

    def batches(seconds):
        def give():
            for _ in range(12):
                time.sleep(seconds)
                yield np.zeros((2, 3), "f4"), np.zeros(2, "i4")

        signature = tf.TensorSpec((2, 3), tf.float32), tf.TensorSpec((2,), tf.int32)
        return tf.data.Dataset.from_generator(give, output_signature=signature)

    class Slow(keras.layers.Layer):
        def __init__(self, seconds):
            super().__init__()
            self.seconds = seconds

        def call(self, x):
            slowly = tf.numpy_function(lambda x: (time.sleep(self.seconds), x)[1], [x], tf.float32)
            return tf.ensure_shape(slowly, (2, 3))

    shares = [], []
    for wait, compute in ((0.05, 0.0), (0.0, 0.05)):
        model = keras.Sequential([keras.Input((3,)), Slow(compute), keras.layers.Dense(2)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, jit_compile=False)
        function = model.make_train_function() or model.train_function
        for handed in (False, True):
            callback = InputWait()
            if handed:
                callback.take_from(each for each in batches(wait))
            data = batches(0.0 if handed else wait)
            seen = model.fit(data, steps_per_epoch=12, verbose=0, callbacks=[callback]).history["input_wait"]
            assert model.train_function is function
            shares[handed].extend(seen)
    for waits, computes in shares:
        assert waits > 0.5 > computes
