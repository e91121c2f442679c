"""Started on 2 ranks by test_throughput.py: every rank makes each check; rank 0 writes the outcomes as JSON.

Argument 2: shards of digits.
"""

import sys
from dataclasses import replace
from pathlib import Path

from checks import write_outcomes

from hpc_train import mnist, parallel
from hpc_train.bench.throughput.options import BENCHMARKS

chosen = BENCHMARKS["mnist"](data=Path(sys.argv[2]), model="fc", batch_size=16)
options = chosen.of_trainer()
world = parallel.init(seed=5)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.bench.throughput import ranks  # noqa: E402
from hpc_train.bench.throughput.bare import Bare  # noqa: E402
from hpc_train.bench.throughput.fit import Fit, Reading, Resident  # noqa: E402
from hpc_train.bench.throughput.ways import make_ways  # noqa: E402
from hpc_train.parallel.replicas import checksums  # noqa: E402
from hpc_train.training.assembly import assemble  # noqa: E402

TASK = mnist.task(options)
READY = assemble(options, TASK, world)
NAMES = ["device", "fit", "fit alone", "input"]
WAYS = make_ways(NAMES, options, TASK, READY, world)
WARMUP, STEPS = 2, 3


def equal_on_all_ranks(weights) -> bool:
    return len({tuple(mine) for mine in parallel.gather_objects(checksums(weights))}) == 1


def steps_made(model, way) -> tuple[int, object]:
    before = int(model.optimizer.iterations)
    timed = way(WARMUP, STEPS)
    return int(model.optimizer.iterations) - before, timed


def the_chosen_ways_are_made_in_their_order():
    assert list(WAYS) == NAMES


def the_rate_is_the_same_small_one_in_every_step():
    assert [READY.rates.schedule.rate(done) for done in (0, 0.5, 100)] == pytest.approx([1e-4] * 3)


def a_round_has_its_warm_up_and_its_steps_and_times_the_steps():
    for name in ("fit", "device", "fit alone"):
        made, timed = steps_made(WAYS[name].model, WAYS[name])
        assert made == WARMUP + STEPS
        assert timed.seconds.shape == (STEPS,)
        assert (timed.seconds > 0).all()
        assert 0 <= timed.input_wait <= 1


def with_averaged_gradients_the_replicas_stay_equal_and_change():
    model = WAYS["fit"].model
    assert WAYS["device"].model is model
    for name in ("fit", "device"):
        before = checksums(model.trainable_variables)
        WAYS[name](WARMUP, STEPS)
        assert equal_on_all_ranks(model.trainable_variables)
        assert (checksums(model.trainable_variables) != before).all()


def alone_each_rank_gets_other_weights():
    WAYS["fit alone"](WARMUP, STEPS)
    assert not equal_on_all_ranks(WAYS["fit alone"].model.trainable_variables)


def training_uses_only_the_resident_batch():
    asked = []

    def nothing():
        asked.append(1)
        yield np.zeros((16, 8, 8, 1), "uint8"), np.zeros(16, "int64")

    batch = next(iter(READY.feed.batches(READY.plan, 0, 0, 1)))
    data = tf.data.Dataset.from_generator(
        nothing, output_signature=tf.nest.map_structure(tf.TensorSpec.from_tensor, batch)
    )
    resident = Resident(batch)
    way = Fit(WAYS["fit alone"].model, lambda steps: data, [resident])
    taken = []
    step = resident._step

    def seen(iterator):
        result = step(iterator)
        taken.append(float(result["loss"]))
        return result

    resident._step = seen
    assert steps_made(way.model, way)[0] == WARMUP + STEPS
    assert not asked
    assert len(taken) == WARMUP + STEPS


def reading_alone_counts_steps_in_the_middle_of_its_work():
    delivered = []

    def count(number):
        delivered.append(int(number))
        return number

    lengths = []

    def data(steps):
        lengths.append(steps)
        return tf.data.Dataset.range(steps).map(lambda number: tf.py_function(count, [number], tf.int64))

    timed = Reading(data, lead=4)(WARMUP, STEPS)
    assert lengths == [WARMUP + 4 + STEPS + 4]
    assert delivered == list(range(lengths[0]))
    assert timed.seconds.shape == (STEPS,)
    assert timed.input_wait is None
    assert WAYS["input"].lead > 2
    assert WAYS["input"](WARMUP, STEPS).seconds.shape == (STEPS,)


def the_bare_loop_averages_only_where_it_should():
    for average in (True, False):
        keras.utils.set_random_seed(5)
        model = TASK.model(READY.feed.training)
        data = READY.feed.batches(READY.plan, 0, 0, 4)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        timed = Bare(model, loss, keras.optimizers.SGD(0.01), data, average)(WARMUP, STEPS)
        assert timed.seconds.shape == (STEPS,)
        assert equal_on_all_ranks(model.trainable_variables) == average


def times_of_steps_are_gathered_from_all_ranks():
    mine = [np.array([1.0, 5.0, 3.0]), np.array([2.0, 4.0, 3.0])][world.rank]
    assert ranks.longest(mine[0]) == 2
    found = ranks.over_ranks(mine, world.rank)
    assert found["slowest"] == [2, 5, 3]
    assert found["fastest"] == [1, 4, 3]
    assert found["mean"] == [1.5, 4.5, 3]
    assert [of["rank"] for of in found["by_rank"]] == [0, 1]
    assert [of["mean"] for of in found["by_rank"]] == pytest.approx([3, 3])
    assert [of["max"] for of in found["by_rank"]] == [5, 4]
    memory = ranks.peak_memory()
    assert memory["gpu"] is None
    assert len(memory["host"]) == 2
    assert min(memory["host"]) > 2**27  # TensorFlow alone takes more


def trainers_fuse_batch_normalisation_unless_it_is_synchronised():
    for synchronised in (False, True):
        chosen = replace(options, model="batchnorm", sync_batch_norm=synchronised)
        model = assemble(chosen, mnist.task(chosen), world).model
        step = tf.function(lambda images, model=model: model(images, training=True))
        graph = step.get_concrete_function(tf.TensorSpec((None, 8, 8, 1), "uint8")).graph
        assert any(op.type == "FusedBatchNormV3" for op in graph.get_operations()) is not synchronised


CHECKS = [
    the_chosen_ways_are_made_in_their_order,
    the_rate_is_the_same_small_one_in_every_step,
    a_round_has_its_warm_up_and_its_steps_and_times_the_steps,
    with_averaged_gradients_the_replicas_stay_equal_and_change,
    alone_each_rank_gets_other_weights,
    training_uses_only_the_resident_batch,
    reading_alone_counts_steps_in_the_middle_of_its_work,
    the_bare_loop_averages_only_where_it_should,
    times_of_steps_are_gathered_from_all_ranks,
    trainers_fuse_batch_normalisation_unless_it_is_synchronised,
]

write_outcomes(CHECKS, world)
