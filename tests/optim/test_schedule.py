"""The learning rate, against numbers worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


# Goyal et al. 2017, section 5.1: 8192 images a step, 90 epochs, warm-up over 5, a tenth at epochs 30, 60 and 80.
@pytest.mark.parametrize(
    ("epoch", "rate"), [(0, 0.1), (2.5, 1.65), (5, 3.2), (29.9, 3.2), (30, 0.32), (60, 0.032), (80, 0.0032)]
)
def test_the_published_schedule_for_imagenet(epoch, rate):
    peak = 0.1 * scale("linear", 8192, 256)
    schedule = Schedule(0.1, peak, 90, warmup_epochs=5, decay="step", milestones=(1 / 3, 2 / 3, 8 / 9))
    assert schedule.rate(epoch) == pytest.approx(rate)


def test_a_step_multiplies_by_gamma():
    schedule = Schedule(0.1, 1.0, epochs=10, warmup_epochs=0, decay="step", milestones=(0.3, 0.6), gamma=0.2)
    assert schedule.rate(6) == pytest.approx(0.04)


@pytest.mark.parametrize(("progress", "rate"), [(1, 0.8), (3, 0.2), (4, 0.05), (5, 0.0), (7, 0.0)])
def test_a_polynomial_of_what_is_left_after_warm_up(progress, rate):
    assert Schedule(0.1, 0.8, epochs=5, decay="poly").rate(progress) == pytest.approx(rate)


def test_a_polynomial_of_power_one_is_a_line():
    schedule = Schedule(0.1, 0.8, epochs=9, decay="poly", power=1.0)
    assert [schedule.rate(epoch) for epoch in (1, 3, 5, 7, 9)] == pytest.approx([0.8, 0.6, 0.4, 0.2, 0])


def test_without_decay_the_peak_stays():
    assert Schedule(0.1, 0.8, epochs=2, decay="none").rate(1.9) == 0.8


def test_training_that_ends_in_its_warm_up_never_divides_by_zero():
    schedule = Schedule(0.1, 0.8, epochs=1, warmup_epochs=1)
    assert schedule.rate(0.5) == pytest.approx(0.45)
    assert schedule.rate(1.0) == pytest.approx(0.8)


@given(
    st.sampled_from(["cosine", "step", "poly", "none"]),
    st.integers(1, 300),
    st.floats(0, 20),
    st.lists(st.floats(0, 1.2), min_size=2, max_size=2).map(sorted),
)
def test_after_warm_up_no_decay_raises_the_rate(decay, epochs, warmup, shares):
    schedule = Schedule(0.1, 0.8, epochs, warmup, decay)
    early, late = (warmup + share * epochs for share in shares)
    assert 0 <= schedule.rate(late) <= schedule.rate(early) <= 0.8
