"""Orders that the storage likes: the plan's promises hold for them, and what they cost in randomness."""

import json
import tracemalloc
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from hpc_train.bench.plan.command import Plan, run
from hpc_train.bench.plan.randomness import displacement, measure, neighbour_distance, same_block
from hpc_train.data.plan import TrainPlan
from hpc_train.data.plan.order import BlockOrder, FullOrder, from_dict
from hpc_train.data.plan.permutation import permute
from hpc_train.errors import UserError

# No deadline: a slow or busy machine must not fail a property.
property_test = settings(deadline=None, max_examples=50)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 10_000)


few = st.integers(1, 300)


@st.composite
def block_orders(draw, samples=few):
    block = draw(st.integers(1, 40))
    window = block + draw(st.integers(0, 100))
    return BlockOrder(draw(samples), draw(seeds), block, window, draw(st.integers(1, 9)), draw(st.integers(1, 9)))


@st.composite
def block_plans(draw):
    """A plan whose order was fitted to its own ranks and batch size, and fills at least one global batch."""
    order = draw(block_orders())
    samples = max(order.samples, order.lanes * order.stride)
    order = BlockOrder(samples, order.seed, order.block, order.window, order.lanes, order.stride)
    return TrainPlan(samples, order.stride, order.lanes, order.seed, order)


def whole(order, epoch):
    return order.indices(np.arange(order.samples), epoch)


def derive_by_hand(seed, number):
    """The definition of a derived seed in Python's unbounded integers."""
    mask = 2**64 - 1

    def mix(x):
        x = ((x ^ x >> 30) * 0xBF58476D1CE4E5B9) & mask
        x = ((x ^ x >> 27) * 0x94D049BB133111EB) & mask
        return x ^ x >> 31

    return mix((mix((seed + 0xD1B54A32D192ED03) & mask) + number) & mask)


