"""Gradient lag and the static loss scale, against NumPy; on several ranks see test_optim_ranks.py."""

import json

import numpy as np
import pytest

from hpc_train.errors import UserError
from hpc_train.optim import recipe
from hpc_train.optim.recipe import RecipeOptions

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("horovod.tensorflow")

from hpc_train.optim.loss_scale import StaticLossScale  # noqa: E402
from hpc_train.optim.wrapper import unwrap  # noqa: E402
from hpc_train.parallel import optimizer as home  # noqa: E402
from hpc_train.training import checkpoint  # noqa: E402
from hpc_train.training.task import cross_entropy  # noqa: E402

STEPS = 6
DRAW = np.random.default_rng(8)
START = DRAW.normal(size=(3, 2)).astype("float32"), DRAW.normal(size=2).astype("float32")
CURVATURE = DRAW.uniform(0.2, 2, (STEPS, 3, 2)).astype("float32"), DRAW.uniform(0.2, 2, (STEPS, 2)).astype("float32")


@pytest.fixture(autouse=True)
def _one_rank(monkeypatch):
    monkeypatch.setattr(home.hvd, "size", lambda: 1)


def gradients(weights, step):
    """Of a loss that is quadratic, with another curvature in each step."""
    return [curvature[step] * weight for curvature, weight in zip(CURVATURE, weights, strict=True)]


def path_of(chain, steps=STEPS, broken=None, lag=1):
    """Weights (two arrays) before the first step and after each, by a compiled step that scales the loss.

    The gradient of step `broken` is infinite.
    """
    optimizer = home.DistributedOptimizer(chain, lag=lag)
    weights = [keras.Variable(value, name=name) for value, name in zip(START, ("kernel", "bias"), strict=True)]
    optimizer.build(weights)

    @tf.function(autograph=False)
    def step(curvature, factor):
        with tf.GradientTape() as tape:
            terms = [tf.reduce_sum(c * w.value**2) for c, w in zip(curvature, weights, strict=True)]
            loss = optimizer.scale_loss(factor * tf.add_n(terms) / 2)
        optimizer.apply(tape.gradient(loss, [w.value for w in weights]), weights)

    path = [[np.asarray(w) for w in weights]]
    for number in range(steps):
        step([tf.constant(c[number]) for c in CURVATURE], tf.constant(np.inf if number == broken else 1.0, "float32"))
        path.append([np.asarray(w) for w in weights])
    return optimizer, path


def numpy_path(rule, steps=STEPS):
    """w(t+1) = rule(w(t), g(w(t-1))), in float64; the first step changes nothing."""
    path = [[w.astype("float64") for w in START]] * 2
    for step in range(1, steps):
        path.append(rule(path[-1], gradients(path[-2], step - 1)))
    return path


class Momentum:
    """SGD with momentum 0.9 and rate 0.1."""

    momenta = (0, 0)

    def __call__(self, weights, grads):
        self.momenta = [0.9 * m - 0.1 * g for m, g in zip(self.momenta, grads, strict=True)]
        return [w + m for w, m in zip(weights, self.momenta, strict=True)]


class Adam:
    """Kingma and Ba (2015), algorithm 1, with Keras's place of epsilon, and a factor on the gradient before."""

    def __init__(self, rate, factor=lambda weight, grad: 1.0):
        self.rate, self.factor, self.step = rate, factor, 0
        self.first, self.second = [0, 0], [0, 0]

    def __call__(self, weights, grads):
        self.step += 1
        grads = [self.factor(w, g) * g for w, g in zip(weights, grads, strict=True)]
        self.first = [0.9 * m + 0.1 * g for m, g in zip(self.first, grads, strict=True)]
        self.second = [0.999 * v + 0.001 * g * g for v, g in zip(self.second, grads, strict=True)]
        rate = self.rate * np.sqrt(1 - 0.999**self.step) / (1 - 0.9**self.step)
        moments = zip(weights, self.first, self.second, strict=True)
        return [w - rate * m / (np.sqrt(v) + 1e-7) for w, m, v in moments]


def close(got, wanted, **tolerance):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(x, y, **tolerance or {"rtol": 1e-5, "atol": 5e-6})


