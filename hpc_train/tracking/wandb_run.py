"""A run in W&B: offline in the run folder, or online where the environment says so."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from hpc_train.tracking.subject import FAILED, FINISHED, LIMITS, STOPPED, Subject

_STATUS = {FINISHED: 0, STOPPED: os.EX_TEMPFAIL, FAILED: 1}
# Nothing of the code, its repository, the command line, the machine or what the ranks print.
_SETTINGS = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "save_code": False,
    "silent": True,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
    "reinit": "finish_previous",
    # A process that is killed loses what was not flushed.
    "x_transaction_log_flush_interval": 1.0,
    "finish_timeout": LIMITS[STOPPED],
}
_BLOCK, _HEADER = 32768, 7


class WandbRun:
    """The run of a subject: resumed on the server, or one more offline folder with the same id.

    Raises:
        Exception: of W&B or of what it uses.
    """

    def __init__(self, subject: Subject):
        # Offline the next start would not know what a killed one has sent: it looks before it writes anything.
        folder = Path(os.environ.get("WANDB_DIR") or subject.kept)
        files = folder.glob(f"wandb/offline-run-*-{subject.id}*/run-{subject.id}.wandb")
        held = max((step for file in files for step in steps_in(file)), default=0)
        for name, value in (("WANDB_ERROR_REPORTING", "false"), ("WANDB_SILENT", "true")):
            os.environ.setdefault(name, value)
        import wandb

        # W&B puts itself in their place, and would print a traceback for a user's mistake.
        hooks = sys.excepthook, sys.exit
        try:
            self._run = wandb.init(
                id=subject.id,
                resume="allow",
                dir=folder,
                mode=os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline"),
                project=os.environ.get("WANDB_PROJECT") or "hpc-train",
                name=os.environ.get("WANDB_NAME") or subject.folder.resolve().name,
                config=subject.options | {"tags": subject.tags},
                settings=wandb.Settings(**_SETTINGS, init_timeout=float(os.environ.get("WANDB_INIT_TIMEOUT", 30))),
            )
        finally:
            sys.excepthook, sys.exit = hooks
        self.last = held if self._run.offline else self._run.step - 1

    def log(self, line: dict) -> None:
        self._run.log({name: value for name, value in line.items() if name != "step"}, step=line["step"], commit=True)

    def end(self, status: str) -> None:
        self._run.summary["status"] = status
        if status == STOPPED:
            self._run.mark_preempting()
        self._run.finish(exit_code=_STATUS[status])


def steps_in(file: Path) -> Iterator[int]:
    """The steps in an offline file of W&B, which may have been cut."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    for text in _records(file.read_bytes()):
        record = Record()
        try:
            record.ParseFromString(text)
        except DecodeError:
            return
        if record.HasField("history"):
            yield record.history.step.num


def _records(data: bytes) -> Iterator[bytes]:
    """The records of LevelDB's log format: blocks, of pieces with checksum, length and kind before each."""
    at, record = _HEADER, b""
    while at + _HEADER <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + _HEADER : at + _HEADER + length]
        at += _HEADER + length
        if at > len(data):
            return
        # 1: the whole record; 2, 3, 4: its first, a middle and its last piece.
        if kind in (1, 4):
            yield record
            record = b""
