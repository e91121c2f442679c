"""Scores of predicted numbers against scikit-learn and NumPy, in one piece and merged from many."""

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.metrics.regression import AnomalyCorrelation, RegressionScores


def in_pieces(kind, targets, predicted, cuts):
    edges = sorted({0, len(targets), *(cut % len(targets) for cut in cuts)})
    pieces = [kind.of(targets[a:b], predicted[a:b]) for a, b in itertools.pairwise(edges)]
    return functools.reduce(kind.merge, pieces)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    values=st.integers(2, 200),
    channels=st.integers(1, 4),
    offset=st.sampled_from([0.0, 1.0, -1e5]),
    spread=st.sampled_from([1e-3, 1.0, 1e4]),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    dtype=st.sampled_from(["float64", "float32"]),
)
def test_scores_are_those_of_scikit_learn_however_the_values_are_divided(
    seed, values, channels, offset, spread, cuts, dtype
):
    metrics = pytest.importorskip("sklearn.metrics")
    draw = np.random.default_rng(seed)
    targets = (offset + spread * draw.normal(size=(values, channels))).astype(dtype)
    predicted = (targets + spread * draw.normal(size=(values, channels))).astype(dtype)
    scores = in_pieces(RegressionScores, targets, predicted, cuts)
    t, p = targets.astype("float64"), predicted.astype("float64")
    raw = {"multioutput": "raw_values"}
    np.testing.assert_allclose(scores.rmse, metrics.root_mean_squared_error(t, p, **raw), rtol=1e-9)
    np.testing.assert_allclose(scores.mae, metrics.mean_absolute_error(t, p, **raw), rtol=1e-9)
    np.testing.assert_allclose(scores.bias, (p - t).mean(0), rtol=1e-6, atol=1e-9 * np.abs(p - t).max())
    varied = np.ptp(t, axis=0) > 0
    np.testing.assert_allclose(scores.r2[varied], metrics.r2_score(t, p, **raw)[varied], rtol=1e-7, atol=1e-7)
    assert np.isnan(scores.r2[~varied]).all()
    everything = scores.all()
    assert everything["rmse"] == pytest.approx(np.sqrt(np.mean((p - t) ** 2)), rel=1e-9)
    assert everything["mae"] == pytest.approx(np.abs(p - t).mean(), rel=1e-9)
    if varied.all():
        assert everything["r2"] == pytest.approx(metrics.r2_score(t, p), rel=1e-7, abs=1e-7)


def test_a_small_variance_beside_a_large_offset_keeps_its_digits():
    # Pressures in Pa that differ by a thousandth: a sum of squares in float64 would lose all of the variance.
    ripple = np.tile([0.0, 1e-3, 2e-3, 3e-3], 25_000)
    targets = (1e5 + ripple)[:, None]
    predicted = targets + 1e-3
    scores = in_pieces(RegressionScores, targets, predicted, range(0, 100_000, 777))
    assert scores.r2[0] == pytest.approx(1 - 1e-6 / 1.25e-6, rel=1e-6)
    assert scores.rmse[0] == pytest.approx(1e-3, rel=1e-6)


def test_r2_of_constant_targets_and_of_one_sample_is_not_a_number():
    constant = np.full((7, 1), 0.1)
    assert np.isnan(in_pieces(RegressionScores, constant, constant + 1, [1, 2, 5]).r2).all()
    one = RegressionScores.of(np.array([[3.0, 4.0]]), np.array([[5.0, 4.0]]))
    assert np.isnan(one.r2).all()
    np.testing.assert_array_equal(one.rmse, [2, 0])
    assert np.isnan(one.all()["r2"])
    with pytest.raises(ValueError, match=r"targets are \(3, 1\)"):
        RegressionScores.of(np.zeros((3, 1)), np.zeros((1, 3)))


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    samples=st.integers(2, 9),
    offset=st.sampled_from([0.0, 1e5]),
    cuts=st.lists(st.integers(0, 100), max_size=4),
)
def test_anomaly_correlation_is_the_weighted_correlation_over_all_maps_and_points(seed, samples, offset, cuts):
    draw = np.random.default_rng(seed)
    latitudes = np.linspace(-90, 90, 5)
    targets = offset + draw.normal(size=(samples, 5, 6, 2))
    predicted = targets + draw.normal(size=targets.shape)
    moments = in_pieces(AnomalyCorrelation, targets, predicted, cuts)
    for given_climatology in (None, np.array([offset - 1.0, offset + 0.5])):
        climatology = targets.mean(0) if given_climatology is None else given_climatology
        w = np.cos(np.radians(latitudes))[None, :, None, None]
        a, b = predicted - climatology, targets - climatology
        axes = (0, 1, 2)
        wanted = (w * a * b).sum(axes) / np.sqrt((w * a * a).sum(axes) * (w * b * b).sum(axes))
        found = moments.of_channels(latitudes, given_climatology)
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-7)


def test_one_map_has_no_anomalies_from_its_own_mean():
    maps = np.ones((1, 3, 4, 1))
    assert np.isnan(AnomalyCorrelation.of(maps, maps + 1).of_channels(np.array([-60.0, 0.0, 60.0]))).all()
