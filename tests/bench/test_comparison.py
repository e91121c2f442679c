"""Ratios of rates: their intervals hold what they say, and what the machine's drift could have made is not claimed."""

import numpy as np
import pytest

from hpc_train.bench.comparison import Comparison, compared


@pytest.mark.parametrize("pairs", [2, 3, 4, 5, 6, 7, 12, 40, 101])
def test_the_interval_holds_the_ratio_in_95_of_100_measurements(pairs):
    draw = np.random.default_rng(pairs)
    held, tries = 0, 2000
    for below in draw.normal(1, 0.02, (tries, pairs)):
        found = compared(0.97 * draw.normal(1, 0.02, pairs), below)
        held += found.low <= 0.97 <= found.high
    # From few pairs the median's interval is wider than it need be: there is none in between.
    assert 0.935 <= held / tries <= 0.995


# scipy.stats.t.ppf(0.975, freedom) from its documentation's tables.
@pytest.mark.parametrize(("pairs", "quantile"), [(2, 12.706), (3, 4.303), (4, 3.182), (5, 2.776)])
def test_the_interval_of_few_pairs_is_students(pairs, quantile):
    above = np.arange(1.0, pairs + 1)
    found = compared(above, np.ones(pairs))
    half = quantile * above.std(ddof=1) / pairs**0.5
    assert (found.low, found.high) == pytest.approx((above.mean() - half, above.mean() + half))


def test_an_outlier_moves_neither_ratio_nor_interval_of_many_pairs():
    above = [1.1, 1.12, 1.08, 1.11, 1.09, 1.1, 1.1, 1.1, 1.12]
    found, disturbed = (compared(rates, [1.0] * 9) for rates in (above, [*above[:8], 50.0]))
    assert (found.ratio, found.high) == (disturbed.ratio, disturbed.high) == (1.1, 1.12)


def test_a_difference_within_the_interval_or_the_drift_is_not_claimed():
    assert compared([1.0], [2.0]).doubt == "a single pair shows no difference"
    assert compared([1.0, 1.02], [1.0, 1.0]).doubt == "no difference is shown"
    steady = [1.04, 1.05, 1.04, 1.05, 1.04, 1.05, 1.05, 1.04]
    assert compared(steady, [1.0] * 8).doubt is None
    # Both slow down by a fifth: the ratio stays, but a twentieth is less than that.
    slower = [0.8 if place > 3 else 1.0 for place in range(8)]
    drifted = compared([rate * share for rate, share in zip(steady, slower, strict=True)], slower)
    assert drifted.doubt == "no difference is claimed: the machine drifted by 20.0%"
    assert (drifted.low, drifted.high) == pytest.approx((1.04, 1.05))


def test_a_comparison_is_the_same_after_json():
    found = compared([1.0, 1.1, 1.2, 1.1], [1.0, 1.0, 1.0, 1.0])
    assert Comparison.of(found.as_dict()) == found
    assert found.text() == f"1.100 (95 %: {found.low:.3f} to {found.high:.3f}); no difference is shown"
