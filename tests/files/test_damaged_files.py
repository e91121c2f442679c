"""Files of the suite that a disk, an editor or a kill has damaged: one line, and the last whole one is used."""

import errno
import json
import os
from contextlib import suppress
from dataclasses import dataclass

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.errors import UserError
from hpc_train.files.json_file import read_json, write_json
from hpc_train.files.seal import Damaged, check_seal, seal, sealed_text
from hpc_train.parallel import World
from hpc_train.training import checkpoint
from hpc_train.training.run_folder import Run


@dataclass(frozen=True)
class Options:
    lr: float = 0.1


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text().filter(lambda name: name != "checksum"), VALUES, max_size=4)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("records") / "file"


@settings(deadline=None)
@given(content=st.binary(max_size=300))
def test_a_sealed_file_begins_with_its_bytes_and_is_whole(path, content):
    path.write_bytes(content)
    assert not check_seal(path)
    seal(path)
    assert path.read_bytes().startswith(content)
    assert check_seal(path)


@settings(deadline=None)
@given(content=st.binary(max_size=100), data=st.data())
def test_a_changed_or_cut_file_is_not_believed(path, content, data):
    path.write_bytes(content)
    seal(path)
    raw = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(raw) - 1))
    if data.draw(st.booleans(), "cut"):
        del raw[place:]
    else:
        raw[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    with suppress(Damaged):
        assert not check_seal(path)


def test_sealed_text_comes_without_its_seal(path):
    path.write_text("é\n")
    assert sealed_text(path) == ("é\n", False)
    seal(path)
    assert sealed_text(path) == ("é\n", True)


@settings(deadline=None)
@given(value=OBJECTS)
def test_json_comes_back_as_it_was_written(path, value):
    write_json(path, value)
    assert read_json(path, {}, "") == value
    # Other programs read it as JSON.
    assert json.loads(path.read_text()).items() >= value.items()


@settings(deadline=None)
@given(value=OBJECTS, place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_flipped_byte_of_json_changes_nothing_in_silence(path, value, place, flip):
    write_json(path, value)
    raw = bytearray(path.read_bytes())
    raw[int(place * len(raw))] ^= flip
    path.write_bytes(raw)
    with suppress(UserError):
        got = read_json(path, {}, "write it again")
        # The name of the checksum was hit, or a space.
        assert {name: held for name, held in got.items() if name in value} == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"a": "é"}'.encode("latin-1"), "is not in UTF-8 (byte 7); save it in UTF-8, or mend it"),
        ('{"a": 1}'.encode("utf-16"), "is not in UTF-8 (byte 0)"),
        (b'{"a": 1', "is not JSON (Expecting"),
        (b"[" * 100_000, "is not JSON ("),
        (b"[1]", "holds no JSON object; mend it"),
        (b'{"b": 1}', "'a' is wrong (None is not an instance of int); mend it"),
        (b'{"a": "1"}', "'a' is wrong (str is not an instance of int); mend it"),
        (b'{"checksum": "0", "a": 1}', 'changed after it was written (checksum); mend it, or if the change'),
    ],
)  # fmt: skip
def test_what_is_wrong_with_json_is_one_line(path, content, said):
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(path, {"a": int}, "mend it")
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


def test_a_file_that_is_meant_to_be_changed_loses_its_first_line(path):
    write_json(path, {"a": 1})
    lines = path.read_text().replace("1\n", "2\n").splitlines(keepends=True)
    path.write_text("".join(lines))
    with pytest.raises(UserError, match="remove the line"):
        read_json(path, {"a": int}, "")
    path.write_text("".join(line for line in lines if "checksum" not in line))
    assert read_json(path, {"a": int}, "") == {"a": 2}


@pytest.fixture(scope="module")
def model():
    import keras

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


@pytest.fixture
def saved(tmp_path, model):
    """A folder with the checkpoints of steps 1 and 2, whose weights are 1 and 2."""
    for step in (1, 2):
        model.set_weights([np.full(weight.shape, step, "f4") for weight in model.get_weights()])
        checkpoint.save(tmp_path, model, checkpoint.Progress(step=step, metrics=[np.ones(2)]))
    model.set_weights([np.zeros(weight.shape, "f4") for weight in model.get_weights()])
    return tmp_path


