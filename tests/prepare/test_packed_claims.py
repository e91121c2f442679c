"""Files of a few bytes that claim or unpack to gigabytes: one line, before memory is set aside."""

import bz2
import gzip
import io
import lzma
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from hpc_train.errors import UserError
from hpc_train.files.limits import most_bytes, open_packed
from hpc_train.prepare.npz import reading_npz
from hpc_train.prepare.sources import read_idx

HUGE = 2**31


def refusal(function, *args):
    """The one line of the UserError that the call ends with, and that it took little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(UserError) as caught:
            function(*args)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "\n" not in str(caught.value)
    assert peak < 2**25
    return str(caught.value)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, bz2.compress, lzma.compress])
def test_an_idx_header_that_claims_more_than_the_file_can_hold(tmp_path, pack):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(pack(struct.pack(">BBBB3I", 0, 0, 8, 3, HUGE, HUGE, HUGE) + bytes(100)))
    assert str(HUGE) in refusal(read_idx, path, 3)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_what_unpacks_to_far_more_than_the_packed_file_is_not_unpacked(tmp_path, pack):
    path = tmp_path / "bomb"
    # Concatenated parts are one packed file.
    path.write_bytes(pack(bytes(2**20)) * 257)
    assert most_bytes(path.stat().st_size) == 2**28

    def read_all():
        with open_packed(path) as file:
            while file.read(2**20):
                pass

    assert "unpack to more than 268 MB" in refusal(read_all)


def npy(header: str) -> bytes:
    head = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(head)) + head


CLAIM = npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({HUGE}, {HUGE}), }}") + bytes(80)


def test_an_array_of_an_npz_file_that_claims_more_than_its_bytes(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as file:
        file.writestr("x.npy", CLAIM)

    def read():
        with reading_npz(tmp_path / "a.npz") as file:
            file["x"]

    assert f"x: ({HUGE}, {HUGE}) float64 takes {8 * HUGE * HUGE} bytes" in refusal(read)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_in_an_npz_file(tmp_path, method):
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as file, file.open("x.npy", "w") as member:
        mib = 257 if method == zipfile.ZIP_DEFLATED else 1
        member.write(npy(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({mib * 2**20},), }}"))
        for _ in range(mib):
            member.write(bytes(2**20))

    def read():
        with reading_npz(tmp_path / "a.npz") as file:
            file["x"]

    assert ("the few packed bytes claim" if method == zipfile.ZIP_DEFLATED else "another method") in refusal(read)


def test_an_encrypted_npz_file(tmp_path):
    raw = io.BytesIO()
    np.savez(raw, x=np.arange(3))
    # Bit 0 of the flags of the entry, in both of its headers: APPNOTE 4.4.4.
    content = bytearray(raw.getvalue())
    content[6] |= 1
    content[content.rindex(b"PK\1\2") + 8] |= 1
    (tmp_path / "a.npz").write_bytes(content)

    def read():
        with reading_npz(tmp_path / "a.npz") as file:
            file["x"]

    assert "is encrypted" in refusal(read)
