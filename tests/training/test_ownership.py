"""A run folder has one owner, who is named, waited for, and replaced once it has ended."""

import grp
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time

import pytest
from launch import REPOSITORY, environment

from hpc_train.errors import UserError
from hpc_train.files.whole import NotWritten
from hpc_train.training import ownership
from hpc_train.training.ownership import Lock, Owner, owned, warn_of_others

# Owns a folder: says so, and gives it up when its input ends.
HOLD = """
import sys
from pathlib import Path
from hpc_train.training.ownership import owned
with owned(Path(sys.argv[1])):
    print("owned", flush=True)
    sys.stdin.read()
"""
# Owns a folder for a moment; fails if another process is in there.
PASS = """
import os, sys, time
from pathlib import Path
from hpc_train.training import ownership
ownership._PATIENCE = 60
folder = Path(sys.argv[1])
with ownership.owned(folder):
    os.close(os.open(folder / "inside", os.O_CREAT | os.O_EXCL))
    time.sleep(0.05)
    os.unlink(folder / "inside")
    with open(folder / "passed", "a") as file:
        file.write("x")
"""


# What the system says where the file system has no hard links.
NO_LINKS = """
import errno, os
def link(*names):
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))
os.link = link
"""


@pytest.fixture(params=["", NO_LINKS], ids=["links", "no links"])
def links(request, monkeypatch):
    """What a program begins with that has links or none, as this process has until the end of the test."""
    monkeypatch.setattr(os, "link", os.link)
    exec(request.param, {})
    return request.param


def start(program, folder, **variables):
    env = environment(PYTHONPATH=str(REPOSITORY), **variables)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen([sys.executable, "-c", program, folder], env=env, text=True, **pipes)


@pytest.fixture
def holder(tmp_path, links):
    process = start(links + HOLD, tmp_path, SLURM_JOB_ID="123")
    assert process.stdout.readline() == "owned\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def elsewhere(folder, **fields):
    """The lock of a process on another machine."""
    owner = {**vars(Owner.this()), "host": "n1", "pid": 77, "machine": "another", "since": "12:03", **fields}
    (folder / ownership.NAME).write_text(json.dumps(owner))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(ownership, "_PATIENCE", 0.8)
    monkeypatch.setattr(ownership, "_SILENCE", 2.0)
    monkeypatch.setattr(ownership, "_BEAT", 0.1)


def took(folder):
    """Seconds until the folder was owned."""
    began = time.monotonic()
    with owned(folder):
        return time.monotonic() - began


def test_a_living_owner_is_named(tmp_path, holder, quick, capsys):
    with pytest.raises(UserError) as told, owned(tmp_path):
        pass
    assert f"{tmp_path} is being written by job 123 on node {os.uname().nodename} (pid {holder.pid}) since 20" in str(
        told.value
    )
    assert str(told.value).endswith("; wait for it, or give another --run")
    assert capsys.readouterr().out.count("waiting for it to end") == 1


def test_an_owner_that_ends_soon_is_waited_for(tmp_path, holder):
    threading.Timer(0.6, holder.stdin.close).start()
    assert 0.5 < took(tmp_path) < 5
    assert not list(tmp_path.iterdir())


def test_an_owner_that_was_killed_is_replaced_at_once(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    # It stays a zombie until its parent asks how it ended.
    time.sleep(0.2)
    assert took(tmp_path) < 2
    assert not list(tmp_path.iterdir())


def test_another_process_with_the_owners_number_does_not_count(tmp_path):
    (tmp_path / ownership.NAME).write_text(json.dumps({**vars(Owner.this()), "started": "1"}))
    assert took(tmp_path) < 2


def test_many_that_take_over_at_the_same_time_are_never_in_together(tmp_path, holder, links):
    holder.kill()
    processes = [start(links + PASS, tmp_path) for _ in range(8)]
    ended = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 8, ended
    assert (tmp_path / "passed").read_text() == "x" * 8
    assert [path.name for path in tmp_path.iterdir()] == ["passed"]


@pytest.mark.parametrize("hours", [-5, 5])
def test_an_owner_elsewhere_lives_while_its_lock_changes_by_any_clock(tmp_path, quick, hours):
    elsewhere(tmp_path)
    lock, ended = tmp_path / ownership.NAME, threading.Event()

    def beat():
        while not ended.wait(0.1):
            os.utime(lock, (0, time.time() + hours * 3600))

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(UserError, match=r"node n1 \(pid 77\) since 12:03"), owned(tmp_path):
            pass
    finally:
        ended.set()
        thread.join()
    os.utime(lock, (0, time.time() + hours * 3600))
    assert 1.5 < took(tmp_path) < 6


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        ("exit 0", False),
        ("echo slurm_load_jobs error: Invalid job id specified >&2; exit 1", False),
        ("echo PENDING", False),
        ("echo RUNNING", True),
        ("echo Unable to contact slurm controller >&2; exit 1", True),
    ],
)
def test_slurm_is_asked_about_the_owners_job(tmp_path, quick, monkeypatch, answer, waits):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "squeue").write_text(f"#!/bin/sh\n{answer}\n")
    (tmp_path / "bin" / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "run").mkdir()
    elsewhere(tmp_path / "run", job="123")
    assert (took(tmp_path / "run") > 1.5) == waits


