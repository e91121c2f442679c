"""A stranger on the node cannot choose what a job trains on: the staging folder is this user's alone."""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path

import pytest
from staging_source import SIZES, files_below, make_source
from strangers import NOBODY, needs_root, stranger, stranger_command

from hpc_train.data.staging.stage import stage
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import Alone


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path)


@pytest.fixture
def disk():
    """A node's own disk, where all users may make folders."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o1777)
    yield folder
    shutil.rmtree(folder)


def staged(source, to):
    """Stage the folder with one process; the number of files that were read."""
    files = [str(source / name) for name in files_below(source)]
    return stage(files, str(source), to, Alone(), report=lambda line: None).read


def assert_equal(source, to):
    assert files_below(to) == files_below(source)
    assert all((to / name).read_bytes() == (source / name).read_bytes() for name in files_below(source))


def assert_closed(to):
    for path in [to, *to.rglob("*")]:
        assert not path.lstat().st_mode & 0o022, path


def test_what_staging_makes_is_for_this_user_alone_whatever_the_umask(source, disk):
    before = os.umask(0)
    try:
        assert staged(source, disk / "new" / "to") == len(SIZES)
    finally:
        os.umask(before)
    folders = [disk / "new", *(path for path in (disk / "new").rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folders} == {0o700}
    assert_closed(disk / "new")
    assert_equal(source, disk / "new" / "to")


def test_a_folder_that_others_could_write_in_is_closed_and_filled_again(source, disk):
    to = disk / "to"
    staged(source, to)
    assert staged(source, to) == 0
    for path in (to, to / "train", to / "train/05.h5", to / ".hpc-train-stage"):
        path.chmod(path.stat().st_mode | 0o002)
        assert staged(source, to) == len(SIZES)
    assert_closed(to)
    assert_equal(source, to)


def test_a_copy_that_was_written_or_replaced_is_read_and_the_others_are_not(source, disk):
    to = disk / "to"
    staged(source, to)
    for name in ("train/05.h5", "test/06.h5"):
        copy, times = to / name, (to / name).stat()
        content = copy.read_bytes()
        if name.startswith("test"):
            copy.unlink()
        copy.write_bytes(b"evil" + content[4:])
        os.utime(copy, ns=(times.st_atime_ns, times.st_mtime_ns))
    # Of this one only the mode changes: it is read, found to be sound, and believed again.
    (to / "train/01.h5").chmod(0o400)
    assert staged(source, to) == 2
    assert staged(source, to) == 0
    assert_equal(source, to)


def test_a_manifest_of_an_earlier_version_is_believed_after_a_look_at_the_copies(source, disk):
    to = disk / "to"
    staged(source, to)
    manifest = to / ".hpc-train-stage" / "manifest.jsonl"
    lines = [line.partition(', "copy": [')[0] + "}" for line in manifest.read_text().splitlines() if line]
    manifest.write_text("\n".join(lines))
    assert staged(source, to) == 0
    assert manifest.read_text().count('"copy": [') == len(SIZES)


def test_a_parent_in_which_others_may_rename_is_refused(source, disk):
    disk.chmod(0o777)
    with pytest.raises(UserError, match=rf"every user may write in {disk} \(drwxrwxrwx\), and so put another folder"):
        staged(source, disk / "to")
    assert not list(disk.iterdir())


# Fills a folder with other bytes, and lists them in a manifest: with the right names, sizes and times.
PLANT = """
import json, os, pathlib, sys
to, source, facts = pathlib.Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
records = ""
for name, (size, mtime_ns) in facts.items():
    copy = to / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes((b"evil" * size)[:size])
    os.utime(copy, ns=(mtime_ns, mtime_ns))
    record = {"file": name, "source": f"{source}/{name}", "size": size, "mtime_ns": mtime_ns, "xxh3_128": "0" * 32}
    now = copy.stat()
    record |= {"copy_mtime_ns": mtime_ns, "copy": [now.st_ino, now.st_ctime_ns]}
    records += json.dumps(record) + chr(10)
