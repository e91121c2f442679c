"""What is seen of a scan: its progress, its trials in a table, and how well it uses the machine."""

import dataclasses
import itertools
import json
import shutil
import statistics
import sys
import time
from collections.abc import Sequence

from hpc_train.console import say
from hpc_train.names import printable
from hpc_train.scan.study import COMPLETE, FAILED, OPEN, PRUNED, Settings, Study, Trial, best_of

# Seconds between two lines of progress: on a terminal, where one line changes, and in a log.
_TERMINAL, _LOG = 0.5, 60.0


class Progress:
    """One line about the whole study, and a line for each trial that has ended.

    Args:
        settings: of the study.
    """

    def __init__(self, settings: Settings):
        self.settings = settings
        self.terminal = sys.stdout.isatty()
        self.began = self._shown = time.monotonic()
        self._before: int | None = None

    def say(self, line: str) -> None:
        """Print a line above the progress."""
        columns = shutil.get_terminal_size().columns - 1
        say(f"\r{'':{columns}}\r{line}" if self.terminal else line)

    def show(self, trials: Sequence[Trial], total: int, running: int) -> None:
        """Print the progress, if it is time to.

        Args:
            trials: all that there are.
            total: how many there shall be.
            running: how many run in this process.
        """
        now = time.monotonic()
        settled = sum(trial.state != OPEN for trial in trials)
        if self._before is None:
            self._before = settled
        if now - self._shown < (_TERMINAL if self.terminal else _LOG):
            return
        self._shown = now
        line = f"{_counts(trials, total)}, {running} running here"
        if best := best_of(trials, self.settings):
            line += f"  best {self.settings.objective} {best.value:.5g} (trial {best.number})"
        if done := settled - self._before:
            line += f"  about {_time((total - settled) * (now - self.began) / done)} left"
        columns = shutil.get_terminal_size().columns - 1
        say(f"\r{line[:columns]:{columns}}" if self.terminal else line, end="" if self.terminal else "\n")


def describe(trial: Trial, settings: Settings) -> str:
    """A line about a trial that has ended."""
    value = "" if trial.value is None else f"{settings.objective} {trial.value:.5g} in epoch {trial.epoch}"
    said = {COMPLETE: "done", PRUNED: "pruned", FAILED: "failed", OPEN: "open"}[trial.state]
    return f"trial {trial.number} {said}: {value}{printable(trial.reason)}  {_given(trial)}".rstrip()


def table(study: Study, most: int = 10) -> list[str]:
    """The state of a study in lines: counts, the best trials, failures, and how well the machine was used.

    Args:
        study: it.
        most: of the best trials, and of those that failed.
    """
    settings, trials = study.settings(), study.trials()
    lines = [f"{study.path}: {_counts(trials, settings.trials)}"]
    good = [one for one in trials if one.state == COMPLETE and one.value is not None]
    good.sort(key=lambda one: one.value or 0, reverse=settings.direction == "max")
    failed = [one for one in trials if one.state == FAILED]
    for some in (good, failed):
        lines += [describe(one, settings) for one in some[:most]]
        lines += [f"  and {len(some) - most} more"] * (len(some) > most)
    lines += use_in_words(study)
    if best := study.best():
        model = f", {study.path / 'best.keras'}" if (study.path / "best.keras").is_file() else ""
        lines += [f"best: trial {best['number']}{model}; to train it again, in {settings.folder}:"]
        lines += [f"  {best['command']}"]
    return lines


def as_json(study: Study) -> str:
    """The same as JSON, with all trials."""
    settings, trials = study.settings(), study.trials()
    best = best_of(trials, settings)
    shown = [{**dataclasses.asdict(one), "folder": str(one.folder)} for one in trials]
    found = {"settings": dataclasses.asdict(settings), "best": best and best.number, "use": use(study), "trials": shown}
    return json.dumps(found, indent=2)


def use(study: Study) -> dict:
    """How well the slots were used, from the lines of all scan processes.

    Returns:
        inside: the share of the slots' time in which a trial ran, from the first to the last of each process;
        pause_s: the longest time from a trial's end to the next one's start; pauses_s: the median of them; start_s:
        median seconds until a trial trains; import_s: median seconds of importing TensorFlow, once a process; runs:
        how many times trials ran. Empty before the first one has ended.
    """
    busy, whole = 0.0, 0.0
    pauses: list[float] = []
    starts: list[float] = []
    for lines in study.notes().values():
        for slot in {line["slot"] for line in lines}:
            runs = sorted((one["began"], one["ended"]) for one in lines if one["slot"] == slot)
            busy += sum(ended - began for began, ended in runs)
            whole += runs[-1][1] - runs[0][0]
            pauses += [after[0] - before[1] for before, after in itertools.pairwise(runs)]
        starts += [line["prepared"] - line["began"] for line in lines if line["prepared"]]
    if not whole:
        return {}
    runs = sum(map(len, study.notes().values()))
    imports = [seconds for member in study.notes() if (seconds := study.imported(member)) is not None]
    return {
        "inside": busy / whole,
        "pause_s": max(pauses, default=0.0),
        "pauses_s": statistics.median(pauses) if pauses else 0.0,
        "start_s": statistics.median(starts) if starts else None,
        "import_s": statistics.median(imports) if imports else None,
        "runs": runs,
    }


def use_in_words(study: Study) -> list[str]:
    """`use` in one line; none before the first trial has ended."""
    found = use(study)
    if not found:
        return []
    line = f"slots were inside trials {found['inside']:.1%} of the time, between two trials {found['pauses_s']:.2f} s"
    line += f" (at most {found['pause_s']:.2f} s)"
    if found["start_s"] is not None:
        line += f"; a trial trains after {found['start_s']:.1f} s"
    if found["import_s"] is not None:
        line += f", TensorFlow's import took {found['import_s']:.1f} s once a process"
    return [line]


def _counts(trials: Sequence[Trial], total: int) -> str:
    states = [trial.state for trial in trials]
    counts = [f"{states.count(COMPLETE)} done"]
    counts += [f"{states.count(state)} {state}" for state in (PRUNED, FAILED) if state in states]
    return f"{', '.join(counts)} of {total}"


def _given(trial: Trial) -> str:
    return " ".join(f"{name}={_short(value)}" for name, value in trial.params.items())


def _short(value) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _time(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 120
        else f"{seconds / 60:.0f} min"
        if seconds < 7200
        else f"{seconds / 3600:.1f} h"
    )
