"""The plan's promises: who reads which sample when."""

import tracemalloc
from itertools import permutations
from math import isqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.plan.permutation import derive, inverse, permute
from hpc_train.errors import UserError

# No deadline: a slow or busy machine must not fail a property.
property_test = settings(deadline=None, max_examples=50)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 10_000)


def permute_by_hand(index, n, seed, epoch):
    """The permutation's definition in Python's unbounded integers, one index at a time."""
    golden, mask = 0x9E3779B97F4A7C15, 2**64 - 1

    def mix(x):
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
        return x ^ x >> 31

    state = mix((mix((seed + golden) & mask) + epoch) & mask)
    keys = [mix((state + golden * k) & mask) for k in range(1, (16 if n < 4096 else 8) + 1)]
    a = isqrt(n - 1) + 1
    b = -(-n // a)
    while True:
        left, right = divmod(index, b)
        for number, key in enumerate(keys):
            if number % 2 == 0:
                left = (left + (mix((right + key) & mask) >> 1)) % a
            else:
                right = (right + (mix((left + key) & mask) >> 1)) % b
        index = left * b + right
        if index < n:
            return index


def train_sequence(plan, epoch, position=0):
    """What all ranks consume from `position` to the end of the epoch, in the global order."""
    batches = [
        plan.indices(epoch, step, rank, position) for step in range(plan.steps(position)) for rank in range(plan.size)
    ]
    return np.concatenate([np.empty(0, np.int64), *batches])


@st.composite
def train_plans(draw):
    size, batch_size = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    samples = draw(st.integers(size * batch_size, 200))
    return TrainPlan(samples, batch_size, size, draw(seeds))


@property_test
@given(n=st.integers(1, 3000), seed=seeds, epoch=epochs)
def test_permutation_is_a_bijection(n, seed, epoch):
    assert np.array_equal(np.sort(permute(np.arange(n), n, seed, epoch)), np.arange(n))


@property_test
@given(n=st.integers(1, 2**62), seed=seeds, epoch=epochs, data=st.data())
def test_permutation_is_the_one_defined_whatever_the_size(n, seed, epoch, data):
    indices = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4))
    images = permute(np.array(indices), n, seed, epoch)
    assert images.dtype == np.int64
    assert images.tolist() == [permute_by_hand(index, n, seed, epoch) for index in indices]


@property_test
@given(n=st.integers(1, 2**62), seed=seeds, epoch=epochs, data=st.data())
def test_inverse_undoes_the_permutation(n, seed, epoch, data):
    indices = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=4)))
    assert np.array_equal(inverse(permute(indices, n, seed, epoch), n, seed, epoch), indices)
    assert np.array_equal(permute(inverse(indices, n, seed, epoch), n, seed, epoch), indices)


@property_test
@given(n=st.integers(1, 5000), seed=seeds, epoch=epochs, data=st.data())
def test_each_index_may_have_a_seed_of_its_own(n, seed, epoch, data):
    pairs = data.draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, 3)), min_size=1, max_size=9))
    indices, numbers = np.array(pairs).T
    own = derive(seed, numbers)
    images = permute(indices, n, own, epoch)
    assert images.tolist() == [
        permute_by_hand(i, n, s, epoch) for i, s in zip(indices.tolist(), own.tolist(), strict=True)
    ]
    assert np.array_equal(inverse(images, n, own, epoch), indices)


def test_derived_seeds_are_all_different():
    assert len(np.unique([derive(seed, np.arange(1000)) for seed in range(20)])) == 20_000


def test_permutation_keeps_the_shape_and_takes_numpy_integers():
    indices = np.arange(6).reshape(2, 3)
    assert permute(indices, np.int64(6), np.int64(1), np.int32(2)).shape == (2, 3)
    assert permute(np.empty(0, np.int64), 6, 1, 2).shape == (0,)


@pytest.mark.parametrize(("indices", "n"), [([-1], 5), ([5], 5), ([0], 0), ([0], 2**62 + 1)])
def test_permutation_refuses_what_is_out_of_range(indices, n):
    with pytest.raises(ValueError, match="must lie in"):
        permute(indices, n, 0, 0)


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_every_permutation_of_a_few_is_equally_likely(n):
    counts = dict.fromkeys(permutations(range(n)), 0)
    for epoch in range(1500):
        counts[tuple(permute(np.arange(n), n, 11, epoch).tolist())] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("n", [100, 5000])
