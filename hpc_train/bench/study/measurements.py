"""The measurements of a study, as `bench throughput` wrote them, and their place in the study's plan.

The plan (study.json) gives the repeat, modes and variant of the files that it names. A file that it does not name, of a
job that was submitted by hand, counts as weak scaling without a variant.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpc_train.bench.hardware import shared
from hpc_train.bench.throughput import FORMAT
from hpc_train.errors import UserError
from hpc_train.files.json_file import read_json

PLAN = "study.json"
# What the plan must hold, and each of its jobs.
SCHEMA = {"settings": dict[str, Any], "jobs": list[dict[str, Any]]}
OURS = "hpc-train"
# Options that do not change what a step does. The content identifies the data.
_FREE = ("data", "steps", "warmup", "rounds", "threads", "output", "ways")


@dataclass(frozen=True)
class Measurement:
    """One job's file."""

    file: str
    """Its name in the study's folder."""
    figures: dict
    """Its content."""
    modes: tuple[str, ...] = ("weak",)
    """The curves that have it as a point: weak, strong, or both for the smallest size."""
    variant: tuple[tuple[str, str], ...] = ()
    """What a sweep set for it: (name, value), as in the plan."""
    place: int = 0
    """Of the variant in its sweep. 0 is the base, which has the first value of every name."""
    repeat: int | None = None
    """Number of the repeat; its jobs ran one after another. None for a job that was submitted by hand."""

    @property
    def ranks(self) -> int:
        """The number of ranks, on all nodes."""
        return sum(node["ranks"] for node in self.nodes)

    @property
    def nodes(self) -> list[dict]:
        """The nodes, as `hardware.nodes` describes them."""
        return self.figures["nodes"]

    @property
    def shared(self) -> bool:
        """Whether ranks share cores or GPUs. Then the measurement says nothing about scaling."""
        return shared(self.nodes)

    @property
    def threads(self) -> int:
        """Threads of a rank."""
        return int(self.figures["threads"])

    @property
    def batch_size(self) -> int:
        """Samples in a step on each rank."""
        return int(self.figures["batch_size"])

    @property
    def framework(self) -> str:
        """hpc-train, or the name of a peer."""
        return self.figures["framework"]

    @property
    def rates(self) -> dict[str, list[float]]:
        """samples/s over all ranks in each round, by way."""
        return self.figures["rates"]

    def conditions(self, mode: str, swept: frozenset[str] = frozenset()) -> dict[str, str]:
        """The conditions that must be equal if measurements are compared.

        Args:
            mode: in weak scaling the batch is that of a rank, in strong scaling the global batch.
            swept: options that may differ.
        """
        figures, free = self.figures, {*_FREE, *swept, "model", "batch_size"}
        strong = mode == "strong"
        return {
            "trainer": figures["trainer"],
            "model": figures["model"],
            "global batch" if strong else "batch size": str(self.batch_size * (self.ranks if strong else 1)),
            "data": _data(figures),
            "processor": _kinds(node["processor"] for node in self.nodes),
            "GPU": _kinds(gpu for node in self.nodes for gpu in node["gpus"]),
            "versions": ", ".join(f"{name} {version}" for name, version in figures["versions"].items()),
            **{name.replace("_", " "): str(value) for name, value in figures["options"].items() if name not in free},
        }


def read(study: Path) -> tuple[list[Measurement], list[str]]:
    """Read the measurements in a folder.

    Returns:
        The measurements in the order of their names, and a line for each JSON file that was left out.

    Raises:
        UserError: there is no measurement.
    """
    if not study.is_dir():
        raise UserError(f"{study} is not a folder; give the folder with the JSON files of a study")
    planned, left_out = _planned(study / PLAN)
    measurements = []
    # A name with a dot at its beginning is that of a half-written file.
    for path in sorted(study.glob("[!.]*.json")):
        if path.name == PLAN:
            continue
        try:
            figures = _figures(path)
            if figures:
                measurements.append(_placed(path.name, figures, planned.get(path.name, {})))
        except UserError as error:
            left_out.append(f"left out: {error}")
        except ValueError as error:
            left_out.append(f"left out: {path}: {error}")
    if not measurements:
        why = f"; {left_out[0]}" if left_out else ""
        raise UserError(
            f"{study} holds no measurement{why}; make some with `hpc-train bench scaling {study} --np 1,2 -- mnist "
            "--data ...`, or with `hpc-train bench throughput ... --output FILE.json`"
        )
    return measurements, left_out


def load(path: Path) -> dict | None:
    """The figures of one measurement; None if there is none that `read` would accept."""
    try:
        return _figures(path)
    except (UserError, ValueError):
        return None


def _planned(path: Path) -> tuple[dict[str, dict], list[str]]:
    if not path.exists():
        return {}, []
    try:
        return {
            str(job.get("file")): job for job in read_json(path, {"jobs": SCHEMA["jobs"]}, "write it again")["jobs"]
        }, []
    except UserError as error:
        return {}, [f"left out: {error}"]


def _placed(name: str, figures: dict, job: dict) -> Measurement:
    variant = tuple(job.get("variant", {}).items())
    modes = tuple(job.get("modes", ("weak",)))
    return Measurement(name, figures, modes, variant, job.get("place", 0), job.get("repeat"))


def _figures(path: Path) -> dict | None:
    """The content of a measurement; None if the file comes from another benchmark."""
    figures = read_json(path, {}, "measure this size again")
    if figures.get("benchmark", "throughput") != "throughput":
        return None
    try:
        if "rates" in figures and figures.get("format", 1) != FORMAT:
            raise ValueError(f"format {figures.get('format', 1)}, and this reads {FORMAT}: measure again")
        rates = figures["rates"]
        if not rates or len({len(values) for values in rates.values()}) > 1:
            raise ValueError("a way has no rates, or fewer rounds than another")
        if not all(rate > 0 for values in rates.values() for rate in values) or not all(rates.values()):
            raise ValueError("a rate is missing or not above 0")
        found = Measurement(path.name, figures)
        if found.ranks < 1:
            raise ValueError("no ranks")
        if not all((found.threads, found.framework, found.conditions("weak"), found.shared in (True, False))):
            raise ValueError("no threads, or no framework")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"it is not a measurement of `bench throughput` ({what})") from error
    return figures


def _data(figures: dict) -> str:
    if figures["data"] == "synthetic":
        return "synthetic"
    folder = figures["options"].get("data")
    return f"{Path(folder).name} ({figures['data'][:8]})" if folder else figures["data"][:8]


def _kinds(names) -> str:
    return " and ".join(sorted(set(names))) or "none"
