"""The curves of scaling studies: the tables of `bench scaling`, each curve with a label of its own."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hpc_train.bench.study.measurements import PLAN, Measurement, read
from hpc_train.bench.study.record import recorded
from hpc_train.bench.study.tables import tables
from hpc_train.report import step

MODES = ("weak", "strong")
# Values that a label shows without their names.
_BARE = ("study", "network", "framework")


@dataclass(frozen=True, eq=False)
class Series:
    """One curve: a variant of a sweep or a peer, in weak or strong scaling.

    Args:
        study: name of its study.
        mode: one of MODES.
        framework: that trained.
        conditions: what it was measured with.
        variant: values of the sweep.
        rows: one for each size, smallest first, from `tables`. Each also has step (seconds of `fit`), and from
            `report.step`: parts, percentiles, timelines, host and gpu (bytes), teraflops (of a rank) and utilisation.
        label: in charts and tables.
    """

    study: str
    mode: str
    framework: str
    conditions: dict[str, str]
    variant: dict[str, str]
    rows: list[dict]
    label: str = ""

    @property
    def valid(self) -> list[dict]:
        """The rows of sizes whose ranks did not share cores or GPUs."""
        return [row for row in self.rows if not row["shared"]]

    @property
    def known_parts(self) -> list[dict]:
        """The rows of sizes with known parts of a step."""
        return [row for row in self.rows if row["parts"]]


@dataclass(frozen=True, eq=False)
class Study:
    """A folder of measurements: its name in the report, its plan (study.json), and its curves."""

    name: str
    path: Path
    plan: dict
    measurements: list[Measurement]
    left_out: list[str]
    series: list[Series]

    @property
    def missing(self) -> list[str]:
        """The jobs of the plan without a measurement."""
        there = {one.file for one in self.measurements}
        return [job["file"].removesuffix(".json") for job in self.plan.get("jobs", ()) if job["file"] not in there]


def is_study(path: Path) -> bool:
    """Whether a folder holds a study rather than a run: a plan, or JSON files and no run.json."""
    return (path / PLAN).is_file() or (not (path / "run.json").exists() and any(path.glob("[!.]*.json")))


def open_studies(paths: dict[str, Path]) -> list[Study]:
    """Open the studies in folders, given by their names in the report.

    Raises:
        UserError: a folder holds no measurement, or its plan is damaged.
    """
    studies = [_open(name, path) for name, path in paths.items()]
    return [replace(study, series=_labelled(study.series, len(studies) > 1)) for study in studies]


def _open(name: str, path: Path) -> Study:
    measurements, left_out = read(path)
    files = {one.file: one.figures for one in measurements}
    series: dict[tuple, Series] = {}
    for number, table in enumerate(tables(measurements)):
        for row in table["rows"]:
            if row["samples_per_s"].get("fit") is None:
                continue
            facts = (name, table["mode"], row["framework"], table["conditions"], row["variant"])
            key = (number, row["framework"], tuple(row["variant"].items()))
            series.setdefault(key, Series(*facts, rows=[])).rows.append(_whole(row, files))
    return Study(name, path, recorded(path) or {}, measurements, left_out, list(series.values()))


def _whole(row: dict, files: dict[str, dict]) -> dict:
    jobs = [files[name] for name in row["files"]]
    rate = row["samples_per_s"]["fit"]["mean"]
    seconds = row["ranks"] * row["batch_size"] / rate
    teraflops, utilisation = step.teraflops_of(jobs, rate)
    return {
        **row,
        "step": seconds,
        "parts": step.parts_of(jobs, seconds),
        "percentiles": step.percentiles_of(jobs),
        "timelines": step.timelines_of(jobs),
        "host": step.peak_memory_of(jobs, "host"),
        "gpu": step.peak_memory_of(jobs, "gpu"),
        "teraflops": teraflops,
        "utilisation": utilisation,
    }


def _labelled(series: Sequence[Series], several: bool) -> list[Series]:
    """Give each curve a label: the study if there are several, the networks, peers and variants that are compared, and
    as many conditions as are needed to make the labels of one mode different."""
    facts = [_facts(one) for one in series]
    names = dict.fromkeys(name for one in facts for name in one)
    differing = [name for name in names if len({one.get(name) for one in facts}) > 1]
    swept = {name for one in series for name in one.variant}
    first = ["study"] * several + [name for name in differing if name in _BARE or name in swept]
    shown = first or ["network"]
    for name in [None, *(name for name in differing if name not in first)]:
        shown = shown + [name] * (name is not None)
        labels = [_label(found, shown) for found in facts]
        if len(set(zip((one.mode for one in series), labels, strict=True))) == len(series):
            break
    return [replace(one, label=label) for one, label in zip(series, labels, strict=True)]


def _facts(one: Series) -> dict[str, str]:
    conditions = {name: value for name, value in one.conditions.items() if name not in ("trainer", "model")}
    network = f"{one.conditions['trainer']} {one.conditions['model']}"
    return {"study": one.study, "network": network, "framework": one.framework, **one.variant, **conditions}


def _label(facts: dict[str, str], shown: Sequence[str]) -> str:
    there = [name for name in shown if name in facts]
    return ", ".join(facts[name] if name in _BARE else f"{name.replace('_', ' ')} {facts[name]}" for name in there)