def test_permutation_looks_random(n):
    draws = np.array([permute(np.arange(n), n, 5, epoch) for epoch in range(400)])
    # A random permutation has 1 fixed point on average, with variance 1.
    assert abs((draws == np.arange(n)).sum(axis=1).mean() - 1) < 4 / np.sqrt(400)
    # Place and value are correlated by 1 / sqrt(n) at random.
    correlations = [np.corrcoef(np.arange(n), draw)[0, 1] for draw in draws]
    assert abs(np.mean(correlations)) < 4 / np.sqrt(400 * n)
    # Over the epochs each sample visits all tenths of the epoch alike.
    tenths = draws * 10 // n
    p_values = [chisquare(np.bincount(column, minlength=10)).pvalue for column in tenths.T]
    assert min(p_values) > 0.01 / n
    assert abs(np.mean(p_values) - 0.5) < 0.06
    # Neighbours do not stay neighbours: the distance between their images takes each value in [1, n) alike.
    distances = (draws[:, 1:] - draws[:, :-1]) % n
    expected = np.bincount(np.arange(n - 1) * 20 // (n - 1)) * distances.size / (n - 1)
    assert chisquare(np.bincount((distances.ravel() - 1) * 20 // (n - 1)), expected).pvalue > 1e-3


@property_test
@given(plan=train_plans(), epoch=epochs)
def test_training_uses_a_sample_at_most_once_and_leaves_less_than_a_global_batch(plan, epoch):
    sequence = train_sequence(plan, epoch)
    assert len(np.unique(sequence)) == len(sequence)
    assert ((sequence >= 0) & (sequence < plan.samples)).all()
    assert plan.samples - len(sequence) < plan.global_batch


@property_test
@given(plan=train_plans(), epoch=epochs)
def test_every_rank_gets_a_whole_batch_at_every_step(plan, epoch):
    shapes = {plan.indices(epoch, step, rank).shape for step in range(plan.steps()) for rank in range(plan.size)}
    assert shapes == {(plan.batch_size,)}


@property_test
@given(plan=train_plans(), other=train_plans(), epoch=epochs)
def test_order_depends_on_seed_and_epoch_not_on_ranks_or_batch_size(plan, other, epoch):
    samples = max(plan.samples, other.samples)
    one = train_sequence(TrainPlan(samples, plan.batch_size, plan.size, plan.seed), epoch)
    two = train_sequence(TrainPlan(samples, other.batch_size, other.size, plan.seed), epoch)
    common = min(len(one), len(two))
    assert np.array_equal(one[:common], two[:common])


@property_test
@given(plan=train_plans(), other=train_plans(), epoch=epochs, data=st.data())
def test_resuming_on_other_ranks_repeats_and_skips_nothing(plan, other, epoch, data):
    resumed = TrainPlan(max(plan.samples, other.samples), other.batch_size, other.size, plan.seed)
    begun = TrainPlan(resumed.samples, plan.batch_size, plan.size, plan.seed)
    position = data.draw(st.integers(0, begun.steps())) * begun.global_batch
    before = train_sequence(begun, epoch)[:position]
    after = train_sequence(resumed, epoch, position)
    whole = permute(np.arange(begun.samples), begun.samples, begun.seed, epoch)
    joined = np.concatenate([before, after])
    assert np.array_equal(joined, whole[: len(joined)])
    assert begun.samples - len(joined) < resumed.global_batch


def test_what_the_short_tail_leaves_out_differs_between_epochs():
    plan = TrainPlan(samples=103, batch_size=4, size=5, seed=3)
    left_out = [frozenset(range(103)) - set(train_sequence(plan, epoch).tolist()) for epoch in range(50)]
    assert {len(tail) for tail in left_out} == {3}
    assert len(set(left_out)) == 50
    assert len(frozenset.union(*left_out)) > 60


def test_epochs_and_seeds_give_different_orders():
    orders = {
        tuple(train_sequence(TrainPlan(50, 5, 2, seed), epoch).tolist()) for seed in range(20) for epoch in range(20)
    }
    assert len(orders) == 400


def test_position_at_the_end_of_an_epoch_leaves_no_step():
    plan = TrainPlan(samples=100, batch_size=5, size=4, seed=0)
    assert [plan.steps(position) for position in (0, 1, 80, 81, 100)] == [5, 4, 1, 0, 0]
    with pytest.raises(ValueError, match="position 101"):
        plan.steps(101)


@pytest.mark.parametrize(("step", "rank"), [(5, 0), (-1, 0), (0, 4), (0, -1)])
def test_training_plan_refuses_steps_and_ranks_that_are_not_there(step, rank):
    with pytest.raises(ValueError, match="is not in"):
        TrainPlan(samples=100, batch_size=5, size=4, seed=0).indices(0, step, rank)


@property_test
@given(plan=train_plans(), epoch=epochs, data=st.data())
def test_many_steps_are_planned_at_once_as_one_by_one(plan, epoch, data):
    position = data.draw(st.integers(0, plan.samples - plan.global_batch))
    step = data.draw(st.integers(0, plan.steps(position) - 1))
    count = data.draw(st.integers(1, plan.steps(position) - step))
    for rank in range(plan.size):
        batches = plan.batches(epoch, step, count, rank, position)
        assert batches.shape == (count, plan.batch_size)
        for number, batch in enumerate(batches):
            assert np.array_equal(batch, plan.indices(epoch, step + number, rank, position))


@pytest.mark.parametrize(("step", "count"), [(3, 3), (0, 0), (0, 6)])
def test_training_plan_refuses_more_steps_than_there_are(step, count):
    with pytest.raises(ValueError, match=r"is not in \[0, 5\)"):
        TrainPlan(samples=100, batch_size=5, size=4, seed=0).batches(0, step, count, 0)


def test_one_rank_of_27360_over_1e8_samples_holds_only_its_batch():
    plan = TrainPlan(samples=10**8, batch_size=64, size=27_360, seed=1)
    assert plan.steps() == 57
    tracemalloc.start()
    batch = plan.indices(epoch=3, step=56, rank=27_359)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    start = 56 * 64 * 27_360 + 27_359 * 64
    assert batch.tolist() == [permute_by_hand(start + k, 10**8, 1, 3) for k in range(64)]
    assert peak < 100_000


@pytest.mark.parametrize(
    ("samples", "batch_size", "size", "remedy"),
    [
        (100, 30, 4, "at most 25 in a step"),
        (3, 1, 4, "at most 3 ranks"),
        (0, 1, 4, "at most 1 ranks"),
        (10, 0, 4, "must be at least 1"),
    ],
)
def test_training_plan_says_what_would_fit(samples, batch_size, size, remedy):
    with pytest.raises(UserError, match=remedy) as caught:
        TrainPlan(samples, batch_size, size, seed=0)
    assert "\n" not in str(caught.value)


@st.composite
def validation_plans(draw):
    return ValidationPlan(draw(st.integers(1, 300)), draw(st.integers(1, 20)), draw(st.integers(1, 40)))


@property_test
@given(plan=validation_plans())
def test_validation_counts_every_sample_exactly_once(plan):
    real = [
        plan.indices(step, rank)[: plan.valid(step, rank)] for rank in range(plan.size) for step in range(plan.steps)
    ]
    assert np.array_equal(np.concatenate(real), np.arange(plan.samples))


@property_test
@given(plan=validation_plans())
def test_validation_batches_are_full_then_short_then_padding(plan):
    for rank in range(plan.size):
        counts = [plan.valid(step, rank) for step in range(plan.steps)]
        assert counts == sorted(counts, reverse=True)
        assert all(count == plan.batch_size for count in counts[: plan.real_steps(rank) - 1])
        assert [count > 0 for count in counts] == [step < plan.real_steps(rank) for step in range(plan.steps)]
        for step, count in enumerate(counts):
            indices = plan.indices(step, rank)
            assert indices.dtype == np.int64
            assert len(indices) == max(count, 1)
            assert ((indices >= 0) & (indices < plan.samples)).all()


@property_test
@given(plan=validation_plans())
def test_validation_shares_differ_by_at_most_one_and_no_step_is_padding_on_all_ranks(plan):
    shares = [sum(plan.valid(step, rank) for step in range(plan.steps)) for rank in range(plan.size)]
    assert max(shares) - min(shares) <= 1
    assert max(plan.real_steps(rank) for rank in range(plan.size)) == plan.steps


@property_test
@given(rank=st.integers(0, 27_359))
def test_validation_is_answered_for_one_rank_of_many(rank):
    plan = ValidationPlan(samples=10**8, batch_size=64, size=27_360)
    assert plan.steps == 58
    start = rank * 10**8 // 27_360
    assert plan.indices(1, rank).tolist() == list(range(start + 64, start + 128))


def test_validation_plan_refuses_an_empty_data_set_and_steps_that_are_not_there():
    with pytest.raises(UserError, match="no samples to validate"):
        ValidationPlan(samples=0, batch_size=4, size=2)
    with pytest.raises(ValueError, match="step 2 is not in"):
        ValidationPlan(samples=10, batch_size=4, size=2).indices(2, 0)
    with pytest.raises(ValueError, match="rank 2 is not in"):
        ValidationPlan(samples=10, batch_size=4, size=2).valid(0, 2)
