"""A thread that notices when nothing moves on any rank: every rank that lives then writes where it stands, one prints
what holds the job up, and the job ends.

While the ranks can exchange numbers, each tells the others how long it may still go without a movement, by its phase:
the rank with the longest patience counts, so nobody takes another's checkpoint for a hang. When they can no longer, the
last word holds, unless a step has ended since. Whole jobs that are stopped and continued do not count: the thread
itself has stood still then.
"""

import json
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from hpc_train.console import HEARD, say
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path
from hpc_train.watch import neighbours, stacks, witness
from hpc_train.watch.guard import NOTE
from hpc_train.watch.neighbours import BLOCKED, STOPPED, Member
from hpc_train.watch.record import EPOCH_END, LEAST, RECORD, START, WITHOUT_END
from hpc_train.watch.standing import agrees, own_lines, place, read_lines, standing
from hpc_train.watch.verdict import paragraph

# For scripts; trainers have an option.
_AFTER = "HPC_TRAIN_HANG_AFTER"
# Seconds between two looks, and a gap between two that only a process makes that was stopped.
_LOOK, _SUSPENDED = 1.0, 5.0
# Seconds for which records are waited for, and after which a report that storage holds up is given up.
_RECORDS, _NATIVE, _LAST = 6.0, 30.0, 70.0
_ELSEWHERE, _POLL = 6.0, 0.5


