"""A study is a folder: the scan's settings, and a run folder for each trial. Whoever looks at a scan reads it.

scan.json            what is searched, and by what command; it does not change, except for the number of trials
board.json           trials that may be started, and those that shall stop: the writer's word to all scan processes
owner.lock           the writer: the one scan process that asks Optuna
best.keras, best.json   the best model so far, and the trial that it comes from
members/ID/          a scan process: owner.lock while it lives, member.json, and trials.jsonl, a line each time that it
                     ran a trial
trials/00017/        a run folder, with four more kinds of files:
  trial.json         the values of the trial, and what came of it; of the writer
  claim-1            who runs it: the first to make this file. When that one has ended, the next makes claim-2
  result-1.json      how that ended; of the one that ran it
  log.txt            what it printed

Nothing is ever locked but by the existence of a file, and each file has one writer: NFS and Lustre do that well.
"""

import dataclasses
import json
import re
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hpc_train.errors import UserError
from hpc_train.files.json_file import parse, read_json, write_json
from hpc_train.files.whole import NotWritten, append_line, create_once, writing

SETTINGS = "scan.json"
OPEN, COMPLETE, PRUNED, FAILED = "open", "complete", "pruned", "failed"
# What a result says: the trial has ended; it may be started again; it ended by a signal that nobody of the scan sent.
DONE, WRONG, STOPPED, KILLED = "done", "failed", "stopped", "killed"
_FORMAT = 1
_NOTE = {"slot": int, "trial": int, "began": float, "prepared": float | None, "ended": float}
# What a study keeps, by the option that names it.
_KEPT = {
    "trainer": "the trainer",
    "options": "the options after `--`",
    "space": "--space",
    "search": "--search",
    "prune": "--prune",
    "prune_after": "--prune-after",
    "objective": "--objective",
    "direction": "--objective",
    "seed": "--seed",
    "ranks_per_trial": "--ranks-per-trial",
    "launcher": "--launcher",
}


@dataclass(frozen=True)
class Settings:
    """What a study searches; the same for all scan processes that work on it."""

    trainer: str
    options: list[str]
    space: list[str]
    search: Literal["tpe", "random", "grid", "cmaes"]
    prune: Literal["none", "asha", "hyperband", "median"]
    objective: str
    direction: Literal["max", "min"]
    seed: int
    ranks_per_trial: int
    folder: str
    """Where the scan was started: paths in the options are relative to it."""
    trials: int
    """Of all; this number alone may grow."""
    prune_after: int = 1
    launcher: str = ""
    """Command that starts the ranks of a trial, with {np} in it."""
    version: str = ""
    format: int = _FORMAT

    def check_same(self, path: Path, given: "Settings") -> None:
        """Compare what the study in `path` searches with what a command line gives.

        Raises:
            UserError: it is something else.
        """
        for name, option in _KEPT.items():
            before, now = getattr(self, name), getattr(given, name)
            if before != now:
                before, now = (shlex.join(one) if isinstance(one, list) else one for one in (before, now))
                raise UserError(
                    f"{path}: {option} was {before} and is now {now}; a study keeps it: name another folder, or "
                    f"continue with `hpc-train scan {path}` alone"
                )

    def better(self, value: float, best: float | None) -> bool:
        """Whether one value of the objective is better than another."""
        if best is None or best != best:
            return value == value
        return value > best if self.direction == "max" else value < best


@dataclass
class Trial:
    """A trial: its values, and what came of it.

    Args:
        folder: its run folder.
        number: of the trial, from 0.
        params: values by the names of the space; of a function's space, by the names that it gave to Optuna.
        words: the same as words of the trainer's command line.
        distributions: by the names of `params`, as Optuna writes them.
        told_before: how many trials had an outcome when this one was made.
        state: open, complete, pruned or failed.
        value: of the objective, the best of all epochs.
        epoch: of that value.
        reason: why it failed.
        told: how many trials had an outcome before this one.
        since: the claim from which its starts count: the first, or that of the last retry.
    """

    folder: Path
    number: int
    params: dict[str, Any]
    words: list[str]
    distributions: dict[str, str]
    told_before: int
    state: str = OPEN
    value: float | None = None
    epoch: int | None = None
    reason: str = ""
    told: int | None = None
    since: int = 1

    def curve(self, objective: str) -> list[tuple[int, float]]:
        """(epoch, value) of the objective in validation, for the epochs that have ended.

        Raises:
            UserError: its metrics are damaged, or have no such value.
        """
        from hpc_train.training.run_folder import Run

        name, found = f"val_{objective}", []
        for line in Run(self.folder).metrics():
            if name not in line:
                there = ", ".join(key.removeprefix("val_") for key in line if key.startswith("val_"))
                raise UserError(f"validation reports no {objective}; it reports {there or 'nothing'}")
            found.append((line["epoch"], line[name]))
        return found


