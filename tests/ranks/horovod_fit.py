"""Run on N ranks by test_horovod_names.py: what Horovod's names make of `fit`, against plain Keras with all batches."""

import os
import sys
from pathlib import Path

import horovod.tensorflow.keras as hvd
from checks import write_outcomes

EVENS = hvd.ProcessSet([0, 2] if os.environ.get("HOROVOD_SIZE") == "3" else [0])
hvd.init(process_sets=[EVENS])

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras.src.saving.serialization_lib import SafeModeScope  # noqa: E402

from hpc_train.errors import UserError  # noqa: E402
from hpc_train.parallel import World, broadcast_object, gather_objects  # noqa: E402

RANK, SIZE = hvd.rank(), hvd.size()
BATCH, STEPS = 8, 12
DRAW = np.random.default_rng(5)
INPUTS = DRAW.normal(size=(STEPS * BATCH * SIZE, 6)).astype("float32")
TARGETS = (INPUTS @ DRAW.normal(size=(6, 3))).argmax(1)
WORDS = DRAW.integers(0, 20, (len(INPUTS), 4))
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
START = hvd.callbacks.BroadcastGlobalVariablesCallback


def network():
    keras.utils.set_random_seed(3)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, activation="tanh"), keras.layers.Dense(3)])


def of_words():
    keras.utils.set_random_seed(3)
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Embedding(20, 5), keras.layers.Flatten(), keras.layers.Dense(3)]
    )


def rows(ranks):
    """The samples that these ranks train on, batch by batch."""
    return np.arange(len(INPUTS)).reshape(STEPS, BATCH, SIZE)[:, :, ranks].ravel()


def fit(model, optimizer, ranks, callbacks=(), **options):
    inputs = WORDS if model.input_shape[1] == 4 else INPUTS
    kept = rows(ranks)
    model.compile(optimizer, LOSS, **options)
    batch = BATCH * len(ranks)
    return model.fit(inputs[kept], TARGETS[kept], batch, shuffle=False, verbose=0, callbacks=list(callbacks)).history


def distributed(model, optimizer, callbacks=(), **options):
    # Where the ranks begin must not matter.
    if RANK:
        model.set_weights([w + 1 for w in model.get_weights()])
    fit(model, optimizer, [RANK], [START(0), *callbacks], **options)
    everybody = gather_objects([np.asarray(w).tobytes() for w in [*model.weights, *model.optimizer.variables]])
    assert all(other == everybody[0] for other in everybody)
    return model.get_weights()


def compare(got, want, name="", rtol=2e-4, atol=2e-5):
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=atol, err_msg=name)


OPTIMIZERS = {
    "SGD": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
}


def alone(make, build=network, passes=1):
    """Plain Keras, one process: the batches of all ranks, `passes` of them in one."""
    model = build()
    inputs = WORDS if build is of_words else INPUTS
    model.compile(make(), LOSS)
    model.fit(inputs, TARGETS, BATCH * SIZE * passes, shuffle=False, verbose=0)
    return model.get_weights()


def ranks_equal_one_rank_with_the_whole_batch():
    for name, make in OPTIMIZERS.items():
        compare(distributed(network(), hvd.DistributedOptimizer(make())), alone(make), name)
        compare(distributed(of_words(), hvd.DistributedOptimizer(make())), alone(make, of_words), name)


def aggregated_batches_equal_one_large_batch():
    for name, make in OPTIMIZERS.items():
        options = {"backward_passes_per_step": 3, "average_aggregated_gradients": True}
        compare(distributed(network(), hvd.DistributedOptimizer(make(), **options)), alone(make, passes=3), name)
    for name in ("SGD", "Adam"):
        make = OPTIMIZERS[name]
        got = distributed(of_words(), hvd.DistributedOptimizer(make(), **options))
        compare(got, alone(lambda make=make: dense(make()), of_words, 3), name)


def dense(optimizer):
    """Keras's Adam squares the rows of a sparse gradient one by one, and sums are dense: so is this reference."""
    apply = optimizer.apply
    optimizer.apply = lambda grads, variables=None: apply([tf.convert_to_tensor(grad) for grad in grads], variables)
    return optimizer


def narrow_gradients_nearly_equal_one_rank():
    make = OPTIMIZERS["SGD"]
    optimizer = hvd.DistributedOptimizer(make(), compression=hvd.Compression.fp16)
    compare(distributed(network(), optimizer), alone(make), rtol=2e-2, atol=2e-3)
    options = {"backward_passes_per_step": 3, "average_aggregated_gradients": True}
    optimizer = hvd.DistributedOptimizer(make(), compression=hvd.Compression.fp16, **options)
    compare(distributed(network(), optimizer), alone(make, passes=3), rtol=2e-2, atol=2e-3)


def a_process_set_equals_one_rank_with_its_batches():
    ranks = [0, 2][: EVENS.size()]
    model, plain, make = network(), network(), OPTIMIZERS["Adam"]
    fit(model, hvd.DistributedOptimizer(make(), process_set=EVENS), [RANK], [START(0)])
    fit(plain, make(), ranks if EVENS.included() else [RANK])
    compare(model.get_weights(), plain.get_weights())