class Hang:
    """Watches over this process, once it has begun.

    `folder` takes the reports, `hint` says how to go on, `after` is the user's limit in seconds for steps, or None, and
    `what` follows a report: "end" of the job, or nothing ("dump"); with "off" there is none. `members` are the
    processes of all ranks, once it has begun.
    """

    def __init__(self) -> None:
        self.folder = Path("hang")
        self.hint = ""
        self.after: float | None = None
        self.what = "end"
        self._rank, self._job, self._reports = 0, "", 0
        self.members: Sequence[Member] = ()
        self._allowed: float | None = None
        self._heard = self._heard_at = self._looked = 0.0
        self._tensors: Callable[[], list[str] | None] = lambda: None
        self._thread: threading.Thread | None = None
        self._told: float | None = None
        self._expected = 0.0
        self._change = threading.Lock()
        self._end_after: Callable[[float], None] = lambda seconds: None

    def begin(
        self,
        rank: int,
        members: Sequence[Member],
        job: str,
        tensors: Callable[[], list[str] | None],
        end_after: Callable[[float], None],
    ) -> None:
        """Begin to watch.

        Args:
            rank: of this process.
            members: the processes of all ranks, by rank.
            job: a name for the job's folder in `folder`, the same on all ranks.
            tensors: gives the names of the tensors that wait for other ranks, or None where that is not known.
            end_after: ends this process by SIGXCPU after so many seconds, unless it is called again; 0 takes it back.
        """
        self._rank, self.members, self._job, self._tensors = rank, members, job, tensors
        self._end_after = end_after
        if self._thread is None or not self._thread.is_alive():
            stacks.print_at_end()
            self._looked = time.monotonic()
            self._thread = threading.Thread(target=self._run, name="hpc-train-hang", daemon=True)
            self._thread.start()

    def report_in(self, folder: Path) -> None:
        """Write reports into this folder, and tell the guard of this rank of it, once the watch has begun."""
        self.folder = folder
        NOTE.add(rank=str(self._rank), reports=str(folder / self._job))

    def left(self) -> float:
        """Seconds for which this rank may still go without a movement."""
        if RECORD.phase == START or self.what == "off" or self.after == 0:
            # Outside `fit` a script does what it likes, and cannot say what that is.
            return math.inf
        limit = RECORD.limit(self.after)
        if RECORD.phase == EPOCH_END and standing() is not None:
            # It waits for others, whose own patience counts.
            limit = self.after or LEAST
        # After a stop of this process time goes on when the thread has seen it: others may be told before.
        return limit - (min(time.monotonic(), self._looked + _LOOK) - RECORD.since)

    def allow(self, seconds: float | None, asked: float | None = None) -> None:
        """Take the longest `left` of all ranks.

        Args:
            seconds: of the rank with the longest; None where the ranks no longer tell each other.
            asked: when this rank gave its own, by `time.monotonic`; now by default.
        """
        now = time.monotonic()
        asked = now if asked is None else asked
        with self._change:
            before = self._allowed if asked < self._expected else None
            self._heard = asked
            # From now on, not from `asked`: in between the whole job may have been stopped.
            self._allowed = None if seconds is None else max(now + seconds, before or 0.0)
            self._heard_at = now

    def expect(self) -> None:
        """Every rank knows that another one begins what may take long, even if that one has no time to say so."""
        self._arm(WITHOUT_END)
        if self._allowed is not None:
            self._expected = time.monotonic()
            self.allow(WITHOUT_END)

    def _arm(self, left: float) -> None:
        armed = self.what == "end" and left < math.inf
        self._end_after(max(left, 0.0) + _LAST + 2 * _SUSPENDED if armed else 0)

    def _run(self) -> None:
        try:
            while True:
                time.sleep(_LOOK)
                NOTE.beat()
                self._look()
                # A report that took long is no stop.
                self._looked = time.monotonic()
        except Exception as error:
            # A training that goes well must not end by its watch.
            self._end_after(0)
            NOTE.beat(False)
            self._looked = math.inf
            say(f"note: hangs are no longer looked for: {type(error).__name__}: {error}", sys.stderr)

    def _look(self) -> None:
        now = time.monotonic()
        gap = now - self._looked
        if gap > _SUSPENDED:
            # This process was stopped.
            RECORD.since = min(RECORD.since + gap, now)
            with self._change:
                if self._allowed is not None and self._heard_at <= self._looked:
                    self._allowed += gap
        self._looked = now
        RECORD.look()
        left = self.left()
        if left == math.inf:
            self._arm(left)
            return
        if (allowed := self._allowed) is None:
            if len(self.members) > 1:
                # Another rank may do what takes long, and cannot say so.
                left = max(left, WITHOUT_END - (now - RECORD.since))
        # A whole step of training since then says that all ranks were in it.
        elif RECORD.stepped < self._heard:
            left = max(left, allowed - now)
        self._arm(left)
        if left <= 0 and self._told != RECORD.since:
            self._told = RECORD.since
            self._hangs(now - RECORD.since)

    def _hangs(self, seconds: float) -> None:
        """Write what is known here; the lowest rank that writes prints what all have written. Ends the process."""
        record: dict = {"step": RECORD.step, "phase": RECORD.phase}
        # What follows writes files and asks TensorFlow, and both may block.
        last = threading.Timer(_LAST + self._more(), self._give_up, (seconds, record))
        last.daemon = True
        last.start()
        self._reports += 1
        folder = self.folder / (self._job if self._reports == 1 else f"{self._job}-{self._reports}")
        reporter, written = True, False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with open(folder / f"rank-{self._rank}.txt", "w", encoding="utf-8") as file:
                # From here on this rank speaks for itself, and its guard need not look.
                NOTE.beat(False)
                stacks.write_python(file)
                record.update(self._mine(seconds))
                with atomic_path(folder / f"rank-{self._rank}.json") as path:
                    path.write_text(json.dumps(record, indent=1), "utf-8")
                reporter, written = self._report(folder, seconds), True
                last.cancel()
                if not record["operation"] or record["tensors"] == []:
                    # Of ranks that wait for others it shows no more.
                    file.write(f"\n{stacks.native()}")
            (folder / f"rank-{self._rank}.done").touch()
        except Exception as error:
            if not written:
                self._print(f"{self._in_short(record)}, and its report could not be written: {error}", seconds)
                stacks.write_python(sys.stderr)
        last.cancel()
        if self.what == "end":
            self._end(folder, reporter, written)

    def _end(self, folder: Path, reporter: bool, written: bool) -> None:
        """End this process, and those of its node that cannot do so themselves."""
        # The launcher ends all ranks with the first one: until then each gets time for its stacks.
        with suppress(OSError):
            if written:
                _wait(lambda: self._all_written(folder) if reporter else (folder / "over").exists(), _NATIVE)
            (folder / "over").touch()
        time.sleep(HEARD)
        others = [one for one in self.members if one.rank != self._rank]
        states = neighbours.states(others)
        silent = [one for one in others if one.rank in states and not (folder / f"rank-{one.rank}.json").exists()]
        neighbours.end([one for one in silent if written or states[one.rank] in (STOPPED, BLOCKED)])
        os._exit(1)

    def _more(self) -> float:
        """Seconds that more ranks need to write and one needs to read their files."""
        return len(self.members) / 200

    def _mine(self, seconds: float) -> dict:
        now = standing()
        return {
            "rank": self._rank,
            "host": self.members[self._rank].host,
            "pid": os.getpid(),
            "phase": RECORD.phase,
            "step": RECORD.step,
            "epoch": RECORD.epoch,
            "seconds": round(seconds, 1),
            "operation": now.operation if now else "the agreement on a stop" if agrees() else None,
            "place": place(),
            "own": own_lines(),
            "reads": read_lines(),
            "tensors": self._tensors(),
            "processes": {
                str(rank): state for rank, state in neighbours.states(self.members).items() if rank != self._rank
            },
            "history": list(RECORD.history),
        }

    def _report(self, folder: Path, seconds: float) -> bool:
        """Read all records and print what they say, if no lower rank does so; whether this rank has printed."""
        said = folder / "report.txt"
        if self._rank:
            # One rank reads the folder, as there may be very many.
            _wait(said.exists, _RECORDS + _ELSEWHERE + 3 * _POLL + self._more())
        else:
            _wait(lambda: len(_records(folder)) == len(self.members), _RECORDS + self._more() / 2)
            hosts = {self.members[number].host for number in _spoken(folder)}
            if hosts != {one.host for one in self.members}:
                # Other hosts may see files later, as NFS does.
                _wait(lambda: len(_spoken(folder)) == len(self.members), _ELSEWHERE)
        numbers = [] if said.exists() else _records(folder)
        if not numbers or self._rank != min(numbers):
            return False
        found = {}
        for number in numbers:
            with suppress(ValueError, OSError):
                found[number] = json.loads((folder / f"rank-{number}.json").read_text("utf-8"))
        cause = paragraph(found, self.members, witness.read(folder))
        text = self._print(cause, seconds, f"; stacks and records are in {folder}")
        with atomic_path(said) as path:
            path.write_text(f"{text}\n", "utf-8")
        return True

    def _all_written(self, folder: Path) -> bool:
        return len(list(folder.glob("rank-*.done"))) >= len(_records(folder))

    def _in_short(self, record: dict) -> str:
        return f"rank {self._rank} is in the phase {record['phase']} of step {record['step']}"

    def _print(self, cause: str, seconds: float, more: str = "") -> str:
        hint = f"; {self.hint}" if self.hint and self.what == "end" else ""
        text = str(UserError(f"nothing has moved for {seconds:.0f} s: {cause}{more}{hint}"))
        say(f"{'error' if self.what == 'end' else 'warning'}: {text}", sys.stderr)
        return text

    def _give_up(self, seconds: float, record: dict) -> None:
        self._print(f"{self._in_short(record)}, and its report in {self.folder} cannot be written", seconds)
        if self.what == "end":
            time.sleep(HEARD)
            stopped = [one for one in self.members if one.rank != self._rank]
            states = neighbours.states(stopped)
            neighbours.end([one for one in stopped if states.get(one.rank) in (STOPPED, BLOCKED)])
            os._exit(1)


def _records(folder: Path) -> list[int]:
    """The ranks that have written their records."""
    # Of a folder in which this host has changed something, NFS looks for what others have.
    with suppress(OSError):
        (folder / ".look").touch()
        (folder / ".look").unlink(missing_ok=True)
    return [int(path.stem.removeprefix("rank-")) for path in folder.glob("rank-*.json")]


def _spoken(folder: Path) -> set[int]:
    """The ranks that have written their records, or whose guards have written of them."""
    return {*_records(folder), *witness.ranks(folder)}


def after_of_environment() -> float | None:
    """What a user gave for scripts: seconds, 0 to look for no hangs, or None.

    Raises:
        UserError: it is no number.
    """
    text = os.environ.get(_AFTER)
    if not text:
        return None
    if not text.isdecimal():
        raise UserError(f"{_AFTER} is {text!r}; give whole seconds, or 0 to look for no hangs")
    return float(text)


def _wait(true: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(_POLL)


# Of this process.
HANG = Hang()