def resumed(folder, model):
    progress = checkpoint.load(checkpoint.newest(folder), model)
    assert all((weight == progress.step).all() for weight in model.get_weights())
    return progress.step


def damages():
    yield "empty", lambda raw: b""
    yield "zeros", lambda raw: bytes(len(raw))
    for share in np.linspace(0.001, 0.999, 25):
        yield f"cut at {share:.2f}", lambda raw, share=share: raw[: int(share * len(raw))]
        place = lambda raw, share=share: int(share * len(raw))  # noqa: E731
        yield (
            f"flipped at {share:.2f}",
            lambda raw, place=place: raw[: place(raw)] + bytes([raw[place(raw)] ^ 4]) + raw[place(raw) + 1 :],
        )


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(saved, model, capsys):
    good = (saved / "step-0000000002.h5").read_bytes()
    assert resumed(saved, model) == 2
    for name, damage in damages():
        (saved / "step-0000000002.h5").write_bytes(damage(good))
        assert resumed(saved, model) == 1, name
        said = capsys.readouterr().out
        assert said.count("\n") == 1
        assert "step-0000000002.h5 is damaged (" in said
        assert (saved / "damaged-step-0000000002.h5").exists()
    left = sorted(saved.glob("step-*"))
    for path in left:
        path.write_bytes(b"")
    # The second try must not begin anew.
    for _ in range(2):
        with pytest.raises(UserError, match=r"no checkpoint is whole \(step-.*\); put one back"):
            checkpoint.newest(saved)
    assert sorted(saved.glob("step-*")) == left


def test_a_checkpoint_that_the_storage_does_not_give_stays(saved, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr("hpc_train.training.checkpoint.file.check_seal", fail)
    with pytest.raises(UserError, match=r"step-0000000002\.h5: cannot be read \(Input/output error\)"):
        checkpoint.newest(saved)
    assert len(list(saved.glob("step-*"))) == 2


def test_checkpoints_without_a_seal_are_those_of_version_1(saved, model, capsys):
    path = saved / "step-0000000002.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 1
    assert not check_seal(path)
    assert resumed(saved, model) == 2
    path.write_bytes(path.read_bytes()[:-100])
    assert resumed(saved, model) == 1


def test_a_checkpoint_of_a_newer_version_stays(saved, model):
    path = saved / "step-0000000002.h5"
    with h5py.File(path, "r+") as file:
        file.attrs["version"] = 4
    seal(path)
    with pytest.raises(UserError, match="is a checkpoint of a newer hpc-train"):
        checkpoint.newest(saved)
    assert path.exists()


def test_lines_of_metrics_that_are_damaged_are_named_and_set_aside(tmp_path, capsys):
    run = Run(tmp_path)
    for epoch in (1, 2, 3):
        run.add_metrics({"epoch": epoch, "step": 10 * epoch, "loss": 0.5})
    whole = run.metrics()
    lines = run.metrics_file.read_bytes().splitlines(keepends=True)
    for wrong in (b"{}\n", b"\xff\xfe\n", b'{"epoch": 2, "step": 20, "loss": "low"}\n', lines[1][:20] + b"\n", b"\n"):
        run.metrics_file.write_bytes(lines[0] + wrong + lines[2])
        with pytest.raises(UserError, match=r"metrics\.jsonl: line 2.*; remove this line"):
            run.metrics()
        run.forget_metrics_after(3)
        assert run.metrics() == [whole[0], whole[2]]
        assert "left out, and the file is kept as damaged-" in capsys.readouterr().out
    # An editor that saves without the last line break loses nothing.
    run.metrics_file.write_bytes(b"".join(lines)[:-1])
    assert run.metrics() == whole


def test_a_damaged_record_is_set_aside_for_its_copy_when_the_run_is_resumed(tmp_path, capsys):
    run = Run(tmp_path / "run")
    run.start(Options(), World(), {"seed": 1}, resume=False)
    run.record_file.write_text('{"facts": {}')
    with pytest.raises(UserError, match=r"run\.json: is not JSON"):
        run.record()
    with pytest.raises(UserError, match="already holds a run"):
        run.start(Options(), World(), {"seed": 1}, resume=False)
    run.start(Options(), World(), {"seed": 1}, resume=True)
    assert len(run.record()["starts"]) == 2
    assert len(list(run.path.glob("damaged-*run.json"))) == 1
    assert "its copy" in capsys.readouterr().out
