"""A seal: the last line of a file, with the checksum of all bytes before it. Readers of HDF5 do not see it."""

import re
from pathlib import Path

import xxhash

_SEAL = re.compile(rb"\nhpc-train xxh3 ([0-9a-f]{32})\n")
_BYTES = len(b"\nhpc-train xxh3 \n") + 32
_AT_ONCE = 2**20


class Damaged(Exception):
    """A file is not what was written; the message says how that is known."""


def seal(path: Path) -> None:
    """Add the seal to a file that is written."""
    with open(path, "rb+") as file:
        digest = _digest(file, file.seek(0, 2))
        file.seek(0, 2)
        file.write(b"\nhpc-train xxh3 %s\n" % digest)


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
    total, left, buffer = xxhash.xxh3_128(), size, memoryview(bytearray(min(size, _AT_ONCE)))
    file.seek(0)
    while left and (count := file.readinto(buffer[:left])):
        total.update(buffer[:count])
        left -= count
    return total.hexdigest().encode()
