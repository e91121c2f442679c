"""Who else may write in a folder, against another user who tries to."""

import os
import shutil
import struct
import tempfile
from itertools import product

import pytest
from strangers import NOBODY, needs_root, stranger

from hpc_train.files.others import other_writers


@pytest.fixture
def folder():
    path = tempfile.mkdtemp(dir="/tmp")
    yield path
    shutil.rmtree(path)


def give_list(folder, more, own_group, mask):
    """An access control list: more is (kind, permissions, number) of a named user or group, or nothing."""
    entries = [(0x01, 7, -1), *more, (0x04, own_group, -1), (0x10, mask, -1), (0x20, 5, -1)]
    packed = b"".join(struct.pack("<HHi", *entry) for entry in sorted(entries))
    try:
        os.setxattr(folder, "system.posix_acl_access", struct.pack("<I", 2) + packed)
    except OSError as error:
        pytest.skip(f"no access control lists in /tmp: {error.strerror}")


ENTRIES = [(), (0x02, 5), (0x02, 7), (0x08, 5), (0x08, 7)]
CASES = list(product([0, NOBODY], [5, 7], ENTRIES, [5, 7]))
# Here he may not, but others of his group may.
CASES = [case for case in CASES if case[:3] != (NOBODY, 7, (0x02, 5))]


@needs_root
@pytest.mark.parametrize(("group", "own_group", "more", "mask"), CASES)
def test_what_an_access_control_list_lets_a_stranger_do_is_known(folder, group, own_group, more, mask):
    os.chown(folder, 0, group)
    give_list(folder, [(*more, NOBODY)] if more else [], own_group, mask)
    may = stranger("import sys; open(sys.argv[1] + '/x', 'w')", folder).returncode == 0
    assert bool(other_writers(folder, os.stat(folder))) == may
    os.chmod(folder, 0o755)
    assert not other_writers(folder, os.stat(folder))
