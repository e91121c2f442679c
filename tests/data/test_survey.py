"""Looking into many files: what was found is kept where that is interrupted, and each file is opened once."""

import os
import shutil
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest
from strangers import NOBODY, needs_root

from hpc_train.data.catalogue import survey as module
from hpc_train.data.options import DataOptions
from hpc_train.errors import UserError

FILES = 200


@pytest.fixture
def folder(tmp_path):
    first = tmp_path / "data" / "train" / "a-000.h5"
    first.parent.mkdir(parents=True)
    with h5py.File(first, "w") as file:
        file["x"], file["y"] = np.zeros((3, 4), "f4"), np.arange(3)
    for number in range(1, FILES):
        shutil.copy(first, first.with_name(f"a-{number:03}.h5"))
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch):
    """The files that were looked into; `opened.limit` of them before the process is interrupted."""

    class Opened(list):
        limit = None

    paths, look = Opened(), module.inspect_file

    def inspect(path, *arguments):
        if len(paths) == paths.limit:
            raise KeyboardInterrupt
        paths.append(path)
        return look(path, *arguments)

    monkeypatch.setattr(module, "inspect_file", inspect)
    return paths


def catalogue(folder):
    return DataOptions(data=folder, inputs=("x",), targets=("y",)).catalogue("train")


def test_an_interrupted_survey_goes_on_where_it_stopped(folder, opened):
    opened.limit = 150
    with pytest.raises(KeyboardInterrupt):
        catalogue(folder)
    opened.limit = None
    assert catalogue(folder).samples == 3 * FILES
    assert len(opened) == len(set(opened)) == FILES
    assert catalogue(folder).samples == 3 * FILES
    assert len(opened) == FILES
    assert [path.suffix for path in (folder / "train").glob(".*")] == [".json"]


@needs_root
def test_a_folder_of_another_user_is_surveyed_and_the_cache_goes_to_ones_own(folder, opened, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        data, mine = Path(place, "data"), Path(place, "mine")
        shutil.copytree(folder, data)
        mine.mkdir()
        os.chown(mine, NOBODY, NOBODY)
        Path(place).chmod(0o755)
        monkeypatch.setenv("XDG_CACHE_HOME", str(mine))
        os.seteuid(NOBODY)
        try:
            for _ in range(2):
                assert catalogue(data).samples == 3 * FILES
            assert len(opened) == FILES
            # Nor is there a place of one's own.
            monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
            assert catalogue(data).samples == 3 * FILES
        finally:
            os.seteuid(0)
        assert not list(data.glob("train/.*"))


def test_what_a_killed_survey_had_found_is_there(folder, opened, monkeypatch, capsys):
    monkeypatch.setattr(module, "_KEEP_SECONDS", 0)
    monkeypatch.setattr(module, "_FIRST_REPORT", 0)
    monkeypatch.setattr(module._Cache, "write", lambda self, entries: None)
    catalogue(folder)
    assert f"looking into the files of {folder / 'train'}: 1 of {FILES}" in capsys.readouterr().out
    monkeypatch.undo()
    kept = list((folder / "train").glob(".*.rank-0-*"))
    assert len(kept) > 1
    entries = module._Cache.read
    held = {}
    monkeypatch.setattr(module._Cache, "read", lambda self: held.setdefault("files", entries(self)))
    assert catalogue(folder).samples == 3 * FILES
    assert len(held["files"]) > FILES // 2
    assert not any(path.exists() for path in kept)


def test_a_bad_file_is_named_and_the_others_need_not_be_opened_again(folder, opened):
    bad = folder / "train" / "a-120.h5"
    whole = bad.read_bytes()
    bad.write_bytes(whole[:100])
    with pytest.raises(UserError, match=r"a-120\.h5"):
        catalogue(folder)
    bad.write_bytes(whole)
    assert catalogue(folder).samples == 3 * FILES
    assert sum(path.endswith("a-050.h5") for path in opened) == 1
