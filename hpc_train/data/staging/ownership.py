"""A staging folder is this user's alone: nobody else made it, may write in it, or may put another in its place.

A stranger who may do one of these chooses what a job trains on. So the folders on the way to it are looked at without
following links: they belong to this user or to root, and who else may write in one cannot rename what is in it (the
sticky bit, as in /tmp).
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from hpc_train.errors import UserError
from hpc_train.files.others import other_owner, other_writers, user_name

_LINKS = 40
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def claim(folder: Path) -> bool:
    """Make the folder, for this user alone, or take over one of this user's.

    Args:
        folder: an absolute path.

    Returns:
        Whether what is in it can be believed; False where others could write in it until now.

    Raises:
        UserError: it, or something in it or on the way to it, is in another user's hands.
        OSError: it cannot be made, or looked through.
    """
    here = _walk(folder)
    status = os.lstat(here)
    if status.st_uid != os.geteuid():
        own = f"{folder}{'/' if other_writers(here, status) else '-'}{user_name(os.geteuid()).replace(' ', '-')}"
        raise UserError(
            f"{folder} belongs to {user_name(status.st_uid)}, not to you: others could change what you train on; "
            f"stage to a folder of your own, such as {own}"
        )
    alone = [_close(here, status), *(_take(path, inside) for path, inside in _below(here))]
    return all(alone)


def _walk(folder: Path) -> str:
    """The folder's path without links, after a look at each folder on the way; those that are missing are made."""
    here, left, links = "/", list(folder.parts[1:]), 0
    while left:
        part = left.pop(0)
        if part == os.pardir:
            here = os.path.dirname(here)
            continue
        _check_parent(here, folder)
        path = os.path.join(here, part)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            # Another job of this user may be faster; a stranger who is gets found out below.
            with contextlib.suppress(FileExistsError):
                os.mkdir(path, 0o700)
            status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            _check_owner(path, status, folder)
            links += 1
            to = Path(os.readlink(path))
            if links > _LINKS:
                raise UserError(f"{folder}: the links on the way to it lead in a circle")
            here, left = ("/", [*to.parts[1:], *left]) if to.is_absolute() else (here, [*to.parts, *left])
            continue
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        if left:
            _check_owner(path, status, folder)
        here = path
    return here


def _check_parent(path: str, folder: Path) -> None:
    """UserError where others may rename what is in the folder `path`."""
    status = os.lstat(path)
    if (writers := other_writers(path, status)) and not status.st_mode & stat.S_ISVTX:
        raise UserError(
            f"{folder}: {writers} may write in {path} ({stat.filemode(status.st_mode)}), and so put another folder in "
            "its place; stage to a folder below /tmp or one that only you may write in"
        )


def _check_owner(path: str, status: os.stat_result, folder: Path) -> None:
    """UserError where a folder or link on the way is another user's, who could make it lead elsewhere."""
    if (owner := other_owner(status)) and not _unmapped_root(path, status.st_uid):
        raise UserError(
            f"{folder}: {path} on the way to it belongs to {owner}, who could change what you train on; "
            "stage to a folder whose parents are yours or root's"
        )


def _below(folder: str) -> Iterator[tuple[str, os.stat_result]]:
    # What another job of this user removes meanwhile is no longer of interest.
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                yield entry.path, status
                if stat.S_ISDIR(status.st_mode):
                    yield from _below(entry.path)


def _take(path: str, status: os.stat_result) -> bool:
    """Whether others could not write to a file or folder until now; from now on they cannot."""
    if owner := other_owner(status):
        raise UserError(
            f"{path} belongs to {owner}, who could change what you train on; remove it, or stage to another folder"
        )
    return stat.S_ISLNK(status.st_mode) or _close(path, status)


def _close(path: str, status: os.stat_result) -> bool:
    if not other_writers(path, status):
        return True
    os.chmod(path, stat.S_IMODE(status.st_mode) & ~_OTHERS_WRITE)
    return False


def _unmapped_root(path: str, uid: int) -> bool:
    """Whether this is how a container shows what root owns outside: all where it has no root, else what is mounted."""
    try:
        users = [line.split() for line in Path("/proc/self/uid_map").read_text().splitlines()]
        if uid != int(Path("/proc/sys/kernel/overflowuid").read_text()):
            return False
    except (OSError, ValueError):
        return False
    no_root = all(inside != "0" for inside, _, _ in users)
    return no_root or (users != [["0", "0", "4294967295"]] and os.path.ismount(path))
