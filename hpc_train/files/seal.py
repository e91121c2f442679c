"""A seal: the last line of a file, with the checksum of all bytes before it. Readers of HDF5 do not see it."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

import xxhash

_SEAL = re.compile(rb"\nhpc-train xxh3 ([0-9a-f]{32})\n")
_BYTES = len(b"\nhpc-train xxh3 \n") + 32
_AT_ONCE, _SLICE = 2**20, 2**23


class Damaged(Exception):
    """A file is not what was written; the message says how that is known."""


def seal(path: Path) -> None:
    """Add the seal to a file that is written."""
    with open(path, "rb+") as file:
        digest = _digest(file, file.seek(0, 2))
        file.seek(0, 2)
        file.write(_line(digest))


def write_and_seal(path: Path, pieces: Iterable[tuple[int, memoryview]]) -> None:
    """Write bytes into a file that exists, add the seal, and wait until all is on disk.

    The checksum is that of the bytes in memory, so it also notices what goes wrong on their way to the disk.

    Args:
        path: of the file.
        pieces: place and bytes of each; they do not overlap.

    Raises:
        OSError: it cannot be written.
    """
    with open(path, "rb+", buffering=0) as file:
        total, at, size = xxhash.xxh3_128(), 0, file.seek(0, 2)
        for place, piece in sorted(pieces, key=lambda one: one[0]):
            _add(total, file, at, place)
            for begin in range(0, len(piece), _SLICE):
                part = piece[begin : begin + _SLICE]
                total.update(part)
                _write(file, place + begin, part)
            at = place + len(piece)
        _add(total, file, at, size)
        _write(file, max(at, size), memoryview(_line(total.hexdigest().encode())))
        os.fsync(file.fileno())


def check_seal(path: Path) -> bool:
    """Read all of a file and compare it with its seal.

    Returns:
        Whether it has one: files of earlier versions have none, and neither have files that were cut.

    Raises:
        Damaged: its bytes are not those that were sealed.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2) - _BYTES
        if size < 0:
            return False
        file.seek(size)
        found = _SEAL.fullmatch(file.read())
        if found and _digest(file, size) != found[1]:
            raise Damaged("its checksum is not that of its bytes")
        return bool(found)


def sealed_text(path: Path) -> tuple[str, bool]:
    """The text of a file without its seal, and whether it has one; raises as `check_seal` does."""
    found = check_seal(path)
    raw = Path(path).read_bytes()
    try:
        return (raw[:-_BYTES] if found else raw).decode(), found
    except UnicodeDecodeError as error:
        raise Damaged("it is not in UTF-8") from error


def _digest(file, size: int) -> bytes:
    total = xxhash.xxh3_128()
    _add(total, file, 0, size)
    return total.hexdigest().encode()


def _add(total, file, begin: int, end: int) -> None:
    """Take the bytes of a file from `begin` to `end` into a checksum."""
    left = max(0, end - begin)
    buffer = memoryview(bytearray(min(left, _AT_ONCE)))
    file.seek(begin)
    while left and (count := file.readinto(buffer[:left])):
        total.update(buffer[:count])
        left -= count


def _write(file, place: int, piece: memoryview) -> None:
    # Python's other threads run meanwhile.
    while piece:
        done = os.pwrite(file.fileno(), piece, place)
        place, piece = place + done, piece[done:]


def _line(digest: bytes) -> bytes:
    return b"\nhpc-train xxh3 %s\n" % digest
