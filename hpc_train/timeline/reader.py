"""Horovod's timeline file as a stream of events, whatever its size and wherever it was cut off.

Horovod 0.28.1 (common/timeline.cc) writes, on rank 0, one JSON array in the format of Chrome's trace viewer:

    {"name": "process_name", "ph": "M", "pid": 7, "args": {"name": "grads_1of2"}}   a tensor and its number
    {"ph": "B", "name": "NEGOTIATE_ALLREDUCE", "ts": 144583, "pid": 7}              something begins at this time, us
    {"ph": "X", "name": "3", "ts": 144585, "pid": 7, "dur": 0}                      rank 3 has announced the tensor
    {"ph": "E", "ts": 172055, "pid": 7, "args": {"dtype": "int32", "shape": "[8]"}} what began last ends
    {"ph": "i", "name": "CYCLE_START", "ts": 3365, "s": "g"}                        with HOROVOD_TIMELINE_MARK_CYCLES

Only the events that name a tensor end a line. The rest of a run may be one line of gigabytes, so events are found by
their braces. After each event Horovod closes the array; the next event overwrites the bracket.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from hpc_train.errors import UserError

_BLOCK = 2**18
# An event takes about 100 bytes. A text without an end within this many bytes is no event.
_LONGEST = 2**22
# us: three thousand years. Larger numbers are damage, and no longer exact in a float.
_MOST = 10**17
_NEXT = re.compile(rb"\}(?=\s*,\s*\{)")
_PARTS = re.compile(
    # an event as Horovod writes it, which need not be parsed as JSON;
    r'\{"ph": "([BEXi])"(?:, "name": "([^"]*)")?, "ts": (\d{1,17})(?:, "pid": (\d{1,17}))?(?:, "dur": 0)?'
    r'(?:, "s": "g")?'
    r"(?:, \"args\": \{([^{}]*)\})?\}"
    # any other object, with at most one object in it;
    r"|(\{[^{}]*(?:\{[^{}]*\}[^{}]*)?\})"
    # anything else, which does not belong between objects.
    r"|([{}][^{}]*|[^{}\s,\[\]][^{}]*)"
)


# An event: (phase, name, time, tensor, args). The phase is Chrome's letter: B begins, E ends, X and i are instants, M
# names a tensor; "?" stands in a damaged place, where ends may be lost. The time is in us since Horovod started; the
# tensor is its number in this file. The end of an operation has args: the tensor's type and shape, as JSON without
# braces.
Event = tuple[str, str, int, int, str]
_DAMAGED: Event = ("?", "", 0, -1, "")


class Timeline:
    """A timeline file. `events()` reads it once, in order; then the attributes have their final values.

    Attributes:
        path: the file.
        bytes: its size when it was opened; what a run writes later is not read.
        start: when Horovod started its clock, in s since 1970; None if the file does not hold it.
        count: number of events.
        damaged: number of places with something else, which is skipped.
        complete: whether the array is closed. The file of a killed run may end with half an event.

    Raises:
        UserError: the file does not exist, cannot be read, or is empty.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.start: float | None = None
        self.count = self.damaged = 0
        self.complete = False
        try:
            self.bytes = self.path.stat().st_size
        except OSError as error:
            raise self._unreadable(error) from error
        if not self.bytes:
            raise UserError(f"{path} is empty: the run has not communicated yet, or was stopped before it did")

    def events(self) -> Iterator[Event]:
        """Read every event, in order, and an event of phase "?" for each damaged place.

        Raises:
            UserError: the file is no timeline, or cannot be read.
        """
        damaged = False
        for text, last in self._pieces():
            found = _PARTS.findall(text)
            if last:
                self.complete = text.rstrip().endswith("]")
                # The last event of a killed run may be incomplete.
                while found and not self.complete and not found[-1][0] and self._other(found[-1][5]) is _DAMAGED:
                    found.pop()
            for phase, name, time, tensor, args, other, _ in found:
                event = (phase, name, int(time), int(tensor or -1), args) if phase else self._other(other)
                if event is not _DAMAGED:
                    damaged = False
                    self.count += 1
                    yield event
                elif not damaged:
                    # One fault may leave several pieces.
                    damaged = True
                    self.damaged += 1
                    yield event
            if not self.count:
                raise UserError(
                    f"{self.path} is not a timeline of Horovod; `HOROVOD_TIMELINE=FILE horovodrun ...` writes one"
                )

    def _pieces(self) -> Iterator[tuple[str, bool]]:
        """The file in pieces that end between two events, each with whether it is the last."""
        left, rest = self.bytes, b""
        for block in self._blocks():
            left -= len(block)
            rest += block
            tail = max(0, len(rest) - 4096)
            cut = max((match.end() for match in _NEXT.finditer(rest, tail)), default=0)
            if not cut and len(rest) > _LONGEST:
                cut = len(rest)
            if cut and left > 0:
                yield rest[:cut].decode(errors="replace"), False
                rest = rest[cut:]
        yield rest.decode(errors="replace"), True

    def _blocks(self) -> Iterator[bytes]:
        left = self.bytes
        try:
            with open(self.path, "rb") as file:
                while block := file.read(min(_BLOCK, left)):
                    left -= len(block)
                    yield block
        except OSError as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: OSError) -> UserError:
        return UserError(f"{self.path} cannot be read: {error.strerror}; give the file of HOROVOD_TIMELINE")

    def _other(self, text: str) -> Event:
        """Parse the name of a tensor, or an event that another program wrote."""
        try:
            event = json.loads(text)
            args = event.get("args", {})
            if event["ph"] == "M":
                if "start_time_since_epoch_in_micros" in args:
                    self.start = args["start_time_since_epoch_in_micros"] / 1e6
                return "M", str(args.get("name", "")), 0, int(event["pid"]), ""
            rest = json.dumps(args)[1:-1] if args else ""
            time, tensor = int(event["ts"]), int(event.get("pid", -1))
            if max(abs(time), abs(tensor)) > _MOST:
                return _DAMAGED
            return str(event["ph"]), str(event.get("name", "")), time, tensor, rest
        except (ValueError, OverflowError, TypeError, KeyError, AttributeError, RecursionError):
            return _DAMAGED