(to / ".hpc-train-stage").mkdir()
(to / ".hpc-train-stage" / "manifest.jsonl").write_text(records)
"""


def plant(source, to):
    stats = {name: (source / name).stat() for name in files_below(source)}
    done = stranger(PLANT, to, source, json.dumps({name: (s.st_size, s.st_mtime_ns) for name, s in stats.items()}))
    assert done.returncode == 0, done.stderr


@needs_root
def test_a_folder_that_a_stranger_filled_is_refused_in_one_line(source, disk):
    plant(source, disk / "to")
    with pytest.raises(UserError) as refused:
        staged(source, disk / "to")
    assert f"{disk}/to belongs to nobody, not to you" in str(refused.value)
    assert f"such as {disk}/to/root" in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(UserError, match=f"{disk}/to on the way to it belongs to nobody"):
        staged(source, disk / "to" / "train")


@needs_root
def test_a_strangers_link_is_refused_and_ones_own_is_followed(source, disk):
    mine = disk / "mine"
    mine.mkdir(mode=0o700)
    assert stranger("import os, sys; os.symlink(*sys.argv[1:])", mine, disk / "link").returncode == 0
    for to in (disk / "link", disk / "link" / "to"):
        with pytest.raises(UserError, match=f"{disk}/link on the way to it belongs to nobody"):
            staged(source, to)
    assert not list(mine.iterdir())
    (disk / "own").symlink_to("mine")
    assert staged(source, disk / "own") == len(SIZES)
    assert_equal(source, mine)


@needs_root
def test_a_mount_point_of_a_stranger_is_refused(source, disk):
    mount = ["mount", "-t", "tmpfs", "-o", f"uid={NOBODY},mode=755", "tmpfs", disk]
    if (done := subprocess.run(mount, capture_output=True, text=True)).returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    try:
        with pytest.raises(UserError, match=rf"{disk} on the way to it belongs to nobody, who could change"):
            staged(source, disk / "to")
    finally:
        subprocess.run(["umount", disk], check=True)


# Claims a folder as a user in a container of his own, where he has the first number.
IN_CONTAINER = f"""
import ctypes, os, sys
from pathlib import Path
from hpc_train.data.staging.ownership import claim
system = ctypes.CDLL(None)
os.setgroups([])
os.setuid({NOBODY})
system.prctl(4, 1)  # or his own /proc/self is root's
if system.unshare(0x10000000):
    sys.exit("skip")
Path("/proc/self/uid_map").write_text(f"{{sys.argv[1]}} {NOBODY} 1")
claim(Path(sys.argv[2]))
os.rmdir(sys.argv[2])
"""


@needs_root
@pytest.mark.parametrize("number", [0, 1000])
@pytest.mark.skipif(not os.path.ismount("/dev/shm"), reason="/dev/shm is no file system of its own")
def test_a_mount_point_of_root_is_used_in_a_container_that_does_not_know_root(number):
    command = [sys.executable, "-c", IN_CONTAINER, str(number), f"/dev/shm/{uuid.uuid4()}"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.stderr == "skip\n":
        pytest.skip("no user namespaces here")
    assert done.returncode == 0, done.stderr


# He opens a copy while he may, and exchanges two others. Later he writes.
MEDDLE = """
import os, sys
os.chdir(sys.argv[1])
file = open("07.h5", "r+b", 0)
for old, new in (("01.h5", "x"), ("03.h5", "01.h5"), ("x", "03.h5")):
    os.rename(old, new)
print(flush=True)
sys.stdin.readline()
file.write(b"evil")
print("written", flush=True)
"""


@needs_root
def test_what_a_stranger_puts_into_an_open_folder_is_refused_or_replaced(source, disk):
    to = disk / "to"
    to.mkdir()
    to.chmod(0o777)
    plant(source, to)
    with pytest.raises(UserError, match=r"belongs to nobody, who could change what you train on; remove it"):
        staged(source, to)
    shutil.rmtree(to)
    staged(source, to)
    for path in (to, to / "train", to / "train/07.h5"):
        path.chmod(0o777)
    command = stranger_command(MEDDLE, to / "train")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "\n"
        assert staged(source, to) == len(SIZES)
        assert other.communicate("go on\n", timeout=30)[0] == "written\n"
    assert_closed(to)
    assert_equal(source, to)
    assert "Operation not permitted" in stranger("import os, sys; os.rename(sys.argv[1], sys.argv[1] + '2')", to).stderr