def order_by_hand(order, epoch):
    """The whole epoch's order from lists: blocks laid end to end, cut, split in lanes, mixed in windows, dealt."""
    n, block, lanes, stride = order.samples, order.block, order.lanes, order.stride
    full = n // block
    slots = permute(np.arange(full), full, derive_by_hand(order.seed, 0), epoch).tolist() if full else []
    ring = [sample for slot in [*slots, full] for sample in range(slot * block, min((slot + 1) * block, n))]
    cut = derive_by_hand(derive_by_hand(order.seed, 1), epoch) % n
    stream = ring[cut:] + ring[:cut]
    share = n // (lanes * stride) * stride

    def mixed(start, stop):
        if start == stop:
            return []
        result = []
        for window in np.array_split(np.arange(start, stop), -(-(stop - start) // order.window)):
            key = derive_by_hand(order.seed, 2 + int(window[0]))
            moved = window[permute(np.arange(len(window)), len(window), key, epoch)]
            result += [stream[place] for place in moved]
        return result

    queues = [mixed(lane * share, (lane + 1) * share) for lane in range(lanes)]
    dealt = [queue[at : at + stride] for at in range(0, share, stride) for queue in queues]
    return [sample for batch in dealt for sample in batch] + mixed(lanes * share, n)


@property_test
@given(order=block_orders(), epoch=epochs)
def test_every_sample_has_exactly_one_place(order, epoch):
    assert np.array_equal(np.sort(whole(order, epoch)), np.arange(order.samples))


@property_test
@given(order=block_orders(), epoch=epochs)
def test_order_by_blocks_is_the_one_defined(order, epoch):
    assert whole(order, epoch).tolist() == order_by_hand(order, epoch)


@property_test
@given(order=block_orders() | st.builds(FullOrder, few, seeds), epoch=epochs)
def test_places_of_samples_are_the_inverse_of_samples_at_places(order, epoch):
    assert np.array_equal(order.places(whole(order, epoch), epoch), np.arange(order.samples))


@property_test
@given(order=block_orders(samples=st.integers(1, 10**12)), epoch=epochs, data=st.data())
def test_a_place_is_answered_alone_as_among_others_whatever_the_size(order, epoch, data):
    places = data.draw(st.lists(st.integers(0, order.samples - 1), min_size=1, max_size=8))
    together = order.indices(np.array(places), epoch)
    assert together.dtype == np.int64
    assert together.tolist() == [int(order.indices(place, epoch)) for place in places]
    assert order.places(together, epoch).tolist() == places
    assert order.indices(np.array([places, places]), epoch).shape == (2, len(places))


@property_test
@given(order=block_orders(), epoch=epochs, data=st.data())
def test_blocks_are_those_that_hold_the_samples(order, epoch, data):
    places = data.draw(st.lists(st.integers(0, order.samples - 1), max_size=20))
    expected = sorted({int(sample) // order.block for sample in order.indices(np.array(places, np.int64), epoch)})
    assert order.blocks(np.array(places, np.int64), epoch).tolist() == expected


@pytest.mark.parametrize("place", [-1, 100])
def test_places_outside_the_data_set_are_refused(place):
    with pytest.raises(ValueError, match=r"must lie in \[0, 100\)"):
        BlockOrder(100, 0, 4, 16, 2, 2).indices([place], 0)


@property_test
@given(plan=block_plans(), size=st.integers(1, 9), batch_size=st.integers(1, 9), epoch=epochs)
def test_any_ranks_consume_slices_of_the_recorded_order(plan, size, batch_size, epoch):
    order = plan.order
    if size * batch_size > order.samples:
        size = batch_size = 1
    other = TrainPlan(order.samples, batch_size, size, order.seed, order)
    everything = whole(order, epoch)
    for step in range(other.steps()):
        union = np.concatenate([other.indices(epoch, step, rank) for rank in range(size)])
        start = step * other.global_batch
        assert np.array_equal(union, everything[start : start + other.global_batch])


@property_test
@given(begun=block_plans(), size=st.integers(1, 9), batch_size=st.integers(1, 9), epoch=epochs, data=st.data())
def test_resuming_on_other_ranks_consumes_exactly_the_rest(begun, size, batch_size, epoch, data):
    order = begun.order
    if size * batch_size > order.samples:
        size = batch_size = 1
    resumed = TrainPlan(order.samples, batch_size, size, order.seed, from_dict(order.as_dict()))
    stopped = data.draw(st.integers(0, begun.steps()))
    before = [begun.indices(epoch, step, rank) for step in range(stopped) for rank in range(begun.size)]
    position = stopped * begun.global_batch
    steps = range(resumed.steps(position))
    after = [resumed.indices(epoch, step, rank, position) for step in steps for rank in range(size)]
    joined = np.concatenate([np.empty(0, np.int64), *before, *after])
    assert np.array_equal(joined, whole(order, epoch)[: len(joined)])
    assert order.samples - len(joined) < resumed.global_batch


def test_epochs_and_seeds_give_different_orders():
    orders = {
        tuple(whole(BlockOrder(50, seed, 5, 10, 2, 5), epoch).tolist()) for seed in range(20) for epoch in range(20)
    }
    assert len(orders) == 400


@pytest.mark.parametrize("block", [1, 10, 200])
def test_an_epoch_leaves_out_any_sample_equally_often(block):
    order = BlockOrder(103, 3, block, 4 * block, lanes=5, stride=4)
    left_out = np.array([order.indices([100, 101, 102], epoch) for epoch in range(2060)])
    assert chisquare(np.bincount(left_out[:, 0], minlength=103)).pvalue > 1e-3
    tails = [frozenset(tail.tolist()) for tail in left_out]
    # Runs of three that meet by chance: about 1 in 103 where the samples of a tail are neighbours.
    assert sum(one == other for one, other in pairwise(tails)) < 2060 * 2 / 103


@pytest.mark.parametrize(("block", "window"), [(1, 1), (4, 4), (2, 4)])
def test_every_order_of_a_few_is_equally_likely(block, window):
    order = BlockOrder(4, 11, block, window, lanes=1, stride=1)
    counts = dict.fromkeys(permutations(range(4)), 0)
    for epoch in range(1500):
        counts[tuple(whole(order, epoch).tolist())] += 1
    assert chisquare(list(counts.values())).pvalue > 1e-3


def windows_of_blocks(order, epoch, lane):
    """{block: the windows of the lane that hold samples of it}, from the stretch of stream that the lane owns."""
    places = np.arange(order.share)
    places = (places // order.stride * order.lanes + lane) * order.stride + places % order.stride
    count = -(-order.share // order.window)
    numbers = np.concatenate([np.full(len(part), k) for k, part in enumerate(np.array_split(places, count))])
    blocks = order.indices(places, epoch) // order.block
    return {block: sorted(set(numbers[blocks == block].tolist())) for block in set(blocks.tolist())}, count


@property_test
@given(plan=block_plans(), epoch=epochs)
def test_a_rank_of_the_beginning_uses_a_block_up_within_consecutive_windows(plan, epoch):
    order = plan.order
    for rank in range(plan.size):
        held, count = windows_of_blocks(order, epoch, rank)
        for windows in held.values():
            steps = np.diff([*windows, windows[0] + count])
            # One lane is the whole ring: there the block at the cut is used at both ends of the epoch.
            gaps = np.count_nonzero(steps > 1) if order.lanes == 1 else np.count_nonzero(steps[:-1] > 1) + 1
            assert gaps <= 1
            assert len(windows) <= 1 + -(-order.block // max(order.share // count, 1)) + (order.lanes == 1)


def blocks_touched(plan, epoch):
    """Distinct blocks of each rank over the epoch, summed over the ranks."""
    steps = plan.steps()
    touched = 0
    for rank in range(plan.size):
        batches = plan.batches(epoch, 0, steps, rank)
        touched += len(set((batches // plan.order.block).ravel().tolist()))
    return touched


@property_test
@given(plan=block_plans(), epoch=epochs)
def test_ranks_of_the_beginning_read_each_block_once_but_for_one_more_a_rank(plan, epoch):
    order = plan.order
    assert blocks_touched(plan, epoch) <= -(-order.samples // order.block) + order.lanes


@property_test
@given(order=block_orders(st.integers(150, 300)), epoch=epochs, data=st.data())
def test_ranks_that_divide_the_lanes_read_no_more(order, epoch, data):
    parts = data.draw(st.sampled_from([k for k in range(1, order.lanes + 1) if order.lanes % k == 0]))
    batch_size = data.draw(st.sampled_from([order.stride, order.stride * parts]))
    plan = TrainPlan(order.samples, batch_size, order.lanes // parts, order.seed, order)
    # With the smaller global batch the epoch's tail is used too: less than a stride of every lane.
    tail = 0 if batch_size > order.stride or parts == 1 else order.samples - order.share * order.lanes
    assert blocks_touched(plan, epoch) <= -(-order.samples // order.block) + order.lanes + tail


def test_a_full_order_touches_many_times_the_blocks():
    full = TrainPlan(6400, 8, 4, 0)
    blocks = TrainPlan(6400, 8, 4, 0, BlockOrder.fit(6400, 0, 4, 8, block=64, window=256))
    assert blocks_touched(blocks, 0) <= 104
    touched = sum(len(set((full.batches(0, 0, 200, rank) // 64).ravel().tolist())) for rank in range(4))
    assert touched == 400


def test_one_rank_of_27360_over_1e8_samples_holds_only_its_batches():
    order = BlockOrder.fit(10**8, 1, 27_360, 64, block=64)
    plan = TrainPlan(10**8, 64, 27_360, 1, order)
    tracemalloc.start()
    batches = plan.batches(epoch=3, step=50, count=7, rank=27_359)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    start = 56 * 64 * 27_360 + 27_359 * 64
    assert np.array_equal(batches[-1], order.indices(np.arange(start, start + 64), 3))
    assert peak < 500_000


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"block": 0}, "samples in a block: 0"),
        ({"window": 7}, "use a window of at least 8"),
        ({"size": 0}, "ranks: 0"),
        ({"batch_size": -1}, "batch size: -1"),
        ({"samples": 0}, "training samples: 0"),
    ],
)
def test_impossible_parameters_are_refused_in_one_line(changed, message):
    given = {"samples": 1000, "seed": 0, "size": 4, "batch_size": 8, "block": 8, "window": 32, **changed}
    with pytest.raises(UserError, match=message) as caught:
        BlockOrder.fit(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("samples", "size", "sample_bytes", "block", "window"),
    [
        (10**8, 8, 65_536, 64, 1024),  # 4 MiB of them
        (60_000, 4, 785, 937, 14_992),  # a rank's share of 15,000 is 16 blocks
        (63_000, 8, 56_600_000, 1, 1),  # larger than a read: one a block, and no window needed
        (10, 8, 785, 1, 1),  # few: every sample is a block
    ],
)
def test_fitted_blocks_make_a_good_read_and_leave_a_rank_a_window(samples, size, sample_bytes, block, window):
    order = BlockOrder.fit(samples, 0, size, 2, sample_bytes=sample_bytes)
    assert (order.block, order.window, order.lanes, order.stride) == (block, window, size, 2)


def test_fitting_needs_the_block_or_the_bytes_of_a_sample():
    with pytest.raises(ValueError, match="bytes of a sample"):
        BlockOrder.fit(100, 0, 2, 2)


@pytest.mark.parametrize("order", [FullOrder(100, 7), BlockOrder(100, 2**64 - 1, 4, 16, 2, 8)])
def test_an_order_comes_back_from_the_runs_record(order):
    again = from_dict(json.loads(json.dumps(order.as_dict())))
    assert again == order
    assert hash(again) == hash(order)


@pytest.mark.parametrize(
    "record",
    [{}, {"shuffle": "cards", "samples": 3, "seed": 1}, {"shuffle": "full", "samples": 3}, {"shuffle": "full", "x": 1}],
)
def test_a_record_that_is_not_an_order_is_refused(record):
    with pytest.raises(UserError, match="does not name an order"):
        from_dict(record)


def test_a_plan_refuses_the_order_of_other_samples_or_of_another_seed():
    order = BlockOrder(100, 1, 4, 16, 2, 8)
    assert TrainPlan(100, 8, 2, 1, order).order is order
    for samples, seed in ((101, 1), (100, 2)):
        with pytest.raises(UserError, match="the recorded order is of 100 samples with seed 1"):
            TrainPlan(samples, 8, 2, seed, order)


@property_test
@given(order=block_orders(st.integers(2, 60)), epoch=epochs, data=st.data())
def test_randomness_figures_are_those_counted_by_hand(order, epoch, data):
    global_batch = data.draw(st.integers(2, order.samples))
    sequence = whole(order, epoch).tolist()
    n = order.samples
    assert displacement(order, epoch) == pytest.approx(sum(abs(p - s) for p, s in enumerate(sequence)) / n / n)
    apart = [abs(sequence.index(k) - sequence.index(k + 1)) for k in range(n - 1)]
    assert neighbour_distance(order, epoch) == pytest.approx(sum(apart) / len(apart) / n)

    def share(batches):
        pairs = [one // order.block == two // order.block for batch in batches for one, two in combinations(batch, 2)]
        return sum(pairs) / len(pairs)

    batches = [sequence[at : at + global_batch] for at in range(0, n - global_batch + 1, global_batch)]
    chance = share([range(n)])
    expected = share(batches) / chance if chance else float("nan")
    assert same_block(order, epoch, global_batch, order.block) == pytest.approx(expected, nan_ok=True)


def test_figures_of_a_large_data_set_are_sampled_near_the_exact_ones():
    order = BlockOrder.fit(50_000, 5, 4, 32, block=50, window=400)
    exact, sampled = measure(order, 2, 128, 50), measure(order, 2, 128, 50, draws=10_000)
    assert sampled != exact
    assert sampled.displacement == pytest.approx(exact.displacement, abs=0.01)
    assert sampled.neighbours == pytest.approx(exact.neighbours, abs=0.005)
    assert sampled.same_block == pytest.approx(exact.same_block, rel=0.1)


def test_a_full_order_is_as_random_as_can_be_and_blocks_keep_neighbours_within_their_window():
    full = measure(FullOrder(40_000, 1), 0, 64, 40)
    assert full.displacement == pytest.approx(1 / 3, abs=0.01)
    assert full.neighbours == pytest.approx(1 / 3, abs=0.01)
    assert full.same_block == pytest.approx(1, abs=0.1)
    blocks = measure(BlockOrder(40_000, 1, 40, 400, lanes=4, stride=16), 0, 64, 40)
    assert blocks.displacement == pytest.approx(1 / 3, abs=0.03)
    # Two places of a window of 400 of a lane's 10,000 are a third of it apart; 1 pair in 40 has a block's end between.
    assert 0.04 / 3 < blocks.neighbours < 0.04 / 3 + 0.04 + 0.5 / 40
    # Of a batch's 64 samples 15 others come from the same window, where 1 in 10 is of the same block.
    assert blocks.same_block == pytest.approx(15 / 63 * 39 / 399 / (39 / 39_999), rel=0.1)
    wide = measure(BlockOrder(40_000, 1, 40, 4000, lanes=4, stride=16), 0, 64, 40)
    assert full.same_block < wide.same_block < blocks.same_block


def test_batches_of_one_and_blocks_of_one_have_no_pairs_to_judge():
    assert np.isnan(same_block(FullOrder(10, 0), 0, 1, 2))
    assert np.isnan(same_block(FullOrder(10, 0), 0, 5, 1))
    assert np.isnan(neighbour_distance(FullOrder(1, 0), 0))


def test_planning_command_prints_cost_and_randomness_of_both_orders(tmp_path, capsys):
    run(Plan(ranks=10, samples=20_000, batch_size=10, block=10, steps=4, output=tmp_path / "plan.json"))
    lines = capsys.readouterr().out
    assert lines.count("under 1 s and under 200 MB a rank") == 2
    assert lines.count("mean displacement") == 2
    orders = json.loads((tmp_path / "plan.json").read_text())["orders"]
    for name, figures in orders.items():
        assert figures["order"]["shuffle"] == name
        assert 5 < figures["peak_megabytes"] < 200
        assert figures["displacement"] == pytest.approx(1 / 3, abs=0.03)
    assert orders["blocks"]["order"]["lanes"] == 10
    assert orders["blocks"]["same_block"] > 3 * orders["full"]["same_block"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ranks": 0}, "--steps and --ranks"),
        ({"samples": 10}, "fewer than one global batch"),
        ({"window": 3}, "use a window of at least 64"),
    ],
)
def test_planning_command_refuses_what_cannot_be_planned(options, message):
    with pytest.raises(UserError, match=message):
        run(Plan(**options))
