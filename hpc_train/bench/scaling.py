"""How does the speed grow with the ranks? hpc-train bench scaling studies/scaling_study

Reads what `hpc_train.bench.throughput --output` wrote, one file a job, and lays the sizes side by side. Rounds of
several jobs of one size count together. Parallel efficiency is samples/s a rank, in the median of the rounds, over that
of the smallest size. `fit / fit alone`, within each round, is the efficiency against ranks that train independently on
the same nodes: what averaging gradients costs, apart from what a node itself loses when it is full.

Only measurements of the same model, options, data, hardware and versions are compared; others get their own table.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro

from hpc_train.bench.hardware import shared
from hpc_train.console import say
from hpc_train.errors import UserError

_WAYS = ("fit", "bare", "fit alone", "bare alone")
# Options that do not change what a step does; the data are known by their content.
_FREE = ("data", "steps", "rounds", "threads", "output")


@dataclass(frozen=True)
class Scaling:
    """Lay the throughput measured at several numbers of ranks side by side."""

    study: Annotated[Path, tyro.conf.Positional]
    """Folder of a study: the JSON files that `python -m hpc_train.bench.throughput --output FILE` wrote."""
    json: bool = False
    """Print the figures as JSON in place of the table."""


@dataclass(frozen=True)
class Measurement:
    """One file: its name, what must be alike where files are compared, threads a rank, nodes as in `hardware.nodes`.

    rates: samples/s over all ranks, for each way a list with one entry a round.
    """

    file: str
    conditions: dict[str, str]
    threads: int
    nodes: list[dict]
    rates: dict[str, list[float]]

    @property
    def ranks(self) -> int:
        """Of all nodes."""
        return sum(node["ranks"] for node in self.nodes)


def run(chosen: Scaling) -> None:
    """Read and print."""
    measurements, left_out = read(chosen.study)
    tables = [table(group) for group in comparable(measurements)]
    if chosen.json:
        say(json.dumps({"tables": tables, "left_out": left_out}, indent=2))
    else:
        from hpc_train.bench.scaling_report import report

        report(tables, left_out)


def read(study: Path) -> tuple[list[Measurement], list[str]]:
    """The measurements in a folder, and a line for each JSON file that is none.

    Raises:
        UserError: there is not one measurement.
    """
    if not study.is_dir():
        raise UserError(f"{study} is not a folder; give the one that holds a study's JSON files")
    measurements, left_out = [], []
    # A name that begins with a dot is a file half written.
    for path in sorted(study.glob("[!.]*.json")):
        try:
            measurements.append(_measurement(path))
        except (OSError, ValueError) as error:
            left_out.append(f"{path} is left out: {error}")
    if not measurements:
        why = f"; {left_out[0]}" if left_out else ""
        raise UserError(
            f"{study} holds no measurement{why}; `sbatch slurm/scaling_study.sh --data ...` makes them, "
            "or `python -m hpc_train.bench.throughput --output FILE.json`"
        )
    return measurements, left_out


def _measurement(path: Path) -> Measurement:
    try:
        figures = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"it is damaged ({error}); measure this size again") from error
    try:
        rates = {way: [float(rate) for rate in figures["rates"][way]] for way in _WAYS}
        found = Measurement(path.name, _conditions(figures), int(figures["threads"]), figures["nodes"], rates)
        shared(found.nodes)  # fails where a node's entry is incomplete
        if found.ranks < 1:
            raise ValueError("no ranks")
        if len({len(values) for values in rates.values()}) > 1 or not all(min(values) > 0 for values in rates.values()):
            raise ValueError("a rate is missing or not above 0")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"it is not a measurement of hpc_train.bench.throughput ({what})") from error
    return found


def _conditions(figures: dict) -> dict[str, str]:
    nodes, options = figures["nodes"], figures["options"]
    return {
        **{name.replace("_", " "): str(value) for name, value in options.items() if name not in _FREE},
        "data": f"{Path(options['data']).name} ({figures['data'][:8]})",
        "processor": _kinds(node["processor"] for node in nodes),
        "GPU": _kinds(gpu for node in nodes for gpu in node["gpus"]),
        "versions": ", ".join(f"{name} {version}" for name, version in figures["versions"].items()),
    }


def _kinds(names) -> str:
    return " and ".join(sorted(set(names))) or "none"


def comparable(measurements: list[Measurement]) -> list[list[Measurement]]:
    """Groups within which all conditions are the same; the order of the files is kept."""
    groups: dict[str, list[Measurement]] = {}
    for measurement in measurements:
        groups.setdefault(json.dumps(measurement.conditions, sort_keys=True), []).append(measurement)
    return list(groups.values())


def table(measurements: list[Measurement]) -> dict:
    """Figures of comparable measurements: their conditions and one entry a size, the smallest first.

    An entry's samples_per_s and efficiency are by way; efficiency_alone is fit / fit alone of each round; shared says
    that ranks share cores or GPUs.
    """
    sizes: dict[tuple[int, int], list[Measurement]] = {}
    for measurement in measurements:
        sizes.setdefault((measurement.ranks, len(measurement.nodes)), []).append(measurement)
    entries = [_entry(ranks, nodes, same) for (ranks, nodes), same in sorted(sizes.items())]
    base = entries[0]
    for entry in entries:
        entry["efficiency"] = {way: _a_rank(entry, way) / _a_rank(base, way) for way in _WAYS}
    return {"conditions": measurements[0].conditions, "sizes": entries}


def _entry(ranks: int, nodes: int, same: list[Measurement]) -> dict:
    rates = {way: [rate for one in same for rate in one.rates[way]] for way in _WAYS}
    alone = [fit / alone for fit, alone in zip(rates["fit"], rates["fit alone"], strict=True)]
    return {
        "ranks": ranks,
        "nodes": nodes,
        "threads": sorted({one.threads for one in same}),
        "files": [one.file for one in same],
        "samples_per_s": {way: _spread(values) for way, values in rates.items()},
        "efficiency_alone": _spread(alone),
        "shared": any(shared(one.nodes) for one in same),
    }


def _a_rank(entry: dict, way: str) -> float:
    return entry["samples_per_s"][way]["median"] / entry["ranks"]


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}
