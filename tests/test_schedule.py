"""The learning rate, against numbers worked out by hand."""

import math

import pytest

from hpc_train.optim.schedule import Schedule, scale


def test_scaling_rules():
    assert scale("linear", 512, 64) == 8
    assert scale("sqrt", 1024, 64) == 4
    assert scale("none", 512, 64) == 1


@pytest.mark.parametrize(("progress", "rate"), [(0, 0.1), (0.5, 0.45), (1, 0.8), (3, 0.4), (5, 0.0), (6, 0.0)])
def test_warm_up_then_cosine(progress, rate):
    assert math.isclose(Schedule(0.1, 0.8, epochs=5).rate(progress), rate, abs_tol=1e-12)


@pytest.mark.parametrize(("progress", "rate"), [(0, 0.8), (4.9, 0.8), (5, 0.08), (7.4, 0.08), (7.5, 0.008)])
def test_steps_at_a_half_and_three_quarters(progress, rate):
    assert math.isclose(Schedule(0.1, 0.8, epochs=10, warmup_epochs=0, decay="step").rate(progress), rate)


def test_without_decay_the_peak_stays():
    assert Schedule(0.1, 0.8, epochs=2, decay="none").rate(1.9) == 0.8


def test_training_that_ends_in_its_warm_up_never_divides_by_zero():
    schedule = Schedule(0.1, 0.8, epochs=1, warmup_epochs=1)
    assert schedule.rate(0.5) == pytest.approx(0.45)
    assert schedule.rate(1.0) == pytest.approx(0.8)