def same_bits(got, wanted):
    close(got, wanted, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("options", "rate", "rule"),
    [
        (RecipeOptions(), 0.1, Momentum),
        (RecipeOptions(optimizer="adam"), 0.05, lambda: Adam(0.05)),
    ],
    ids=["momentum", "adam"],
)
def test_each_step_applies_the_gradient_of_the_step_before(options, rate, rule):
    optimizer, path = path_of(recipe.optimizer(options, rate))
    close(path, numpy_path(rule()))
    # The first step is none to the optimizer: Adam's corrections and the averages of weights begin with the second.
    assert int(optimizer.iterations) == STEPS - 1


def test_without_lag_nothing_waits_and_nothing_is_kept():
    optimizer, path = path_of(recipe.optimizer(RecipeOptions(momentum=0.0), 0.1), lag=0, steps=1)
    same_bits(path[1:], [[w - np.float32(0.1) * g for w, g in zip(START, gradients(START, 0), strict=True)]])
    assert optimizer.waiting == []
    assert [v.path for v in optimizer.variables] == [v.path for v in unwrap(optimizer).variables]


def test_adam_with_larc_lag_and_a_loss_scale_is_what_numpy_computes():
    def larc(weight, grad):
        return min(0.002 * np.linalg.norm(weight) / np.linalg.norm(grad), 0.05) / 0.05

    options = RecipeOptions(optimizer="adam", layerwise="larc", precision="float16")
    for chosen in (options, RecipeOptions(optimizer="adam", layerwise="larc", precision="float16", loss_scale=1024.0)):
        _, path = path_of(recipe.optimizer(chosen, 0.05))
        close(path, numpy_path(Adam(0.05, larc)))


def test_a_loss_scale_that_grows_between_keeping_and_applying_changes_no_bit():
    plain = keras.optimizers.SGD(0.1, momentum=0.9)
    growing = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), 8.0, dynamic_growth_steps=2)
    optimizer, path = path_of(growing)
    assert float(growing.dynamic_scale) == 32.0
    same_bits(path, path_of(plain)[1])
    # What waits was computed with the scale of then.
    assert float(optimizer.variables[-3]) == 32.0


@pytest.mark.parametrize(
    "scaled",
    [
        lambda inner: keras.optimizers.LossScaleOptimizer(inner, initial_scale=8.0),
        lambda inner: StaticLossScale(inner, 8.0),
    ],
    ids=["dynamic", "static"],
)
def test_an_overflow_skips_the_step_that_would_have_applied_it_and_no_other(scaled):
    chain = scaled(keras.optimizers.SGD(0.1))
    optimizer, path = path_of(chain, broken=2)
    wanted = [[w.astype("float64") for w in START]] * 2
    for step in range(1, STEPS):
        grads = [0, 0] if step == 3 else gradients(wanted[-2], step - 1)
        wanted.append([w - 0.1 * g for w, g in zip(wanted[-1], grads, strict=True)])
    close(path, wanted)
    assert int(optimizer.iterations) == STEPS - 2
    if isinstance(chain, StaticLossScale):
        assert int(chain.skipped) == 1
    else:
        assert float(chain.dynamic_scale) == 4.0


def test_sparse_and_missing_gradients_wait_too():
    optimizer = home.DistributedOptimizer(keras.optimizers.SGD(1.0), lag=1)
    table, lone = keras.Variable(np.ones((4, 2), "float32")), keras.Variable(np.ones(3, "float32"))
    rows = tf.IndexedSlices(tf.constant([[1.0, 2.0], [3.0, 4.0]]), tf.constant([2, 2]), tf.constant([4, 2]))
    for _ in range(2):
        optimizer.apply([rows, None], [table, lone])
    np.testing.assert_array_equal(table, [[1, 1], [1, 1], [-3, -5], [1, 1]])
    np.testing.assert_array_equal(lone, [1, 1, 1])