def test_a_job_that_starts_again_waits_for_its_first_start_for_a_moment_only(tmp_path, quick, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "123")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    elsewhere(tmp_path, job="123", restarts="0")
    assert 0.5 < took(tmp_path) < 1.9


@pytest.mark.parametrize("text", ["", "{}", '{"pid": []}', "\x00"])
def test_a_damaged_lock_counts_as_silent(tmp_path, quick, text):
    (tmp_path / ownership.NAME).write_text(text)
    assert 1.5 < took(tmp_path) < 6


def test_an_owner_that_was_replaced_finds_out_and_leaves_the_lock(tmp_path):
    first = Lock.take(tmp_path)
    elsewhere(tmp_path, token="other")
    with pytest.raises(UserError, match=r"taken over by node n1 \(pid 77\)"):
        first.check()
    first.release()
    assert json.loads((tmp_path / ownership.NAME).read_text())["token"] == "other"


def test_the_lock_of_one_who_was_faster_goes_back(tmp_path, links):
    with owned(tmp_path) as lock:
        held = lock.path.read_text()
        Lock(lock.path, Owner.this())._remove_that_of(Owner(token="dead"))
        assert lock.path.read_text() == held
        assert list(tmp_path.iterdir()) == [lock.path]
        lock.check()
    assert not list(tmp_path.iterdir())


def test_a_lock_that_is_gone_means_that_another_job_may_have_trained(tmp_path):
    lock = Lock.take(tmp_path)
    (tmp_path / "run.json").touch()
    (tmp_path / ownership.NAME).unlink()
    with pytest.raises(UserError, match="is gone, so another job may have trained"):
        lock.check()
    lock.release()


def test_a_folder_that_another_program_has_made_anew_counts_as_gone(tmp_path):
    lock = Lock.take(tmp_path)
    (tmp_path / ownership.NAME).unlink()
    with pytest.raises(NotWritten, match=f"the folder {tmp_path} is gone; choose another folder"):
        lock.check()
    lock.release()


def test_others_who_may_write_are_named_in_one_line(tmp_path, capsys):
    inner = tmp_path / "checkpoints"
    inner.mkdir()
    tmp_path.chmod(0o755)
    inner.chmod(0o755)
    warn_of_others(tmp_path, inner, tmp_path / "missing")
    assert capsys.readouterr().out == ""
    inner.chmod(0o757)
    warn_of_others(tmp_path, inner)
    assert capsys.readouterr().out.startswith(
        f"warning: {inner} can be written by every user (`chmod go-w {inner}` closes it): "
    )
    tmp_path.chmod(0o777)
    warn_of_others(tmp_path, inner)
    assert capsys.readouterr().out.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_folder_of_another_user_or_open_to_a_group_is_named(tmp_path, capsys):
    os.chown(tmp_path, 65534, -1)
    warn_of_others(tmp_path)
    assert f"belongs to {pwd.getpwuid(65534)[0]}" in capsys.readouterr().out
    os.chown(tmp_path, 0, 65534)
    tmp_path.chmod(0o775)
    warn_of_others(tmp_path)
    assert f"can be written by the group {grp.getgrgid(65534)[0]}" in capsys.readouterr().out


@pytest.mark.skipif(os.geteuid() != 0, reason="the group of root is known to be its own")
def test_a_group_of_its_own_name_is_named_only_if_it_has_other_members(tmp_path, monkeypatch, capsys):
    os.chown(tmp_path, 0, 0)
    tmp_path.chmod(0o775)
    for members, named in (([], False), (["root"], False), (["root", "eve"], True)):
        monkeypatch.setattr(grp, "getgrgid", lambda gid, members=members: grp.struct_group(("root", "x", gid, members)))
        warn_of_others(tmp_path)
        assert ("can be written by the group root" in capsys.readouterr().out) == named