def overflow(model, optimizer, **options):
    """A step in which one rank overflows must change nothing on any rank; the next ones are as if it had not been."""
    before = [w.copy() for w in model.get_weights()]
    model.compile(optimizer, LOSS, **options)
    bad = INPUTS[:BATCH].copy()
    if RANK == SIZE - 1:
        bad[3] = np.inf
    model.fit(bad, TARGETS[:BATCH], BATCH, verbose=0, callbacks=[START(0)])
    compare(model.get_weights(), before, rtol=0, atol=0)
    assert float(model.optimizer.dynamic_scale) == 4.0
    kept = rows([RANK])
    model.fit(INPUTS[kept], TARGETS[kept], BATCH, shuffle=False, verbose=0, callbacks=[START(0)])
    everybody = gather_objects([np.asarray(w).tobytes() for w in [*model.weights, *model.optimizer.variables]])
    assert all(other == everybody[0] for other in everybody)
    return model.get_weights()


def scaled(optimizer):
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)


def an_overflow_on_one_rank_skips_the_step_on_all():
    for make in (OPTIMIZERS["SGD"], OPTIMIZERS["Adam"]):
        compare(overflow(network(), hvd.DistributedOptimizer(scaled(make()))), alone(make))
        compare(overflow(network(), scaled(hvd.DistributedOptimizer(make()))), alone(make))


def scaled_gradients_are_averaged_in_a_loop_of_ones_own():
    for around in (True, False):
        make = OPTIMIZERS["Adam"]
        optimizer = scaled(hvd.DistributedOptimizer(make())) if around else hvd.DistributedOptimizer(scaled(make()))
        model = network()

        @tf.function
        def step(inputs, targets, model=model, optimizer=optimizer):
            with tf.GradientTape() as tape:
                loss = optimizer.scale_loss(LOSS(targets, model(inputs)))
            grads = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))

        kept = rows([RANK]).reshape(STEPS, BATCH)
        bad = INPUTS[kept[0]] * (np.inf if RANK == 0 else 1)
        optimizer.build(model.trainable_variables)
        step(bad, TARGETS[kept[0]])
        for batch in kept:
            step(INPUTS[batch], TARGETS[batch])
        compare(model.get_weights(), alone(make))


def mixed_float16_scales_the_distributed_optimizer_by_itself():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        for make in (OPTIMIZERS["SGD"], OPTIMIZERS["Adam"]):
            ours, plain = network(), network()
            distributed(ours, hvd.DistributedOptimizer(make()))
            assert isinstance(ours.optimizer, keras.optimizers.LossScaleOptimizer)
            fit(plain, make(), range(SIZE))
            compare(ours.get_weights(), plain.get_weights(), rtol=5e-2, atol=2e-2)
    finally:
        keras.config.set_dtype_policy("float32")


def the_root_and_local_variables_are_as_asked():
    model = network()
    model.set_weights([w + RANK for w in model.get_weights()])
    before = model.get_weights()
    local = model.layers[-1].kernel
    optimizer = hvd.DistributedOptimizer(keras.optimizers.SGD(0.0))
    start = START(1, local_variables=[local])
    start.register_local_var(model.layers[-1].bias)
    fit(model, optimizer, [RANK], [start])
    root = [w + 1 - RANK for w in before]
    compare(model.get_weights(), [*root[:2], *before[2:]], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="local_variables"):
        START(0, local_variables=[3])


def local_layers_train_on_their_rank_alone():
    model = network()
    head = model.layers[-1]
    optimizer = hvd.PartialDistributedOptimizer(keras.optimizers.SGD(0.1), local_layers=[head])
    fit(model, optimizer, [RANK], [START(0, local_variables=head.trainable_weights)])
    kernels = gather_objects([w.tobytes() for w in model.get_weights()])
    assert all(other[:2] == kernels[0][:2] for other in kernels)
    assert len({other[2] for other in kernels}) == SIZE


