"""Numbers as people read them."""

import pytest

from hpc_train.units import number, rate, size, span


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (999.7, "1 kB"),
        (56_600_000, "56.6 MB"),
        (999_700_000, "1 GB"),
        (1.5e12, "1.5 TB"),
        (2.5e15, "2,500 TB"),
    ],
)
def test_bytes_have_three_digits_and_a_decimal_unit(count, text):
    assert size(count) == text


@pytest.mark.parametrize(
    ("value", "as_number", "as_rate"),
    [(0.01234, "0.0123", "0.0123"), (99.94, "99.9", "99.9"), (12345.6, "12,346", "12346")],
)
def test_numbers_and_rates_keep_all_digits_before_the_point(value, as_number, as_rate):
    assert (number(value), rate(value)) == (as_number, as_rate)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (8.31, "8.3 s"),
        (59.96, "1 min"),
        (252, "4 min 12 s"),
        (3599.7, "1 h"),
        (7860, "2 h 11 min"),
        (86399, "1 d"),
        (273_700, "3 d 4 h"),
    ],
)
def test_times_have_their_two_largest_units(seconds, text):
    assert span(seconds) == text
