"""The owner of a run folder: one training writes in it, and others wait for it or are told who it is.

The lock is a file that is linked into place, which works on NFS and Lustre as on a disk. Its owner changes its time of
modification every few seconds; others believe that the owner has ended only for a reason that no clock decides: its
process is gone from their own machine, Slurm no longer knows its job, or that time has stood still while they looked.
"""

import contextlib
import json
import os
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.others import other_owner, other_writers
from hpc_train.files.whole import ELSEWHERE, NotWritten, create_once, link_once, temporary_file

NAME = "owner.lock"
# Seconds between two signs of life; how long others wait for a living owner; the silence after which it counts as dead.
_BEAT, _PATIENCE, _SILENCE = 5.0, 15.0, 150.0
_POLL = 0.3
_JOB_LIVES = {"RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}


@dataclass(frozen=True)
class Owner:
    """The process that owns a run folder, as its lock says."""

    host: str = "?"
    pid: int = 0
    started: str = ""
    """When the process started, in ticks since its machine did."""
    machine: str = ""
    """The machine's start, and the space of its process numbers."""
    job: str = ""
    restarts: str = ""
    cluster: str = ""
    since: str = "?"
    token: str = ""

    @classmethod
    def this(cls) -> "Owner":
        """This process."""
        job, restarts, cluster = (
            os.environ.get(f"SLURM_{name}", "") for name in ("JOB_ID", "RESTART_COUNT", "CLUSTER_NAME")
        )
        pid, since = os.getpid(), time.strftime("%Y-%m-%d %H:%M:%S")
        own = _started(pid), _machine(), job, restarts, cluster, since
        return cls(socket.gethostname(), pid, *own, uuid.uuid4().hex)

    def __str__(self) -> str:
        job = f"job {self.job} on " if self.job else ""
        return f"{job}node {self.host} (pid {self.pid}) since {self.since}"

    def here(self) -> bool:
        """Whether it is a process of this machine, by numbers that mean the same to this process."""
        return bool(self.machine) and self.machine == _machine()

    def runs(self) -> bool:
        """Whether the process still runs; only for one that is `here`."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            # Of another user, which this machine may hide.
            return _started(self.pid) in ("", self.started)
        return _started(self.pid) == self.started != ""

    def job_has_ended(self) -> bool:
        """Whether Slurm says that its job no longer runs; False where Slurm cannot be asked."""
        if not self.job.isdigit() or self.cluster != os.environ.get("SLURM_CLUSTER_NAME", self.cluster):
            return False
        ask = ["squeue", "--noheader", f"--jobs={self.job}", "--format=%T"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            said = subprocess.run(ask, capture_output=True, text=True, timeout=10)
            if said.returncode:
                return "Invalid job id" in said.stderr
            return not _JOB_LIVES & set(said.stdout.split())
        return False


class Lock:
    """The lock of a run folder; `heard` is the last sign of life of a dead owner from whom it was taken, or None.

    Args:
        path: of the lock's file.
        owner: this process.
    """

    def __init__(self, path: Path, owner: Owner):
        self.path, self.owner, self.watch = path, owner, Watch(owner)
        self._removed = False
        self.heard: float | None = None
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, daemon=True)

    @classmethod
    def take(cls, folder: Path) -> "Lock":
        """Take the lock of an existing folder; wait a while for the owner to end.

        Raises:
            UserError: another process owns it and lives.
            OSError: the folder cannot be written.
        """
        lock, told = cls(folder / NAME, Owner.this()), None
        while not lock.attempt():
            owner = lock.watch.owner
            if owner and lock.watch.lives and lock.watch.seconds > _PATIENCE:
                raise UserError(f"{folder} is being written by {owner}; wait for it, or give another --run")
            if owner and owner != told:
                told = owner
                say(f"{folder} belongs to {owner}: waiting for it to end")
            time.sleep(_POLL)
        return lock

    def attempt(self) -> bool:
        """Take the lock if it is free or its owner has ended; another call may succeed later.

        Raises:
            OSError: the folder cannot be written.
        """
        found = read_owner(self.path)
        if found is None and create_once(self.path, json.dumps(asdict(self.owner))):
            mine = not self._removed or self._stays()
        else:
            found = found or read_owner(self.path)
            if found and found[0].token != self.owner.token and self.watch.ended(*found):
                self._remove_that_of(found[0])
                self.heard = found[1] / 1e9
                self._removed = True
                return self.attempt()
            # With its own name in it, another process had it aside for a moment.
            mine = found is not None and found[0].token == self.owner.token and self._stays()
        if mine:
            self._heart.start()
        return mine

    def check(self) -> None:
        """Make sure that this process still owns the folder.

        Raises:
            UserError: another one took it, as this one gave no sign of life, or the folder is gone.
        """
        found, folder = read_owner(self.path), self.path.parent
        if not found and folder.is_dir():
            if not (folder / "run.json").exists():
                # TensorBoard makes its folder anew.
                raise NotWritten(f"cannot write {self.path}: the folder {folder} is gone; {ELSEWHERE}")
            raise UserError(
                f"{self.path} is gone, so another job may have trained in {folder}; start this one again with --resume"
            )
        if found and found[0].token not in ("", self.owner.token):
            raise UserError(
                f"{folder} was taken over by {found[0]}, as this process gave no sign of life for some minutes; that "
                "one goes on, and this one ends"
            )

    def release(self) -> None:
        """Give the folder up."""
        self._ended.set()
        with contextlib.suppress(OSError):
            found = read_owner(self.path)
            if found and found[0].token == self.owner.token:
                self.path.unlink()

    def _stays(self) -> bool:
        """Whether the lock is still this process's after a moment: others may try to remove the same dead owner's."""
        time.sleep(_POLL)
        found = read_owner(self.path)
        return found is not None and found[0].token == self.owner.token

    def _remove_that_of(self, dead: Owner) -> None:
        """Remove the lock of an owner that has ended, and no other's: several may try at the same time."""
        aside = temporary_file(self.path)
        try:
            self.path.rename(aside)
            moved = read_owner(aside)
            if moved and moved[0] != dead:
                # Another process was faster, and this is its lock: it goes back, unless a third one came in between.
                # Then the other one finds out at its next check.
                link_once(aside, self.path)
        except FileNotFoundError:
            pass
        finally:
            aside.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            # Storage that fails for a while ends the run where it writes, not here.
            with contextlib.suppress(OSError):
                found = read_owner(self.path)
                if found and found[0].token == self.owner.token:
                    os.utime(self.path)


class Watch:
    """Judges, by looking again and again, whether the owner of a lock has ended.

    Args:
        mine: this process, as an owner.
    """

    def __init__(self, mine: Owner):
        self.mine = mine
        self.owner: Owner | None = None
        self._beat = 0
        self._began = self._changed = time.monotonic()
        self._asked, self._signs = -60.0, 0

    @property
    def seconds(self) -> float:
        """How long this owner has been watched."""
        return time.monotonic() - self._began

    @property
    def lives(self) -> bool:
        """Whether the owner has given a sign of life since it is watched."""
        return self.owner is not None and (self.owner.here() or self._signs > 0)

    def ended(self, owner: Owner, beat: int) -> bool:
        """Whether this owner has ended.

        Args:
            owner: as read just now.
            beat: the time of the lock's last change, in any clock.
        """
        now = time.monotonic()
        if self.owner != owner:
            self._began = self._changed = now
            self._asked, self._signs = -60.0, 0
        elif self._beat != beat:
            self._changed, self._signs = now, self._signs + 1
        self.owner, self._beat = owner, beat
        return not owner.runs() if owner.here() else self._silent(owner, now)

    def _silent(self, owner: Owner, now: float) -> bool:
        """Whether a process elsewhere has ended, by Slurm's word or by its silence."""
        # One that gave signs of life needs no word of Slurm's while it goes on.
        quiet = not self._signs or now - self._changed > _PATIENCE
        if quiet and now - self._asked > 10:
            self._asked = now
            if owner.job != self.mine.job and owner.job_has_ended():
                return True
        # Slurm starts a job again only after it has ended the job's processes.
        before = owner.job and owner.job == self.mine.job and owner.restarts != self.mine.restarts
        return now - self._changed > (_PATIENCE if before else _SILENCE)


@contextmanager
def owned(folder: Path) -> Iterator[Lock]:
    """Own a run folder in the block; it is made where it is missing.

    Raises:
        UserError: another process owns it, or it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock.take(folder)
    except OSError as error:
        raise UserError(f"cannot write the run folder {folder}: {error.strerror or error}") from error
    try:
        yield lock
    finally:
        lock.release()


def warn_of_others(*paths: Path) -> None:
    """Print one line if others than this user and the administrator may change what models are loaded from."""
    for path in paths:
        if why := _open_to(path):
            say(f"warning: {path} {why}: whoever can write there decides what is loaded from it")
            return


def _open_to(path: Path) -> str:
    try:
        status = path.stat()
    except OSError:
        return ""
    if owner := other_owner(status):
        return f"belongs to {owner}"
    writers = other_writers(path, status)
    return f"can be written by {writers} (`chmod go-w {path}` closes it)" if writers else ""


def read_owner(path: Path) -> tuple[Owner, int] | None:
    """The owner that a lock names, and the time of its last sign of life in ns; None where there is no lock."""
    try:
        # Opening makes NFS look at the file anew.
        with open(path, "rb") as file:
            text, beat = file.read(), os.fstat(file.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None
    try:
        held = json.loads(text)
        return Owner(**{name: type(getattr(Owner, name))(held[name]) for name in Owner.__dataclass_fields__}), beat
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return Owner(), beat


def _started(pid: int) -> str:
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    # A number that no process has is no file either.
    except (OSError, OverflowError):
        return ""
    # What has ended, and waits for its parent to notice, writes no more.
    return "" if state in "ZX" else fields[18]


def _machine() -> str:
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    return ""