def metrics_are_those_of_all_samples():
    mine = np.array_split(np.arange(50), [7 * (rank + 1) for rank in range(SIZE - 1)])[RANK]
    model = network()
    metrics = ["accuracy", keras.metrics.AUC(name="auc", num_thresholds=200)]
    model.add(keras.layers.Softmax())
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.0)), "categorical_crossentropy", metrics=metrics)
    one_hot = np.eye(3)[TARGETS]
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(dict(logs))

    # As many steps on each rank, of unequal batches.
    size = max(1, -(-len(mine) // 3))
    data = tf.data.Dataset.from_tensor_slices((INPUTS[mine], one_hot[mine])).batch(size).take(3)
    assert len(data) == 3
    options = {"validation_data": data, "verbose": 0}
    model.fit(data, callbacks=[START(0), hvd.callbacks.MetricAverageCallback(), Seen()], **options)
    plain = keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    plain.compile(
        loss="categorical_crossentropy", metrics=["accuracy", keras.metrics.AUC(name="auc", num_thresholds=200)]
    )
    want = plain.evaluate(INPUTS[:50], one_hot[:50], batch_size=50, verbose=0, return_dict=True)
    for name, value in want.items():
        np.testing.assert_allclose(seen[0][name], value, rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(seen[0][f"val_{name}"], value, rtol=1e-5, err_msg=name)


def loaded_models_go_on_averaging():
    folder = Path(broadcast_object(sys.argv[1])).parent
    for ending in ("keras", "h5"):
        make = OPTIMIZERS["Adam"]
        model, plain = network(), network()
        distributed(model, hvd.DistributedOptimizer(make()))
        file = folder / f"saved.{ending}"
        if RANK == 0:
            model.save(file)
        hvd.allreduce([0], name="Barrier")
        loaded = hvd.load_model(file, compression=hvd.Compression.none)
        compare([np.asarray(v) for v in loaded.optimizer.variables], [np.asarray(v) for v in model.optimizer.variables])
        assert int(loaded.optimizer.iterations) == STEPS
        kept = rows([RANK])
        loaded.fit(INPUTS[kept], TARGETS[kept], BATCH, shuffle=False, verbose=0, callbacks=[START(0)])
        plain.compile(make(), LOSS)
        plain.fit(INPUTS, TARGETS, BATCH * SIZE, shuffle=False, verbose=0, epochs=2)
        compare(loaded.get_weights(), plain.get_weights(), ending)
        # Plain Keras loads it as the plain optimizer, which the callback refuses.
        unwrapped = keras.models.load_model(file)
        with pytest.raises(UserError, match=r"hvd\.load_model"):
            unwrapped.fit(INPUTS[kept], TARGETS[kept], callbacks=[START(0)], verbose=0)
    with pytest.raises(UserError, match="legacy"):
        hvd.load_model(file, legacy_opts=True)


class Own(keras.losses.MeanSquaredError):
    pass


def files_that_hold_code_are_refused_and_own_classes_load():
    folder = Path(broadcast_object(sys.argv[1])).parent
    coded = keras.Sequential([keras.Input((6,)), keras.layers.Lambda(lambda x: x + 1)])
    model = network()
    model.compile(hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), Own())
    for ending in ("keras", "h5"):
        code, own = folder / f"code.{ending}", folder / f"own.{ending}"
        if RANK == 0:
            coded.save(code)
            model.save(own)
        hvd.allreduce([0], name="Barrier")
        with pytest.raises(UserError, match=r"contains Python code \(a lambda\), which is never run"):
            hvd.load_model(code)
        assert isinstance(hvd.load_model(own, custom_objects={"Own": Own}).loss, Own)
    # As keras.config.enable_unsafe_deserialization(), up to the end of the block.
    with SafeModeScope(False):
        np.testing.assert_array_equal(hvd.load_model(folder / "code.keras")(INPUTS[:3]), INPUTS[:3] + 1)


class OwnStep(keras.Sequential):
    """Averages nothing: a method `update` of each subclass changes the weights."""

    def train_step(self, data):
        inputs, targets = data
        with tf.GradientTape() as tape:
            loss = LOSS(targets, self(inputs, training=True))
        self.update(tape.gradient(loss, self.trainable_variables))
        return {"loss": loss}


class AssignsWeights(OwnStep):
    def update(self, grads):
        for variable, grad in zip(self.trainable_variables, grads, strict=True):
            variable.assign_sub(0.1 * grad)


class AppliesAPlainOptimizer(OwnStep):
    def update(self, grads):
        self.plain.apply_gradients(zip(grads, self.trainable_variables, strict=True))


class CallsUpdateStep(OwnStep):
    def update(self, grads):
        for variable, grad in zip(self.trainable_variables, grads, strict=True):
            self.optimizer.update_step(grad, variable, 0.1)


def gradients_that_are_not_averaged_are_named():
    for kind, says in (
        (AssignsWeights, "replicas differ from rank 0 after batch 1"),
        (AppliesAPlainOptimizer, "replicas differ from rank 0 after batch 1"),
        (CallsUpdateStep, "update_step is called directly"),
    ):
        keras.utils.set_random_seed(3)
        model = kind([keras.Input((6,)), keras.layers.Dense(3)])
        model.plain = keras.optimizers.SGD(0.1)
        model.plain.build(model.trainable_variables)
        with pytest.raises(UserError, match=says) as caught:
            fit(model, hvd.DistributedOptimizer(keras.optimizers.SGD(0.1)), [RANK], [START(0)])
        assert caught.value.every_rank
        assert "\n" not in str(caught.value)
    model = network()
    with pytest.raises(UserError, match="plain SGD, which averages no gradients"):
        fit(model, keras.optimizers.SGD(0.1), [RANK], [START(0)])


CHECKS = [value for name, value in list(globals().items()) if callable(value) and name.count("_") >= 3]


if __name__ == "__main__":
    write_outcomes(CHECKS, World(rank=RANK, size=SIZE))
    hvd.shutdown()
