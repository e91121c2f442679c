"""Files on failing storage, without a training: the old file stays, nothing hidden stays, and HDF5 does not crash."""

import errno
import os
import subprocess
import sys

import failing
import pytest
from launch import REPOSITORY, environment

from hpc_train.files.whole import atomic_path, leftovers, temporary_file

WRITE = """
import sys
from pathlib import Path
from hpc_train.errors import UserError
from hpc_train.files.whole import append_line, atomic_path


def whole(path):
    with atomic_path(path) as temporary:
        temporary.write_text("new")


write = {"whole": whole, "line": lambda path: append_line(path, "new")}[sys.argv[2]]
try:
    write(Path(sys.argv[1]))
except UserError as error:
    sys.exit(f"error: {error}")
"""
# Contiguous and compressed data, attributes: all kinds of writes that HDF5 makes.
HDF5 = """
import sys
import numpy as np
from pathlib import Path
from hpc_train.data.hdf5.access import open_hdf5
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path
try:
    with atomic_path(Path(sys.argv[1])) as temporary, open_hdf5(temporary, "w") as file:
        for i in range(5):
            file[f"a/{i}"] = np.random.random(10_000)
        file.create_dataset("c", data=np.random.random((64, 1000)), chunks=(4, 1000), compression="gzip")
        file["c"].attrs["name"] = "c"
        assert (file["c"][:] == file["c"][:]).all()
except UserError as error:
    sys.exit(f"error: {error}")
"""
OWN = """
import sys
from pathlib import Path
from hpc_train.errors import UserError
from hpc_train.training.ownership import owned
try:
    with owned(Path(sys.argv[1])):
        print("owned")
except UserError as error:
    sys.exit(f"error: {error}")
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return failing.build(tmp_path_factory.mktemp("library"))


def run(program, *arguments, **variables):
    env = environment(PYTHONPATH=str(REPOSITORY), **variables)
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("kind", "call", "pattern"),
    [
        ("whole", "rename", "*/run.json"),
        *(("whole", call, "*.run.json") for call in ("open", "write", "fsync")),
        ("whole", "fsync", "*/folder"),
        *(("line", call, "*/run.json") for call in ("open", "write", "fsync")),
    ],
)
@pytest.mark.parametrize("error", ["ENOSPC", "EDQUOT", "EIO", "ESTALE", "EROFS"])
def test_each_call_that_fails_is_one_line(library, tmp_path, kind, call, pattern, error):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "run.json"
    path.write_text("old")
    ended = run(WRITE, path, kind, **failing.environment(library, call, f"{tmp_path}{pattern}", error))
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.startswith(f"error: cannot write {path}: {os.strerror(getattr(errno, error))}")
    assert ended.stderr.count("\n") == 1
    # Only where the folder's names could not be synced does the new file stand there.
    assert path.read_text() == ("new" if pattern == "*/folder" else "old")
    assert list(folder.iterdir()) == [path]


@pytest.mark.parametrize("first", [1, 2, 3, 5, 8, 12, 20])
def test_hdf5_ends_well_whichever_write_fails(library, tmp_path, first):
    path = tmp_path / "a.h5"
    ended = run(HDF5, path, **failing.environment(library, "write", f"{tmp_path}/*", "ENOSPC", first))
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.startswith(f"error: cannot write {path}: No space left on device (about ")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
    # 5 arrays of 10,000 numbers and one of 64,000, which hardly gets smaller.
    assert 850 < float(ended.stderr.split("about ")[1].split(" kB")[0]) < 950


@pytest.mark.parametrize("letter", ["a", "é", "\udcff"])
def test_a_name_may_be_as_long_as_the_file_system_allows(tmp_path, letter):
    path = tmp_path / (letter * (250 // len(os.fsencode(letter))) + ".json")
    assert len(os.fsencode(path.name)) == 255
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".json"
        assert leftovers(tmp_path, lambda name: True) == [temporary]
    assert [file.read_text() for file in tmp_path.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_lock_that_cannot_be_written_where_there_are_no_links_is_not_left(library, tmp_path):
    folder = tmp_path / "run"
    ended = run(OWN, folder, **failing.environment(library, "link,write", f"{folder}/owner.lock", "ENOTSUP"))
    assert ended.stderr == f"error: cannot write the run folder {folder}: Operation not supported\n"
    assert not list(folder.iterdir())


def test_temporary_files_are_left_over_once_their_writers_have_ended(tmp_path):
    mine = temporary_file(tmp_path / "a.json")
    assert mine.name.endswith(".a.json")
    assert leftovers(tmp_path) == []
    assert leftovers(tmp_path, lambda name: name == "a.json") == [mine]
    program = "import sys, pathlib, hpc_train.files.whole as whole; whole.temporary_file(pathlib.Path(sys.argv[1]))"
    assert run(program, tmp_path / "b.json").returncode == 0
    (left,) = leftovers(tmp_path)
    assert left.name.endswith(".b.json")
    elsewhere = tmp_path / ".hpc-train.elsewhere.1.abcdefgh.c.json"
    elsewhere.write_text("")
    assert leftovers(tmp_path) == [left]
    os.utime(elsewhere, (0, 0))
    assert sorted(leftovers(tmp_path)) == sorted([left, elsewhere])
    for own in (".hpc-train", ".hpc-train.env", ".a-abcdefgh.json"):
        (tmp_path / own).write_text("")
    assert sorted(leftovers(tmp_path)) == sorted([left, elsewhere])