@dataclass(frozen=True)
class Claim:
    """Who runs a trial for the how-manieth time.

    Args:
        member: the scan process.
        newest: name of the trial's newest checkpoint at that time.
    """

    member: str
    newest: str = ""


@dataclass
class Board:
    """What the writer tells all scan processes.

    Args:
        open: trials that may be started or run now, each with the number of its next claim.
        stop: trials that are pruned.
        over: there is nothing left to do.
        failed: why the scan ends early.
    """

    open: dict[int, int] = field(default_factory=dict)
    stop: list[int] = field(default_factory=list)
    over: bool = False
    failed: str = ""


class Study:
    """The folder of a study."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.members = self.path / "members"
        self._trials = self.path / "trials"
        self._settings = self.path / SETTINGS
        self._board = self.path / "board.json"

    @classmethod
    def open(cls, path: Path) -> "Study":
        """The study in an existing folder.

        Raises:
            UserError: there is none.
        """
        study = cls(path)
        if not study.exists():
            raise UserError(f"{path} is no study (it has no {SETTINGS}); give the folder that `hpc-train scan` made")
        return study

    def exists(self) -> bool:
        """Whether the folder holds a study."""
        return self._settings.is_file()

    def settings(self) -> Settings:
        """What the study searches.

        Raises:
            UserError: scan.json is damaged, or of a later version.
        """
        kinds = {one.name: one.type for one in dataclasses.fields(Settings) if one.name != "version"}
        held = read_json(self._settings, kinds, "start a new study")
        if held["format"] != _FORMAT:
            raise UserError(f"{self._settings}: format {held['format']}, and this version reads {_FORMAT}; update it")
        return Settings(**{name: held[name] for name in Settings.__dataclass_fields__ if name in held})

    def make(self) -> None:
        """Make the folder, if there is none.

        Raises:
            NotWritten: it cannot be made.
        """
        self._make(self._trials)

    def write_settings(self, settings: Settings) -> None:
        """Write scan.json."""
        write_json(self._settings, dataclasses.asdict(settings))

    def board(self) -> Board:
        """What the writer said last."""
        if not self._board.exists():
            return Board()
        kinds = {"open": dict[str, int], "stop": list[int], "over": bool, "failed": str}
        held = read_json(self._board, kinds, f"remove it: the next `hpc-train scan {self.path}` writes it anew")
        return Board({int(number): turn for number, turn in held.pop("open").items()}, **held)

    def write_board(self, board: Board) -> None:
        """Tell all scan processes."""
        write_json(self._board, dataclasses.asdict(board))

    def folder(self, number: int) -> Path:
        """The run folder of a trial."""
        return self._trials / f"{number:05}"

    def numbers(self) -> list[int]:
        """The numbers of all trials."""
        # A folder without it is of a trial that was being made.
        names = (path.parent.name for path in self._trials.glob("*/trial.json"))
        return sorted(int(name) for name in names if re.fullmatch(r"\d{5,}", name))

    def trials(self) -> list[Trial]:
        """All trials, by their numbers.

        Raises:
            UserError: a trial.json is damaged.
        """
        return [self.trial(number) for number in self.numbers()]

    def trial(self, number: int) -> Trial:
        """One trial.

        Raises:
            UserError: its trial.json is damaged.
        """
        kinds = {one.name: one.type for one in dataclasses.fields(Trial) if one.name != "folder"}
        folder = self.folder(number)
        remedy = "put back what the scan wrote, or start a new study"
        held = read_json(folder / "trial.json", kinds, remedy)
        return Trial(folder, **{name: held[name] for name in kinds})

    def write_trial(self, trial: Trial) -> None:
        """Write trial.json."""
        self._make(trial.folder)
        record = dataclasses.asdict(trial)
        del record["folder"]
        write_json(trial.folder / "trial.json", record)

    def claim(self, number: int, turn: int, member: str) -> bool:
        """Take a trial; of several processes one succeeds.

        Raises:
            NotWritten: the file system refuses.
        """
        path = self._claim(number, turn)
        newest = max((one.name for one in path.parent.glob("checkpoints/step-*.h5")), default="")
        with writing(path):
            made = create_once(path, json.dumps({"member": member, "newest": newest}))
        # NFS may say that there was such a file although it was this process that made it.
        return made or getattr(self.claimed(number, turn), "member", "") == member

    def claimed(self, number: int, turn: int) -> Claim | None:
        """Who has taken a trial; None for nobody, and a claim of nobody where it is damaged, or half written yet."""
        try:
            held = json.loads(self._claim(number, turn).read_bytes())
            return Claim(str(held["member"]), str(held["newest"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            return Claim("")

    def turns(self, number: int) -> int:
        """The number of the last claim of a trial; 0 if there is none."""
        names = (re.fullmatch(r"claim-(\d+)", path.name) for path in self.folder(number).glob("claim-*"))
        return max((int(name[1]) for name in names if name), default=0)

    def result(self, number: int, turn: int) -> tuple[str, str] | None:
        """(how it ended, why) of one claim; None while there is no result."""
        path = self.folder(number) / f"result-{turn}.json"
        if not path.exists():
            return None
        try:
            held = read_json(path, {"ended": str, "reason": str}, "")
        except UserError:
            # Started again, the trial finds in its run folder what is done.
            return STOPPED, "its result is damaged"
        return held["ended"], held["reason"]

    def write_result(self, number: int, turn: int, ended: str, reason: str) -> None:
        """Tell the writer how a trial ended."""
        write_json(self.folder(number) / f"result-{turn}.json", {"ended": ended, "reason": reason})

    def best(self) -> dict | None:
        """The content of best.json: number, value, epoch, params and the command that trains it again."""
        path = self.path / "best.json"
        return read_json(path, {"number": int, "value": float}, "remove it") if path.exists() else None

    def join(self, member: str, slots: int) -> Path:
        """Make the folder of a scan process, and return it."""
        folder = self.members / member
        self._make(folder)
        write_json(folder / "member.json", {"slots": slots, "began": time.time()})
        return folder

    def slots(self, member: str) -> int:
        """How many trials a scan process runs at once; 0 where it does not say."""
        try:
            return read_json(self.members / member / "member.json", {"slots": int}, "")["slots"]
        except (UserError, KeyError):
            return 0

    def imported(self, member: str, seconds: float | None = None) -> float | None:
        """How long a scan process has imported TensorFlow, written where it is given; None where it does not say."""
        path = self.members / member / "import.json"
        if seconds is not None:
            write_json(path, {"seconds": seconds})
        try:
            return read_json(path, {"seconds": float}, "")["seconds"] if path.exists() else None
        except (UserError, KeyError):
            return None

    def note(self, member: str, **values) -> None:
        """Add a line to trials.jsonl of a scan process."""
        append_line(self.members / member / "trials.jsonl", json.dumps(values))

    def notes(self) -> dict[str, list[dict]]:
        """The lines of trials.jsonl of all scan processes; damaged ones are left out."""
        found = {}
        for path in sorted(self.members.glob("*/trials.jsonl")):
            found[path.parent.name] = []
            for text in path.read_text(errors="replace").splitlines():
                try:
                    found[path.parent.name].append(parse(text, "", _NOTE, ""))
                except UserError:
                    continue
        return found

    def _claim(self, number: int, turn: int) -> Path:
        return self.folder(number) / f"claim-{turn}"

    def _make(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise NotWritten(f"cannot make the folder {folder}: {error.strerror}; name another study") from error


def best_of(trials: list[Trial], settings: Settings) -> Trial | None:
    """The complete trial with the best value, the first of several; None if there is none."""
    best = None
    for trial in trials:
        if trial.state == COMPLETE and trial.value is not None and settings.better(trial.value, best and best.value):
            best = trial
    return best
