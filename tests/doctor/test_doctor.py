"""What the doctor finds about software and storage, and how it prints what it finds."""

import importlib.metadata
import os
import site

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet

from hpc_train.doctor import allreduce, software, storage
from hpc_train.doctor.facts import Place
from hpc_train.doctor.findings import Finding, Report, some


@pytest.mark.parametrize(
    ("version", "keras", "backend", "verdict", "usable"),
    [
        ("2.21.0", "3.15.1", "tensorflow", "ok", True),
        ("2.16.2", "3.12.0", "tensorflow", "ok", True),
        ("2.17.0+nv25.2", "3.12.0", "tensorflow", "ok", True),
        ("2.22.0rc0", "3.15.1", "tensorflow", "note", True),
        ("2.21.0", "3.9.2", "tensorflow", "wrong", True),
        ("2.21.0", "3.12.0", "jax", "wrong", False),
    ],
)
def test_the_versions_that_the_suite_needs_are_ok(version, keras, backend, verdict, usable):
    versions = {"tensorflow": SpecifierSet("==2.21.*"), "keras": SpecifierSet(">=3.12")}
    found, can = software.judge_tensorflow(version, False, keras, backend, versions)
    assert (found.verdict, can) == (verdict, usable)


def test_if_the_suite_is_not_installed_no_version_is_checked(monkeypatch):
    versions = software.wanted()
    if versions:
        assert versions["python"].contains("3.11.2")
        assert not versions["python"].contains("3.9.1")
        assert versions["keras"].contains("3.12.0")
        assert [versions["tensorflow"].contains(version) for version in ("2.20.0", "2.21.1")] == [False, True]

    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "metadata", absent)
    assert software.wanted() == {}
    assert software.python().verdict == "ok"
    assert software.judge_tensorflow("2.1.0", False, "3.1.0", "tensorflow", {})[0].verdict == "ok"


def test_packages_of_the_user_inside_a_container_are_worth_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path))
    monkeypatch.setenv("APPTAINER_CONTAINER", "/images/suite.sif")
    assert software.python().verdict == "ok"
    (tmp_path / "numpy-2.0.dist-info").mkdir()
    found = software.python()
    assert (found.verdict, str(tmp_path) in found.value) == ("note", True)
    assert "PYTHONNOUSERSITE=1" in found.remedy
    monkeypatch.setattr(site, "ENABLE_USER_SITE", False)
    assert software.python().verdict == "ok"


