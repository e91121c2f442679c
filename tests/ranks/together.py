"""Run on 2 ranks by test_together.py: how a `fit` begins and ends on all ranks alike; see checks.py."""

import contextlib
import io
import re
import tempfile
from pathlib import Path

from checks import write_outcomes

from hpc_train import parallel
from hpc_train.errors import UserError

world = parallel.init(seed=1)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.parallel.agreement.first_steps import FirstSteps  # noqa: E402
from hpc_train.parallel.collectives import broadcast_object, gather_objects  # noqa: E402

X = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
Y = X[:, :1]
BATCH = 4
STEPS = len(X) // (BATCH * world.size)
MINE = np.arange(len(X)).reshape(-1, world.size, BATCH)[:, world.rank].ravel()


def network(*layers, **options):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,), batch_size=BATCH), *layers, keras.layers.Dense(1)])
    model.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse", **options)
    return model


def fit(model, callbacks, x=X, **options):
    options = {"epochs": 3, "batch_size": BATCH, "shuffle": False, "verbose": 0, **options}
    return model.fit(x[MINE], Y[MINE], callbacks=callbacks, **options)


def steps_made(model):
    """Steps of every rank; they must be the same."""
    made = gather_objects(int(model.optimizer.iterations))
    assert len(set(made)) == 1, made
    return made[0]


