"""HDF5 files of every kind: the numbers that h5py reads, or one line that says why not."""

import os
import re
from collections import Counter
from contextlib import closing
from itertools import count

import h5py
import pytest
from foreign_files import write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hpc_train.data.hdf5.filters import load_plugins
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.errors import UserError

# Of `make test-files`; without it, a few hundred, always the same.
NUMBERS = count()
ASKED = os.environ.get("HPC_TRAIN_TEST_FILES")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def counted():
    counter = Counter()
    yield counter
    for reason, number in counter.most_common():
        print(f"{number:7} {reason}")


def h5py_reads(path):
    """What h5py reads of a data set; None where it cannot."""
    with h5py.File(path) as file:
        try:
            return file["deep/x"][()]
        except (OSError, TypeError, ValueError):
            return None


@settings(
    max_examples=int(ASKED or 300),
    derandomize=not ASKED,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_the_numbers_are_those_of_h5py_or_a_line_says_why_not(folder, counted, data):
    load_plugins()
    # A file that a failure left open cannot be written anew.
    path = folder / f"{next(NUMBERS)}.h5"
    made = write(path, data)
    by_rows = data.draw(st.booleans(), "rows")
    how = data.draw(st.sampled_from(["auto", "map", "read", "h5py"]))
    options = DataOptions(data=path, inputs=("deep/x",), samples="rows" if by_rows else "files")
    expected = h5py_reads(path)
    try:
        catalogue = options.catalogue()
        with closing(Reader(catalogue, check=False, how=how)) as reader:
            (got,) = reader.read(range(catalogue.samples))
            (way,) = reader.describe()
    except UserError as error:
        text = str(error)
        assert "\n" not in text
        assert text.startswith(f"{path}: ")
        assert made.refused in text
        assert made.refused or expected is None, text
        counted[f"refused: {made.refused or 'h5py cannot read it either'}"] += 1
        return
    assert not made.refused
    expected = expected if by_rows else expected[None]
    native = expected.astype(expected.dtype.newbyteorder("="), copy=False)
    assert (got.dtype, got.shape) == (native.dtype, native.shape)
    assert got.tobytes() == native.tobytes(), (made, way)
    path.unlink()
    counted[f"read: {re.search('chunks|contiguous|through h5py', way)[0]}"] += 1