MOUNTS = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /tmp rw shared:2 - tmpfs tmpfs rw
31 22 0:40 / /project rw - lustre 10.0.0.1@tcp:/fs rw
32 31 0:41 / /project/my\040data rw - nfs4 server:/x rw
33 22 0:42 / /project rw - fuse.juicefs j rw
"""


@pytest.mark.parametrize(
    ("path", "system"),
    [
        ("/home/me", "ext4"),
        ("/", "ext4"),
        ("/tmp", "tmpfs"),
        ("/tmpfile", "ext4"),
        ("/project/a", "fuse.juicefs"),
        ("/project/my data/a", "nfs4"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, system):
    assert storage.system_of(path, MOUNTS.strip()) == system


def test_a_lock_works_and_is_held_if_another_program_writes(tmp_path):
    import fcntl

    file = tmp_path / "a.h5"
    file.write_bytes(b"x")
    assert storage.try_lock(str(file)) == "works"
    with open(file, "rb") as writer:
        fcntl.flock(writer, fcntl.LOCK_EX)
        assert storage.try_lock(str(file)) == "held"
    assert storage.try_lock(str(tmp_path / "absent")) == "ENOENT"


def test_data_that_one_node_does_not_see_are_wrong():
    seen, lost = Place("d", "lustre", locks="works"), Place("d", "", problem="no such file or folder")
    found = storage.judge_data({"node1": seen, "node2": lost}, 3, 10**9)
    assert (found.verdict, "on node2" in found.value) == ("wrong", True)
    assert storage.judge_data({"node1": seen}, 3, 10**9).value == "d: 3 files, 1 GB, lustre; HDF5's file locking works"


@pytest.mark.parametrize(
    ("locks", "words"), [("ENOSYS", "does not work (ENOSYS)"), ("hangs", "hangs"), ("held", "writes")]
)
def test_locks_that_do_not_work_matter_to_other_programs_only(locks, words):
    places = {"node1": Place("d", "lustre", locks="works"), "node2": Place("d", "lustre", locks=locks)}
    found = storage.judge_data(places, 1, 10)
    assert (found.verdict, words in found.value, "on node2" in found.value) == ("note", True, True)
    assert ("HDF5_USE_FILE_LOCKING=FALSE" in found.remedy) == (locks != "held")


def test_data_that_do_not_fit_the_fullest_node_are_wrong():
    places = {"node1": Place("/l", "ext4", free=10**12), "node2": Place("/l", "ext4", free=10**9)}
    assert storage.judge_local(places, None).value == "/l: ext4, at least 1 GB free (node2)"
    assert storage.judge_local(places, 5 * 10**8).verdict == "ok"
    found = storage.judge_local(places, 10**9)
    assert (found.verdict, "do not fit" in found.value, "on node2" in found.value) == ("wrong", True, True)
    # what an earlier job staged is not copied again
    staged = {**places, "node2": Place("/l", "ext4", free=10**8, held=10**9)}
    assert storage.judge_local(staged, 10**9).verdict == "ok"


@pytest.mark.parametrize(
    ("system", "words"), [("tmpfs", "memory"), ("lustre", "not local"), ("fuse.sshfs", "not local")]
)
def test_memory_and_file_systems_of_other_machines_are_not_node_local_disks(system, words):
    found = storage.judge_local({"node1": Place("/l", system, free=10**12)}, None)
    assert (found.verdict, words in found.value) == ("note", True)


def test_local_storage_is_looked_up_here_and_must_be_writable(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_PLACE", str(tmp_path))
    place = storage.look_at_local("$LOCAL_PLACE/not/yet")
    assert (place.path, place.problem, place.free > 0) == (f"{tmp_path}/not/yet", "", True)
    assert "not set" in storage.look_at_local("$NO_SUCH_PLACE/x").problem
    assert "no permission to write" in storage.look_at_local("/proc/x").problem or os.access("/proc", os.W_OK)
    (tmp_path / "file").touch()
    assert storage.look_at_local(str(tmp_path / "file")).problem == "is not a folder"
    for name in storage.LOCAL_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert storage.look_at_local(None).path == "/tmp"


@given(st.integers(1, 3000))
def test_codes_of_the_ranks_add_up_exactly_in_float16(size):
    chosen = sorted({0, size // 2, size - 1})
    total = sum(allreduce.code(number, size).astype("float16") for number in chosen)
    wanted = allreduce.expected(size)
    assert np.array_equal(wanted.astype("float16").astype("float64"), wanted)
    assert [float(total[number]) for number in chosen] == [1 + number % 2039 for number in chosen]
    if size <= 3:
        assert np.array_equal(total, wanted)


def test_a_wrong_sum_is_reported_and_a_right_one_is_measured():
    bad = allreduce.judge(4, {"float32": [], "float16": [2, 3]}, 1e-5, 2**26, 0.1, "/cpu:0")
    assert (bad.verdict, "wrong in float16, first on rank 2" in bad.value) == ("wrong", True)
    good = allreduce.judge(4, {"float32": [], "float16": []}, 1e-5, 2**26, 0.0671, "/cpu:0")
    assert (good.verdict, "64 MiB in 67.1 ms: 1.00 GB/s" in good.value) == ("ok", True)


def test_a_report_is_a_line_each_and_a_status(capsys):
    report = Report(prints=True, json=False)
    report.add(Finding("MPI", "wrong", "two of them", "keep one"))
    assert capsys.readouterr().out == "MPI           wrong  two of them -> keep one\n"
    assert report.close() == 1
    assert capsys.readouterr().out == "wrong: MPI\n"
    assert Report(prints=False, json=True).close() == 0
    assert capsys.readouterr().out == ""
    assert some(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
