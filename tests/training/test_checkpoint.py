"""Checkpoints are written beside training, whole or not at all, also in parts; old ones go, and chosen ones stay."""

import errno
import os
import subprocess
import sys
import threading
from contextlib import nullcontext

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from launch import REPOSITORY, environment

from hpc_train.errors import UserError
from hpc_train.files.whole import NotWritten
from hpc_train.parallel.variables import everything, named
from hpc_train.parallel.world import World
from hpc_train.training import checkpoint
from hpc_train.training.checkpoint import folder as folders
from hpc_train.training.checkpoint import writer as writers
from hpc_train.training.checkpoint.folder import Keep
from hpc_train.training.checkpoint.state import Part, Progress, deal
from hpc_train.training.checkpoint.writer import Writer

KINDS = ("float32", "bfloat16", "float16", "bool", "int64", "uint8")


@pytest.fixture(scope="module")
def model():
    """A compiled model with variables of many kinds and shapes, one of them empty, and with random states."""
    import keras

    class Kinds(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            for kind in KINDS:
                self.add_weight(shape=(), dtype=kind, initializer="ones", trainable=False, name=kind)
            self.add_weight(shape=(0, 3), initializer="ones", trainable=False, name="empty")

        def call(self, inputs):
            return inputs

    parts = [keras.layers.Dense(4), keras.layers.Dropout(0.5), Kinds(), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *parts])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def fill(model, value):
    """Give all numbers of the state this value."""
    for variable in everything(model):
        variable.assign(np.full(variable.shape, value, "float64").astype(np.asarray(variable).dtype))


def bits(model):
    return [(name, str(v.dtype), np.asarray(v).tobytes()) for name, v in named(everything(model))]


def progress_of(step):
    return Progress(epoch=2, position=64, step=step, callbacks={"best": {"value": 0.5}}, metrics=[np.arange(3.0)])


def write_in_parts(folder, model, step, parts, keep=Keep(), token="0123ab"):  # noqa: B008
    """As ranks do: each has a thread that writes its part."""
    writers = [Writer(folder, Part(number, parts, token), keep, lambda: None) for number in range(parts)]
    for writer in writers:
        writer.save(model, progress_of(step))
    for writer in writers:
        writer.wait()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@given(st.sets(st.integers(1, 60), min_size=1), st.integers(1, 4), st.integers(0, 15))
def test_the_newest_stay_and_the_first_at_or_after_each_multiple(steps, newest, every):
    keep, written, left = Keep(newest, every), [], []
    for step in sorted(steps):
        written.append(step)
        left = sorted(keep.kept([*left, step]))
        multiples = range(every, step + 1, every) if every else ()
        for_good = {min(one for one in written if one >= multiple) for multiple in multiples}
        assert set(left) == for_good | set(written[-newest:])


@given(st.lists(st.integers(0, 40), min_size=1), st.integers(1, 5))
def test_every_variable_is_in_one_part_and_no_part_has_much_more_than_its_share(sizes, parts):
    class Variable:
        dtype, path = "uint8", "v"

        def __init__(self, size):
            self.shape = (size,)

    owners = deal([Variable(size) for size in sizes], parts)
    assert set(owners) <= set(range(parts))
    filled = [owner for owner, size in zip(owners, sizes, strict=True) if size]
    assert filled == sorted(filled)
    for part in range(parts):
        mine = sum(size for owner, size in zip(owners, sizes, strict=True) if owner == part)
        assert mine <= sum(sizes) / parts + max(sizes)


def test_random_states_are_those_of_rank_0(model):
    variables = everything(model)
    owners = deal(variables, 3)
    states = [owner for owner, variable in zip(owners, variables, strict=True) if "seed_generator" in variable.path]
    assert states
    assert set(states) == {0}


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_checkpoint_holds_every_bit_and_any_hdf5_program_reads_it(tmp_path, model, parts):
    fill(model, 1)
    want = bits(model)
    write_in_parts(tmp_path, model, 7, parts)
    assert len(names(tmp_path)) == parts
    stored = {}
    for path in tmp_path.iterdir():
        with h5py.File(path) as file:
            assert file.attrs["version"] == (2 if parts == 1 else 3)
            stored |= {one.attrs["name"]: (one.attrs["dtype"], one[()].tobytes()) for one in file["variables"].values()}
    assert stored == {name: (kind, raw) for name, kind, raw in want}
    fill(model, 0)
    assert bits(model) != want
    progress = checkpoint.load(checkpoint.newest(tmp_path), model)
    assert bits(model) == want
    assert np.array_equal(progress.metrics.pop(), np.arange(3.0))
    assert progress == Progress(epoch=2, position=64, step=7, callbacks={"best": {"value": 0.5}})


