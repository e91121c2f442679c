"""HDF5 files of a few kB whose shapes claim more than memory and time allow: one line at opening."""

import h5py
import numpy as np
import pytest

from hpc_train.data.catalogue.inspection import inspect_file
from hpc_train.data.catalogue.layout import Layout
from hpc_train.errors import UserError

ROWS = Layout("named", ("x",), ("y",), rows=True, channels="last")
CLAIMS = {
    "sparse chunks": ((10**9,), (16,), "an index of 62500000 chunks takes 1 GB, but its whole file has "),
    "a sample": ((4, 2**31), (1, 2**21), "a sample takes 8.59 GB, but its whole file has "),
    "a chunk": ((4, 100), (2**20, 100), "a chunk takes 419 MB, but its whole file has "),
    "all": ((2**34,), (2**20,), "all of it takes 68.7 GB, but its whole file has "),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_what_a_file_can_hardly_hold_is_refused(tmp_path, case):
    shape, chunks, expected = CLAIMS[case]
    path = str(tmp_path / "a.h5")
    with h5py.File(path, "w") as file:
        file.create_dataset("x", shape, "f4", chunks=chunks, maxshape=(None,) * len(shape))
        file.create_dataset("y", shape[:1], "u1", chunks=(min(shape[0], 2**20),))
    with pytest.raises(UserError, match=expected):
        inspect_file(path, ROWS, None)


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
