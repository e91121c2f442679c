"""HDF5 files of a few kB whose shapes claim more than memory and time allow: one line at opening."""

import h5py
import numpy as np
import pytest

from hpc_train.data.catalogue.file_info import inspect_file
from hpc_train.data.catalogue.layout import Layout
from hpc_train.errors import UserError

ROWS = Layout("named", ("x",), ("y",), rows=True, channels="last")
FILES = Layout("named", ("x",), ("x",), rows=False, channels="last")
CLAIMS = {
    "sparse chunks": ((10**9,), (16,), ROWS, r"it has 62500000 chunks, but its whole file has [\d.]+ kB"),
    "a sample": ((4, 2**31), (1, 2**14), ROWS, "a sample takes 8.59 GB, but its whole file has"),
    "a chunk": ((4, 2**29), (4, 2**27), FILES, "a sample takes 8.59 GB"),
    "all": ((2**34,), (2**20,), ROWS, "all of it takes 68.7 GB"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_what_a_file_can_hardly_hold_is_refused(tmp_path, case):
    shape, chunks, layout, expected = CLAIMS[case]
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape, "f4", chunks=chunks)
        file.create_dataset("y", shape[:1], "u1", chunks=(min(shape[0], 2**20),))
    with pytest.raises(UserError, match=expected):
        inspect_file(path, layout, None)


def test_what_deflate_makes_small_or_was_never_written_is_read(tmp_path):
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        packed = file.create_dataset("x", (2, 2**26), "u1", chunks=(1, 2**26), compression="gzip")
        packed[...] = np.zeros((2, 2**26), "u1")
        file.create_dataset("y", (2,), "u1")
    assert inspect_file(path, ROWS, None).samples == 2
    with h5py.File(path, "w") as file:
        file.create_dataset("x", (10**7,), "f4", chunks=(16,))
        file.create_dataset("y", (10**7,), "u1", chunks=(2**16,))
    assert inspect_file(path, ROWS, None).samples == 10**7
