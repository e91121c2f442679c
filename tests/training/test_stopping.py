"""A signal to any rank stops all ranks at the same step, and the run resumes from there as if nothing had happened."""

import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from launch import RANKS, environment, finish, start_mpi
from test_resume import OPTIONS, final_variables, metrics, train

from hpc_train.parallel.world import World
from hpc_train.training.run_folder import Run

STOPS = str(RANKS / "stops.py")
UNFINISHED = 75
SCORES = ("epoch", "step", "samples", "learning_rate", "val_loss", "val_accuracy")


@pytest.fixture(scope="module")
def whole(digits, tmp_path_factory):
    run = tmp_path_factory.mktemp("whole") / "run"
    assert train(digits, run, "--checkpoint-every", "0").status == 0
    return run


def test_a_run_stopped_in_training_and_in_validation_goes_on_bit_for_bit(digits, whole, tmp_path):
    run = tmp_path / "stopped"
    rest = (*OPTIONS[2:], "--data", str(digits), "--run", str(run), "--resume", "--checkpoint-every", "0")
    # 1,400 samples in global batches of 64 are 21 steps an epoch.
    for name, where, step, epoch in (
        ("SIGUSR1", "train", 30, 2),
        ("SIGTERM", "test", 63, 3),
        ("SIGINT", "test", 84, 4),
    ):
        # horovodrun makes a status of its own of the ranks'.
        ended = finish(start_mpi(2, STOPS, name, where, str(step), *rest), 240)
        assert ended.status == UNFINISHED, ended.output
        said = [line for line in ended.output.splitlines() if "stopped by" in line]
        assert len(said) == 1, ended.output
        assert f"stopped by {name} after step " in said[0]
        assert f"in epoch {epoch} of 4" in said[0]
        assert not (run / "model.keras").exists()
    # As if one more start had been killed after its line of epoch 4, before its checkpoint.
    Run(run).add_metrics({**metrics(run)[-1], "epoch": 4, "step": 84})
    last = train(digits, run, "--resume", "--checkpoint-every", "0")
    assert last.status == 0, last.output
    got, want = final_variables(run), final_variables(whole)
    assert got.keys() == want.keys()
    assert [name for name in want if not np.array_equal(got[name], want[name])] == []
    for mine, other in zip(metrics(run), metrics(whole), strict=True):
        assert {name: mine[name] for name in SCORES} == {name: other[name] for name in SCORES}
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert mine["accuracy"] == pytest.approx(other["accuracy"], rel=1e-4)
    starts = Run(run).record()["starts"]
    # The last start had only the validation of epoch 4 left.
    assert [start["step"] for start in starts] == [0, 30, 63, 84]
    assert all(sum(start["hosts"].values()) == 2 for start in starts)


def agreements(monkeypatch, ranks, requests):
    """One Agreement a rank, whose collective is a meeting of the threads that stand for the ranks."""
    from hpc_train.parallel import collectives
    from hpc_train.training import stopping

    barrier, given, me = threading.Barrier(ranks, timeout=20), {}, threading.local()

    def sum_arrays(arrays, name):
        given[me.rank] = arrays[0]
        barrier.wait()
        total = sum(given.values())
        barrier.wait()
        return [total]

    monkeypatch.setattr(collectives, "sum_arrays", sum_arrays)
    return me, [stopping.Agreement(requests[rank], World(rank=rank, size=ranks), 0.005) for rank in range(ranks)]


class Silent:
    """Requests of a rank that no signal has reached."""

    def __init__(self):
        self.received = set()

    def step(self):
        pass

    def rest(self):
        pass


@pytest.mark.parametrize(("signalled", "epoch"), [(0, 10_000), (2, 10_000), (1, 3)])
def test_every_rank_learns_of_a_signal_before_the_same_step(monkeypatch, signalled, epoch):
    pytest.importorskip("horovod")
    requests = [Silent() for _ in range(3)]
    me, together = agreements(monkeypatch, 3, requests)
    stopped = {}

    def work(rank):
        me.rank = rank
        for step in range(10_000):
            if step % epoch == 0:
                together[rank].begin()
            if step == 100 + rank and rank == signalled:
                requests[rank].received.add(signal.SIGTERM)
            if found := together[rank].signals():
                stopped[rank] = step, found
                return

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(stopped) == 3
    assert len(set(stopped.values())) == 1
    step, found = stopped[0]
    assert step >= 100
    assert found == "SIGTERM"


def child(body):
    """A process without ranks that takes requests to stop, and says when it is ready."""
    script = f"import time\nfrom hpc_train.training.stopping import Requests\nrequests = Requests()\n{body}"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment())
    assert process.stdout.readline() == "ready\n"
    return process


def test_a_rank_that_hangs_in_a_step_obeys_sigterm():
    process = child("requests.train()\nrequests.step()\nprint('ready', flush=True)\ntime.sleep(60)")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 128 + signal.SIGTERM


def test_a_rank_that_makes_steps_or_writes_takes_sigterm_for_a_request():
    work = "for step in range(50):\n    requests.step()\n    time.sleep(0.1)\nrequests.rest()\ntime.sleep(13)"
    process = child(f"requests.train()\nprint('ready', flush=True)\n{work}\nprint(requests.received)")
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert (process.returncode, rest) == (0, "{15}\n")


def test_before_it_trains_a_rank_obeys_sigterm_and_remembers_sigusr1():
    process = child("print('ready', flush=True)\ntime.sleep(60)")
    process.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == -signal.SIGTERM


def test_ctrl_c_is_a_request_and_a_second_one_ends_a_rank_at_once():
    process = child("requests.train()\nprint('ready', flush=True)\ntime.sleep(60)")
    for _ in range(2):  # from the terminal, and from the launcher
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    time.sleep(1.2)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 128 + signal.SIGINT
