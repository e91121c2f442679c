"""Losses against NumPy: label smoothing, weighted and focal losses of pixels, Dice and Tversky, and sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")

from hpc_train import losses  # noqa: E402
from hpc_train.losses import DiceLoss, FocalLoss, PixelCrossEntropy, SmoothedCrossEntropy, TverskyLoss  # noqa: E402

DRAW = np.random.default_rng(7)
WEIGHTS = (0.25, 8.0, 2.0)
# Maps with every class, an ignored label (7) and a negative one.
LABELS = DRAW.choice([0, 1, 2, 7, -1], (4, 6, 5), p=[0.6, 0.15, 0.15, 0.05, 0.05])
LOGITS = DRAW.normal(size=(4, 6, 5, 3)) * 3
EACH = [
    PixelCrossEntropy(WEIGHTS, 0.1, ignore_class=7),
    FocalLoss(1.5, WEIGHTS, ignore_class=7),
    DiceLoss(ignore_class=7),
    TverskyLoss(0.2, 0.9, ignore_class=7),
    losses.SumOfLosses([FocalLoss(3.0, WEIGHTS, ignore_class=7), DiceLoss(ignore_class=7)]),
]
each = pytest.mark.parametrize("loss", EACH, ids=lambda loss: type(loss).__name__)


def log_softmax(logits):
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def expected(targets, logits, smoothing):
    classes = logits.shape[-1]
    wanted = np.eye(classes)[targets] * (1 - smoothing) + smoothing / classes
    return -(wanted * log_softmax(logits)).sum(-1)


def of_pixels(labels, logits, weights, gamma=0.0, smoothing=0.0):
    """The loss of each pixel, 0 where the label is no class."""
    classes = logits.shape[-1]
    counts = (labels >= 0) & (labels < classes)
    true = np.where(counts, labels, 0)
    wanted = np.eye(classes)[true] * (1 - smoothing) + smoothing / classes
    log_p = log_softmax(logits.astype("float64"))
    terms = wanted * (1 - np.exp(log_p)) ** gamma * -log_p
    return terms.sum(-1) * np.asarray(weights)[true] * counts


def of_areas(labels, logits, alpha, beta):
    """The Tversky loss, in words: class by class over the batch, those that do not occur are right."""
    classes = logits.shape[-1]
    counts = (labels >= 0) & (labels < classes)
    p = np.exp(log_softmax(logits.astype("float64")))[counts]
    total = 0.0
    for k in range(classes):
        true = labels[counts] == k
        if true.any():
            hit, false, missed = p[true, k].sum(), p[~true, k].sum(), (1 - p[true, k]).sum()
            total += 1 - hit / (hit + alpha * false + beta * missed)
    return total / classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("shape", [(6,), (2, 3, 5)])
def test_label_smoothing_is_the_cross_entropy_with_the_smoothed_distribution(smoothing, shape):
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


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("dtype", ["int32", "int8", "float32"])
def test_pixels_are_weighted_by_their_true_class_and_ignored_ones_do_not_count(smoothing, dtype):
    loss = PixelCrossEntropy(WEIGHTS, smoothing, ignore_class=7, reduction="none")
    got = loss(LABELS.astype(dtype), LOGITS.astype("float32"))
    np.testing.assert_allclose(got, of_pixels(LABELS, LOGITS, WEIGHTS, smoothing=smoothing), rtol=1e-5, atol=1e-6)


def test_the_sum_is_divided_by_the_number_of_pixels_not_by_their_weights():
    got = PixelCrossEntropy(WEIGHTS, ignore_class=7)(LABELS, LOGITS.astype("float32"))
    np.testing.assert_allclose(got, of_pixels(LABELS, LOGITS, WEIGHTS).sum() / LABELS.size, rtol=1e-5)


def test_without_weights_and_ignored_pixels_it_is_keras_cross_entropy():
    labels = LABELS.clip(0, 2)
    want = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(labels, LOGITS.astype("float32"))
    np.testing.assert_allclose(PixelCrossEntropy()(labels, LOGITS.astype("float32")), want, rtol=1e-6)


def test_the_loss_of_a_whole_batch_is_the_mean_over_ranks_and_so_is_its_gradient():
    loss = FocalLoss(2.0, WEIGHTS, ignore_class=7)

    def of(rows):
        logits = tf.constant(LOGITS[rows], "float32")
        with tf.GradientTape() as tape:
            tape.watch(logits)
            value = loss(LABELS[rows], logits)
        return float(value), tape.gradient(value, logits).numpy()

    # The last map has other weights and fewer pixels that count.
    whole, gradient = of(slice(None))
    parts = [of(slice(rank, rank + 1)) for rank in range(4)]
    np.testing.assert_allclose(np.mean([value for value, _ in parts]), whole, rtol=1e-6)
    np.testing.assert_allclose(np.concatenate([part for _, part in parts]) / 4, gradient, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(("gamma", "smoothing"), [(0.0, 0.0), (0.5, 0.0), (2.0, 0.0), (2.0, 0.1)])
def test_focal_loss_is_that_of_lin_et_al_with_class_weights_for_alpha(gamma, smoothing):
    loss = FocalLoss(gamma, WEIGHTS, smoothing, ignore_class=7)
    got = loss(LABELS.astype("float32"), LOGITS.astype("float32"))
    np.testing.assert_allclose(got, of_pixels(LABELS, LOGITS, WEIGHTS, gamma, smoothing).mean(), rtol=1e-5)


def test_focal_loss_is_keras_one_of_one_hot_labels():
    labels, smoothing = LABELS.clip(0, 2), 0.1
    theirs = keras.losses.CategoricalFocalCrossentropy(1.0, 2.0, from_logits=True, label_smoothing=smoothing)
    want = theirs(np.eye(3, dtype="float32")[labels], LOGITS.astype("float32"))
    np.testing.assert_allclose(FocalLoss(2.0, None, smoothing)(labels, LOGITS.astype("float32")), want, rtol=1e-4)


def test_tversky_loss_is_that_of_salehi_et_al():
    got = TverskyLoss(0.2, 0.9, ignore_class=7)(LABELS.astype("float32"), LOGITS.astype("float32"))
    np.testing.assert_allclose(got, of_areas(LABELS, LOGITS, 0.2, 0.9), rtol=1e-5)


def test_alpha_is_the_weight_of_false_positives_and_beta_of_false_negatives():
    truth = np.array([[[0, 0, 0, 0, 0, 0, 1, 1]]])

    def of(predicted, alpha, beta):
        return float(TverskyLoss(alpha, beta)(truth, np.eye(2, dtype="float32")[predicted] * 1000))

    too_many, too_few = np.array([[[0, 0, 0, 0, 0, 1, 1, 1]]]), np.array([[[0, 0, 0, 0, 0, 0, 0, 1]]])
    # Background: 5 right and 1 missed, or 6 right and 1 false. TC: 2 right and 1 false, or 1 right and 1 missed.
    np.testing.assert_allclose(of(too_many, 0.3, 0.7), (0.7 / 5.7 + 0.3 / 2.3) / 2, rtol=1e-5)
    np.testing.assert_allclose(of(too_few, 0.3, 0.7), (0.3 / 6.3 + 0.7 / 1.7) / 2, rtol=1e-5)


def test_dice_loss_is_tversky_with_equal_weights():
    got = DiceLoss(ignore_class=7)(LABELS, LOGITS.astype("float32"))
    np.testing.assert_allclose(got, of_areas(LABELS, LOGITS, 0.5, 0.5), rtol=1e-5)


def test_a_class_that_does_not_occur_adds_no_area_loss():
    labels = LABELS.clip(0, 1)
    got = DiceLoss()(labels, LOGITS.astype("float32"))
    np.testing.assert_allclose(got, of_areas(labels, LOGITS, 0.5, 0.5), rtol=1e-5)
    background = DiceLoss()(0 * labels, np.eye(3, dtype="float32")[0 * labels] * 1000)
    np.testing.assert_allclose(background, 0, atol=1e-6)


def test_a_sum_is_the_sum_of_its_parts():
    parts = [PixelCrossEntropy(WEIGHTS, ignore_class=7), TverskyLoss(ignore_class=7)]
    got = losses.SumOfLosses(parts)(LABELS, LOGITS.astype("float32"))
    want = of_pixels(LABELS, LOGITS, WEIGHTS).mean() + of_areas(LABELS, LOGITS, 0.3, 0.7)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@each
def test_float16_logits_of_10000_have_a_finite_loss_and_gradient_in_float32(loss):
    logits = tf.constant(np.where(LOGITS > 0, 1e4, -1e4), "float16")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(LABELS, logits)
    assert value.dtype == "float32"
    assert np.isfinite(value)
    assert np.isfinite(tape.gradient(value, logits)).all()


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_a_pixel_predicted_with_certainty_gives_the_focal_loss_no_gradient(gamma):
    logits = tf.constant([[[[80.0, -80.0]]]])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = FocalLoss(gamma)(np.zeros((1, 1, 1)), logits)
    np.testing.assert_array_equal(tape.gradient(value, logits), np.zeros((1, 1, 1, 2)))


@each
def test_ignored_pixels_have_no_gradient_whatever_their_logits(loss):
    ignored = (LABELS == 7) | (LABELS == -1)
    logits = tf.constant(np.where(ignored[..., None], 1e4 * LOGITS, LOGITS), "float32")
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(LABELS, logits)
    gradient = tape.gradient(value, logits).numpy()
    assert not gradient[ignored].any()
    assert gradient[~ignored].any(axis=-1).all()
    np.testing.assert_allclose(value, loss(LABELS, LOGITS.astype("float32")), rtol=1e-6)


@each
def test_a_map_of_ignored_pixels_has_no_loss(loss):
    assert float(loss(np.full((1, 2, 3), -1), np.ones((1, 2, 3, 3), "float32"))) == 0


@each
def test_a_loss_survives_serialisation(loss):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    assert float(again(LABELS, LOGITS.astype("float32"))) == float(loss(LABELS, LOGITS.astype("float32")))


@each
def test_its_plain_form_is_keras_cross_entropy_without_the_ignored_pixels(loss):
    plain = loss.plain()
    assert type(plain) is keras.losses.SparseCategoricalCrossentropy
    labels = np.where(LABELS == -1, 7, LABELS)
    want = of_pixels(labels, LOGITS, (1, 1, 1)).sum() / (labels != 7).sum()
    np.testing.assert_allclose(plain(labels, LOGITS.astype("float32")), want, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.05, 1), st.floats(0.05, 1))
def test_area_losses_lie_between_0_and_1(seed, alpha, beta):
    draw = np.random.default_rng(seed)
    labels, logits = draw.integers(-1, 3, (1, 3, 4)), draw.normal(size=(1, 3, 4, 3)) * 20
    assert 0 <= float(TverskyLoss(alpha, beta)(labels, logits)) <= 1 + 1e-6
