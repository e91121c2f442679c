"""A scan process: it runs trials in the slots of its node, and is the writer of the study while no other one is."""

import contextlib
import os
import select
import signal
import socket
import time
from dataclasses import replace
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.files.whole import writing
from hpc_train.scan.crew import Crew, Running, described, slots
from hpc_train.scan.show import Progress, table
from hpc_train.scan.space import Space
from hpc_train.scan.study import DONE, STOPPED, Board, Settings, Study
from hpc_train.scan.trainer import Trainer, launched
from hpc_train.scan.writer import Writer
from hpc_train.training.ownership import NAME, Lock, Owner, read_owner, warn_of_others
from hpc_train.training.stopping import UNFINISHED

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
# Seconds between two looks at what others wrote, and those that a scan that may not join waits for the writer to end.
_LOOK, _PATIENCE = 0.5, 15.0


class Process:
    """Works on a study until it is over, or this process is asked to stop.

    Args:
        study: the folder.
        settings: of the study.
        space: of the study.
        trainer: of the study.
        at_once: trials at once on this node; 0 for as many as fit.
        join: whether another process may be the writer.
        retry: whether failed trials are opened again.
    """

    def __init__(
        self,
        study: Study,
        settings: Settings,
        space: Space,
        trainer: Trainer,
        at_once: int,
        join: bool,
        retry: bool,
    ):
        self.study, self.settings, self.space, self.trainer = study, settings, space, trainer
        self.slots = slots(settings.ranks_per_trial, at_once)
        self.join, self.retry = join, retry
        self.writer: Writer | None = None
        self.name = f"{socket.gethostname().partition('.')[0]}-{os.getpid()}-{time.time_ns() // 1_000_000:x}"
        self._heard: list[int] = []
        self._since, self._imported, self._waits, self._ran = 0.0, False, False, 0
        self._looked = self._tried = -_LOOK
        self._board = Board()
        self._taken: set[tuple[int, int]] = set()

    def run(self) -> None:
        """Work until the study is over.

        Raises:
            UserError: the scan cannot go on; what is done is kept.
            SystemExit: with status 75, if it was asked to stop before the study was over.
        """
        self.progress = Progress(self.settings)
        try:
            self._run()
        except OSError as error:
            raise UserError(
                f"cannot work in {self.study.path}: {error.strerror or error}; name another study"
            ) from error

    def _run(self) -> None:
        self.study.make()
        warn_of_others(self.study.path, self.study.path / "trials")
        self.lock = Lock(self.study.path / NAME, Owner.this())
        while not self._write() and not (self.join and self.study.exists()):
            self._wait_for_writer()
        if not self.writer:
            if self.retry:
                raise UserError(
                    f"{self.study.path} is written by {self.lock.watch.owner}: give --retry when that has ended"
                )
            held = self.study.settings()
            held.check_same(self.study.path, self.settings)
            if self.settings.trials > held.trials:
                raise UserError(
                    f"{self.study.path} is written by {self.lock.watch.owner}, for {held.trials} trials: give --trials "
                    f"{self.settings.trials} when that has ended"
                )
        folder = self.study.join(self.name, len(self.slots))
        with writing(folder):
            self.own = Lock.take(folder)
        self.progress.say(f"{self.study.path}: {described(self.slots)}")
        if self._has_neighbour():
            self.progress.say(
                "note: another process of this scan runs on this machine, and takes its GPUs or cores too; --at-once "
                "shares them"
            )
        crew = Crew(self.slots, Path(self.settings.folder), folder / "nursery.log", launched(self.settings))
        try:
            with self._signals() as woken:
                self._work(crew, woken)
        finally:
            crew.close()
            self.own.release()
            if self.writer:
                self.lock.release()
        ran = f"{self.study.path} is over: {self._ran} trials ended on {socket.gethostname()}"
        for line in table(self.study, 3) if self.writer else [ran]:
            self.progress.say(line)

    def _work(self, crew: Crew, woken: int) -> None:
        while True:
            for one, how, why, status in crew.ended() if self._readable(crew, woken) else ():
                self._ended(one, how, why, status)
            if self._heard and not crew.running:
                self._end_early()
            board = self._look()
            if board.failed or (board.over and not crew.running):
                break
            for one in crew.running.values():
                if self._heard or one.number in board.stop:
                    crew.stop(one)
            if crew.ready and not self._heard:
                self._fill(crew, board)
            self._show(crew)
        if board.failed:
            raise UserError(board.failed)

    def _readable(self, crew: Crew, woken: int) -> bool:
        """Wait a moment for something to happen; returns whether a trial may have ended."""
        ready = select.select([crew.descriptor, woken], [], [], _LOOK)[0]
        if woken in ready:
            self._hear(os.read(woken, 64), crew)
        return crew.descriptor in ready

    def _hear(self, received: bytes, crew: Crew) -> None:
        new = [number for number in received if number in _SIGNALS]
        if new and self._heard and new[0] == signal.SIGINT and time.monotonic() - self._since > 1:
            raise KeyboardInterrupt("the last checkpoints are kept; the same command goes on")
        if new and not self._heard:
            self._since = time.monotonic()
            running = f"{len(crew.running)} trials stop at a checkpoint" if crew.running else "no trial runs"
            self.progress.say(f"stopping, by {signal.Signals(new[0]).name}: {running}")
        self._heard += new

    def _show(self, crew: Crew) -> None:
        if self.writer:
            self.progress.show(self.writer.trials, self.writer.total, len(crew.running))
        if crew.ready and not self._imported:
            self._imported = True
            self.study.imported(self.name, crew.import_seconds)

    def _look(self) -> Board:
        """Do what the writer does, if this process is it, and return what the writer says."""
        now = time.monotonic()
        if not self.writer and not self._heard and now - self._tried > 1:
            self._tried = now
            self._write()
        if self.writer:
            self.writer.step()
            return self.writer.board
        if now - self._looked >= _LOOK:
            self._looked, self._board = now, self.study.board()
        return self._board

    def _write(self) -> bool:
        """Become the writer, if there is none; returns whether this process is it."""
        if self.writer:
            return True
        with writing(self.lock.path):
            taken = self.lock.attempt()
        if taken:
            held = self.study.settings() if self.study.exists() else None
            if held and held.trials > self.settings.trials:
                # The writer before this one was asked for more.
                self.settings = replace(self.settings, trials=held.trials)
            settings = self.settings
            if held != settings:
                self.study.write_settings(settings)
            stop = self.study.board().stop
            # What an earlier writer said last, such as that all is over, holds no more.
            self.study.write_board(Board())
            own = (self.lock, self.name, len(self.slots), self.progress.say, self.retry, stop)
            self.writer = Writer(self.study, settings, self.space, self.trainer, *own)
            self.retry = False
        return self.writer is not None

    def _wait_for_writer(self) -> None:
        watch = self.lock.watch
        if not self.join and watch.lives and watch.seconds > _PATIENCE:
            raise UserError(
                f"{self.study.path} is being written by {watch.owner}; add --join to work on it too, or wait for that"
            )
        if watch.owner and not self._waits:
            self._waits = True
            self.progress.say(f"{self.study.path} belongs to {watch.owner}: waiting for it to end")
        time.sleep(_LOOK)

    def _fill(self, crew: Crew, board: Board) -> None:
        """Start trials that nobody runs, in the free slots."""
        free = crew.free()
        for number, turn in sorted(board.open.items()):
            if not free:
                return
            if (number, turn) in self._taken or number in board.stop:
                continue
            self._check_own()
            self._taken.add((number, turn))
            if not self.study.claimed(number, turn) and self.study.claim(number, turn, self.name):
                if self.writer:
                    self.writer.taken(number, self.name)
                trial = self.study.trial(number)
                monitor = f"{self.settings.objective}:{self.settings.direction}"
                words = self.trainer.command(trial.words, trial.folder.absolute(), monitor)
                crew.begin(trial, turn, free.pop(0), self.trainer.program, words)

    def _has_neighbour(self) -> bool:
        """Whether another process of the scan runs on this machine."""
        found = [read_owner(path) for path in self.study.members.glob(f"*/{NAME}") if path != self.own.path]
        return any(one[0].here() and one[0].runs() for one in found if one)

    def _check_own(self) -> None:
        """Make sure that the writer does not take this process for one that has ended."""
        found = read_owner(self.own.path)
        if found is None or found[0].token != self.own.owner.token:
            raise UserError(
                "this process gave no sign of life for some minutes, so its trials were given to others; the same "
                "command goes on"
            )

    def _ended(self, one: Running, how: str, why: str, status: int) -> None:
        times = {"began": one.began, "prepared": one.prepared(), "ended": time.time()}
        self.study.write_result(one.number, one.turn, how, why)
        self._ran += how == DONE
        self.study.note(self.name, slot=one.slot.number, trial=one.number, **times, status=status)
        if how == STOPPED and why.startswith("cannot "):
            raise UserError(f"trial {one.number}: {why}; the same command goes on from there")

    def _end_early(self) -> None:
        if self.writer:
            self.writer.step()
        self.progress.say("stopped; the same command goes on")
        raise SystemExit(UNFINISHED)

    @contextlib.contextmanager
    def _signals(self):
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield reader
        finally:
            signal.set_wakeup_fd(earlier)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            os.close(reader)
            os.close(writer)
