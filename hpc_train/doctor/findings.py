"""What the doctor finds, and how it is told: a line each as soon as it is known, or one JSON document at the end."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from hpc_train import __version__
from hpc_train.console import say


def unless_sealed(inside: str, remedy: str) -> str:
    """What would bring an environment CUDA: another image, where it is one of Apptainer's, which cannot be changed.

    Args:
        inside: the container, or empty.
        remedy: what to install elsewhere.
    """
    return remedy if inside in ("", "Docker", "Podman") else "take the image of containers/hpc-train-cuda.def"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    what: str
    verdict: Literal["ok", "note", "wrong"]
    value: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """What, verdict, value and, where there is one, what would mend it."""
        return f"{self.what:<13} {self.verdict:<6} {self.value}{self.remedy and f' -> {self.remedy}'}"


@dataclass(frozen=True)
class Lost:
    """What keeps one rank from going on, while the others may be waiting for it."""

    finding: Finding


@dataclass(frozen=True)
class Table:
    """A row for every rank: for programs, since a job may have thousands."""

    rows: list[dict]


@dataclass
class Report:
    """Hears findings on every rank; tells them on the one that speaks."""

    speaks: bool
    json: bool
    summary: bool = True
    """Whether text ends with a line that counts what is wrong."""
    lost: Finding | None = None
    findings: list[Finding] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)

    def hear(self, told: Finding | Lost | Table) -> None:
        """Take what was found; a line is printed at once, so that it outlives whatever comes next."""
        if isinstance(told, Table):
            self.rows = told.rows
            return
        if isinstance(told, Lost):
            told = self.lost = told.finding
        self.findings.append(told)
        if self.speaks and not self.json:
            say(told.line)

    def close(self) -> int:
        """Tell what it comes to; the status to end with: 1 where anything is wrong."""
        wrong = [finding.what for finding in self.findings if finding.verdict == "wrong"]
        if self.speaks and self.json:
            document = {
                "hpc_train": __version__,
                "wrong": len(wrong),
                "findings": [asdict(finding) for finding in self.findings],
                "ranks": self.rows,
            }
            say(json.dumps(document))
        elif self.speaks and self.summary:
            say(f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong")
        return int(bool(wrong))


def some(names: list[str], most: int = 3) -> str:
    """The first few names of many, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(count: int, word: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{count} {word}{'s' * (count != 1)}"