class Steps:
    """A training whose steps and checkpoints are noted in `events`, in their order."""

    def __init__(self, monkeypatch, folder, model, every=2):
        import keras

        from hpc_train.training import callbacks
        from hpc_train.training.stopping import Requests

        class NoSignals:
            def __init__(self, *_):
                pass

            def begin(self):
                pass

            def signals(self):
                return ""

        # What the ranks do together.
        monkeypatch.setattr(callbacks, "Agreement", NoSignals)
        monkeypatch.setattr(callbacks, "average_local_state", lambda model: None)
        monkeypatch.setattr(callbacks, "merge_states", lambda *_: [])
        from hpc_train.optim.ema import Averages

        self.events, self.model, self.progress = [], model, Progress()
        self.at_step = lambda step: None
        writer = Writer(folder, Part(), Keep(newest=100), lambda: None)
        requests = Requests.__new__(Requests)
        requests._step, requests._longest = None, 5.0
        self.callback = callbacks.Checkpoints(writer, World(), self.progress, every, requests, Averages(model))

        def step(batch, logs):
            self.progress.step += 1
            self.progress.position += 1
            self.events.append(f"step {self.progress.step}")
            self.at_step(self.progress.step)

        self.callbacks = [keras.callbacks.LambdaCallback(on_train_batch_end=step), self.callback]

    def fit(self, steps):
        data = np.ones((steps, 3), "f4"), np.ones((steps, 1), "f4")
        self.model.fit(*data, batch_size=1, verbose=0, callbacks=self.callbacks)


def test_steps_go_on_while_a_checkpoint_is_written_and_the_next_one_waits(monkeypatch, tmp_path, model):
    training, passed = Steps(monkeypatch, tmp_path, model), threading.Event()
    whole, states = folders.write, {}
    training.at_step = lambda step: (states.update({step: bits(model)}), step == 4 and passed.set())

    def write(path, state):
        training.events.append(f"begin {state.step}")
        # Step 4 must not wait for the checkpoint of step 2.
        assert passed.wait(60)
        whole(path, state)
        training.events.append(f"end {state.step}")

    monkeypatch.setattr(folders, "write", write)
    training.fit(6)
    order = [event for event in training.events if not event.startswith("step")]
    assert order == ["begin 2", "end 2", "begin 4", "end 4", "begin 6", "end 6"]
    for step in ("step 3", "step 4"):
        assert training.events.index(step) < training.events.index("end 2")
    assert names(tmp_path) == [f"step-{step:010d}.h5" for step in (2, 4, 6)]
    # Later steps have not changed the copy.
    for step in (2, 4, 6):
        checkpoint.load(tmp_path / f"step-{step:010d}.h5", model)
        assert bits(model) == states[step]


def test_an_error_of_the_thread_ends_the_training_at_its_next_step(monkeypatch, tmp_path, model):
    training, third = Steps(monkeypatch, tmp_path, model), threading.Event()

    def write(path, state):
        assert third.wait(60)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def at_step(step):
        if step == 3:
            third.set()
            training.callback.writer._thread.join()

    monkeypatch.setattr(folders, "write", write)
    training.at_step = at_step
    with pytest.raises(NotWritten, match=r"step-0000000002\.h5: No space left on device \(about "):
        training.fit(8)
    assert training.progress.step == 3


def test_another_error_waits_for_the_checkpoint_and_is_the_one_that_is_raised(monkeypatch, tmp_path, model, capsys):
    failing, whole = threading.Event(), folders.write

    def full(path, state):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail(step):
        if step == 3:
            failing.set()
            raise ValueError("the loss")

    # Neither has ended before the other error is there.
    for write, told in ((whole, ""), (full, "step-0000000002.h5: No space left on device")):
        failing.clear()
        monkeypatch.setattr(folders, "write", lambda path, state, write=write: (failing.wait(60), write(path, state)))
        training = Steps(monkeypatch, tmp_path, model)
        training.at_step = fail
        with pytest.raises(ValueError, match="the loss"), training.callback.complete():
            training.fit(8)
        assert checkpoint.step_of(checkpoint.newest(tmp_path)) == 2
        said = capsys.readouterr().out
        assert told in said
        assert said.startswith("warning: cannot write") == bool(told)


def test_a_folder_that_another_job_has_taken_gets_no_checkpoint(tmp_path, model):
    def taken():
        raise UserError("taken over")

    writer = Writer(tmp_path, Part(), Keep(), taken)
    writer.save(model, progress_of(1))
    with pytest.raises(UserError, match="taken over"):
        writer.wait()
    assert names(tmp_path) == []


def test_a_kill_at_any_write_sync_rename_or_removal_loses_nothing_and_leaves_nothing(tmp_path):
    command = [sys.executable, str(REPOSITORY / "tests" / "killed_writer.py"), str(tmp_path)]
    env = environment(PYTHONPATH=str(REPOSITORY))
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) > 40


def test_damage_in_a_part_is_damage_of_the_checkpoint(tmp_path, model, capsys):
    for step in (1, 2):
        fill(model, step)
        write_in_parts(tmp_path, model, step, 3)
    part = next(tmp_path.glob("part-0000000002-*-2.h5"))
    good = part.read_bytes()
    flipped = good[:-100] + bytes([good[-100] ^ 1]) + good[-99:]
    for raw, why in ((flipped, "its checksum"), (good[:-10], "was cut"), (None, "is missing")):
        if raw is None:
            part.unlink()
        else:
            part.write_bytes(raw)
        assert checkpoint.step_of(checkpoint.newest(tmp_path)) == 1
        said = capsys.readouterr().out
        assert part.name in said
        assert why in said
        (tmp_path / "damaged-step-0000000002.h5").rename(tmp_path / "step-0000000002.h5")
    part.write_bytes(good)
    assert checkpoint.step_of(checkpoint.newest(tmp_path)) == 2


