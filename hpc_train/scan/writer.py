"""The writer of a study: the one scan process that asks Optuna for trials and tells it what came of them."""

import math
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from hpc_train.errors import UserError
from hpc_train.files.json_file import write_json
from hpc_train.files.whole import atomic_path
from hpc_train.scan.hparams import write_experiment, write_session
from hpc_train.scan.search import Search
from hpc_train.scan.show import describe
from hpc_train.scan.space import Space
from hpc_train.scan.study import (
    COMPLETE,
    DONE,
    FAILED,
    OPEN,
    PRUNED,
    STOPPED,
    WRONG,
    Board,
    Settings,
    Study,
    Trial,
    best_of,
)
from hpc_train.scan.trainer import Trainer, again
from hpc_train.training.ownership import NAME, Lock, Watch, read_owner

# Starts of a trial without a newer checkpoint, each ended by a signal or with its scan process, until it has failed.
_STARTS = 5
# Failed trials at the beginning, when none has succeeded, that end the scan: the same would happen to all others.
_FIRST = 3
# Seconds between two looks at other scan processes and what they run, for so many open trials.
_LOOK, _AT_ONCE = 2.0, 200
# Seconds after which a claim that cannot be read is one of a process that has ended.
_DAMAGED = 60.0


class Writer:
    """Makes trials, and settles those that have ended.

    Args:
        study: the folder.
        settings: of the study.
        space: of the study.
        trainer: of the study.
        lock: of the study, held by this process.
        member: name of this scan process.
        slots: of this scan process.
        say: called with a line for each trial that has ended.
        retry: open the trials again that have failed.
        stop: trials that an earlier writer has given up.

    Raises:
        UserError: the study is damaged, or Optuna is missing.
    """

    def __init__(
        self,
        study: Study,
        settings: Settings,
        space: Space,
        trainer: Trainer,
        lock: Lock,
        member: str,
        slots: int,
        say: Callable[[str], None],
        retry: bool = False,
        stop: Sequence[int] = (),
    ):
        self.study, self.settings, self.trainer, self.lock = study, settings, trainer, lock
        self.member, self.slots, self.say = member, slots, say
        self.trials = study.trials()
        _check_row(self.trials)
        if retry:
            self._retry()
        self.search = Search(settings, space, self.trials)
        self.total = min(settings.trials, len(self.search.points) or settings.trials)
        self.board = Board(stop=list(stop))
        self._claimed: dict[int, str] = {}
        self._read: dict[int, int] = {}
        self._watches: dict[str, Watch] = {}
        self._others: dict[str, int] = {}
        self._looked = -math.inf
        self._unread: dict[int, float] = {}
        self._published: str = ""
        self._shown: dict = {}
        for trial in self.trials:
            if trial.state == OPEN:
                self.board.open[trial.number] = max(trial.since, study.turns(trial.number))
        self.board.stop = [number for number in self.board.stop if number in self.board.open]
        self._keep_best()

    def step(self) -> None:
        """Settle what has ended, make new trials, and tell all scan processes.

        Raises:
            UserError: another process has become the writer, or nothing can be written.
        """
        everywhere = self._look_at_others()
        for number in list(self.board.open):
            if everywhere or self._claimed.get(number) == self.member:
                self._look_at(self.trials[number])
        while len(self.trials) < self.total and len(self.board.open) < self._wanted() and not self.board.failed:
            self._make()
        self.board.over = not self.board.open and (len(self.trials) >= self.total or bool(self.board.failed))
        if (said := repr(self.board)) != self._published:
            self.lock.check()
            self.study.write_board(self.board)
            self._published = said

    def _retry(self) -> None:
        """Open the trials that have failed."""
        for trial in self.trials:
            if trial.state == FAILED:
                trial.state, trial.reason, trial.told = OPEN, "", None
                trial.since = self.study.turns(trial.number) + 1
                self.study.write_trial(trial)

    def _wanted(self) -> int:
        """How many trials shall be open: one for each slot here, two for each elsewhere, which hear of them later."""
        return self.slots + 2 * sum(self._others.values())

    def _make(self) -> None:
        number = len(self.trials)
        params, values = self.search.ask()
        words = self.trainer.trial_words(values)
        distributions = self.search.written(number)
        trial = Trial(self.study.folder(number), number, params, words, distributions, self.search.told)
        self.lock.check()
        if (trial.folder / "trial.json").exists():
            raise UserError(f"{trial.folder} was made by another scan process: give the same command again")
        self.study.write_trial(trial)
        self.trials.append(trial)
        self.board.open[number] = 1
        self._show_in_tensorboard(trial)

    def _look_at(self, trial: Trial) -> None:
        number, turn = trial.number, self.board.open[trial.number]
        if number not in self._claimed:
            claim = self.study.claimed(number, turn)
            if not claim or not (claim.member or self._is_damaged(number)):
                return
            self.taken(number, claim.member)
        gone = not self._lives(self._claimed[number])
        if not (result := self.study.result(number, turn)):
            if gone:
                self._start_again(trial, "its scan process has ended")
            elif self.settings.prune != "none":
                self._prune(trial)
            return
        ended, reason = result
        if ended == DONE:
            self._complete(trial)
        elif ended == WRONG:
            self._settle(trial, FAILED, reason)
        elif ended == STOPPED and number in self.board.stop:
            self._settle(trial, PRUNED, "")
        else:
            self._start_again(trial, "" if ended == STOPPED else reason)

    def taken(self, number: int, member: str) -> None:
        """Note which scan process runs a trial."""
        self._claimed[number] = member
        self._unread.pop(number, None)

    def _is_damaged(self, number: int) -> bool:
        return time.monotonic() - self._unread.setdefault(number, time.monotonic()) > _DAMAGED

    def _prune(self, trial: Trial) -> None:
        """Read the epochs that a running trial has ended, and give it up if it does not deserve more."""
        file = trial.folder / "metrics.jsonl"
        size = file.stat().st_size if file.exists() else 0
        if trial.number in self.board.stop or self._read.get(trial.number) == size:
            return
        self._read[trial.number] = size
        # Its own end will tell what is wrong with its metrics.
        with suppress(UserError):
            if self.search.report(trial.number, trial.curve(self.settings.objective)):
                self.board.stop.append(trial.number)

    def _complete(self, trial: Trial) -> None:
        try:
            curve = trial.curve(self.settings.objective)
        except UserError as error:
            self._settle(trial, FAILED, str(error))
            return
        self._take_best(trial, curve)
        if trial.value is None:
            self._settle(trial, FAILED, f"its {self.settings.objective} was never a number")
            return
        if self.settings.prune != "none":
            self.search.report(trial.number, curve)
        self._settle(trial, COMPLETE, "")

    def _take_best(self, trial: Trial, curve: list[tuple[int, float]]) -> None:
        for epoch, value in curve:
            if self.settings.better(value, trial.value):
                trial.value, trial.epoch = value, epoch

    def _settle(self, trial: Trial, state: str, reason: str) -> None:
        if state == PRUNED:
            # Nothing follows from its value.
            with suppress(UserError):
                self._take_best(trial, trial.curve(self.settings.objective))
        trial.state, trial.reason = state, reason
        trial.told = self.search.tell(trial.number, state, trial.value)
        self.lock.check()
        self.study.write_trial(trial)
        self._forget(trial.number)
        self._show_in_tensorboard(trial)
        if state == COMPLETE:
            self._keep_best()
        self.say(describe(trial, self.settings))
        states = [one.state for one in self.trials]
        if states.count(FAILED) >= min(self.total, max(_FIRST, self.slots)) and not {COMPLETE, PRUNED} & set(states):
            self.board.failed = (
                f"the first {states.count(FAILED)} trials have failed, this one so: {reason}; read "
                f"{trial.folder / 'log.txt'}, fix it, and give the same command with --retry, or start a new study"
            )

    def _show_in_tensorboard(self, trial: Trial) -> None:
        """Write a trial's values, and how it ended, for the tab HPARAMS."""
        own = self.search.distributions_of(trial.number)
        if not own.items() <= self._shown.items():
            # A function's space is known by its trials only.
            self._shown |= own
            write_experiment(self.study.path, self._shown, self.settings.objective, self.settings.direction)
        write_session(trial.folder, trial.number, trial.params, trial.state, own)

    def _start_again(self, trial: Trial, reason: str) -> None:
        number, turn = trial.number, self.board.open[trial.number]
        claims = [self.study.claimed(number, one) for one in range(trial.since, turn + 1)]
        newest = max((path.name for path in trial.folder.glob("checkpoints/step-*.h5")), default="")
        starts = sum(claim is not None and claim.newest == newest for claim in claims)
        if reason and starts >= _STARTS:
            self._settle(trial, FAILED, f"started {starts} times without a newer checkpoint: {reason}")
            return
        self._forget(number)
        self.board.open[number] = turn + 1

    def _forget(self, number: int) -> None:
        del self.board.open[number]
        self._claimed.pop(number, None)
        if number in self.board.stop:
            self.board.stop.remove(number)

    def _lives(self, member: str) -> bool:
        if member == self.member or member in self._others:
            return True
        # A list of a folder may be old where it is shared, by NFS for example; a file that is opened is not.
        found = read_owner(self.study.members / member / NAME)
        if not found or self._watch(member).ended(*found):
            return False
        self._others[member] = self.study.slots(member)
        return True

    def _watch(self, member: str) -> Watch:
        return self._watches.setdefault(member, Watch(self.lock.owner))

    def _look_at_others(self) -> bool:
        """Find out which other scan processes live; returns whether it is time to look at what they run."""
        if time.monotonic() - self._looked < _LOOK * max(1.0, len(self.board.open) / _AT_ONCE):
            return False
        self._looked = time.monotonic()
        alive = {}
        for folder in self.study.members.iterdir():
            if folder.name == self.member or not (found := read_owner(folder / NAME)):
                continue
            if not self._watch(folder.name).ended(*found):
                alive[folder.name] = self.study.slots(folder.name)
                continue
            with suppress(OSError):
                (folder / NAME).unlink()
        self._others = alive
        return True

    def _keep_best(self) -> None:
        """Copy the model of the best trial to where users look for it."""
        best = best_of(self.trials, self.settings)
        before = self.study.best()
        if best is None or (before and (before["number"], before["value"]) == (best.number, best.value)):
            return
        model = best.folder / "best.keras"
        # Trials of scripts may have none.
        (self.study.path / "best.keras").unlink(missing_ok=True)
        if model.is_file():
            with atomic_path(self.study.path / "best.keras", needed=model.stat().st_size) as temporary:
                shutil.copyfile(model, temporary)
        found = {"number": best.number, "value": best.value, "epoch": best.epoch, "params": best.params}
        write_json(self.study.path / "best.json", {**found, "command": again(self.settings, best.words)})


def _check_row(trials: list[Trial]) -> None:
    for place, trial in enumerate(trials):
        if trial.number != place:
            raise UserError(
                f"{trial.folder.parent}: trial {place} is missing; put its folder back, or start a new study"
            )
