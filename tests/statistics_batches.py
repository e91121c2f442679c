"""Batches to count statistics of, and comparisons of statistics, for the tests of statistics."""

import numpy as np


def batch(samples=7, channels=3, side=5, seed=0, dtype="float32"):
    """Inputs (samples, channels, side, side) with different channels, labels (samples, side, side) of three classes."""
    draw = np.random.default_rng(seed)
    scale = 10.0 ** np.arange(channels)[:, None, None]
    inputs = (draw.normal(size=(samples, channels, side, side)) * scale + 3 * scale).astype(dtype)
    return inputs, draw.integers(0, 3, (samples, side, side))


def per_channel(inputs):
    return np.moveaxis(inputs, 1, 0).reshape(inputs.shape[1], -1)


def assert_same(one, other, rtol=0):
    for name in ("count", "not_finite", "class_counts", "min", "max"):
        assert getattr(one, name).tolist() == getattr(other, name).tolist(), name
    assert one.samples == other.samples
    np.testing.assert_allclose(one.mean, other.mean, rtol=rtol)
    np.testing.assert_allclose(one.m2, other.m2, rtol=rtol)
