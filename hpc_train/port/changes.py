"""Changes to a text, each with its reason: which of them fit together, and the text that they make."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, order=True)
class Span:
    """A part of the text: UTF-8 bytes from `start` up to `end`."""

    start: int
    end: int

    def holds(self, other: Span) -> bool:
        """Whether `other` lies within this part."""
        return self.start <= other.start and other.end <= self.end

    def meets(self, other: Span) -> bool:
        """Whether the two have bytes in common, or an insertion of one lies inside the other."""
        if self == other:
            return self.start < self.end
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True)
class Edit:
    """A part of the text and what stands there afterwards.

    Args:
        span: the part; empty for an insertion.
        pieces: new text, and parts of the old text that are kept, with the edits inside them.
    """

    span: Span
    pieces: tuple[str | Span, ...] = ()

    def allows(self, other: Span) -> bool:
        """Whether an edit of `other` can stand beside this one."""
        if not self.span.meets(other):
            return True
        return any(isinstance(piece, Span) and piece.holds(other) for piece in self.pieces)


@dataclass(frozen=True)
class Finding:
    """One thing that the script needs.

    Args:
        line: the line that it is about, from 1.
        reason: why, in one line.
        edits: how; none where it is named and left alone.
    """

    line: int
    reason: str
    edits: tuple[Edit, ...] = ()


@dataclass
class Changes:
    """The findings of one text. A finding that does not fit those before it is dropped.

    Args:
        text: the text, in UTF-8.
    """

    text: bytes
    made: list[Finding] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)
    _edits: list[Edit] = field(default_factory=list)
    _named: set[int] = field(default_factory=set)

    def add(self, line: int, reason: str, *edits: Edit) -> bool:
        """Take a change; False if it meets an earlier one."""
        if not all(self._fits(edit) for edit in edits):
            return False
        self.made.append(Finding(line, reason, edits))
        self._edits += edits
        return True

    def leave(self, line: int, reason: str, span: Span) -> None:
        """Name what is left alone, unless it is a part that goes or that has been named."""
        if span.start not in self._named and not self.gone(span):
            self._named.add(span.start)
            self.left.append(Finding(line, reason))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """All changes of the block, or none of them if it raises."""
        made, left, edits, named = len(self.made), len(self.left), len(self._edits), set(self._named)
        try:
            yield
        except BaseException:
            del self.made[made:], self.left[left:], self._edits[edits:]
            self._named = named
            raise

    def gone(self, span: Span) -> bool:
        """Whether this part of the text is replaced."""
        return not all(edit.allows(span) for edit in self._edits)

    def _fits(self, new: Edit) -> bool:
        return all(old.allows(new.span) or new.allows(old.span) for old in self._edits if old.span.meets(new.span))

    def swap(self, old: list[Edit], new: list[Edit]) -> None:
        """Put edits in place of others that say the same in smaller pieces."""
        self._edits = [edit for edit in self._edits if edit not in old] + new
        wider = {edit: next((one for one in new if one.span.holds(edit.span)), edit) for edit in old}
        for place, finding in enumerate(self.made):
            edits = tuple(wider.get(edit, edit) for edit in finding.edits)
            self.made[place] = Finding(finding.line, finding.reason, edits)

    def has(self, edit: Edit) -> bool:
        """Whether an edit was taken."""
        return edit in self._edits

    def lines(self, finding: Finding) -> list[tuple[int, int]]:
        """The first and last line of each part of the text that a change touches, in order, without repetition."""
        if not finding.edits:
            return [(finding.line, finding.line)]
        touched: set[int] = set()
        for edit in finding.edits:
            first = self.text.count(b"\n", 0, edit.span.start) + 1
            last = self.text.count(b"\n", 0, max(edit.span.start, edit.span.end - 1)) + 1
            touched |= set(range(first, last + 1))
        numbers = sorted(touched)
        starts = [one for one in numbers if one - 1 not in touched]
        ends = [one for one in numbers if one + 1 not in touched]
        return list(zip(starts, ends, strict=True))

    def result(self) -> bytes:
        """The text with all changes."""
        return b"".join(self._render(Span(0, len(self.text)), sorted(self._edits, key=_outer_first)))

    def _render(self, part: Span, edits: list[Edit]) -> Iterator[bytes]:
        place = part.start
        inside = [edit for edit in edits if part.holds(edit.span)]
        for position, edit in enumerate(inside):
            if edit.span.start < place:
                continue  # inside an edit that is written already
            yield self.text[place : edit.span.start]
            for piece in edit.pieces:
                if isinstance(piece, str):
                    yield piece.encode()
                else:
                    yield from self._render(piece, inside[position + 1 :])
            place = edit.span.end
        yield self.text[place : part.end]


def _outer_first(edit: Edit) -> tuple[int, int]:
    # At one place an insertion comes before what begins there.
    length = edit.span.end - edit.span.start
    return edit.span.start, -length if length else -sys.maxsize