def test_a_part_that_does_not_come_is_named_and_nothing_is_published(tmp_path, model, monkeypatch):
    writer = Writer(tmp_path, Part(0, 3, "0123ab"), Keep(), lambda: None)
    writer._patience = 0
    writer.save(model, progress_of(1))
    with pytest.raises(NotWritten, match="part 1 of its 3 parts \\(2 are missing\\) did not come within 0 s"):
        writer.wait()
    assert names(tmp_path) == []


def test_parts_go_with_their_checkpoint_and_those_without_one_go_too(tmp_path, model):
    left = tmp_path / "part-0000000003-ffffff-1.h5"
    own = tmp_path / "part-of-mine.h5"
    for path in (left, own):
        path.touch()
    for step in range(1, 6):
        write_in_parts(tmp_path, model, step, 2, Keep(newest=1, every=3))
    kept = [f"part-000000000{step}-0123ab-1.h5" for step in (3, 5)] + ["part-of-mine.h5"]
    assert names(tmp_path) == [*kept, "step-0000000003.h5", "step-0000000005.h5"]
    # Again after a resume, by rank 0 alone.
    checkpoint.save(tmp_path, model, progress_of(5))
    assert not list(tmp_path.glob("part-0000000005*"))
    assert checkpoint.step_of(checkpoint.newest(tmp_path)) == 5


def test_a_large_state_is_dealt_to_ranks_of_all_nodes_where_they_share_the_folder(tmp_path, model, monkeypatch, capsys):
    def parts(ranks, wanted=0, sees=True):
        monkeypatch.setattr(writers, "everywhere", lambda mine, name: mine and sees)
        monkeypatch.setattr(writers, "gather_objects", lambda mine: [mine, sees])
        return [writers.agree_on_parts(wanted, model, tmp_path, World(rank=rank, size=ranks)) for rank in range(ranks)]

    # What the ranks do together.
    monkeypatch.setattr(writers, "agree", lambda world: nullcontext())
    monkeypatch.setattr(writers, "broadcast_object", lambda mine: (mine[0] or tmp_path, "0123ab"))
    held = sum(np.asarray(variable).nbytes for variable in everything(model))
    monkeypatch.setattr(writers, "_LARGE", held + 1)
    assert [part.number for part in parts(4)] == [0, None, None, None]
    assert [part.number for part in parts(4, wanted=2)] == [0, None, 1, None]
    assert {part.of for part in parts(4, wanted=9)} == {4}
    monkeypatch.setattr(writers, "_LARGE", 2 * held // 3)
    assert [part.number for part in parts(6)] == [0, None, 1, None, 2, None]
    assert capsys.readouterr().out == ""
    assert [part.number for part in parts(2, sees=False)] == [0, None]
    assert "note: rank 1 does not see" in capsys.readouterr().out
    with pytest.raises(UserError, match="--checkpoint-parts 2: rank 1 does not see"):
        parts(2, wanted=2, sees=False)
    assert names(tmp_path) == []


def test_a_number_of_parts_that_cannot_be_is_damage(tmp_path, model):
    from hpc_train.files.seal import seal

    path = checkpoint.save(tmp_path, model, progress_of(1))
    for number, token in ((10**15, "0123ab"), (2, "../../a")):
        with h5py.File(path, "r+") as file:
            file.attrs["parts"], file.attrs["token"] = number, token
        seal(path)
        with pytest.raises(UserError, match="its parts have no name"):
            checkpoint.newest(tmp_path)


def test_checkpoints_on_another_disk_are_found_through_the_run_folder(tmp_path, model):
    run, disk = tmp_path / "run", tmp_path / "disk" / "first"
    run.mkdir()
    for _ in range(2):
        checkpoint.place(run / "checkpoints", disk)
    checkpoint.save(run / "checkpoints", model, progress_of(4))
    assert [path.name for path in disk.glob("step-*")] == ["step-0000000004.h5"]
    checkpoint.place(run / "checkpoints", None)
    with pytest.raises(UserError, match=f"this run has its checkpoints in {disk}; leave the option out"):
        checkpoint.place(run / "checkpoints", tmp_path / "other")
    second = tmp_path / "second"
    second.mkdir()
    with pytest.raises(UserError, match=f"--checkpoints {disk} belongs to {run / 'checkpoints'}; give each run"):
        checkpoint.place(second / "checkpoints", disk)
    (disk / ".run").unlink()
    with pytest.raises(UserError, match=f"--checkpoints {disk} holds checkpoints of another run"):
        checkpoint.place(second / "checkpoints", disk)
    disk.rename(tmp_path / "unmounted")
    for folder in (None, disk):
        with pytest.raises(UserError, match=f"leads to {disk}, which is not there: mount its disk"):
            checkpoint.place(run / "checkpoints", folder)
