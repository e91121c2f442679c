"""What the doctor finds, and how it is printed: line by line as soon as it is known, or as one JSON document."""

import json
from dataclasses import asdict, dataclass, field
from typing import Literal

from hpc_train import __version__
from hpc_train.console import say


def unless_sealed(inside: str, remedy: str) -> str:
    """How to get CUDA: inside an image of Apptainer, which cannot be changed, another image.

    Args:
        inside: the container, or empty.
        remedy: what to install elsewhere.
    """
    return remedy if inside in ("", "Docker", "Podman") else "use an image built from containers/hpc-train-cuda.def"


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    what: str
    verdict: Literal["ok", "note", "wrong"]
    value: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """The finding as it is printed, with its remedy if it has one."""
        return f"{self.what:<13} {self.verdict:<6} {self.value}{self.remedy and f' -> {self.remedy}'}"


@dataclass(frozen=True)
class Lost:
    """A problem that stops one rank, while the others may wait for it."""

    finding: Finding


@dataclass(frozen=True)
class Table:
    """A row for each rank. Only --json shows it, since a job may have thousands of ranks."""

    rows: list[dict]


@dataclass
class Report:
    """Collects the findings on every rank, and prints them on one."""

    prints: bool
    """Whether this rank prints."""
    json: bool
    """Whether it prints one JSON document instead of text."""
    summary: bool = True
    """Whether the text ends with a line that lists what is wrong."""
    lost: Finding | None = None
    findings: list[Finding] = field(default_factory=list)
    rows: list[dict] = field(default_factory=list)

    def add(self, found: Finding | Lost | Table) -> None:
        """Add a result. Its line is printed at once, so that it is not lost if the next check fails."""
        if isinstance(found, Table):
            self.rows = found.rows
            return
        if isinstance(found, Lost):
            found = self.lost = found.finding
        self.findings.append(found)
        if self.prints and not self.json:
            say(found.line)

    def close(self) -> int:
        """Print the summary or the JSON document.

        Returns:
            The exit status: 1 if anything is wrong, else 0.
        """
        wrong = [finding.what for finding in self.findings if finding.verdict == "wrong"]
        if self.prints and self.json:
            document = {
                "hpc_train": __version__,
                "wrong": len(wrong),
                "findings": [asdict(finding) for finding in self.findings],
                "ranks": self.rows,
            }
            say(json.dumps(document))
        elif self.prints and self.summary:
            say(f"wrong: {', '.join(wrong)}" if wrong else "nothing is wrong")
        return int(bool(wrong))


def some(names: list[str], most: int = 3) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def plural(count: int, word: str) -> str:
    """`1 rank`, `2 ranks`."""
    return f"{count} {word}{'s' * (count != 1)}"
