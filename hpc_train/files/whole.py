"""Writing files whole or not at all, errors of storage in one line, and what a killed writer leaves behind."""

import errno
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.units import size

_MARK = ".hpc-train"
_OURS = re.compile(re.escape(_MARK) + r"\.(?P<host>[^.]*)\.(?P<pid>\d+)\.[a-z0-9_]{8}\.(?P<name>.+)")
# Bytes of a file's name in its temporary name: the file's own may be as long as the file system allows, 143 or 255.
_ENDING = 32
# Another host's process may still run: what it writes is younger than this, in seconds, whatever its clock says.
_OLD = 86400
ELSEWHERE = "choose another folder"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FAILING = (errno.EIO, errno.ESTALE, errno.EREMOTEIO, errno.ETIMEDOUT, errno.ENXIO, errno.ENODEV)
# File systems that cannot sync a folder say one of these.
_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES, errno.ENOSYS)
_cleaned: set[str] = set()


class NotWritten(UserError):
    """A file could not be written, synced, renamed or removed."""


@contextmanager
def atomic_path(path: Path, remedy: str = ELSEWHERE, needed: int = 0) -> Iterator[Path]:
    """A temporary file beside `path`, with its name at the end; it is renamed to `path` unless the block raises.

    Args:
        path: of the file.
        remedy: what the user can do if `path` cannot be written.
        needed: about how many bytes the file will have, if that is known.

    Raises:
        NotWritten: it cannot be written, for a reason that the operating system gives.
    """
    path = Path(path)
    with writing(path, remedy, needed):
        temporary = _temporary(path)
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


@contextmanager
def writing(path: Path, remedy: str = ELSEWHERE, needed: int = 0) -> Iterator[None]:
    """Inside the block, errors of the operating system about `path` become a `NotWritten`.

    Args:
        path: what is written, also under a temporary name.
        remedy: what the user can do.
        needed: about how many bytes it needs, where an error does not say so itself; 0 if that is not known.
    """
    try:
        yield
    except OSError as error:
        name = error.filename and os.fsdecode(error.filename)
        foreign = name and name not in (str(path), str(path.parent)) and not _OURS.fullmatch(os.path.basename(name))
        # Errors without a number are no answers of the system; a closed pipe or socket is no file.
        if not error.errno or isinstance(error, ConnectionError) or foreign:
            raise
        raise not_written(path, error.errno, remedy, getattr(error, "needed", needed)) from error


def not_written(path: Path, code: int, remedy: str = ELSEWHERE, needed: int = 0) -> NotWritten:
    """The error for a file that cannot be written; see `writing`.

    Args:
        path: of the file.
        code: the operating system's number of the error.
        remedy: see `writing`.
        needed: see `writing`.
    """
    return NotWritten(f"cannot write {path}: {_why(path, code, needed, remedy)}")


def explain(error: BaseException) -> str | None:
    """What a full disk, a used-up quota or failing storage did, in one line; None for every other error."""
    if not isinstance(error, OSError) or error.errno not in (*_FULL, *_FAILING, errno.EROFS):
        return None
    if not error.filename:
        return f"cannot write the output: {os.strerror(error.errno)}; write it to another place"
    path = Path(os.fsdecode(error.filename))
    return f"cannot read or write {path}: {_why(path, error.errno, 0, ELSEWHERE)}"


def create_once(path: Path, text: str) -> bool:
    """Make a file with this text unless there is one of its name; of several processes, on any nodes, one succeeds.

    Args:
        path: of the file.
        text: its content.

    Returns:
        Whether this call made it.

    Raises:
        OSError: the folder cannot be written.
    """
    own = temporary_file(path)
    try:
        own.write_text(text)
        own.chmod(0o644)
        return link_once(own, path)
    finally:
        own.unlink(missing_ok=True)


