"""The header of a classic NetCDF file, held against the file's size.

The NetCDF library sets memory aside for as many dimensions, variables and records as the header claims. Format:
https://docs.unidata.ucar.edu/netcdf-c/current/file_format_specifications.html
"""

import os
from math import prod

_DIMENSION, _VARIABLE, _ATTRIBUTE = 10, 11, 12
# Bytes of the types, by their numbers.
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}
_LARGE = 5


def problem_of(path: str) -> str | None:
    """What a classic NetCDF file claims and cannot hold; None for a whole one, and for files of other formats."""
    with open(path, "rb") as file:
        magic = file.read(4)
        if magic[:3] != b"CDF" or magic[3:] not in (b"\1", b"\2", b"\5"):
            return None
        try:
            _Header(file, magic[3]).check()
        except _Claim as claim:
            return str(claim)
    return None


class _Claim(Exception):
    pass


class _Header:
    def __init__(self, file, version: int):
        self._file, self._size = file, os.fstat(file.fileno()).st_size
        self._wide = 8 if version == _LARGE else 4
        self._offset = 4 if version == 1 else 8

    def check(self) -> None:
        """_Claim for a count or a place that the file is too short for."""
        records = self._number(self._wide)
        # The length of a file that is a stream is not known ahead.
        streamed = records == 2 ** (8 * self._wide) - 1
        lengths = [self._named(lambda: self._number(self._wide)) for _ in range(self._count(_DIMENSION))]
        self._attributes()
        begins, ends, steps = [], [], []
        for _ in range(self._count(_VARIABLE)):
            shape, size, begin = self._named(lambda: self._variable(lengths))
            if shape and not shape[0]:
                begins.append(begin)
                steps.append(prod(shape[1:]) * size)
            else:
                ends.append(begin + prod(shape) * size)
        if begins and records and not streamed:
            # Each is padded to 4 bytes, unless it is the only one.
            step = steps[0] if len(steps) == 1 else sum(-(-each // 4) * 4 for each in steps)
            ends += [begin + (records - 1) * step + each for begin, each in zip(begins, steps, strict=True)]
        if max(ends, default=0) > self._size:
            raise _Claim(f"truncated: {self._size} bytes, but its header needs {max(ends)}")

    def _variable(self, lengths: list[int]) -> tuple[list[int], int, int]:
        """(shape, 0 for records; bytes of a value; offset)."""
        places = [self._number(self._wide) for _ in range(self._held(self._number(self._wide), self._wide))]
        self._attributes()
        kind, _, begin = self._number(4), self._number(self._wide), self._number(self._offset)
        if any(place >= len(lengths) for place in places) or kind not in _BYTES:
            raise _Claim("damaged: a variable of its header has a dimension or type that does not exist")
        return [lengths[place] for place in places], _BYTES[kind], begin

    def _attributes(self) -> None:
        for _ in range(self._count(_ATTRIBUTE)):
            self._named(self._values)

    def _values(self) -> None:
        kind, count = self._number(4), self._number(self._wide)
        self._skip(count * _BYTES.get(kind, 1))

    def _named(self, read):
        self._skip(self._number(self._wide))
        return read()

    def _count(self, tag: int) -> int:
        """Elements of the list of this kind that begins here."""
        found, count = self._number(4), self._number(self._wide)
        if count and found != tag:
            raise _Claim("damaged: its header has no list where one should be")
        # An element has a name and a number at least.
        return self._held(count, 2 * self._wide)

    def _held(self, count: int, each: int) -> int:
        if count * each > self._size - self._file.tell():
            raise _Claim(f"truncated or damaged: {self._size} bytes, but its header claims a list of {count}")
        return count

    def _skip(self, count: int) -> None:
        self._file.seek(self._held(-(-count // 4) * 4, 1), 1)

    def _number(self, count: int) -> int:
        raw = self._file.read(count)
        if len(raw) < count:
            raise _Claim("truncated within its header")
        return int.from_bytes(raw, "big")
