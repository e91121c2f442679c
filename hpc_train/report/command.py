"""`hpc-train report`: the page of runs, of scaling studies or of a scan."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from hpc_train.console import say
from hpc_train.errors import UserError

_RUN, _STUDY, _SCAN = "a run", "a study", "a scan"


@dataclass(frozen=True)
class ReportRuns:
    """Draw what runs recorded, what scaling studies measured, several in the same charts, or what a scan found.

    Always report.html, one page that needs no other file, and its charts as PNG. For runs: loss, scores, learning rate,
    throughput and input wait by epoch, and the confusion matrix of the predictions that `hpc-train predict` wrote into
    the run folder. For studies (`hpc-train bench scaling`): speeds, efficiencies and predictions. For a scan
    (`hpc-train scan`), also while it runs: its trials and parameters.
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders, whose paths training prints, folders of studies, or the folder of a scan."""
    output: Path | None = None
    """Folder to write to; by default the folder of the run, study or scan. Needed for several runs or studies."""


def run(options: ReportRuns) -> None:
    """Draw, and print what was written.

    Raises:
        UserError: no folder, folders of several kinds or several scans were given, a run has no epoch or a study no
            measurement, matplotlib is missing, or a file cannot be written.
    """
    if not options.runs:
        raise UserError("give a run folder, or the folder of a study or a scan: hpc-train report FOLDER")
    kinds = [_kind(path) for path in options.runs]
    if len(set(kinds)) > 1:
        special = next(kind for kind in kinds if kind != _RUN)
        other = next(path for path, kind in zip(options.runs, kinds, strict=True) if kind != special)
        first = options.runs[kinds.index(special)]
        raise UserError(f"{other} is not {special}, but {first} is; report them separately")
    if kinds[0] == _RUN:
        _draw_runs(options)
    else:
        say("wrote " + ", ".join(map(str, (_write_scan if kinds[0] == _SCAN else _write_studies)(options))))


def _kind(path: Path) -> str:
    from hpc_train.report.scan import is_scan
    from hpc_train.report.study import is_study

    # A scan's folder has JSON files, as a study's.
    return _SCAN if is_scan(path) else _STUDY if is_study(path) else _RUN


def _write_studies(options: ReportRuns) -> list[Path]:
    from hpc_train.report.study_report import write

    output = _folder(options)
    return write(dict(zip(_names(options.runs), options.runs, strict=True)), output)


def _write_scan(options: ReportRuns) -> list[Path]:
    from hpc_train.report.scan_report import write

    if len(options.runs) > 1:
        raise UserError(f"several scans: report one after the other: hpc-train report {options.runs[0]}")
    (name,) = _names(options.runs)
    return write(name, options.runs[0], _folder(options))


def _draw_runs(options: ReportRuns) -> None:
    from hpc_train.report.runs import run_time
    from hpc_train.report.runs.confusion import draw_confusion, load_confusion
    from hpc_train.report.runs.curves import draw_curves
    from hpc_train.report.runs.run_report import write
    from hpc_train.training.run_folder import Run

    runs = [Run.open(path) for path in options.runs]
    output = _folder(options)
    curves = dict(zip(_names(options.runs), [_metrics(one) for one in runs], strict=True))
    confusions = {name: load_confusion(one.path) for name, one in zip(curves, runs, strict=True)}
    written = [write(output, dict(zip(curves, runs, strict=True)), curves, confusions), output / "curves.png"]
    draw_curves(written[-1], curves)
    for name, found in confusions.items():
        if found:
            written.append(output / ("confusion.png" if len(runs) == 1 else f"confusion-{name.replace('/', '-')}.png"))
            draw_confusion(written[-1], found, name)
    for name, one in zip(curves, runs, strict=True):
        lines = [*run_time.lines(one.record()["starts"]), _unfound(one, confusions[name])]
        for line in filter(None, lines):
            say(f"{name}: {line}" if len(runs) > 1 else line)
    if not any(confusions.values()):
        say(f"no confusion matrix: first predict classes with `hpc-train predict {options.runs[0]} --data DIR`")
    say("wrote " + ", ".join(map(str, written)))


def _unfound(run, confusion) -> str:
    """A line about classes that are never predicted, by the newest predictions, else by the last validation."""
    from hpc_train.metrics import unfound

    options = run.record().get("options", {})
    if confusion:
        missed = unfound.never_predicted(confusion.matrix, confusion.class_names) if confusion.maps else []
        return unfound.advice(missed, "never predicted", options) if missed else ""
    last = run.metrics()[-1]
    missed = unfound.never_right({key.removeprefix("val_"): last[key] for key in last if key.startswith("val_")})
    return unfound.advice(missed, "never predicted right in validation", options) if missed else ""


def _folder(options: ReportRuns) -> Path:
    if options.output is None and len(options.runs) > 1:
        raise UserError("several folders: give a folder for the pictures with --output")
    folder = options.output or options.runs[0]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output {folder} cannot be made: {error.strerror}; give another folder") from error
    if not os.access(folder, os.W_OK):
        raise UserError(f"cannot write in the folder {folder}; give another one with --output")
    return folder


def _names(paths: tuple[Path, ...]) -> list[str]:
    """The folders' names, with as many of their parents as make them different."""
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise UserError("a folder is given twice; leave one out")
    depth = next(depth for depth in range(1, 99) if len({part[-depth:] for part in parts}) == len(parts))
    return ["/".join(part[-depth:]) for part in parts]


def _metrics(run) -> list[dict]:
    lines = run.metrics()
    if not lines:
        raise UserError(f"{run.path} has not finished an epoch yet, so there is nothing to draw; let it train")
    return lines
