"""The chain that options make, its averages, and what is saved of it."""

import subprocess
import sys

import numpy as np
import pytest

from hpc_train.errors import UserError
from hpc_train.optim import recipe
from hpc_train.optim.recipe import RecipeOptions

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from hpc_train.optim.ema import Averages, EvaluateAverages  # noqa: E402
from hpc_train.optim.wrapper import unwrap  # noqa: E402
from hpc_train.parallel.saving import save_model  # noqa: E402
from hpc_train.training.task import cross_entropy  # noqa: E402

DRAW = np.random.default_rng(5)
INPUTS = DRAW.normal(size=(40, 6)).astype("float32")
TARGETS = (INPUTS[:, 0] + INPUTS[:, 1] > 0).astype("int32")
EVERYTHING = RecipeOptions(
    nesterov=True, layerwise="larc", weight_decay=0.01, clip_norm=0.5, label_smoothing=0.1, ema=0.9, precision="float16"
)


def network():
    keras.utils.set_random_seed(2)
    hidden = [keras.layers.Dense(5, activation="tanh", name="hidden"), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((6,)), *hidden, keras.layers.Dense(2, dtype="float32", name="logits")])


def compiled(options, rate=0.1, multipliers=None):
    model = network()
    chain = recipe.optimizer(options, rate, multipliers)
    model.compile(chain, cross_entropy(options), metrics=["accuracy"], auto_scale_loss=False, jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    return model


def names(optimizer):
    chain = [type(optimizer).__name__]
    while hasattr(optimizer, "inner_optimizer"):
        optimizer = optimizer.inner_optimizer
        chain.append(type(optimizer).__name__)
    return chain


@pytest.mark.parametrize(
    ("options", "multipliers", "chain"),
    [
        (RecipeOptions(), None, ["SGD"]),
        (RecipeOptions(precision="bfloat16", label_smoothing=0.1, accumulate=4), {}, ["SGD"]),
        (RecipeOptions(weight_decay=1e-4), {"a": 2.0}, ["WeightDecay", "RateMultipliers", "SGD"]),
        (RecipeOptions(layerwise="lars", weight_decay=1e-4), None, ["LARS", "SGD"]),
        (RecipeOptions(optimizer="lamb", weight_decay=0.01), None, ["DecayMatricesOnly", "Lamb"]),
        (RecipeOptions(precision="float16", loss_scale=1024.0, lag=1), None, ["StaticLossScale", "SGD"]),
        (RecipeOptions(optimizer="adam", layerwise="larc", clip_norm=1), None, ["ClipByGlobalNorm", "LARC", "Adam"]),
        (
            EVERYTHING,
            {"a": 2.0},
            ["LossScaleOptimizer", "ClipByGlobalNorm", "WeightDecay", "LARC", "RateMultipliers", "SGD"],
        ),
    ],
)
def test_the_chain_has_the_parts_that_the_options_set_in_order(options, multipliers, chain):
    options.check()
    assert names(recipe.optimizer(options, 0.1, multipliers)) == chain


def test_the_options_reach_the_rules():
    chain = recipe.optimizer(EVERYTHING, 0.3)
    clip, decay, larc, sgd = (chain := chain.inner_optimizer for _ in range(4))
    assert (clip.norm, decay.rate, larc.eta) == (0.5, 0.01, 0.002)
    assert (float(sgd.learning_rate), sgd.momentum, sgd.nesterov, sgd.ema_momentum) == (np.float32(0.3), 0.9, True, 0.9)
    lars = recipe.optimizer(RecipeOptions(layerwise="lars", trust=0.02, weight_decay=5e-4), 1.0)
    assert (lars.eta, lars.beta) == (0.02, 5e-4)
    assert (
        recipe.optimizer(RecipeOptions(optimizer="adam", weight_decay=0.05), 0.1).inner_optimizer.weight_decay == 0.05
    )
    assert cross_entropy(RecipeOptions(label_smoothing=0.2)).smoothing == 0.2


def test_the_whole_chain_is_what_numpy_computes():
    options = RecipeOptions(nesterov=True, layerwise="larc", trust=0.05, weight_decay=0.1, clip_norm=2.0, ema=0.8)
    chain = recipe.optimizer(options, 0.4, {"kernel": 0.5})
    weights = [DRAW.normal(size=(3, 4)), DRAW.normal(size=4)]
    variables = [keras.Variable(w.astype("float32"), name=n) for w, n in zip(weights, ("kernel", "bias"), strict=True)]
    chain.build(variables)
    path, momenta, averages = [w.copy() for w in weights], [0, 0], None
    for _ in range(4):
        grads = [DRAW.normal(size=w.shape).astype("float32") for w in weights]
        chain.apply([tf.constant(g) for g in grads], variables)
        # From outside in: clip, decay the matrix, LARC, then Nesterov's momentum at the variable's own rate.
        clip = min(1, 2.0 / np.sqrt(sum((g.astype("float64") ** 2).sum() for g in grads)))
        grads = [clip * grads[0] + 0.1 * path[0], clip * grads[1]]
        for i, factor in enumerate((0.5, 1.0)):
            g = grads[i] * min(0.05 * np.linalg.norm(path[i]) / np.linalg.norm(grads[i]), 0.4) / 0.4
            momenta[i] = 0.9 * momenta[i] - 0.4 * g
            path[i] = path[i] + factor * (0.9 * momenta[i] - 0.4 * g)
        averages = [0.8 * a + 0.2 * p for a, p in zip(averages, path, strict=True)] if averages else list(path)
    kept = unwrap(chain)._model_variables_moving_average
    for got, wanted in zip([*variables, *kept], [*path, *averages], strict=True):
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)