def alone(callbacks=(), x=X, **options):
    """Plain Keras in this process, with the batches of all ranks."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.01), "mse")
    history = model.fit(
        x,
        Y,
        batch_size=BATCH * world.size,
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
        **{"epochs": 3, **options},
    )
    return model, history


class StopAt(keras.callbacks.Callback):
    """Asks for the end on some ranks, at a batch of the first epoch or at the end of an epoch."""

    def __init__(self, ranks, batch=None, epoch=None):
        super().__init__()
        self.asks, self.batch, self.epoch = world.rank in ranks, batch, epoch

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.model.stop_training = self.asks

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            self.model.stop_training = self.asks


class Remembers(keras.layers.Layer):
    """Keeps the last batch, as a memory queue does; with `own` False something that all ranks compute alike."""

    def __init__(self, own=True, dtype="float32", frozen=False):
        super().__init__(name="memory")
        self.own, self.kept, self.trainable = own, dtype, not frozen

    def build(self, shape):
        kept = {"dtype": self.kept, "trainable": False, "initializer": "zeros"}
        self.queue = self.add_weight(shape=(BATCH, 6), name="queue", **kept)

    def call(self, x, training=None):
        if training:
            self.queue.assign(keras.ops.cast(x, self.kept) if self.own else self.queue + 1.0)
        return x


def a_wish_of_all_ranks_at_a_step_stops_at_this_step():
    model = network()
    fit(model, [*parallel.callbacks(), StopAt(range(world.size), batch=2)])
    assert steps_made(model) == 3


def a_wish_of_one_rank_at_a_step_stops_all_at_one_step():
    for asks in ([0], [1]):
        for everywhere in (True, False):
            model = network()
            stop = [StopAt(asks, batch=2)] if everywhere or world.rank in asks else []
            history = fit(model, [*parallel.callbacks(), *stop])
            assert steps_made(model) in (3, 4)
            assert len(history.epoch) == 1


def a_wish_of_one_rank_after_the_last_step_or_an_epoch_stops_all():
    for place, stop in (("after", StopAt([1], batch=STEPS - 1)), ("before", StopAt([0], epoch=1))):
        model = network()
        ours = parallel.callbacks()
        history = fit(model, [*ours, stop] if place == "after" else [stop, *ours])
        epochs = 1 if place == "after" else 2
        assert steps_made(model) == epochs * STEPS
        assert len(history.epoch) == epochs


def a_wish_in_an_epoch_of_unknown_length_stops_all():
    signature = (tf.TensorSpec((BATCH, 6)), tf.TensorSpec((BATCH, 1)))
    for batch, most in ((1, 3), (2, 3)):
        data = tf.data.Dataset.from_generator(
            lambda: ((X[:BATCH], Y[:BATCH]) for _ in range(3)), output_signature=signature
        )
        # Not in a graph: there Keras's counter of steps may run on when the data have ended.
        model = network(run_eagerly=True)
        history = model.fit(data, epochs=3, callbacks=[*parallel.callbacks(), StopAt([1], batch=batch)], verbose=0)
        assert steps_made(model) in range(batch + 1, most + 1)
        assert len(history.epoch) == 1


def a_loss_that_is_no_number_on_one_rank_stops_all():
    x = X.copy()
    x[BATCH * world.size + BATCH] = np.nan
    model = network()
    fit(model, [*parallel.callbacks(), keras.callbacks.TerminateOnNaN()], x)
    assert steps_made(model) in (2, 3)


def early_stopping_decides_by_all_samples_wherever_it_stands():
    def stops():
        return keras.callbacks.EarlyStopping("loss", patience=0, min_delta=0.9, restore_best_weights=True)

    model = network()
    history = fit(model, [stops(), *parallel.callbacks()], epochs=9)
    plain, want = alone([stops()], epochs=9)
    assert gather_objects(len(history.epoch)) == [len(want.epoch)] * world.size
    np.testing.assert_allclose(history.history["loss"], want.history["loss"], rtol=1e-5)
    np.testing.assert_allclose(model.get_weights()[0], plain.get_weights()[0], rtol=1e-4, atol=1e-6)


def a_training_that_rank_0_restores_goes_on_on_all_ranks():
    folder = Path(broadcast_object(tempfile.mkdtemp()))

    def keeps():
        return [keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)] if world.is_root else []

    fit(network(), [*parallel.callbacks(), *keeps()], epochs=1)
    model = network()
    model.layers[0].kernel.assign(model.layers[0].kernel + world.rank)
    history = fit(model, [*parallel.callbacks(), *keeps()], epochs=3)
    plain, _ = alone(epochs=3)
    assert gather_objects(history.epoch) == [[1, 2]] * world.size
    np.testing.assert_allclose(model.get_weights()[0], plain.get_weights()[0], rtol=1e-4, atol=1e-6)


def a_training_that_only_another_rank_restores_is_refused():
    folder = Path(tempfile.mkdtemp())
    keeps = keras.callbacks.BackupAndRestore(folder, delete_checkpoint=False)
    model = network()
    model.optimizer.build(model.trainable_variables)
    keeps.set_model(model)
    keeps._current_epoch = 2
    keeps._save_model()
    with pytest.raises(UserError, match="rank 1 restored a training, rank 0 did not"):
        fit(model, [*parallel.callbacks(), *([] if world.is_root else [keeps])])


def unequal_numbers_of_batches_that_keras_knows_are_refused():
    model = network()
    few = slice(None) if world.is_root else slice(0, 2 * BATCH)
    with pytest.raises(UserError, match=f"rank 1 would make 2 batches an epoch, and rank 0 {STEPS}"):
        model.fit(X[MINE][few], Y[MINE][few], batch_size=BATCH, callbacks=parallel.callbacks(), verbose=0)
    with pytest.raises(UserError, match="rank 0 would make 1 epochs, and rank 1 2"):
        fit(network(), parallel.callbacks(), epochs=1 + world.rank)
    with pytest.raises(UserError, match="different epochs, 1 and 2"):
        fit(network(), parallel.callbacks(), initial_epoch=world.rank)


def state_of_a_rank_alone_is_named_and_treated_as_chosen():
    lasts = X[MINE][-BATCH:], gather_objects(X[MINE][-BATCH:])
    for choice, want in (("average", np.mean(lasts[1], 0)), ("root", lasts[1][0])):
        model, said = network(Remembers()), io.StringIO()
        with contextlib.redirect_stderr(said):
            fit(model, parallel.callbacks(local_state=choice))
        np.testing.assert_allclose(model.layers[0].queue, want, rtol=1e-6)
        assert said.getvalue().count("memory/queue") == (1 if world.is_root else 0)
    model = network(Remembers())
    with pytest.raises(UserError, match="memory/queue"):
        fit(model, parallel.callbacks(local_state="error"))
    assert steps_made(model) == 1
    with pytest.raises(ValueError, match="local_state"):
        parallel.callbacks(local_state="mean")


def state_of_a_rank_alone_in_frozen_layers_and_narrow_types_is_treated_too():
    lasts = np.array(gather_objects(X[MINE][-BATCH:]))
    for dtype, frozen in (("bfloat16", False), ("float32", True), ("float16", True)):
        for choice, want in (("average", lasts.mean(0)), ("root", lasts[0])):
            model, said = network(Remembers(dtype=dtype, frozen=frozen)), io.StringIO()
            with contextlib.redirect_stderr(said):
                fit(model, parallel.callbacks(local_state=choice))
            np.testing.assert_allclose(np.asarray(model.layers[0].queue, "float32"), want, rtol=1e-2, atol=1e-2)
            assert said.getvalue().count("memory/queue") == (1 if world.is_root else 0)
    model = network(Remembers(frozen=True))
    with pytest.raises(UserError, match="memory/queue"):
        fit(model, parallel.callbacks(local_state="error"))
    assert steps_made(model) == 1


def state_that_is_equal_or_of_batch_norm_is_not_named():
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        fit(network(Remembers(own=False), keras.layers.BatchNormalization()), parallel.callbacks(local_state="error"))
    assert "note" not in said.getvalue()


def a_model_without_an_optimizer_is_broadcast():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    model.set_weights([weight + world.rank for weight in model.get_weights()])
    before = gather_objects(model.get_weights()[0])[0]
    parallel.broadcast_variables(model)
    np.testing.assert_array_equal(model.get_weights()[0], before)
    with pytest.raises(UserError, match="no weights yet"):
        parallel.broadcast_variables(keras.Sequential([keras.layers.Dense(1)]))


def a_strategy_left_in_the_script_is_named():
    optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(0.1))
    with tf.distribute.MirroredStrategy(["/cpu:0"]).scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        with pytest.raises(UserError, match="MirroredStrategy"):
            parallel.DistributedOptimizer(keras.optimizers.SGD(0.1))
        with pytest.raises(UserError, match="MirroredStrategy"):
            parallel.broadcast_variables(model)
    model.compile(optimizer, "mse")
    with pytest.raises(UserError, match="MirroredStrategy"):
        fit(model, parallel.callbacks())


def a_second_start_is_the_first_one():
    assert parallel.init(seed=1) == world
    with pytest.raises(UserError, match="seed=1 and then seed=2"):
        parallel.init(seed=2)


def unequal_weights_are_found_in_the_second_step_in_a_graph_and_without():
    def stepper(name, variable, graph):
        check = FirstSteps(name).check

        def step():
            check([variable], [tf.ones(3)])

        return tf.function(step) if graph else step

    for graph in (False, True):
        variable = keras.Variable(np.ones(3, "float32") * (1 + world.rank), name="unequal")
        step = stepper(f"unequal.{graph}", variable, graph)
        step()
        with pytest.raises(tf.errors.UnknownError if graph else UserError, match=r"different weights.*unequal"):
            step()
        # Scripts may broadcast after the first step; what comes after the second is for other checks.
        step = stepper(f"broadcast.{graph}", variable, graph)
        step()
        variable.assign(np.ones(3))
        step()
        variable.assign(np.ones(3) * world.rank)
        step()


def a_data_set_that_ends_counts_as_no_step_of_the_check():
    variable = keras.Variable(np.ones(3, "float32") * (1 + world.rank), name="unequal")
    check = FirstSteps("ends").check
    data = iter(tf.data.Dataset.from_generator(lambda: iter([np.ones(3)]), output_signature=tf.TensorSpec((3,))))

    @tf.function
    def step():
        check([variable], [next(data)])

    step()
    with pytest.raises(tf.errors.OutOfRangeError):
        step()


class OwnStep(keras.Sequential):
    def train_step(self, data):
        return super().train_step(data)


def warned_of(data, model=None, epochs=1):
    """What `fit` prints of the samples in `data`, of rank 0."""
    said, rows = io.StringIO(), np.random.default_rng(5).normal(size=(400, 6)).astype("float32")
    data = data(tf.data.Dataset.from_tensor_slices((rows, rows[:, :1]))).batch(BATCH)
    with contextlib.redirect_stderr(said):
        (model or network()).fit(data, epochs=epochs, verbose=0, shuffle=False, callbacks=parallel.callbacks())
    told = gather_objects("".join(line for line in said.getvalue().splitlines() if "first epoch" in line))
    assert not any(told[1:]), told
    return told[0]


def samples_that_ranks_share_in_the_first_epoch_are_noticed():
    def apart(data, seed=3):
        return data.shard(world.size, world.rank).shuffle(400, seed=seed)

    def overlapping(data):
        return data.shuffle(400, seed=world.rank).shard(world.size, world.rank)

    others = {
        "unbuilt": keras.Sequential([keras.layers.Dense(1)]),
        "own step": OwnStep([keras.Input((6,)), keras.layers.Dense(1)]),
        "eager": keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)]),
    }
    for name, model in others.items():
        optimizer = parallel.DistributedOptimizer(keras.optimizers.SGD(0.01))
        model.compile(optimizer, "mse", run_eagerly=name == "eager")
    told = {name: warned_of(overlapping, model) for name, model in others.items()}
    told |= {"plain": warned_of(overlapping), "two epochs": warned_of(overlapping, epochs=2)}
    told["several steps"] = warned_of(overlapping, network(steps_per_execution=5))
    assert all(told.values()), told
    for name, said in told.items():
        # Each rank sees half of the samples, and of its half the other rank sees a half.
        assert re.search(r"in the first epoch (4|5)\d% of a rank's samples were on other ranks too", said), (name, said)
        assert said.count("warning") == 1, (name, said)
    assert "same samples in the same order" in warned_of(lambda data: data)
    assert "every rank trained on all samples" in warned_of(lambda data: data.shuffle(400, seed=world.rank))

    assert not warned_of(apart)
    assert not warned_of(lambda data: data.shuffle(400, seed=7).shard(world.size, world.rank))
    assert not warned_of(lambda data: apart(data).repeat(3))
    # Rows that are alike by nature: numbers of three values.
    assert not warned_of(lambda data: apart(data.map(lambda x, y: (tf.round(x[:2]), y))), narrow())


def narrow():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(parallel.DistributedOptimizer(keras.optimizers.SGD(0.01)), "mse")
    return model


CHECKS = [
    value
    for name, value in list(globals().items())
    if callable(value) and getattr(value, "__module__", "") == "__main__" and name.count("_") >= 3
]

if __name__ == "__main__":
    write_outcomes(CHECKS, world)
    hvd.shutdown()
