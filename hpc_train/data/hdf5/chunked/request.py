"""The part of a request for samples that falls on one chunk."""

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

# For samples with fewer bytes than this, one gather costs less than a copy of each.
_SMALL_PART = 4096


class Request:
    """Rows of one chunk and where they go.

    Args:
        rows: integers (n,), sorted, repeats allowed.
        places: integers (n,), where each row goes in the output.

    Attributes:
        runs: [(first row, rows, first place)] of rows that are neighbours both in the chunk and in the output.
    """

    def __init__(self, rows: np.ndarray, places: np.ndarray):
        self.rows, self.places = rows, places
        breaks = np.flatnonzero((np.diff(rows) != 1) | (np.diff(places) != 1)) + 1
        edges = [0, *breaks.tolist(), len(rows)]
        self.runs = [(int(rows[start]), stop - start, int(places[start])) for start, stop in pairwise(edges)]

    def split(self) -> Iterator["Request"]:
        """One request for each run."""
        for row, count, place in self.runs:
            yield Request(np.arange(row, row + count), np.arange(place, place + count))

    def copy(self, source: np.ndarray, first: int, part: np.ndarray) -> None:
        """Copy the rows of `source`, whose row 0 is the chunk's row `first`, into part[places]; swaps bytes."""
        if len(self.runs) > 1 and source[0].nbytes < _SMALL_PART:
            part[self.places] = source[self.rows - first]
            return
        for row, count, place in self.runs:
            np.copyto(part[place : place + count], source[row - first : row - first + count])
