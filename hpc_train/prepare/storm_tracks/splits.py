"""Sorts maps into splits by their times or the names of their files."""

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from hpc_train.data.shards.names import parse_shard_name, shard_name
from hpc_train.errors import UserError

_DATE = r"\d{4}(?:-\d{2}(?:-\d{2})?)?"
_DATES = re.compile(rf"({_DATE})(?:\.\.({_DATE}))?")
_UNITS = {4: "Y", 7: "M", 10: "D"}


@dataclass(frozen=True)
class Split:
    """A split: a map belongs to it if it is in one of the ranges [first, stop) of time or matches a file pattern."""

    name: str
    ranges: tuple[tuple[np.datetime64, np.datetime64], ...]
    patterns: tuple[str, ...]

    def takes(self, file_name: str, times: np.ndarray) -> np.ndarray:
        """Which maps of a file, with times datetime64[s] (n,), are in the split: bool (n,)."""
        taken = np.full(len(times), any(fnmatchcase(file_name, pattern) for pattern in self.patterns))
        for first, stop in self.ranges:
            taken |= (times >= first) & (times < stop)
        return taken


def parse_splits(texts) -> list[Split]:
    """Parse texts such as "train=2018-09", "test=2018-10-01..2018-10-15,2018-11" or "test=icon_2022*".

    Raises:
        UserError: a text has another form, or two are of one split.
    """
    splits = [_parse(text) for text in texts]
    names = [split.name for split in splits]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"--splits names {twice} twice; give its parts together: {twice}=2018-09,2018-11")
    return splits


def _parse(text: str) -> Split:
    name, _, parts = text.partition("=")
    if not parts:
        raise UserError(f"--splits {text!r}: gives no dates or files; write train=2018-09 or train='gfs_2018*'")
    if parse_shard_name(shard_name(name, 0, 1)) is None:
        raise UserError(f"--splits {text!r}: {name!r} cannot name a split; use lower-case letters, digits and _")
    ranges, patterns = [], []
    for part in parts.split(","):
        dates = _DATES.fullmatch(part)
        if not dates:
            patterns.append(part)
            continue
        try:
            first, last = (np.datetime64(date, _UNITS[len(date)]) for date in (dates[1], dates[2] or dates[1]))
        except ValueError:
            raise UserError(f"--splits {text!r}: there is no date {part}; fix it") from None
        span = first.astype("datetime64[s]"), (last + 1).astype("datetime64[s]")
        if span[0] >= span[1]:
            raise UserError(f"--splits {text!r}: {part} ends before it begins; swap the dates")
        ranges.append(span)
    return Split(name, tuple(ranges), tuple(patterns))
