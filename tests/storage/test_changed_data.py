"""Data that are removed, cut or replaced while a training runs end it at the next epoch's end, by name."""

import os
import shutil
import time

import pytest
from launch import finish, start

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.catalogue.unchanged import Unchanged
from hpc_train.errors import UserError


@pytest.fixture
def data(digits, tmp_path):
    return shutil.copytree(digits, tmp_path / "data")


def replace(path):
    """The same bytes again, as another file."""
    shutil.copy(path, f"{path}.new")
    os.replace(f"{path}.new", path)


CHANGES = {
    "removed": (os.unlink, "cannot be read any more (No such file or directory)"),
    "cut": (lambda path: os.truncate(path, 100), "and has 100: it was cut or replaced"),
    "replaced": (replace, "was replaced while this run read it"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_is_named_by_the_one_rank_that_looks(data, change):
    catalogue = Catalogue.open(data, "train")
    ranks = [Unchanged(catalogue, rank, 2) for rank in range(2)]
    for rank in ranks:
        rank.check()
    do, told = CHANGES[change]
    path = data / "train-00001-of-00003.h5"
    do(path)
    ranks[0].check()
    with pytest.raises(UserError) as error:
        ranks[1].check()
    assert str(error.value).startswith(f"{path} ")
    assert told in str(error.value)


def test_a_file_that_is_touched_is_named_once_and_ends_nothing(data, capsys):
    catalogue = Catalogue.open(data, "train")
    one = Unchanged(catalogue, 0, 1)
    path = data / "train-00001-of-00003.h5"
    os.utime(path, (1, 1))
    one.check()
    one.check()
    assert capsys.readouterr().out.count(f"warning: {path} was touched") == 1


def test_a_training_on_two_ranks_ends_when_a_file_is_replaced(data, tmp_path):
    run = tmp_path / "run"
    options = ("-m", "hpc_train.mnist", "--model", "fc", "--epochs", "1000", "--no-histograms")
    process = start(2, *options, "--data", str(data), "--run", str(run))
    deadline = time.monotonic() + 120
    while not (run / "metrics.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    replace(data / "train-00001-of-00003.h5")
    ended = finish(process, 60)
    assert ended.status != 0
    lines = [line for line in ended.output.splitlines() if "error:" in line]
    assert len(lines) == 1, ended.output
    assert f"error: rank 1: {data}/train-00001-of-00003.h5 was replaced" in lines[0]
    assert "Traceback" not in ended.output
