"""Which GPU, how many threads, which rank: decided from numbers alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.errors import UserError
from hpc_train.parallel import World, start
from hpc_train.parallel.world import choose_gpu, shared_gpus, threads_per_rank


def test_where_the_node_shows_all_its_gpus_the_local_rank_picks():
    ranks = [World(rank=i, size=8, local_rank=i % 4, local_size=4, node=i // 4, nodes=2) for i in range(8)]
    assert [choose_gpu(4, world) for world in ranks] == [0, 1, 2, 3, 0, 1, 2, 3]


def test_where_each_rank_sees_its_own_gpu_it_takes_that():
    assert choose_gpu(1, World(rank=3, size=4, local_rank=3, local_size=4)) == 0


def test_without_gpus_there_is_nothing_to_pin():
    assert choose_gpu(0, World(rank=3, size=4, local_rank=3, local_size=4)) is None


def test_more_ranks_than_visible_gpus_is_an_error_that_says_so():
    with pytest.raises(UserError, match="more ranks than GPUs: node 1 runs 4 ranks and shows 2 GPUs"):
        choose_gpu(2, World(rank=7, size=8, local_rank=3, local_size=4, node=1, nodes=2))


def test_one_gpu_shown_to_two_ranks_is_found_by_its_bus_id():
    owners = [(0, "a", "0000:1b:00.0"), (1, "a", "0000:1c:00.0"), (2, "b", "0000:1b:00.0")]
    assert shared_gpus(owners) is None
    assert "ranks 1, 3 share GPU 0000:1c:00.0 on a" in shared_gpus([*owners, (3, "a", "0000:1c:00.0")])


@pytest.mark.parametrize(
    ("local_size", "affinity", "node_cores", "slurm", "threads"),
    [
        (1, 8, 8, {}, 8),  # a workstation, one rank
        (4, 8, 8, {}, 2),  # four ranks, nobody bound
        (4, 2, 8, {}, 2),  # four ranks, each bound to its two cores
        (4, 2, 2, {}, 1),  # more ranks than cores
        (4, 16, 64, {"SLURM_CPUS_ON_NODE": "16"}, 4),  # a job with a quarter of the node, unbound
        (4, 64, 64, {"SLURM_CPUS_PER_TASK": "12"}, 12),
        (4, 6, 64, {"SLURM_CPUS_PER_TASK": "12"}, 6),
        # one task with 32 cores that starts four ranks itself
        (4, 32, 64, {"SLURM_CPUS_PER_TASK": "32", "SLURM_CPUS_ON_NODE": "32"}, 8),
    ],
)
def test_ranks_share_the_cores(local_size, affinity, node_cores, slurm, threads):
    assert threads_per_rank(local_size, affinity, node_cores, slurm) == threads


@given(st.integers(1, 64), st.integers(1, 512))
def test_unbound_ranks_never_ask_for_more_than_the_cores(local_size, cores):
    threads = threads_per_rank(local_size, cores, cores, {})
    assert threads >= 1
    assert threads * local_size <= max(cores, local_size)


def test_horovod_sleeps_while_it_waits_only_where_cpus_are_few():
    assert int(start.settings(2)["HPC_TRAIN_MPI_SLEEP"]) > 0
    assert "HPC_TRAIN_MPI_SLEEP" not in start.settings(16)
    assert start.settings(16)["HOROVOD_STALL_CHECK_TIME_SECONDS"] == "60"