def test_a_rate_set_on_the_chain_is_the_innermost_rate():
    chain = recipe.optimizer(EVERYTHING, 0.1)
    chain.learning_rate = 0.7
    assert float(unwrap(chain).learning_rate) == np.float32(0.7)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"momentum": 1.0}, "--momentum is 1.0"),
        ({"weight_decay": -0.1}, "--weight-decay is -0.1"),
        ({"weight_decay": float("nan")}, "--weight-decay is nan"),
        ({"clip_norm": 0.0}, "--clip-norm is 0.0"),
        ({"label_smoothing": 1.0}, "--label-smoothing is 1.0"),
        ({"accumulate": 0}, "--accumulate is 0"),
        ({"ema": 1.0}, "--ema is 1.0"),
        ({"lag": 2}, "--lag is 2; it must be 0 or 1"),
        ({"loss_scale": 0.0, "precision": "float16"}, "--loss-scale is 0.0"),
        ({"loss_scale": 1024.0}, "--loss-scale is for --precision float16, not float32"),
        ({"layerwise": "larc", "trust": 0.0}, "--trust is 0.0"),
        ({"trust": 0.1}, "--trust is the coefficient of --layerwise"),
        ({"nesterov": True, "momentum": 0.0}, "--nesterov needs momentum"),
        ({"optimizer": "adam", "nesterov": True}, "--nesterov are for --optimizer sgd"),
        ({"optimizer": "lamb", "momentum": 0.5}, "--momentum and"),
        ({"optimizer": "adam", "layerwise": "lars"}, "--layerwise lars is for"),
        ({"optimizer": "lamb", "layerwise": "larc"}, "lamb has layer-wise rates already"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, complaint):
    with pytest.raises(UserError) as caught:
        RecipeOptions(**options).check()
    assert complaint in str(caught.value)


class Watch(keras.callbacks.Callback):
    """Keeps the weights after every step, and those that each validation sees."""

    def __init__(self):
        super().__init__()
        self.path, self.validated = [], []

    def weights(self):
        return [np.asarray(variable) for variable in self.model.trainable_variables]

    def on_train_batch_end(self, batch, logs=None):
        self.path.append(self.weights())

    def on_test_batch_begin(self, batch, logs=None):
        self.validated.append(self.weights())


def moving_average(path, decay):
    average = path[0]
    for weights in path[1:]:
        average = [decay * a + (1 - decay) * w for a, w in zip(average, weights, strict=True)]
    return average


def same(got, wanted, **tolerance):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, **tolerance or {"rtol": 0, "atol": 0})


@pytest.fixture(scope="module")
def averaged():
    """A model after two epochs of five steps, validated with averages, and what was seen on the way."""
    model, watch = compiled(RecipeOptions(ema=0.7, clip_norm=1.0)), Watch()
    averages = Averages(model)
    callbacks = [EvaluateAverages(averages), watch]
    held_out = (INPUTS[:8], TARGETS[:8])
    data = {"batch_size": 8, "shuffle": False, "verbose": 0, "validation_data": held_out, "callbacks": callbacks}
    model.fit(INPUTS, TARGETS, epochs=2, **data)
    return model, averages, watch