def link_once(file: Path, path: Path) -> bool:
    """Give a file a second name unless that is taken; without links in the file system, a copy of it has that name."""
    try:
        # A link into place works on NFS and Lustre as on a disk.
        os.link(file, path)
    except FileExistsError:
        # NFS may say so although its own first try succeeded.
        return file.stat().st_nlink == 2
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        return _create(path, file.read_bytes())
    return True


def append_line(path: Path, line: str) -> None:
    """Append a line to a file and wait until it is on disk; where that fails, the file is as before.

    Raises:
        NotWritten: it cannot be written.
    """
    with writing(path), open(path, "ab", buffering=0) as file:
        before, rest = file.tell(), memoryview(f"{line}\n".encode())
        try:
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                file.truncate(before)
            raise


def leftovers(folder: Path, alone: Callable[[str], bool] = lambda name: False) -> list[Path]:
    """Temporary files of this package in a folder whose writers have ended.

    Args:
        folder: where they are; it need not exist.
        alone: tells by the name of the file that was to be written that no other process writes it.
    """
    left = []
    with suppress(OSError):
        for name in os.listdir(folder):
            parts = _OURS.fullmatch(name)
            if parts and (alone(parts["name"]) or _has_ended(folder / Path(name), parts["host"], int(parts["pid"]))):
                left.append(Path(folder, name))
    return left


def remove(paths) -> None:
    """Remove files; those that are gone already, or cannot be removed, are left."""
    for path in paths:
        with suppress(OSError):
            path.unlink()


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on disk, where its file system can do that."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


def temporary_file(path: Path) -> Path:
    """Make an empty file beside `path`, whose name `leftovers` knows; its end is that of the name of `path`."""
    prefix = f"{_MARK}.{_host()}.{os.getpid()}."
    ending = os.fsencode(path.name)[-_ENDING:].decode(errors="ignore")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=f".{ending}")
    os.close(handle)
    return Path(name)


def _create(path: Path, text: bytes) -> bool:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
    except OSError:
        path.unlink(missing_ok=True)
        raise
    return True


def _temporary(path: Path) -> Path:
    folder = os.path.realpath(path.parent)
    if folder not in _cleaned:
        _cleaned.add(folder)
        remove(leftovers(path.parent))
    return temporary_file(path)


@cache
def _host() -> str:
    """This machine, and its space of process numbers: those of a container mean nothing outside."""
    numbers = 0
    with suppress(OSError):
        numbers = os.stat("/proc/self/ns/pid").st_ino
    return f"{socket.gethostname().partition('.')[0]}-{numbers}"


def _has_ended(path: Path, host: str, pid: int) -> bool:
    if host != _host():
        return time.time() - path.stat().st_mtime > _OLD
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # Another user's, or a number that no process can have.
    except (PermissionError, OverflowError):
        pass
    return False


def _why(path: Path, code: int, needed: int, remedy: str) -> str:
    folder = next((one for one in path.parents if one.is_dir()), Path("/"))
    why = os.strerror(code)
    if code == errno.ENOENT and not path.parent.is_dir():
        return f"the folder {path.parent} is gone; {remedy}"
    if code in _FULL:
        space = [f"about {size(needed)} are needed"] if needed else []
        with suppress(OSError):
            space += [f"{size(shutil.disk_usage(folder).free)} are free in {folder}"] if code == errno.ENOSPC else []
            disk = os.statvfs(folder)
            space += ["no more files (inodes) can be made"] if disk.f_files and not disk.f_favail else []
        quota = "; your quota there is used up: delete files of yours" if code == errno.EDQUOT else "; free space there"
        return f"{why}{' (' + ', '.join(space) + ')' if space else ''}{quota}, or {remedy}"
    if code in _FAILING:
        return f"{why}: the storage fails; try again later, or {remedy}"
    return f"{why}; {remedy}"


@cache
def _umask() -> int:
    # Asked once: meanwhile files of other threads would be open to all.
    mask = os.umask(0)
    os.umask(mask)
    return mask
