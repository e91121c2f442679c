"""HDF5 2.0, which TensorFlow 2.21 does not allow beside it: the tests of reading pass on it, and its files are read."""

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest
from hdf5_2_files import FLOATS, LIBVERS, NUMBERS, STORAGE

from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError

H5PY = "h5py==3.16.0"
# HDF5 1.14 cannot read filtered chunks in the newest form.
NEW_LAYOUT = ("packed", "tree")
TESTS = Path(__file__).parents[1]


def run(*words, folder, check=True):
    """Run Python with the other h5py ahead of this one."""
    path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    words = [sys.executable, *map(str, words)]
    return subprocess.run(
        words, env=os.environ | {"PYTHONPATH": path}, cwd=TESTS.parent, capture_output=True, text=True, check=check
    )


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """The folder of an h5py with HDF5 2.0."""
    if h5py.version.hdf5_version_tuple >= (2,):
        pytest.skip(f"this environment has HDF5 {h5py.version.hdf5_version}: all tests of reading run on it")
    folder = tmp_path_factory.mktemp("h5py")
    pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--target", folder, H5PY]
    if (got := run(*pip, folder=folder, check=False)).returncode:
        pytest.skip(f"pip cannot install {H5PY}: {got.stderr.strip().splitlines()[-1]}")
    return folder


@pytest.fixture(scope="module")
def files(newer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hdf5-2")
    run(TESTS / "hdf5_2_files.py", folder, folder=newer)
    return folder


def read(path, name):
    """The numbers that the suite's reader reads, and how."""
    catalogue = DataOptions(data=path, inputs=(name,)).catalogue()
    with closing(Reader(catalogue, check=False)) as reader:
        return reader.read(range(catalogue.samples))[0], reader.describe()[0]


@pytest.mark.parametrize("name", LIBVERS)
def test_its_storage_is_read(files, name):
    for storage in STORAGE:
        path = files / f"{name}.h5"
        if name == "latest" and storage in NEW_LAYOUT:
            with pytest.raises(UserError, match="version") as error:
                read(path, storage)
            assert str(error.value).startswith(f"{path}: {storage} cannot be opened (")
            assert "write it there with h5py's libver='v114'" in str(error.value)
            continue
        got, way = read(path, storage)
        assert got.dtype == np.float32
        assert np.array_equal(got, NUMBERS)
        assert "h5py" not in way


@pytest.mark.parametrize("name", FLOATS)
def test_its_small_floating_point_types_are_read(files, name):
    got, way = read(files / f"{name}.h5", "x")
    assert np.array_equal(got.astype("f4"), NUMBERS)
    assert "h5py" in way


def test_its_complex_type_is_refused_in_a_line(files):
    path = files / "complex.h5"
    with pytest.raises(UserError) as error:
        read(path, "x")
    assert str(error.value).startswith(f"{path}: x cannot be opened ("), str(error.value)


def test_the_tests_of_reading_pass_on_it(newer):
    folders = [TESTS / "data" / name for name in ("hdf5", "reading", "test_conventions.py", "test_headers.py")]
    got = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *folders, folder=newer, check=False)
    assert got.returncode == 0, got.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", got.stdout)[1]) > 300
    version = run("-c", "import h5py; print(h5py.version.hdf5_version)", folder=newer).stdout.strip()
    assert version == "2.0.0"
