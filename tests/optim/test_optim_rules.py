"""Each rule of the optimizer chain, against a NumPy calculation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from hpc_train.errors import UserError  # noqa: E402
from hpc_train.optim.rules import LARC, LARS, ClipByGlobalNorm, WeightDecay  # noqa: E402
from hpc_train.optim.update import DecayMatricesOnly, RateMultipliers  # noqa: E402
from hpc_train.optim.wrapper import unwrap  # noqa: E402

RATE = 0.5
DRAW = np.random.default_rng(3)
KERNEL, BIAS = DRAW.normal(size=(4, 3)).astype("float32"), DRAW.normal(size=3).astype("float32")
GRADS = DRAW.normal(size=(4, 3)).astype("float32"), DRAW.normal(size=3).astype("float32")


def sgd(**options):
    return keras.optimizers.SGD(RATE, **options)


def variables(*values):
    return [keras.Variable(value, name=name) for value, name in zip(values, ("kernel", "bias"), strict=False)]


def stepped(optimizer, weights=(KERNEL, BIAS), *steps):
    """The weights after steps with these gradients, one after the other, by a compiled function as `fit` makes it."""
    made = variables(*weights)
    optimizer.build(made)
    for grads in steps or [GRADS]:
        step = tf.function(lambda tensors: optimizer.apply(tensors, made), autograph=False)
        step([_tensor(grad) for grad in grads])
    return [np.asarray(variable) for variable in made]


def _tensor(grad):
    return grad if grad is None or isinstance(grad, tf.IndexedSlices) else tf.constant(grad)


def close(got, wanted):
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6)


def norm(x):
    return np.sqrt((x.astype("float64") ** 2).sum())


@pytest.mark.parametrize("limit", [0.1, 1.0, 100.0])
def test_clipping_is_by_the_joint_norm(limit):
    joint = np.sqrt(norm(GRADS[0]) ** 2 + norm(GRADS[1]) ** 2)
    factor = min(1, limit / joint)
    close(stepped(ClipByGlobalNorm(sgd(), limit)), [KERNEL - RATE * factor * GRADS[0], BIAS - RATE * factor * GRADS[1]])


def test_clipping_leaves_a_gradient_of_zero_alone():
    close(stepped(ClipByGlobalNorm(sgd(), 1.0), (KERNEL, BIAS), (0 * KERNEL, 0 * BIAS)), [KERNEL, BIAS])


def test_weight_decay_is_in_the_gradient_of_matrices_and_goes_through_momentum():
    kernel, momentum = KERNEL.astype("float64"), np.zeros((4, 3))
    for _ in range(3):
        momentum = 0.9 * momentum - RATE * (GRADS[0] + 0.01 * kernel)
        kernel = kernel + momentum
    got = stepped(WeightDecay(sgd(momentum=0.9), 0.01), (KERNEL, BIAS), GRADS, GRADS, GRADS)
    close(got, [kernel, stepped(sgd(momentum=0.9), (BIAS,), *[GRADS[1:]] * 3)[0]])


def larc(weights, grad, rate, eta, epsilon=1 / 16000):
    known = norm(weights) > 0 and norm(grad) > 0
    local = eta * norm(weights) / norm(grad) if known else epsilon
    return min(local, rate) / rate


@pytest.mark.parametrize("eta", [0.002, 0.6, 50.0])
def test_larc_limits_the_rate_of_each_variable(eta):
    wanted = [w - RATE * larc(w, g, RATE, eta) * g for w, g in zip((KERNEL, BIAS), GRADS, strict=True)]
    close(stepped(LARC(sgd(), eta)), wanted)


def test_larc_gives_a_variable_of_zeros_the_rate_epsilon():
    zeros = np.zeros_like(BIAS)
    close(stepped(LARC(sgd()), (KERNEL, zeros))[1:], [-GRADS[1] / 16000])
    close(stepped(LARC(sgd()), (KERNEL, BIAS), (GRADS[0], zeros))[1:], [BIAS])


def test_larc_stays_finite_at_rate_zero_also_in_adam():
    adam = keras.optimizers.Adam(0.0)
    close(stepped(LARC(adam)), [KERNEL, BIAS])
    assert all(np.isfinite(np.asarray(variable)).all() for variable in adam.variables)
    # Adam's first moment is a tenth of the gradient, as without LARC.
    np.testing.assert_allclose(adam.variables[2], 0.1 * GRADS[0], rtol=1e-5)


def test_larc_around_adam():
    factor = [larc(w, g, 0.01, 0.002) for w, g in zip((KERNEL, BIAS), GRADS, strict=True)]
    assert max(factor) < 1
    g = [f * g.astype("float64") for f, g in zip(factor, GRADS, strict=True)]
    # The first step of Adam: both moments, corrected, are the gradient and its square.
    wanted = [w - 0.01 * g / (np.abs(g) + 1e-7) for w, g in zip((KERNEL, BIAS), g, strict=True)]
    close(stepped(LARC(keras.optimizers.Adam(0.01))), wanted)


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(1e-4, 10), st.floats(1e-4, 1))
def test_larc_moves_no_layer_further_than_eta_of_its_norm_nor_than_sgd(weights, gradient, rate, eta):
    kernel, grad = tf.constant(KERNEL * weights), tf.constant(GRADS[0] * gradient)
    changed = LARC(keras.optimizers.SGD(rate), eta).change_one(grad, kernel)
    step = rate * norm(changed.numpy())
    assert step <= min(eta * norm(kernel.numpy()), rate * norm(grad.numpy())) * (1 + 1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.05])
def test_lars_scales_matrices_by_trust_and_momentum_follows(decay):
    kernel, momentum = KERNEL.astype("float64"), np.zeros((4, 3))
    for _ in range(3):
        trust = 0.02 * norm(kernel) / (norm(GRADS[0]) + decay * norm(kernel))
        momentum = 0.9 * momentum - RATE * trust * (GRADS[0] + decay * kernel)
        kernel = kernel + momentum
    got = stepped(LARS(sgd(momentum=0.9), 0.02, decay), (KERNEL, BIAS), GRADS, GRADS, GRADS)
    close(got, [kernel, stepped(sgd(momentum=0.9), (BIAS,), *[GRADS[1:]] * 3)[0]])


def test_lars_trusts_a_layer_of_zeros_fully():
    zeros = np.zeros_like(KERNEL)
    close(stepped(LARS(sgd(), 0.02), (zeros, BIAS)), [-RATE * GRADS[0], BIAS - RATE * GRADS[1]])
    close(stepped(LARS(sgd(), 0.02), (KERNEL, BIAS), (zeros, GRADS[1])), [KERNEL, BIAS - RATE * GRADS[1]])


RULES = {
    "clipping": lambda: ClipByGlobalNorm(sgd(), 0.7),
    "decay": lambda: WeightDecay(sgd(), 0.1),
    "LARC": lambda: LARC(sgd(), 0.1),
    "LARS": lambda: LARS(sgd(), 0.1),
    "LARS with decay": lambda: LARS(sgd(), 0.1, 0.3),
    "multipliers": lambda: RateMultipliers(sgd(), {"kernel": 0.3}),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_sparse_gradient_with_repeated_rows_acts_like_its_dense_form(rule):
    rows = DRAW.normal(size=(3, 3)).astype("float32")
    dense = np.zeros_like(KERNEL)
    np.add.at(dense, [2, 0, 2], rows)
    sparse = tf.IndexedSlices(tf.constant(rows), tf.constant([2, 0, 2]), tf.constant(KERNEL.shape))
    got = stepped(RULES[rule](), (KERNEL, BIAS), (sparse, GRADS[1]))
    close(got, stepped(RULES[rule](), (KERNEL, BIAS), (dense, GRADS[1])))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_variable_without_gradient_stays_and_the_other_moves(rule):
    kernel, bias = stepped(RULES[rule](), (KERNEL, BIAS), (None, GRADS[1]))
    np.testing.assert_array_equal(kernel, KERNEL)
    assert np.abs(bias - BIAS).min() > 1e-3


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_survives_serialisation(rule):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(RULES[rule]()))
    close(stepped(again), stepped(RULES[rule]()))


INNER = {
    "sgd": lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
    "adam": lambda rate: keras.optimizers.Adam(rate, weight_decay=0.1),
    "lamb": lambda rate: keras.optimizers.Lamb(rate, weight_decay=0.1),
}


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_a_multiplier_acts_like_another_rate(inner):
    # The update of one variable by SGD and Adam is proportional to the rate and depends on that variable alone.
    steps = [tuple(DRAW.normal(size=w.shape).astype("float32") for w in (KERNEL, BIAS)) for _ in range(4)]

    def undecayed(rate):
        made = INNER[inner](rate)
        made.weight_decay = None
        return made

    # Momentum lives on the path of the weights only through the gradients given here.
    got = stepped(RateMultipliers(undecayed(0.1), {"ker*": 0.25}), (KERNEL, BIAS), *steps)
    close(
        got, [stepped(undecayed(0.025), (KERNEL, BIAS), *steps)[0], stepped(undecayed(0.1), (KERNEL, BIAS), *steps)[1]]
    )


@pytest.mark.parametrize("inner", INNER)
def test_a_multiplier_scales_what_the_inner_optimizer_changes(inner):
    kernel, bias = stepped(INNER[inner](0.1))
    got = stepped(RateMultipliers(INNER[inner](0.1), {"kernel": 3.0, "*": 0.5}))
    close(got, [KERNEL + 3 * (kernel - KERNEL), BIAS + 0.5 * (bias - BIAS)])


@pytest.mark.parametrize("inner", INNER)
def test_a_multiplier_of_zero_keeps_every_bit(inner):
    kernel, bias = stepped(RateMultipliers(INNER[inner](0.1), {"kernel": 0.0}))
    np.testing.assert_array_equal(kernel, KERNEL)
    np.testing.assert_array_equal(bias, stepped(INNER[inner](0.1))[1])


def test_the_averages_of_multiplied_variables_use_their_new_values():
    optimizer = RateMultipliers(sgd(use_ema=True, ema_momentum=0.6), {"kernel": 0.2})
    kernel = KERNEL - 0.2 * RATE * GRADS[0]
    average = kernel
    for _ in range(2):
        kernel = kernel - 0.2 * RATE * GRADS[0]
        average = 0.6 * average + 0.4 * kernel
    close(stepped(optimizer, (KERNEL, BIAS), GRADS, GRADS, GRADS)[:1], [kernel])
    close([np.asarray(unwrap(optimizer)._model_variables_moving_average[0])], [average])


def test_a_pattern_that_matches_no_variable_is_an_error_that_names_it():
    with pytest.raises(UserError, match=r"'trunk\*'"):
        RateMultipliers(sgd(), {"kernel": 0.1, "trunk*": 0.5}).build(variables(KERNEL, BIAS))


def test_a_pattern_is_of_the_path_or_of_its_end_from_a_layer_on():
    inside = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, name="logits")], name="trunk")
    path = inside.layers[0].kernel.path
    assert path == "trunk/logits/kernel"
    for pattern, factor in {"logits/*": 2.0, "trunk/*": 2.0, "*/kernel": 2.0, "gits/*": 1.0, "logits": 1.0}.items():
        assert RateMultipliers(sgd(), {pattern: 2.0}).factor(inside.layers[0].kernel) == factor


def test_decoupled_decay_leaves_vectors_alone():
    def adam():
        return keras.optimizers.Adam(0.1, weight_decay=0.2)

    kernel, bias = stepped(DecayMatricesOnly(adam()))
    undecayed = stepped(keras.optimizers.Adam(0.1))
    close([kernel, bias], [undecayed[0] - 0.1 * 0.2 * KERNEL, undecayed[1]])
