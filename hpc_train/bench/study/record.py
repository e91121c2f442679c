"""The record of a study's plan, study.json in its folder."""

import json
import shlex
import sys
import time
from pathlib import Path

from hpc_train.bench.study.measurements import PLAN, SCHEMA
from hpc_train.bench.study.plan import Job
from hpc_train.errors import UserError
from hpc_train.files.json_file import read_json, write_json


def record(study: Path, jobs: list[Job], settings: dict, growing: dict) -> dict:
    """Make the folder and write the plan, or continue an earlier plan in it.

    Args:
        study: the folder.
        jobs: all of them.
        settings: what must be the same as in an earlier plan, by the name of its option.
        growing: what may differ.

    Returns:
        The plan, with `submitted`: the numbers of jobs that were submitted earlier, by file.

    Raises:
        UserError: the settings differ from those recorded, or the folder cannot be written.
    """
    try:
        study.mkdir(parents=True, exist_ok=True)
        earlier = recorded(study)
    except OSError as error:
        raise UserError(f"cannot write the study {study}: {error.strerror or error}") from error
    before = earlier["settings"] if earlier else {}
    changed = [name for name in settings if before.get(name, settings[name]) != settings[name]]
    if changed:
        earlier_ones = "; ".join(f"{name} was {_in_words(before[name])}" for name in changed)
        raise UserError(
            f"{study} holds a study with other options: {earlier_ones}; name another folder, or use these options"
        )
    kept = {job["file"]: job for job in (earlier or {}).get("jobs", ())}
    kept |= {job.file: _as_dict(job) for job in jobs}
    plan = {
        "time": (earlier or {}).get("time", time.strftime("%Y-%m-%dT%H:%M:%S%z")),
        "command": shlex.join(["hpc-train", *sys.argv[1:]]),
        "settings": settings,
        **growing,
        "jobs": list(kept.values()),
        "submitted": (earlier or {}).get("submitted", {}),
    }
    write_json(study / PLAN, plan)
    return plan


def recorded(study: Path) -> dict | None:
    """Read the plan in a study's folder; None if there is none.

    Raises:
        UserError: the plan is damaged.
    """
    path = study / PLAN
    if not path.exists():
        return None
    return read_json(path, SCHEMA, "remove it, and the same command writes it again")


def _as_dict(job: Job) -> dict:
    return {"file": job.file, **{k: v for k, v in vars(job).items() if k != "variant"}, "variant": dict(job.variant)}


def _in_words(value) -> str:
    return shlex.join(map(str, value)) if isinstance(value, list) else json.dumps(value)
