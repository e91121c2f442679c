"""Which other users, besides root, may change a file or folder."""

import grp
import os
import pwd
import stat
import struct

# Kinds of entries of an access control list, as in Linux's posix_acl.h.
_USER, _OWN_GROUP, _GROUP = 0x02, 0x04, 0x08


def other_owner(status: os.stat_result) -> str:
    """The user to whom it belongs; "" where that is this user or root."""
    return "" if status.st_uid in (0, os.geteuid()) else user_name(status.st_uid)


def other_writers(path: str | os.PathLike, status: os.stat_result) -> str:
    """Whom else the permissions let write; "" for nobody, as for a group that only this user is in."""
    if status.st_mode & stat.S_IWOTH:
        return "every user"
    if not status.st_mode & stat.S_IWGRP:
        return ""
    try:
        # With an access control list, the mode has what the list allows at most.
        entries = list(struct.iter_unpack("<HHI", os.getxattr(path, "system.posix_acl_access")[4:]))
    except OSError:
        return _group(status.st_gid)
    for kind, may, number in entries:
        if may & os.W_OK and kind == _USER and number not in (0, os.geteuid()):
            return user_name(number)
        group = {_OWN_GROUP: status.st_gid, _GROUP: number}.get(kind)
        if may & os.W_OK and group is not None and (name := _group(group)):
            return name
    return ""


def user_name(uid: int) -> str:
    """The name of a user, or "user 123" for one without a name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _group(number: int) -> str:
    """The group as a message names it; "" for this user's own group, as many systems give each user one."""
    try:
        group = grp.getgrgid(number)
    except KeyError:
        return f"the group {number}"
    name = user_name(os.geteuid())
    alone = group.gr_name == name and set(group.gr_mem) <= {name} and number == pwd.getpwuid(os.geteuid()).pw_gid
    return "" if alone else f"the group {group.gr_name}"