def test_validation_sees_the_moving_average_of_the_weights_so_far(averaged):
    _, _, watch = averaged
    assert len(watch.path) == 10
    for seen, steps in zip(watch.validated, (5, 10), strict=True):
        same(seen, moving_average(watch.path[:steps], 0.7), rtol=1e-5, atol=1e-6)


def test_fit_ends_with_the_weights_of_its_last_step(averaged):
    model, _, watch = averaged
    same([np.asarray(v) for v in model.trainable_variables], watch.path[-1])
    # and leaves a plain optimizer behind, that finalizes as Keras does
    assert "finalize_variable_values" not in vars(model.optimizer)


def test_averages_are_in_place_only_within_their_block(averaged):
    _, averages, watch = averaged
    with averages.in_place():
        same(watch.weights(), moving_average(watch.path, 0.7), rtol=1e-5, atol=1e-6)
        with averages.out_of_place():
            same(watch.weights(), watch.path[-1])
        same(watch.weights(), moving_average(watch.path, 0.7), rtol=1e-5, atol=1e-6)
        with averages.in_place():
            pass
        same(watch.weights(), moving_average(watch.path, 0.7), rtol=1e-5, atol=1e-6)
    same(watch.weights(), watch.path[-1])


def test_a_model_saved_with_its_averages_continues_them(averaged, tmp_path):
    model, averages, watch = averaged
    with averages.in_place():
        save_model(model, tmp_path / "averaged.keras")
    loaded = keras.models.load_model(tmp_path / "averaged.keras")
    wanted = moving_average(watch.path, 0.7)
    same([np.asarray(v) for v in loaded.trainable_variables], wanted, rtol=1e-5, atol=1e-6)
    loaded.optimizer.finalize_variable_values(loaded.trainable_variables)
    same([np.asarray(v) for v in loaded.trainable_variables], wanted, rtol=1e-5, atol=1e-6)


def test_averages_go_back_when_the_block_fails(averaged):
    _, averages, watch = averaged
    with pytest.raises(RuntimeError, match="stop"), averages.in_place():
        raise RuntimeError("stop")
    same(watch.weights(), watch.path[-1])


@pytest.mark.parametrize("options", [RecipeOptions(ema=0.9), RecipeOptions()])
def test_without_a_step_or_without_averages_the_weights_stay(options):
    model = compiled(options)
    before = model.get_weights()
    with Averages(model).in_place():
        same(model.get_weights(), before)


LOAD = """
import sys
sys.modules["horovod"] = None
sys.modules["hpc_train"] = None
import keras, numpy as np
data = np.load(sys.argv[2])
model = keras.models.load_model(sys.argv[1])
np.testing.assert_allclose(model.predict(data["inputs"], verbose=0), data["logits"], rtol=1e-5, atol=1e-5)
loss, _ = model.evaluate(data["inputs"], data["targets"], verbose=0)
model.fit(data["inputs"], data["targets"], batch_size=20, verbose=0)
print(type(model.optimizer).__name__, int(model.optimizer.iterations), type(model.loss).__name__, loss)
"""


def test_what_is_saved_of_the_whole_chain_loads_in_plain_keras(tmp_path):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = compiled(EVERYTHING, multipliers={"logits/*": 2.0})
    finally:
        keras.config.set_dtype_policy("float32")
    model.fit(INPUTS, TARGETS, batch_size=10, verbose=0)
    steps = int(model.optimizer.iterations)
    save_model(model, tmp_path / "model.keras")
    logits = model.predict(INPUTS, verbose=0)
    np.savez(tmp_path / "data.npz", inputs=INPUTS, targets=TARGETS, logits=logits)
    arguments = [sys.executable, "-c", LOAD, str(tmp_path / "model.keras"), str(tmp_path / "data.npz")]
    ended = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "Skipping variable loading" not in ended.stderr
    optimizer, iterations, loss, value = ended.stdout.split()
    assert (optimizer, int(iterations), loss) == ("SGD", steps + 2, "SparseCategoricalCrossentropy")
    likelihood = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(TARGETS)), TARGETS]
    assert float(value) == pytest.approx(likelihood.mean(), rel=1e-4)
    # The model in memory keeps its chain and its loss.
    assert names(model.optimizer)[0] == "LossScaleOptimizer"
    assert model.get_compile_config()["loss"]["class_name"] == "SmoothedCrossEntropy"
