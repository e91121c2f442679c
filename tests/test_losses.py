"""Label smoothing, against NumPy; and what stays of it in a file for plain Keras."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")

from hpc_train.losses import SmoothedCrossEntropy  # noqa: E402

DRAW = np.random.default_rng(7)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def expected(targets, logits, smoothing):
    classes = logits.shape[-1]
    wanted = np.eye(classes)[targets] * (1 - smoothing) + smoothing / classes
    return -(wanted * log_softmax(logits)).sum(-1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 5)])
def test_it_is_the_cross_entropy_with_the_smoothed_distribution(smoothing, shape):
    logits, targets = DRAW.normal(size=(*shape, 4)) * 3, DRAW.integers(0, 4, shape)
    got = SmoothedCrossEntropy(smoothing)(targets.astype("uint8"), logits.astype("float32"))
    np.testing.assert_allclose(got, expected(targets, logits, smoothing).mean(), rtol=1e-5)


def test_samples_are_weighted():
    logits, targets = DRAW.normal(size=(3, 4)), np.array([0, 3, 1])
    got = SmoothedCrossEntropy(0.1)(targets, logits.astype("float32"), np.array([1.0, 0.0, 0.5], "float32"))
    a, _, b = expected(targets, logits, 0.1)
    np.testing.assert_allclose(got, (a + 0.5 * b) / 3, rtol=1e-5)


def test_logits_in_half_precision_are_computed_in_float32():
    logits = np.array([[60000.0, -60000.0], [10.0, 10.0009765625]], "float16")
    got = SmoothedCrossEntropy(0.2, reduction="none")(np.array([1, 0]), logits)
    assert got.dtype == "float32"
    np.testing.assert_allclose(got, expected(np.array([1, 0]), logits.astype("float64"), 0.2), rtol=1e-5)


def test_it_survives_serialisation():
    config = keras.saving.serialize_keras_object(SmoothedCrossEntropy(0.3))
    again = keras.saving.deserialize_keras_object(config)
    assert (again.smoothing, again.reduction) == (0.3, "sum_over_batch_size")


def test_its_plain_form_is_keras_cross_entropy_of_the_same_logits():
    logits, targets = DRAW.normal(size=(5, 4)), DRAW.integers(0, 4, 5)
    plain = SmoothedCrossEntropy(0.3).plain()
    assert type(plain) is keras.losses.SparseCategoricalCrossentropy
    np.testing.assert_allclose(plain(targets, logits.astype("float32")), expected(targets, logits, 0).mean(), rtol=1e-5)
