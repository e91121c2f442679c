"""A guard's word for its rank, where that writes nothing into the report of a hang.

Ranks of other nodes could not tell a rank that is stopped, and alone on its node, from a node that is down.
"""

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path
from hpc_train.watch import neighbours

# Seconds without a sign of the rank after which its guard looks for a report, and those between two looks.
_SILENT = 5.0
_LOOK = 1.0


class Witness:
    """Writes what a silent rank's process is into the report that other ranks make, and ends it with the job.

    Args:
        child: the process of the rank.
        facts: gives the rank's number `rank` and the folder `reports` that its report would be in; nothing before
            they are known.
        silence: gives the seconds since the rank has last shown that it runs; 0 where it does not show that.
    """

    def __init__(self, child: int, facts: Callable[[], dict[str, str]], silence: Callable[[], float]):
        self._child, self._facts, self._silence = child, facts, silence
        self._thread: threading.Thread | None = None
        self.over = False
        """The job has ended with a report, and this rank with it."""

    def look(self) -> None:
        """Look after the rank while it is silent, in a thread, as the file system may be what holds it."""
        if self._silence() > _SILENT and not (self._thread and self._thread.is_alive()):
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        facts = self._facts()
        if "reports" not in facts:
            return
        reports, rank = Path(facts["reports"]), facts["rank"]
        while self._silence() > _SILENT:
            # The file system may be full, or gone.
            with suppress(OSError, UserError):
                # With --hang dump there may be several, each with a number.
                for folder in reports.parent.glob(f"{reports.name}*"):
                    self._testify(folder, rank)
            time.sleep(_LOOK)

    def _testify(self, folder: Path, rank: str) -> None:
        # A rank that has begun to write speaks for itself.
        if not (folder / f"rank-{rank}.txt").exists():
            if (folder / "over").exists():
                self.over = True
                os.kill(self._child, signal.SIGKILL)
            if not (folder / f"guard-{rank}.json").exists():
                with atomic_path(folder / f"guard-{rank}.json") as path:
                    path.write_text(json.dumps({"process": neighbours.state(self._child)}), "utf-8")


def ranks(folder: Path) -> list[int]:
    """The ranks whose guards have written into a report's folder."""
    return [int(path.stem.removeprefix("guard-")) for path in folder.glob("guard-*.json")]


def read(folder: Path) -> dict[int, str]:
    """What the processes of these ranks are, by rank."""
    found = {}
    for rank in ranks(folder):
        with suppress(ValueError, OSError):
            found[rank] = json.loads((folder / f"guard-{rank}.json").read_text("utf-8"))["process"]
    return found
