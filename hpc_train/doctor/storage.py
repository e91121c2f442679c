"""Where the data are and where they can be staged: type of file system, HDF5's locks, free space."""

import glob
import os
import subprocess
import sys
from pathlib import Path

from hpc_train import units
from hpc_train.doctor.facts import Place
from hpc_train.doctor.findings import Finding, plural, some
from hpc_train.errors import UserError

_LOCK_SECONDS = 10
# File systems of other machines, without the prefix `fuse.`.
NETWORK = {
    *("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "9p", "panfs", "wekafs", "pvfs2", "afs"),
    *("orangefs", "glusterfs", "sshfs", "dfuse", "juicefs", "s3fs", "gcsfuse", "cvmfs2"),
}
MEMORY = {"tmpfs", "ramfs", "devtmpfs"}
# In this order.
LOCAL_VARIABLES = ("NODE_LOCAL", "SLURM_TMPDIR", "LOCAL_SCRATCH", "TMPDIR")
# Takes the lock that HDF5 takes to read a file (H5FD_sec2), in a process of its own, since that may hang for ever.
_LOCK = """
import errno, fcntl, sys
try:
    with open(sys.argv[1], "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    print("works")
except OSError as error:
    print("held" if error.errno in (errno.EAGAIN, errno.EACCES) else errno.errorcode.get(error.errno, error))
"""


def system_of(path: str, mountinfo: str) -> str:
    """Type of the file system that holds a path.

    Args:
        path: an absolute path without links.
        mountinfo: text of /proc/self/mountinfo (proc(5)).
    """
    best, system = "", "unknown"
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        mount = left.split()[4].replace("\\040", " ").rstrip("/") + "/"
        # If two file systems are mounted at one place, the later one hides the earlier one.
        if f"{path.rstrip('/')}/".startswith(mount) and len(mount) >= len(best):
            best, system = mount, right.split()[0]
    return system


def look_at_data(path: Path) -> Place:
    """The data as this node sees them: their file system and its locks."""
    file = first_file(path)
    if file is None:
        return Place(str(path), "", problem="no such file or folder, or no data in it")
    place = os.path.realpath(file)
    return Place(str(path), _system(place), locks=try_lock(place))


def first_file(path: Path) -> str | None:
    """A data file in `path`, which is a file, folder or pattern; None if there is none. Lists as little as it can."""
    if path.is_file():
        return str(path)
    if not path.is_dir():
        return next((name for name in glob.iglob(str(path), recursive=True) if os.path.isfile(name)), None)
    suffixes = (".h5", ".hdf5", ".nc", ".nc4")
    files = (os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names)
    return next((name for name in files if name.endswith(suffixes)), None)


def try_lock(file: str) -> str:
    """Try HDF5's lock on a file: works, held, hangs, or the name of an error."""
    command = [sys.executable, "-I", "-S", "-c", _LOCK, file]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    try:
        return process.communicate(timeout=_LOCK_SECONDS)[0].strip() or "unknown"
    except subprocess.TimeoutExpired:
        # Do not wait for its end: a process that waits for a dead file server does not end.
        process.kill()
        return "hangs"


def look_at_local(folder: str | None) -> Place:
    """Node-local storage as this node sees it.

    Args:
        folder: a path, in which this node expands $VARIABLES; by default the usual place.
    """
    if folder is None:
        folder = next((os.environ[name] for name in LOCAL_VARIABLES if os.environ.get(name)), "/tmp")
    path = os.path.expandvars(folder)
    if "$" in path:
        return Place(path, "", problem="the variable is not set")
    there = Path(os.path.abspath(path))
    if os.path.lexists(there) and not there.is_dir():
        return Place(path, "", problem="is not a folder")
    # Staging makes the folder itself.
    while not there.is_dir():
        there = there.parent
    if not os.access(there, os.W_OK | os.X_OK):
        return Place(path, _system(os.path.realpath(there)), problem=f"no permission to write to {there}")
    status = os.statvfs(there)
    return Place(path, _system(os.path.realpath(there)), free=status.f_bavail * status.f_frsize, held=_held(Path(path)))


def bytes_of(path: Path) -> tuple[int, int]:
    """The number of data files in `path`, and their bytes.

    Raises:
        UserError: there is no data file, or they are in GRIB.
    """
    from hpc_train.data.catalogue.layout import list_files
    from hpc_train.data.hdf5.open_errors import GRIB, is_grib

    files = list_files(path)
    if grib := next((file for file in files[:1] if is_grib(file)), None):
        raise UserError(f"{grib}: {GRIB}")
    return len(files), sum(os.stat(file).st_size for file in files)


def judge_data(places: dict[str, Place], count: int, size: int) -> Finding:
    """Judge whether every node sees the data, and whether HDF5's locks work on their file system.

    Args:
        places: the data as each node sees them, by the node's name.
        count: number of files.
        size: bytes of all files.
    """
    lost = [name for name, place in places.items() if place.problem]
    if lost:
        place = places[lost[0]]
        where = "" if len(lost) == len(places) else f" on {some(lost)}"
        how = "check the path, and whether its file system is mounted there"
        return Finding("data", "wrong", f"{place.path}{where}: {place.problem}", how)
    # Show the node with the worst result.
    name, place = max(places.items(), key=lambda item: {"works": 0, "held": 1}.get(item[1].locks, 2))
    value = f"{place.path}: {plural(count, 'file')}, {units.size(size)}, {place.system}"
    if place.locks == "works":
        return Finding("data", "ok", f"{value}; HDF5's file locking works")
    where = f" on {name}" if len(places) > 1 else ""
    if place.locks == "held":
        how = "wait until that program has finished"
        return Finding("data", "note", f"{value}; another program writes to a file, which is locked{where}", how)
    state = "hangs" if place.locks == "hangs" else f"does not work ({place.locks})"
    how = "hpc-train needs no locks; for other programs: export HDF5_USE_FILE_LOCKING=FALSE"
    return Finding("data", "note", f"{value}; HDF5's file locking {state}{where}", how)


def judge_local(places: dict[str, Place], size: int | None) -> Finding:
    """Judge whether node-local storage is a disk of the node, and whether the data fit there.

    Args:
        places: node-local storage as each node sees it, by the node's name.
        size: bytes of the data to stage; None if not known.
    """
    what = "local storage"
    unusable = {name: place for name, place in places.items() if place.problem}
    if unusable:
        name, place = next(iter(unusable.items()))
        where = f" on {some(list(unusable))}" if len(places) > 1 else ""
        how = "give a folder on the node's own disk to which you can write: --local DIR"
        return Finding(what, "wrong", f"{place.path}{where}: {place.problem}", how)
    name, place = min(places.items(), key=lambda item: item[1].free + item[1].held)
    least = " at least" if len(places) > 1 else ""
    value = f"{place.path}: {place.system},{least} {units.size(place.free)} free"
    if len(places) > 1:
        value += f" ({name})"
    if size is not None:
        from hpc_train.data.staging.stage import margin

        needed = {name: size - place.held for name, place in places.items() if size > place.held}
        if full := [name for name, more in needed.items() if more + margin(more) > places[name].free]:
            where = f" on {some(full)}" if len(places) > 1 else ""
            missing = max(needed[name] for name in full)
            value += f"; the data do not fit{where}: they need {units.size(missing + margin(missing))} of free space"
            how = (
                "give another folder (--local DIR), stage a part on each node (hpc-train stage --part), or read from "
                "the shared file system"
            )
            return Finding(what, "wrong", value, how)
        value += f"; the data ({units.size(size)}) fit"
    kinds = {place.system for place in places.values()}
    if kinds & MEMORY:
        how = "staged data would take the job's memory: give a folder on a disk (--local DIR)"
        return Finding(what, "note", f"{value}; this is memory, not a disk", how)
    if remote := sorted(kind for kind in kinds if kind.removeprefix("fuse.") in NETWORK):
        how = "staging there gains nothing: give a folder on the node's own disk (--local DIR)"
        return Finding(what, "note", f"{value}; {remote[0]} is not local to the node", how)
    return Finding(what, "ok", value)


def _system(path: str) -> str:
    with open("/proc/self/mountinfo") as file:
        return system_of(path, file.read())


def _held(folder: Path) -> int:
    from hpc_train.data.staging.manifest import Manifest

    try:
        return sum(record["size"] for record in Manifest(folder).records().values() if "size" in record)
    except OSError:
        return 0