def test_what_is_saved_of_an_optimizer_with_lag_is_the_plain_one():
    optimizer = home.DistributedOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), lag=1)
    optimizer.build([keras.Variable(np.ones(3, "float32"))])
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
    )
    assert type(again) is keras.optimizers.SGD
    assert again.momentum == 0.9
    store = {}
    optimizer.save_own_variables(store)
    again.build([keras.Variable(np.ones(3, "float32"))])
    assert len(store) == len(again.variables) == len(optimizer.variables) - 2
    with pytest.raises(ValueError, match="lag must be 0 or 1, not 2"):
        home.DistributedOptimizer(keras.optimizers.SGD(0.1), lag=2)


def test_a_checkpoint_without_lag_is_not_resumed_with_lag_and_the_option_is_named(tmp_path):
    def model(lag):
        made = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="logits")])
        made.compile(home.DistributedOptimizer(keras.optimizers.SGD(0.1), lag=lag), auto_scale_loss=False)
        made.optimizer.build(made.trainable_variables)
        return made

    path = checkpoint.save(tmp_path, model(0), checkpoint.Progress(step=1))
    with pytest.raises(UserError, match=r"options of the first start \(--model, .*--lag") as raised:
        checkpoint.load(path, model(1))
    assert "\n" not in str(raised.value)


def test_a_static_scale_is_gone_before_any_rule_sees_the_gradient():
    grads = [np.full((3, 2), 3.0, "float32"), np.array([0.0, 4.0], "float32")]

    def stepped(options, factor):
        weights = [keras.Variable(value) for value in START]
        chain = recipe.optimizer(options, 0.1)
        chain.apply([tf.constant(grad * factor) for grad in grads], weights)
        return [weights]

    rules = {"layerwise": "larc", "clip_norm": 2.0, "weight_decay": 0.1}
    scaled = stepped(RecipeOptions(**rules, precision="float16", loss_scale=512.0), 512)
    same_bits(scaled, stepped(RecipeOptions(**rules), 1))


def test_a_static_scale_multiplies_the_loss_and_survives_serialisation():
    chain = StaticLossScale(keras.optimizers.Adam(0.1), 256.0)
    assert float(chain.scale_loss(tf.constant(0.5, "float16"))) == 128.0
    again = keras.saving.deserialize_keras_object(json.loads(json.dumps(keras.saving.serialize_keras_object(chain))))
    assert again.scale == 256.0
    assert type(unwrap(again)) is keras.optimizers.Adam


def test_a_static_scale_skips_sparse_overflows_and_counts_them():
    table = keras.Variable(np.ones((4, 2), "float32"))
    chain = StaticLossScale(keras.optimizers.SGD(1.0), 4.0)
    for value in (np.nan, 4.0):
        rows = tf.IndexedSlices(tf.constant([[value, 0.0]]), tf.constant([3]), tf.constant([4, 2]))
        chain.apply([rows], [table])
    np.testing.assert_array_equal(table, [[1, 1], [1, 1], [1, 1], [0, 1]])
    assert (int(chain.skipped), int(chain.iterations)) == (1, 1)


def test_adam_larc_lag_and_float16_stay_finite_and_learn():
    options = RecipeOptions(optimizer="adam", layerwise="larc", precision="float16")
    inputs = DRAW.normal(size=(256, 8)).astype("float32")
    targets = (inputs[:, 0] * inputs[:, 1] > 0).astype("int32")
    keras.utils.set_random_seed(3)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        hidden = [keras.layers.Dense(32, activation="relu"), keras.layers.BatchNormalization()]
        model = keras.Sequential([keras.Input((8,)), *hidden, keras.layers.Dense(2, dtype="float32")])
    finally:
        keras.config.set_dtype_policy("float32")
    optimizer = home.DistributedOptimizer(recipe.optimizer(options, 0.02), lag=1)
    model.compile(optimizer, cross_entropy(options), metrics=["accuracy"], auto_scale_loss=False, jit_compile=False)
    data = tf.data.Dataset.from_tensor_slices((inputs, targets)).batch(32).repeat()
    history = model.fit(data, steps_per_epoch=100, epochs=3, verbose=0).history
    assert all(np.isfinite(value).all() for value in model.get_weights())
    assert np.isfinite(history["loss"]).all()
    assert history["accuracy"][-1] > 0.9
    # The first step applies nothing, and some a scale too large at first.
    assert int(optimizer.iterations) > 300 - 10
