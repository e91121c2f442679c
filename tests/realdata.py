"""Real data sets that some tests use if they are there."""

import os
from pathlib import Path

import pytest


def real_data(name):
    """Folder of the real data set `name`; skips the test, with the reason, if there is none.

    It is in $HPC_TRAIN_TEST_DATA, or else in `shared/data` beside the repository.
    """
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    root = Path(os.environ.get("HPC_TRAIN_TEST_DATA", beside))
    if not (root / name).is_dir():
        pytest.skip(f"no real data in {root / name}; set HPC_TRAIN_TEST_DATA to a folder that has {name}/")
    return root / name
