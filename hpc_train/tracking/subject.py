"""What trackers are told about a run, without credentials, and the id that it has in all of its starts."""

import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpc_train.files.json_file import read_json, write_json

# How a training ended.
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
# Seconds that a training which ends so waits for all trackers together; one that stops has a time limit itself.
LIMITS = {FINISHED: 30.0, STOPPED: 5.0, FAILED: 5.0}
# A path has lost the second slash of its URL.
_IN_URLS = re.compile(r"(?<=:/)(/?)[^/@\s]+@")
_NAME = r"[\w-]*(?:password|passwd|secret|token|api[-_]?key|credentials?)"
_NAMED = re.compile(rf"(--{_NAME}\s+|{_NAME}['\"]?\s*[=:]\s*)[^\s,;&]+", re.IGNORECASE)


@dataclass(frozen=True)
class Subject:
    """A run, as trackers describe it.

    Args:
        folder: of the run; what is kept here is in its folder `tracking`.
        id: the same in all starts of the run.
        options: the trainer's, by name.
        tags: facts about the run and versions of packages, as text by name.
    """

    folder: Path
    id: str
    options: dict[str, Any] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, record: dict) -> "Subject":
        """The run in a folder.

        Args:
            folder: of the run.
            record: the content of its run.json.

        Raises:
            UserError: its file with the id is damaged, or cannot be written.
        """
        file = folder / "tracking" / "id.json"
        file.parent.mkdir(exist_ok=True)
        if not file.exists():
            # Before anything is sent: a start that is killed then leaves the id to the next one.
            write_json(file, {"id": secrets.token_hex(8)})
        known = read_json(file, {"id": str}, "remove it, and trackers see a new run")
        facts = {name: value for name, value in record["facts"].items() if value is not None}
        tags = facts | {f"version.{name}": value for name, value in record["versions"].items()}
        texts = {name: clean(value if isinstance(value, str) else str(value)) for name, value in tags.items()}
        return cls(folder, known["id"], clean(record["options"]), texts)

    @property
    def kept(self) -> Path:
        """The folder of what trackers keep here."""
        return self.folder / "tracking"


def clean(value):
    """A value of JSON's types whose texts have `***` for credentials: those in URLs, and after `token=` and such."""
    if isinstance(value, str):
        return _NAMED.sub(r"\1***", _IN_URLS.sub(r"\1***@", value))
    if isinstance(value, dict):
        return {
            name: "***" if isinstance(one, str) and _NAMED.match(f"{name}=_") else clean(one)
            for name, one in value.items()
        }
    return [clean(one) for one in value] if isinstance(value, list | tuple) else value
