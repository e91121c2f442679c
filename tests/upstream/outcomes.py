"""A pytest plugin that writes how each test ended on this rank, as lines of JSON; and what reads these files.

A line is written when a test begins and another when it has ended, so that a test that ended the process is known.
`UPSTREAM_OUTCOMES` is the folder; tests named in its `done.json` are left out.
"""

import json
import os
from pathlib import Path

# How a test may end, from best to worst.
ORDER = ["passed", "skipped", "failed"]


def rank() -> int:
    """This process's rank, from what the launcher says; 0 without one."""
    for name in ("HOROVOD_RANK", "PMI_RANK", "OMPI_COMM_WORLD_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def test_name(nodeid: str) -> str:
    """`file::Class::test` of a node id of pytest."""
    file, *rest = nodeid.split("::")
    return "::".join([Path(file).stem, *rest])


def _folder() -> Path:
    return Path(os.environ["UPSTREAM_OUTCOMES"])


def _write(nodeid: str, outcome: str, text: str = "") -> None:
    line = json.dumps({"test": test_name(nodeid), "outcome": outcome, "text": text})
    with open(_folder() / f"{rank()}.jsonl", "a") as file:
        file.write(line + "\n")


def pytest_collection_modifyitems(config, items):
    done = _folder() / "done.json"
    names = set(json.loads(done.read_text())) if done.exists() else set()
    items[:] = [item for item in items if test_name(item.nodeid) not in names]


def pytest_sessionfinish(session):
    (_folder() / f"{rank()}.ended").touch()


def pytest_runtest_logstart(nodeid, location):
    _write(nodeid, "begun")


def pytest_runtest_logreport(report):
    if report.when == "call" or report.outcome != "passed":
        _write(report.nodeid, report.outcome, report.longreprtext[-6000:])


def pytest_collectreport(report):
    if report.failed:
        _write(report.nodeid or "collection", "failed", report.longreprtext[-6000:])


def read(folder: Path, ranks: int) -> dict[str, tuple[str, str]]:
    """How each test ended, with the text of a failure: as on the rank where it ended worst.

    A test that one rank began and did not end has failed, and so has one that not all ranks ended.
    """
    worst: dict[str, tuple[str, str]] = {}
    ended: dict[str, set[int]] = {}
    for number in range(ranks):
        file = folder / f"{number}.jsonl"
        for line in file.read_text().splitlines() if file.exists() else ():
            test, outcome, text = json.loads(line).values()
            ended.setdefault(test, set())
            if outcome == "begun":
                continue
            ended[test].add(number)
            if test not in worst or ORDER.index(outcome) > ORDER.index(worst[test][0]):
                worst[test] = outcome, text
    for test, numbers in ended.items():
        if len(numbers) < ranks and worst.get(test, ("passed",))[0] != "failed":
            worst[test] = "failed", f"ended on {len(numbers)} of {ranks} ranks"
    return worst
