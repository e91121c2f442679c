"""Started on 2 ranks by test_bench_allreduce.py: the command, then checks of its ways. Rank 0 writes both results."""

import os
import sys
from pathlib import Path

import numpy as np
from checks import write_outcomes

from hpc_train.bench.allreduce import command, figures, ways
from hpc_train.errors import UserError
from hpc_train.parallel import World

OUTPUT = Path(sys.argv[1]).with_name("figures.json")
command.run(command.AllreduceBench(min_bytes=2**14, max_bytes=2**19, iterations=4, rounds=2, output=OUTPUT))

import horovod.tensorflow as hvd  # noqa: E402
import pytest  # noqa: E402

world = World(rank=hvd.rank(), size=hvd.size())
comm, _ = ways.mpi_world()
WAYS = [ways.Horovod(), *([ways.Mpi(comm)] if comm else [])]


def sums_and_largest_values_are_over_all_ranks():
    values = np.array([world.rank, -world.rank, 3], "float32")
    for way in WAYS:
        np.testing.assert_array_equal(way.sum(values), [1, -1, 6])
        np.testing.assert_array_equal(way.most(values.astype("float64")), [1, 0, 3])


def a_way_gives_the_seconds_of_each_iteration():
    for way in WAYS:
        times = way.times(1000, 7)
        assert times.shape == (7,)
        assert (times > 0).all()
        assert times.sum() < 60


def a_longer_cycle_of_horovod_adds_to_its_latency():
    horovod, medians = WAYS[0], []
    for milliseconds in (1, 60):
        horovod.stop()
        os.environ["HOROVOD_CYCLE_TIME"] = str(milliseconds)
        horovod.start()
        medians.append(float(np.median(horovod.most(horovod.times(1, 5)))))
    assert medians[1] - medians[0] > 0.03, medians


def a_sum_that_is_wrong_on_one_rank_is_an_error_on_all():
    chosen = command.AllreduceBench(min_bytes=8, max_bytes=8, iterations=3, rounds=1)
    right = figures.total
    if world.rank == 1:
        figures.total = lambda *arguments: right(*arguments) + 1
    try:
        for way in WAYS:
            with pytest.raises(UserError, match="the sum of 8 bytes over 2 ranks is wrong") as refused:
                command._measure(chosen, [way], world)
            assert refused.value.every_rank
            assert str(refused.value).startswith(f"{way.name} ({way.library})")
    finally:
        figures.total = right


write_outcomes(
    [
        sums_and_largest_values_are_over_all_ranks,
        a_way_gives_the_seconds_of_each_iteration,
        a_sum_that_is_wrong_on_one_rank_is_an_error_on_all,
        a_longer_cycle_of_horovod_adds_to_its_latency,
    ],
    world,
)
